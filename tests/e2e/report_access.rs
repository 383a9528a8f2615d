//! How `defragd report` reaches its Prometheus: TLS, password, token; and its messages if it cannot.
//!
//! Prometheus itself has no bearer tokens, so a proxy in front of it, played by the test, requires one.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::json;
use tempfile::TempDir;
use testkit::{GuardedPrometheus, Pki, Tools};

use crate::{
    gated::said,
    report::{DAY, DAYS, SyntheticHistory},
    rig::binary,
    site::{Answer, Site},
};

const PASSWORD: &str = "correct-horse-battery";
const ANOTHER: &str = "wrong-horse-battery";

struct ReportSetup {
    url: String,
    end: i64,
    dir: TempDir,
}

impl ReportSetup {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn report(&self, url: &str, flags: &[(&str, &Path)], more: &[&str]) -> Output {
        let flags = flags.iter().map(|(flag, path)| format!("--prometheus.{flag}={}", path.display()));
        tokio::process::Command::new(binary())
            .args(["report", "--range=30d", "--prometheus.url", url])
            .arg(format!("--end={}", Timestamp::from_second(self.end).unwrap()))
            .args(flags)
            .args(more)
            .output()
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_with_mutual_tls_and_a_password_is_read_and_what_is_wrong_is_said_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now().as_second();
    let end = now - now.rem_euclid(3_600);
    let (pki, others) = (Pki::create(&dir.path().join("pki")), Pki::create(&dir.path().join("others")));
    let (pki, others) = (pki.unwrap(), others.unwrap());
    let user = ("ann", PASSWORD, &*bcrypt::hash(PASSWORD, 4).unwrap());
    let past = SyntheticHistory::sparse(end, 3_600).text();
    let log = dir.path().join("log");
    let prometheus = GuardedPrometheus::start(&Tools::find().unwrap(), &past, &pki, user, &log).await.unwrap();
    let desk = ReportSetup { url: prometheus.url().to_owned(), end, dir };
    let (password, another) = (desk.file("password", PASSWORD), desk.file("another", ANOTHER));
    let (ca, client) = (("ca-file", pki.ca()), pki.client());
    let (cert, key) = (("cert-file", &*client.cert), ("key-file", &*client.key));
    let ann = ("user", Path::new("ann"));
    let (good, bad) = (("password-file", &*password), ("password-file", &*another));

    let output = desk.report(&desk.url, &[ca, cert, key, ann, good], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("## busy"), "{}", said(&output));

    let plain = desk.url.replace("https:", "http:");
    let elsewhere = format!("{}/grafana", desk.url);
    for (url, flags, words) in [
        (&desk.url, &[ca, cert, key][..], ["answered 401", "--prometheus.user with"]),
        (&desk.url, &[ca, cert, key, ann, bad], ["answered 401", "rejected the user and password"]),
        (&desk.url, &[ca, cert, key, ("bearer-token-file", &*password)], ["answered 401", "or the token"]),
        (&desk.url, &[("ca-file", others.ca()), cert, key, ann, good], ["cannot reach", "--prometheus.ca-file"]),
        (&desk.url, &[ca, ann, good], ["cannot reach", "--prometheus.cert-file"]),
        (&plain, &[ann, good], ["answered 400", "begins with https://"]),
        (&elsewhere, &[ca, cert, key, ann, good], ["answered 404", "route prefix"]),
    ] {
        let output = desk.report(url, flags, &[]).await;
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        assert!(!text.contains(PASSWORD) && !text.contains(ANOTHER), "{text}");
        eprintln!("{text}");
    }
    let nothing = desk.report(&desk.url, &[ca, cert, key, ann, good], &["--cluster=nobody"]).await;
    assert!(said(&nothing).contains("Check that it scraped defragd"), "{}", said(&nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_sent_and_progress_is_shown_during_a_long_answer() {
    let dir = tempfile::tempdir().unwrap();
    let end = Timestamp::now().as_second();
    let answer = move |head: &str| {
        if !head.to_lowercase().contains("authorization: bearer let-me-in") {
            return Answer::new(401, "who are you?");
        }
        // As a Prometheus that has a lot to read.
        std::thread::sleep(Duration::from_millis(150));
        let points: Vec<_> = (0..DAYS).map(|day| json!([end - (DAYS - day) * DAY, day.to_string()])).collect();
        let series = json!({"metric": {"etcd_cluster": "busy", "member": "a"}, "values": points});
        let data = json!({"resultType": "matrix", "result": [series]});
        Answer::new(200, json!({"status": "success", "data": data}).to_string())
    };
    let site = Site::start(&dir.path().join("pki"), answer).await;
    let desk = ReportSetup { url: site.url.clone(), end, dir };
    let token = desk.file("token", "let-me-in\n");
    let ca = ("ca-file", site.pki.ca());
    let refused = desk.report(&desk.url, &[ca], &[]).await;
    assert!(said(&refused).contains("answered 401: who are you?"), "{}", said(&refused));

    // Five queries of five pieces each.
    let output = desk.report(&desk.url, &[ca, ("bearer-token-file", &*token)], &["--step=10m"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(reported.contains("of 25 Prometheus queries done"), "{reported}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("Prometheus queries done"), "the report is the report");

    // An HTML page, such as Grafana's or a login form.
    site.turn(|_| Answer::new(200, "<html>Welcome</html>"));
    let output = desk.report(&desk.url, &[ca], &[]).await;
    assert!(said(&output).contains("address of a Prometheus"), "{}", said(&output));
}
