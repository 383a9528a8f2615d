//! The pages that are written by hand name no flag, command, metric, alert, reason, key or file that does not exist.
//! What exists is read from the program, the rules, the examples and the generated pages in docs/reference.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use testkit::EtcdVersion;

use super::{commands, root, text};

/// Flags of other programs that the pages mention: etcd, etcdctl, etcd-defrag, Kubernetes and tools in examples.
const FOREIGN_FLAGS: &str = "
    --advertise-client-urls --auto-compaction-mode --auto-compaction-retention --auto-tls --cluster
    --command-timeout --etcd-compaction-interval --experimental-stop-grpc-service-on-defrag --initial-cluster
    --initial-cluster-state --initial-cluster-token --keys-only --listen-client-http-urls --listen-metrics-urls
    --peer-urls --prefix --quota-backend-bytes --rev --auto-disalarm --compaction --continue-on-error
    --move-leader --wait-between-defrags --alertmanager.url --build-arg --config.file --data --fail --from-file
    --from-literal --header --load-restrictor --nocapture --test --namespace --now --raw --values
    --all --package --repo --etcd-readycheck-timeout --etcd-servers --feature-gates --request-timeout
";

/// Names in code style, with underscores, that are neither a reason nor a key: outcomes, fields of answers, labels, and
/// what belongs to other programs.
const OTHER_NAMES: &str = "
    age_seconds client_auth_type cluster_id continue_ credentials_file etcd_cluster external_labels group_wait
    login_missing login_refused member_id next_scheduled nothing_to_do p1_ p7_ reclaimed_bytes repeat_interval
    runbook_url send_resolved stops_grpc_on_defrag timed_out waiting_for
";

fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Each page with its name.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    paths.extend(["docs", "alerts", "deploy", "dashboards"].into_iter().flat_map(|dir| files(dir, "md")));
    assert!(paths.len() > 12, "{paths:?}");
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// What is in code style: between single backquotes, and the lines of code blocks.
fn code(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 1 {
            found.extend(part.lines().skip(1));
        } else {
            found.extend(part.split('`').skip(1).step_by(2));
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

fn flags(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        .filter(|word| word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())))
        .map(|flag| flag.trim_end_matches('.'))
}

/// Everything that is named in the generated pages and the examples.
fn reference() -> BTreeSet<String> {
    let mut paths = files("docs/reference", "md");
    paths.extend(files("deploy/examples", "yaml"));
    let texts: Vec<_> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    texts.iter().flat_map(|text| words(text)).map(str::to_owned).collect()
}

fn assert_all_exist(what: &str, missing: &[String], seen: usize, at_least: usize) {
    assert!(missing.is_empty(), "{what} that do not exist:\n{}", missing.join("\n"));
    assert!(seen > at_least, "only {seen} {what} were found: the search is broken");
}

#[test]
fn pages_name_only_flags_that_exist() {
    let mut known: BTreeSet<String> = FOREIGN_FLAGS.split_whitespace().map(str::to_owned).collect();
    for command in commands() {
        known.extend(flags(&text(&[&command, "--help"])).map(str::to_owned));
    }
    let (mut seen, mut missing) = (0, Vec::new());
    for (name, page) in pages() {
        seen += flags(&page).count();
        missing.extend(flags(&page).filter(|&flag| !known.contains(flag)).map(|flag| format!("{name}: {flag}")));
    }
    assert_all_exist("flags", &missing, seen, 60);
}

#[test]
fn pages_name_only_commands_that_exist() {
    let known = commands();
    let (mut seen, mut missing) = (0, Vec::new());
    for (name, page) in pages() {
        for line in code(&page) {
            let line = line.trim_start_matches(['$', '#', ' ']);
            let Some(command) = line.strip_prefix("defragd ").and_then(|rest| rest.split_whitespace().next()) else {
                continue;
            };
            if command.starts_with(|c: char| c.is_ascii_lowercase()) {
                seen += 1;
                // `completions bash|zsh` and the like: only the command counts.
                if !known.iter().any(|known| known == command) {
                    missing.push(format!("{name}: defragd {command}"));
                }
            }
        }
    }
    assert_all_exist("commands", &missing, seen, 40);
}

