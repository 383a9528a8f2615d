//! `/metrics` for old and new scrapers, and that every metric that we name anywhere exists.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use testkit::EtcdVersion;

use crate::rig::{Rig, TOKEN, ended_run, firing};

async fn get(url: &str, accept: &str) -> (String, String) {
    let answer = reqwest::Client::new().get(url).header("accept", accept).send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, answer.text().await.unwrap())
}

/// The names of families in `# TYPE` lines of the old format.
fn families(page: &str) -> BTreeSet<String> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_valid_and_every_name_in_rules_dashboards_and_readme_exists() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve_with_a_gate().await;
    let url = format!("{}/metrics", defragd.url());
    // A run with a gate and some alerts bring every series to life.
    defragd.post_raw("{", Some(TOKEN)).await.unwrap();
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    assert_eq!(ended_run(&defragd, 1).await["outcome"], "succeeded");

    let (kind, plain) = get(&url, "*/*").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let mut check = Command::new(rig.tools.promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(plain.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let (kind, open) = get(&url, "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5").await;
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(open.ends_with("# EOF\n"));

    let mut known = families(&plain);
    known.extend(families(&probed(&rig).await));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = std::fs::read_to_string(root.join("docs/reference/metrics.md")).unwrap();
    for name in &known {
        assert!(reference.contains(&format!("| `{name}` |")), "docs/reference/metrics.md lacks {name}");
    }
    let mut files = vec![root.join("README.md")];
    for dir in ["alerts", "alerts/tests", "dashboards", "deploy", "docs", "docs/reference"] {
        let entries = std::fs::read_dir(root.join(dir)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in metric_names(&text) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let exists = known.contains(name) || family.is_some_and(|family| known.contains(family));
            assert!(exists, "{} names {name}, which /metrics does not have", file.display());
            named += 1;
        }
    }
    assert!(named > 100, "only {named} names were found: the search is broken");
}

/// The pages of a second defragd that only exports.
async fn probed(rig: &Rig) -> String {
    let endpoint = rig.cluster.endpoints()[0].clone();
    let port = endpoint.rsplit_once(':').unwrap().1;
    let pki = rig.cluster.pki().unwrap();
    let (ca, client) = (pki.ca().display(), pki.client());
    let config = format!(
        "notify: [{{name: chat, webhook: {{url: 'http://127.0.0.1:9/'}}}}]\n\
         modules: {{m: {{tls: {{ca_file: {ca}, cert_file: {}, key_file: {}}}, allowed_targets: [127.0.0.1], allowed_ports: [{port}]}}}}",
        client.cert.display(),
        client.key.display()
    );
    std::fs::write(rig.path("probe.yaml"), config).unwrap();
    let args = [format!("--config={}", rig.path("probe.yaml").display()), "--exporter-only".to_owned()];
    let defragd = testkit::Defragd::start(crate::rig::binary(), &args, &rig.path("probe.log")).await.unwrap();
    let probe = get(&format!("{}/probe?module=m&target={endpoint}", defragd.url()), "*/*").await.1;
    // It also has a notification target, whose series exist from the start.
    probe + &get(&format!("{}/metrics", defragd.url()), "*/*").await.1
}

/// Words like `defragd_member_up`. A name that ends in `_` stands for several, as in `defragd_member_…`.
fn metric_names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        // Packages are called defragd_0.1.0.
        .filter(|word| {
            word.strip_prefix("defragd_").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .filter(|word| !word.ends_with('_'))
}
