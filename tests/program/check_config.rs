//! `defragd check-config` on the files in `tests/config`: the whole output for each bad one; and every configuration that
//! ships, including those in the documentation, is good.
//!
//! `UPDATE=1 cargo test --test program check_config` writes the output into the `.txt` beside each bad file; read the difference
//! before you commit it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::rig::{binary, root};

fn check(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for name in ["DEFRAGD_CONFIG", "DEFRAGD_WEB_CONFIG_FILE"] {
        command.env_remove(name);
    }
    command.current_dir(dir).arg("check-config").args(args).output().unwrap()
}

/// Each file of that folder whose name begins so, without its ending.
fn stems(dir: &Path, prefix: &str, ending: &str) -> BTreeSet<String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files
        .filter_map(|name| name.strip_suffix(ending).filter(|name| name.starts_with(prefix)).map(str::to_owned))
        .collect()
}

/// The bad files of a folder, each with its messages.
fn each_is_answered_as_is_written_beside_it(dir: &Path, ending: &str, args: impl Fn(&str) -> Vec<String>) -> usize {
    let files = stems(dir, "bad_", ending);
    let update = std::env::var_os("UPDATE").is_some();
    let mut differences = Vec::new();
    for stem in &files {
        let args = args(&format!("{stem}{ending}"));
        let output = check(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let said = String::from_utf8(output.stderr).unwrap().replace(&dir.display().to_string(), "DIR");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stem}: {said}");
        assert!(!said.contains("secret") || said.contains("looks like a secret"), "a secret is shown: {said}");
        let beside = dir.join(format!("{stem}.txt"));
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if said != expected && update {
            fs::write(&beside, &said).unwrap();
        } else if said != expected {
            differences.push(format!("{stem}: expected\n{expected}and it said\n{said}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(stems(dir, "", ".txt"), files, "each bad file has its .txt, and each .txt its file");
    files.len()
}

#[test]
fn every_bad_file_is_answered_with_all_that_is_wrong_with_it() {
    let dir = root().join("tests/config");
    let files = each_is_answered_as_is_written_beside_it(&dir, ".yaml", |name| vec![name.to_owned()]);
    assert!(files >= 30, "{files} files");
}

#[test]
fn every_bad_web_file_is_answered_with_all_that_is_wrong_with_it() {
    let dir = root().join("tests/config/web");
    let args = |name: &str| vec!["../good_small.yaml".to_owned(), format!("--web.config.file={name}")];
    each_is_answered_as_is_written_beside_it(&dir, ".yml", args);
}

/// From another directory, every kind of path: in a mapping, in a list, in another file.
#[test]
fn relative_paths_start_at_the_file_that_names_them() {
    let temp = tempfile::tempdir().unwrap();
    let conf = temp.path().join("conf");
    fs::create_dir_all(conf.join("secrets")).unwrap();
    fs::write(conf.join("secrets/password"), "password\n").unwrap();
    fs::write(conf.join("header"), "value\n").unwrap();
    let access = "{url: 'http://127.0.0.1:1', bearer_token_file: secrets/password, header_files: {X-Key: ./header}}";
    let good = format!(
        "clusters: [{{name: a, endpoints: ['127.0.0.1:1'], auth: {{username: u, password_file: secrets/password}}, \
         match: [{{config_file: none}}], gates: [{{name: a, http: {access}}}]}}]\n\
         modules: {{m: {{scheme: http, allowed_targets: [127.0.0.1], auth: {{username: u, password_file: header}}}}}}\n",
    );
    fs::write(conf.join("config.yaml"), good).unwrap();
    let output = check(temp.path(), &["conf/config.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let bad = "clusters: [{name: a, endpoints: ['127.0.0.1:1'], tls: {ca_file: none.crt}, \
               gates: [{name: a, kubernetes_pods: {kubeconfig: none.kubeconfig}}]}]\n\
               lock: {kind: etcd, peers: {token_file: ../none.token}}\n";
    fs::write(conf.join("bad.yaml"), bad).unwrap();
    fs::write(conf.join("web.yml"), "tls_server_config: {cert_file: none.crt, key_file: none.key}\n").unwrap();
    let output = check(temp.path(), &["conf/bad.yaml", "--web.config.file=conf/web.yml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    for name in ["none.crt", "none.kubeconfig", "../none.token"] {
        let whole = format!("cannot read {}: No such file", conf.join(name).display());
        assert!(said.contains(&whole), "{whole:?} is not in:\n{said}");
    }
    assert!(said.lines().any(|line| line.contains("tls_server_config") && line.contains("conf/none.")), "{said}");
}

#[test]
fn what_is_read_by_programs_says_the_same() {
    let dir = root().join("tests/config");
    let said = |output: Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let output = check(&dir, &["bad_units.yaml", "-o", "json"]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(2), &b""[..]));
    let bad = said(output);
    assert_eq!((&bad["valid"], &bad["clusters"]), (&Value::Bool(false), &Value::Null));
    let first = &bad["problems"][0];
    assert_eq!((&first["file"], &first["line"], &first["column"]), (&"bad_units.yaml".into(), &5.into(), &30.into()));
    assert_eq!(first["key"], "clusters[0].policy.pause_between_members");
    assert!(first["problem"].as_str().unwrap().contains("10s, 10m or 10h"), "{first}");
    let good = said(check(&dir, &["good_small.yaml", "-o", "json"]));
    assert_eq!(
        good,
        serde_json::json!({"valid": true, "clusters": 1, "modules": 0, "shards": [], "problems": [], "schedules": []})
    );
    let file = dir.join("../../deploy/examples/config.yaml");
    let schedules = || said(check(&dir, &["--syntax-only", file.to_str().unwrap(), "-o", "json"]));
    // A run that becomes due between the two would be in one and not in the other.
    let (scheduled, output) = loop {
        let (before, output) = (schedules(), check(&dir, &["--syntax-only", file.to_str().unwrap()]));
        if schedules() == before {
            break (before, output);
        }
    };
    let next: Vec<_> =
        scheduled["schedules"][0]["next"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    assert!(next.len() == 3 && next.is_sorted(), "{scheduled}");
    let words = String::from_utf8(output.stdout).unwrap();
    let at = format!("at {} UTC", next[0].replace('T', " ").strip_suffix(":00Z").unwrap());
    assert!(words.contains(": next scheduled runs at ") && words.contains(&at), "{words}");
    let absent = said(check(&dir, &["/nowhere.yaml", "-o", "json"]));
    assert!(absent["problems"][0]["problem"].as_str().unwrap().starts_with("cannot be read: No such file"), "{absent}");
}

/// All below that folder with that ending.
fn below(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(below(&entry, ending));
        } else if entry.to_str().unwrap().ends_with(ending) {
            found.push(entry);
        }
    }
    found
}

/// The YAML blocks of a page that are whole configurations.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    parts.filter(|block| block.lines().any(|line| line.starts_with("clusters:"))).collect()
}

#[test]
fn every_configuration_that_ships_is_good() {
    let temp = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for dir in ["deploy", "demo", "tests/config"] {
        let own = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().any(|line| line.starts_with("clusters:"))
                && !path.file_name().unwrap().to_str().unwrap().starts_with("bad_")
        };
        files.extend(below(&root().join(dir), ".yaml").into_iter().filter(own));
    }
    assert!(files.iter().any(|file| file.ends_with("deploy/examples/kubespray.yaml")), "{files:?}");
    let mut pages = ["deploy", "alerts", "docs"].map(|dir| below(&root().join(dir), ".md")).to_vec();
    pages.push(vec![root().join("README.md")]);
    let mut in_pages = 0;
    for page in pages.iter().flatten() {
        for block in blocks(&fs::read_to_string(page).unwrap()) {
            let path = temp.path().join(format!("{in_pages}.yaml"));
            fs::write(&path, block).unwrap();
            files.push(path);
            in_pages += 1;
        }
    }
    assert!(in_pages >= 1, "docs/configuration.md has one");
    for file in files {
        let output = check(temp.path(), &["--syntax-only", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
    for (web, good) in [("good_empty", true), ("good_everything", true), ("bad_values", false)] {
        let web = root().join(format!("tests/config/web/{web}.yml"));
        let args = ["--syntax-only", "good_small.yaml", "--web.config.file", web.to_str().unwrap()];
        assert_eq!(check(&root().join("tests/config"), &args).status.success(), good, "{}", web.display());
    }
}