#[test]
fn pages_name_only_alerts_that_exist() {
    let rules = fs::read_to_string(root().join("alerts/defragd.rules.yml")).unwrap();
    let known: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).map(str::trim).collect();
    let is_alert = |word: &&str| {
        let rest = word.strip_prefix("Etcd").or_else(|| word.strip_prefix("Defragd"));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    let (mut seen, mut missing) = (0, Vec::new());
    for (name, page) in pages() {
        let named: Vec<_> = words(&page).filter(is_alert).collect();
        seen += named.len();
        missing.extend(named.iter().filter(|alert| !known.contains(*alert)).map(|alert| format!("{name}: {alert}")));
    }
    assert_all_exist("alerts", &missing, seen, 40);
}

#[test]
fn pages_name_only_metrics_that_exist() {
    let known = reference();
    let family = |name: &str| {
        let suffix = ["_bucket", "_sum", "_count", "_total"].iter().find_map(|suffix| name.strip_suffix(suffix));
        suffix.unwrap_or(name).to_owned()
    };
    let known: BTreeSet<_> = known.iter().map(|name| family(name)).collect();
    let (mut seen, mut missing) = (0, Vec::new());
    for (name, page) in pages() {
        // Not names of packages, which continue with the version.
        let metric =
            |word: &&str| word.strip_prefix("defragd_").is_some_and(|name| !name.starts_with(char::is_numeric));
        for metric in words(&page).filter(metric) {
            seen += 1;
            if !known.contains(&family(metric)) {
                missing.push(format!("{name}: {metric}"));
            }
        }
    }
    assert_all_exist("metrics", &missing, seen, 8);
}

/// Words with an underscore, in code style: reasons, keys, outcomes.
#[test]
fn pages_name_only_reasons_and_keys_that_exist() {
    let known = reference();
    let is_name = |span: &&str| {
        span.contains('_') && span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let (mut seen, mut missing) = (0, Vec::new());
    // The names in the threat model are those of tests: see below.
    for (name, page) in pages().into_iter().filter(|(name, _)| name != "deploy/THREAT-MODEL.md") {
        for span in page.split("```").step_by(2).flat_map(|part| part.split('`').skip(1).step_by(2)) {
            for word in span.split('.').filter(is_name) {
                seen += 1;
                let foreign = ["etcd_", "defragd_", "kube_"].iter().any(|prefix| word.starts_with(prefix));
                if !known.contains(word) && !OTHER_NAMES.split_whitespace().any(|name| name == word) && !foreign {
                    missing.push(format!("{name}: {word}"));
                }
            }
        }
    }
    assert_all_exist("reasons and keys", &missing, seen, 60);
}

#[test]
fn pages_name_only_files_that_exist() {
    let (mut seen, mut missing) = (0, Vec::new());
    for (name, page) in pages() {
        for span in code(&page) {
            let path = span.split([' ', ':', '*', '{', '…']).next().unwrap();
            let of_ours = ["src/", "tests/", "docs/", "alerts/", "deploy/", "dashboards/", "benches/"];
            if of_ours.iter().any(|dir| path.starts_with(dir)) {
                seen += 1;
                if !root().join(path).exists() {
                    missing.push(format!("{name}: {path}"));
                }
            }
        }
    }
    assert_all_exist("files", &missing, seen, 20);
}

/// All Rust files below these folders.
fn sources(dirs: &[&str]) -> String {
    let mut dirs: Vec<_> = dirs.iter().map(|dir| root().join(dir)).collect();
    let mut sources = String::new();
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let sources = sources(&["crates", "src", "tests"]);
    // One of those that `on_each_version!` writes.
    let is_generated = |name: &str| {
        EtcdVersion::ALL.iter().any(|version| {
            let line = format!("_{}", version.as_str().replace('.', "_"));
            name.split_once(&line).is_some_and(|(before, after)| {
                sources.contains(&format!("on_each_version! {{ {before} _ {}", after.replacen('_', "", 1)))
            })
        })
    };
    let model = fs::read_to_string(root().join("deploy/THREAT-MODEL.md")).unwrap();
    // Constants have the same form, in capitals.
    let is_sentence = |word: &&str| {
        word.matches('_').count() >= 3 && !word.contains(|c: char| c != '_' && !c.is_alphanumeric() || c.is_uppercase())
    };
    let named: BTreeSet<&str> = model.split('`').skip(1).step_by(2).filter(is_sentence).collect();
    assert!(named.len() > 20, "only {named:?}");
    for name in named {
        let is_there = sources.contains(&format!("fn {name}(")) || is_generated(name);
        assert!(is_there, "deploy/THREAT-MODEL.md names {name}, which is no test");
    }
}

/// What a reader needs first; everything else is in docs/.
#[test]
fn the_readme_stays_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 130, "README.md has {lines} lines, and at most 130 are wanted");
}
