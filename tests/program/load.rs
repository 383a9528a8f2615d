//! Days of work in minutes or hours: notifications, scrapes, reloads and certificates that change, while members come and
//! go. What the process and its journal take after the first tenth must still be enough in the end.

use std::{
    fmt::Write,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use fleet::{Fleet, Plan, plan::MEMBERS};
use parking_lot::Mutex;
use reqwest::{Certificate, Client};
use serde_json::json;
use testkit::{Defragd, Home, Pki, Port, until};

use crate::rig::{MINUTE, descriptors, home, memory_kib};

const CLUSTERS: usize = 5;
/// Of each cluster.
const ALERTS: usize = 50;
/// What may be more in the end. A leak of 40 bytes for each of a million requests is more.
const MOST_MEMORY_KIB: u64 = 32 << 10;
const MOST_DESCRIPTORS: usize = 16;
const MOST_THREADS: usize = 8;
/// SQLite's log alone has 8 MiB before it is truncated.
const MOST_JOURNAL_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy)]
struct Counts {
    webhooks: usize,
    scrapes: usize,
    reloads: usize,
}

impl Counts {
    /// `LOAD_WEBHOOKS`, `LOAD_SCRAPES` and `LOAD_RELOADS`.
    fn from_env() -> Self {
        let count = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
        Self {
            webhooks: count("LOAD_WEBHOOKS", 1_000_000),
            scrapes: count("LOAD_SCRAPES", 1_000_000),
            reloads: count("LOAD_RELOADS", 10_000),
        }
    }

    fn tenths(self, tenths: usize) -> Self {
        let part = |count| count * tenths / 10;
        Self { webhooks: part(self.webhooks), scrapes: part(self.scrapes), reloads: part(self.reloads) }
    }
}

/// What may not grow.
#[derive(Debug)]
struct Usage {
    memory_kib: u64,
    descriptors: usize,
    threads: usize,
    journal_bytes: u64,
}

struct Arena {
    home: Home,
    plan: Plan,
    defragd: Defragd,
    /// Each has an authority of its own; the server shows the certificate of one of them.
    pkis: [Pki; 2],
    /// Connections are kept until the certificate changes.
    client: Mutex<Client>,
}

impl Arena {
    async fn new(plan: Plan) -> Self {
        let home = home();
        let pkis = ["one", "two"].map(|name| Pki::create(&home.path(name)).unwrap());
        home.write("web.yml", "tls_server_config: {cert_file: tls.crt, key_file: tls.key}").unwrap();
        show(&home, &pkis[0]);
        configure(&home, &plan, 0);
        let flags = [home.flag("--config", "config.yaml"), home.flag("--web.config.file", "web.yml")];
        let defragd = home.serve(&flags).await.unwrap();
        let client = Mutex::new(client(&pkis));
        Self { home, plan, defragd, pkis, client }
    }

    fn usage(&self) -> Usage {
        let sizes = fs::read_dir(self.home.path("journal")).unwrap();
        Usage {
            memory_kib: memory_kib(&self.defragd),
            descriptors: descriptors(&self.defragd),
            threads: fs::read_dir(format!("/proc/{}/task", self.defragd.pid())).unwrap().count(),
            journal_bytes: sizes.map(|file| file.unwrap().metadata().unwrap().len()).sum(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.defragd.target())
    }

    async fn load(&self, counts: Counts) {
        let (sent, scraped, reloaded) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let next = |done: &AtomicUsize, count| {
            let number = done.fetch_add(1, Ordering::Relaxed);
            (number < count).then_some(number)
        };
        let send = || async {
            while let Some(number) = next(&sent, counts.webhooks) {
                self.post("/api/v1/alerts", notification(number), 202).await;
            }
        };
        let scrape = || async {
            while next(&scraped, counts.scrapes).is_some() {
                let client = self.client.lock().clone();
                let request = client.get(self.url("/metrics")).header("x-prometheus-scrape-timeout-seconds", "0.06");
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 200);
                assert!(answer.text().await.unwrap().contains("defragd_build_info"));
            }
        };
        let reload = async {
            while let Some(number) = next(&reloaded, counts.reloads) {
                configure(&self.home, &self.plan, number);
                self.post("/-/reload", String::new(), 200).await;
                if number % 10 == 9 {
                    show(&self.home, &self.pkis[number / 10 % 2]);
                    *self.client.lock() = client(&self.pkis);
                }
            }
        };
        tokio::join!(send(), send(), scrape(), scrape(), reload);
    }

