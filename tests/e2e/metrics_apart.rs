//! Members that serve their metrics at another port than their clients (`--listen-client-http-urls`): what is unknown
//! then, and that `metrics` and `quota` in the configuration make it known.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use testkit::{Defragd, EtcdSpec, EtcdVersion, OpenSnapshot, exhaust_quota, on_each_version, on_version, until};

use crate::rig::{MIB, MINUTE, Rig, TOKEN, binary, ended_run, firing};

/// Small, so that it is used up soon.
const QUOTA: u64 = 48 * MIB;

on_each_version! { [3_5 3_6 3_7] metrics_of _ apart_over_http => |version| apart(version, "http") }

on_each_version! { [3_5 3_6 3_7] metrics_of _ apart_over_https => |version| apart(version, "https") }

/// Without space: only on 3.5 are the metrics the only source of the quota.
async fn apart(version: EtcdVersion, scheme: &str) {
    let rig = Rig::with(EtcdSpec::new(version).quota_bytes(QUOTA).http_apart(scheme)).await;
    exhaust_quota(&rig.cluster, 8 * MIB).await.unwrap();
    let (without, with) = (config(&rig, "without", ""), config(&rig, "with", &metrics(&rig, scheme)));
    if version == EtcdVersion::V3_5 {
        stays_armed(&rig, &without).await;
    }
    disarms(&rig, &with, "with").await;

    let snapshot = OpenSnapshot::of(&rig.cluster, 1).await.unwrap();
    member_when(&with, |seen| seen["open_snapshots"] == 1).await;
    let unseen = member(&without).await;
    assert_eq!(unseen["open_snapshots"], Value::Null, "{unseen}");
    assert!(unseen["metrics_page_error"].as_str().is_some_and(|error| error.contains("/metrics")), "{unseen}");

    // Another tool's: etcd answers when the snapshot is closed.
    let defragmented = tokio::join!(rig.cluster.defragment(1), async {
        member_when(&with, |seen| seen["defrag_in_progress"] == true).await;
        let unseen = member(&without).await;
        assert_eq!(unseen["defrag_in_progress"], Value::Null, "{unseen}");
        drop(snapshot);
    });
    defragmented.0.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_from_the_configuration_is_enough_to_disarm() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).quota_bytes(QUOTA).http_apart("http")).await;
    exhaust_quota(&rig.cluster, 8 * MIB).await.unwrap();
    let file = config(&rig, "quota", &format!("quota: {}MiB", QUOTA / MIB));
    let log = disarms(&rig, &file, "quota").await;
    assert!(log.contains("cannot read the metrics page") && !log.contains("its quota (NOSPACE"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_the_member_reports_counts_more_than_that_of_the_configuration() {
    let spec = EtcdSpec::new(EtcdVersion::V3_5).quota_bytes(QUOTA).http_apart("http");
    let rig = Rig::with(spec).await;
    let file = config(&rig, "wrong", &format!("{}\n    quota: 8GiB", metrics(&rig, "http")));
    member_when(&file, |reported| reported["db_quota_bytes"] == QUOTA).await;
    let defragd = serve(&rig, &file, "wrong").await;
    let logged = || anyhow::Ok(defragd.log()?.matches("a quota that differs from the configuration").count());
    until("scrapes that see the quota of each member", MINUTE, || async {
        defragd.metrics().await?;
        let logged = logged()?;
        anyhow::ensure!(logged >= 3, "of {logged}");
        Ok(())
    })
    .await
    .unwrap();
    defragd.metrics().await.unwrap();
    assert_eq!(logged().unwrap(), 3, "once for each member: {}", defragd.log().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_certificate_is_shown_to_pages_unless_it_is_configured_for_them() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).http_apart("https")).await;
    let url = rig.cluster.member(0).http_url().to_owned();
    let port = url.rsplit(':').next().unwrap();
    // "{member}" is `etcd-1` and so on, which is no name here: no page, and an error that says so.
    let file = config(&rig, "nowhere", &format!("metrics: {{url: 'http://{{member}}.invalid:{port}'}}"));
    let reported = member(&file).await;
    let error = reported["metrics_page_error"].as_str().unwrap();
    assert!(error.contains("etcd-2.invalid"), "{error}");
    let file = config(&rig, "bare", &format!("metrics: {{url: 'https://{{host}}:{port}'}}"));
    // etcd asks for a client certificate there.
    let says = |error: &str| error.to_lowercase().contains("certificate");
    member_when(&file, |reported| reported["metrics_page_error"].as_str().is_some_and(says)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_another_member_is_not_believed() {
    let rig = Rig::new(EtcdVersion::V3_5).await;
    // One host and one port: it is the first member's page, whichever member is meant.
    let file = config(&rig, "same", &metrics(&rig, "https"));
    let first = format!("is the page of member {:x}", rig.cluster.status(0).await.unwrap().id);
    let says = |error: &str| error.contains(&first);
    let reported = member_when(&file, |reported| reported["metrics_page_error"].as_str().is_some_and(says)).await;
    assert_eq!(reported["open_snapshots"], Value::Null, "{reported}");
    assert_eq!(reported["db_quota_bytes"].is_null(), pages_alone_have_the_quota(), "{reported}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_stop_waiting_for_a_metrics_port_that_never_answers() {
    // Where `Status` has the quota, as in 3.6 and later, scrapes request no page.
    on_version(EtcdVersion::V3_5, silent_port).await;
}

async fn silent_port(version: EtcdVersion) {
    let rig = Rig::with(EtcdSpec::new(version).http_apart("http")).await;
    // As behind a firewall that drops packets: the request is not answered, and not refused.
    let silent = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let url = format!("http://{{host}}:{}", silent.local_addr().unwrap().port());
    let requested = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requested);
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            unanswered.push(stream);
        }
    });
    let file = config(&rig, "silent", &format!("metrics: {{url: '{url}'}}"));
    let defragd = serve(&rig, &file, "silent").await;
    until("scrapes that request no page", MINUTE, || async {
        let before = requested.load(Ordering::SeqCst);
        for _ in 0..2 {
            let page = defragd.metrics().await?;
            let (up, sizes) = (page.samples("defragd_member_up"), page.samples("defragd_member_db_size_bytes"));
            assert_eq!((up.filter(|(_, up)| *up > 0.0).count(), sizes.count()), (3, 3), "{}", page.text());
            assert_eq!(page.samples("defragd_member_db_quota_bytes").count(), 0, "{}", page.text());
        }
        let asked = requested.load(Ordering::SeqCst) - before;
        anyhow::ensure!(asked == 0, "{asked} were requested in two scrapes");
        Ok(())
    })
    .await
    .unwrap();
    assert!(requested.load(Ordering::SeqCst) >= 9, "three from each member");
    let log = defragd.log().unwrap();
    assert_eq!(log.matches("message=\"cannot read the metrics page\"").count(), 3, "once for each member: {log}");
    // A command asks each time.
    let reported = member(&file).await;
    assert!(reported["metrics_page_error"].is_string() && reported["db_size_bytes"].is_u64(), "{reported}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_dials_pages_of_allowed_hosts_only() {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).http_apart("http")).await;
    let (pki, metrics) = (rig.cluster.pki().unwrap(), metrics(&rig, "http"));
    let (ca, cert, key) = (pki.ca().display(), pki.client().cert.display(), pki.client().key.display());
    let ports: Vec<_> = rig.cluster.endpoints().iter().map(|url| url.rsplit(':').next().unwrap().to_owned()).collect();
    let module = |name: &str, metrics: &str| {
        format!(
            "  {name}:
    tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}
    allowed_targets: [127.0.0.0/29]
    allowed_ports: [{}]
    {metrics}
",
            ports.join(", ")
        )
    };
    let elsewhere = metrics.replace("{host}", "{member}.localhost");
    let file = rig.path("modules.yaml");
    std::fs::write(&file, format!("modules:\n{}{}", module("good", &metrics), module("bad", &elsewhere))).unwrap();
    let args = [format!("--config={}", file.display()), "--exporter-only".to_owned(), "--log.level=debug".to_owned()];
    let defragd = Defragd::start(binary(), &args, &rig.path("modules.log")).await.unwrap();
    let target = rig.cluster.member(0).client_url().trim_start_matches("https://");
    let quotas = async |module: &str| {
        let page = defragd.get(&format!("/probe?module={module}&target={target}")).await.unwrap();
        assert_eq!(page.status, 200, "{page:?}");
        page.body.lines().filter(|line| line.starts_with("defragd_member_db_quota_bytes{")).count()
    };
    // A probe waits for a page for two seconds and no longer.
    until("a probe with all quotas", MINUTE, || async {
        let found = quotas("good").await;
        anyhow::ensure!(found == 3, "{found}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(quotas("bad").await, if pages_alone_have_the_quota() { 0 } else { 3 });
}

/// `Status` has it in 3.6 and later, if all tests run on such a line.
fn pages_alone_have_the_quota() -> bool {
    EtcdVersion::wanted().is_none_or(|line| line < EtcdVersion::V3_6)
}

/// The alarm stays armed because the quota is not known, and the log says what to set.
async fn stays_armed(rig: &Rig, file: &Path) {
    let defragd = serve(rig, file, "without").await;
    defragd.metrics().await.unwrap();
    defragd.metrics().await.unwrap();
    let log = defragd.log().unwrap();
    for member in ["etcd-1", "etcd-2", "etcd-3"] {
        let unread = format!("cannot read the metrics page of member {member}");
        let lines =
            log.lines().filter(|line| line.contains(&unread) && line.contains("its quota (NOSPACE is not disarmed"));
        // What listens there gives an error, or lets the scrape time out.
        let (late, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains("timed out"));
        let logged = (others.len(), late.len());
        assert!(logged.0 <= 1 && logged.1 <= 1 && logged != (0, 0), "each kind of error once for {member}: {log}");
    }
    assert!(log.contains("set metrics.url, or at least quota"), "{log}");
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["reason"]["code"], "quota_unknown", "{run}");
    assert!(rig.cluster.alarms().await.unwrap().iter().any(|(_, kind)| kind == "NOSPACE"));
    let plan = command(rig, "plan", file).await;
    assert!(plan.contains("Warning: cannot read the metrics page of member etcd-1"), "{plan}");
}

/// Gives the log.
async fn disarms(rig: &Rig, file: &Path, name: &str) -> String {
    let defragd = serve(rig, file, name).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(rig.cluster.alarms().await.unwrap(), []);
    rig.cluster.client(0).await.unwrap().put("after", "x", None).await.unwrap();
    defragd.log().unwrap()
}

fn metrics(rig: &Rig, scheme: &str) -> String {
    let port = rig.cluster.member(0).http_url().rsplit(':').next().unwrap();
    let pki = rig.cluster.pki().unwrap();
    let (cert, key) = (pki.client().cert.display(), pki.client().key.display());
    let tls = format!(", tls: {{cert_file: {cert}, key_file: {key}}}");
    let tls = if scheme == "https" { tls.as_str() } else { "" };
    format!("metrics: {{url: '{scheme}://{{host}}:{port}/metrics'{tls}}}")
}

/// A file with the rig's cluster and these keys of it.
fn config(rig: &Rig, name: &str, keys: &str) -> PathBuf {
    let pki = rig.cluster.pki().unwrap();
    let (ca, cert, key) = (pki.ca().display(), pki.client().cert.display(), pki.client().key.display());
    let text = format!(
        "clusters:
  - name: demo
    endpoints: [{}]
    tls: {{ca_file: {ca}, cert_file: {cert}, key_file: {key}}}
    {keys}
    policy: {{mode: enforce, min_reclaimable: 4MiB, pause_between_members: 1s, recovery_timeout: 20s, on_open_snapshot: ignore}}
",
        rig.cluster.endpoints().join(", "),
    );
    let path = rig.path(&format!("{name}.yaml"));
    std::fs::write(&path, text).unwrap();
    path
}

async fn serve(rig: &Rig, file: &Path, name: &str) -> Defragd {
    let token = rig.path("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let args = [
        format!("--config={}", file.display()),
        format!("--web.bearer-token-file={}", token.display()),
        format!("--data-dir={}", rig.path(&format!("journal-{name}")).display()),
    ];
    Defragd::start(binary(), &args, &rig.path(&format!("{name}.log"))).await.unwrap()
}

async fn command(rig: &Rig, name: &str, file: &Path) -> String {
    let args =
        [name.to_owned(), format!("--config={}", file.display()), format!("--data-dir={}", rig.path("none").display())];
    let output = tokio::process::Command::new(binary()).args(args).kill_on_drop(true).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What `defragd status` shows of the second member.
async fn member(file: &Path) -> Value {
    let args = ["status".to_owned(), format!("--config={}", file.display()), "--output=json".to_owned()];
    let output = tokio::process::Command::new(binary()).args(args).kill_on_drop(true).output().await.unwrap();
    let reported: Value = serde_json::from_slice(&output.stdout).unwrap();
    let members = reported["clusters"][0]["members"].as_array().unwrap();
    members.iter().find(|member| member["member"] == "etcd-2").unwrap().clone()
}

/// The same once it is so: a command waits for a metrics page for two seconds and no longer.
async fn member_when(file: &Path, is_so: impl Fn(&Value) -> bool) -> Value {
    until("what the second member's page says", MINUTE, || async {
        let seen = member(file).await;
        anyhow::ensure!(is_so(&seen), "{seen}");
        Ok(seen)
    })
    .await
    .unwrap()
}
