//! `/metrics` as Prometheus and curl get it: over TLS, below a prefix, compressed, and not too often at once.

use std::fs;

use anyhow::ensure;
use reqwest::{StatusCode, redirect::Policy};
use testkit::{Prometheus, Tools, until};
use tokio::{task::JoinSet, time::timeout};

use super::{Site, hash, https, status};
use crate::rig::{MINUTE, client};

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_and_curl_scrape_over_tls_with_a_password() {
    let site = Site::new();
    let defragd = site.start(&format!("{}basic_auth_users:\n  ann: {}\n", Site::tls(""), hash()), &[]).await;
    fs::write(site.path("password"), "correct horse").unwrap();
    let tools = Tools::find().unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: defragd\n  scheme: https\n  \
         tls_config: {{ca_file: {}}}\n  basic_auth: {{username: ann, password_file: {}}}\n  static_configs: [{{targets: ['{}']}}]\n",
        site.pki.ca().display(),
        site.path("password"),
        defragd.target()
    );
    let programs = [Some(tools.prometheus()), tools.prometheus_3()];
    if programs[1].is_none() {
        testkit::skipped("no Prometheus 3 here; tests/testkit/tools gets it");
    }
    for program in programs.into_iter().flatten() {
        let log = site.home.path("prometheus.log");
        let prometheus = Prometheus::start_program(&program, &config, &log).await.unwrap();
        until("Prometheus to have scraped", MINUTE, || async {
            let (up, build) = (prometheus.query("up == 1").await?, prometheus.query("defragd_build_info").await?);
            ensure!(up.len() == 1 && build.len() == 1, "{up:?} {build:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    let curl = |password: &str| {
        std::process::Command::new("curl")
            .args(["--silent", "--fail", "--compressed", "--cacert"])
            .arg(site.pki.ca())
            .args([
                "--user",
                &format!("ann:{password}"),
                "--write-out",
                "%{http_version}",
                &https(&defragd, "/metrics"),
            ])
            .output()
    };
    let Ok(answer) = curl("correct horse") else { return testkit::skipped("no curl here") };
    let page = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.status.success() && page.contains("defragd_build_info"), "{page}");
    assert!(!curl("wrong horse").unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_compression_and_the_limit_of_scrapes_are_as_in_other_exporters() {
    let site = Site::new();
    // An etcd that takes connections and never answers: a scrape of it lasts as long as its timeout, or until that etcd
    // is gone.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = format!("--endpoints=http://{}", mute.local_addr().unwrap());
    let config = site.path("config.yml");
    fs::write(
        &config,
        format!("clusters: [{{name: demo, endpoints: ['{}']}}]", endpoints.trim_start_matches("--endpoints=")),
    )
    .unwrap();
    let flags = [
        format!("--config={config}"),
        "--web.max-requests=2".to_owned(),
        "--web.route-prefix=/inside".to_owned(),
        "--web.external-url=https://proxy.example/outside/".to_owned(),
    ];
    let defragd = site.start("", &flags.each_ref().map(String::as_str)).await;
    let client = client(None).redirect(Policy::none()).build().unwrap();
    let url = |path: &str| format!("{}{path}", defragd.url());

    let to = client.get(url("/")).send().await.unwrap();
    assert_eq!((to.status().as_u16(), &to.headers()["location"]), (307, &"/outside/".parse().unwrap()));
    let landing = client.get(url("/inside/")).send().await.unwrap().text().await.unwrap();
    for link in ["metrics", "api/v1/clusters", "api/v1/runs", "configuration", "-/healthy", "-/ready"] {
        assert!(landing.contains(&format!("href=\"/outside/{link}\"")), "{landing}");
        let head = client.head(url(&format!("/inside/{link}"))).header("x-prometheus-scrape-timeout-seconds", "0.2");
        assert_eq!(head.send().await.unwrap().status(), StatusCode::OK, "{link}");
    }
    assert_eq!(status(&client, &url("/metrics")).await, Some(StatusCode::NOT_FOUND));

    let scrape = |seconds: &'static str| {
        let request = client.get(url("/inside/metrics")).header("x-prometheus-scrape-timeout-seconds", seconds);
        request.header("accept-encoding", "gzip").send()
    };
    let compressed = scrape("0.2").await.unwrap();
    assert_eq!(
        (compressed.status(), &compressed.headers()["content-encoding"]),
        (StatusCode::OK, &"gzip".parse().unwrap())
    );
    let compressed = compressed.bytes().await.unwrap();
    let mut page = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut page).unwrap();
    assert!(page.contains("defragd_cluster_up{etcd_cluster=\"demo\"} 0"), "{page}");

    let mut together = JoinSet::new();
    for _ in 0..5 {
        together.spawn(scrape("120"));
    }
    let mut next = async || {
        let next = timeout(MINUTE, together.join_next()).await.expect("more are under way than there may be");
        next.unwrap().unwrap().unwrap().status()
    };
    for _ in 0..3 {
        assert_eq!(next().await, StatusCode::SERVICE_UNAVAILABLE, "two last, so there is no place for the others");
    }
    drop(mute);
    for _ in 0..2 {
        assert_eq!(next().await, StatusCode::OK);
    }
    assert_eq!(scrape("0.2").await.unwrap().status(), StatusCode::OK, "and afterwards");
}