    async fn post(&self, path: &str, body: String, expected: u16) {
        let client = self.client.lock().clone();
        let request = client.post(self.url(path)).header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert_eq!(status, expected, "{path}: {text}");
    }
}

/// Trusts both authorities.
fn client(pkis: &[Pki; 2]) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let trusted = pkis.iter().map(|pki| Certificate::from_pem(&fs::read(pki.ca()).unwrap()).unwrap());
    Client::builder().tls_certs_only(trusted).no_proxy().timeout(MINUTE).build().unwrap()
}

/// The server shows this certificate from its next connection on.
fn show(home: &Home, pki: &Pki) {
    for (from, to) in [(&pki.server().key, "tls.key"), (&pki.server().cert, "tls.crt")] {
        fs::copy(from, home.path("next")).unwrap();
        fs::rename(home.path("next"), home.path(to)).unwrap();
    }
}

/// Each number has another policy, and every second one a cluster of its own, whose members are not there.
fn configure(home: &Home, plan: &Plan, number: usize) {
    let mut config = "clusters:\n".to_owned();
    for cluster in 0..CLUSTERS {
        let urls: Vec<_> = (0..MEMBERS).map(|member| plan.url(cluster, member)).collect();
        let cooldown = number % 50 + 1;
        writeln!(config, "- {{name: {}, endpoints: {urls:?}, policy: {{cooldown: {cooldown}m}}}}", Plan::name(cluster))
            .unwrap();
    }
    if number % 2 == 1 {
        writeln!(config, "- {{name: number-{number}, endpoints: ['http://127.0.0.1:1']}}").unwrap();
    }
    home.write("config.yaml", config).unwrap();
}

/// Alertmanager repeats what fires; now and then an alert is resolved and fires anew.
fn notification(number: usize) -> String {
    let (cluster, alert) = (number % CLUSTERS, number / CLUSTERS % ALERTS);
    let status = if number % 1_000 == 999 { "resolved" } else { "firing" };
    let labels = json!({"alertname": "EtcdFragmentationHigh", "etcd_cluster": Plan::name(cluster)});
    let fingerprint = format!("{cluster}-{alert}");
    let alert =
        json!({"status": status, "labels": labels, "startsAt": "2026-11-23T10:00:00Z", "fingerprint": fingerprint});
    json!({"version": "4", "alerts": [alert]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "hours: `make soak`"]
async fn soak_nothing_grows_under_a_long_load() {
    let counts = Counts::from_env();
    let mut port = Port::reserve().unwrap();
    let plan = Plan::new(CLUSTERS, port.number(), false, 2, 1);
    port.release();
    let arena = Arena::new(plan.clone()).await;
    let mut fleet = Fleet::start(plan, &arena.home.path("")).await.unwrap();
    let flapping = tokio::spawn(async move { fleet.restart_members(Duration::from_millis(300)).await });
    arena.load(counts.tenths(1)).await;
    let early = arena.usage();
    println!("after the first tenth: {early:?}");
    arena.load(counts.tenths(9)).await;
    println!("under load: {:?}", arena.usage());
    let flat = |late: &Usage| -> Result<()> {
        ensure!(late.memory_kib <= early.memory_kib + MOST_MEMORY_KIB, "memory: {early:?}, then {late:?}");
        ensure!(late.descriptors <= early.descriptors + MOST_DESCRIPTORS, "descriptors: {early:?}, then {late:?}");
        ensure!(late.threads <= early.threads + MOST_THREADS, "threads: {early:?}, then {late:?}");
        ensure!(late.journal_bytes <= early.journal_bytes + MOST_JOURNAL_BYTES, "journal: {early:?}, then {late:?}");
        Ok(())
    };
    // Connections are closed, and idle threads end.
    let late = until("it to take no more than after the first tenth", MINUTE, || async {
        let late = arena.usage();
        flat(&late).map(|()| late)
    })
    .await
    .unwrap();
    println!("in the end: {late:?}");
    assert!(!flapping.is_finished(), "the members restart all the while");
    flapping.abort();
    arena.defragd.ensure_running().unwrap();
    assert!(!arena.defragd.log().unwrap().contains("panicked"));
}
