//! Changed files are loaded without a restart, and broken ones are not.

use std::{fs, os::unix::fs::symlink};

use anyhow::{Result, ensure};
use reqwest::{Client, RequestBuilder, StatusCode};
use testkit::{Home, Pki, until};

use super::{Site, hash, https};
use crate::rig::{MINUTE, binary, client};

#[tokio::test(flavor = "multi_thread")]
async fn renewed_certificates_and_passwords_are_taken_up_and_broken_ones_are_not() {
    let site = Site::new();
    // As Kubernetes mounts a Secret: names that lead through a link which is swapped.
    let volume = site.home.path("volume");
    let fill = |name: &str, pki: &Pki| {
        let dir = volume.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(&pki.server().cert, dir.join("tls.crt")).unwrap();
        fs::copy(&pki.server().key, dir.join("tls.key")).unwrap();
    };
    let swap = |to: &str| {
        symlink(to, volume.join("..next")).unwrap();
        fs::rename(volume.join("..next"), volume.join("..data")).unwrap();
    };
    fill("..1", &site.pki);
    swap("..1");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), volume.join(name)).unwrap();
    }
    let hash = hash();
    let config = |user: &str| {
        format!(
            "tls_server_config:\n  cert_file: volume/tls.crt\n  key_file: volume/tls.key\nbasic_auth_users:\n  {user}: {hash}\n"
        )
    };
    let defragd = site.start(&config("ann"), &[]).await;
    let next = Pki::create(&site.home.path("next")).unwrap();
    let (old_client, new_client) = (site.client().build().unwrap(), { client(Some(&next)).build().unwrap() });
    let url = https(&defragd, "/metrics");
    let ask = async |client: &Client, user: &str| -> Result<(StatusCode, String)> {
        let answer = client.get(&url).basic_auth(user, Some("correct horse")).send().await?;
        Ok((answer.status(), answer.text().await?))
    };
    let gauge = |page: &str, value: u8| page.contains(&format!("defragd_web_config_last_reload_successful {value}\n"));
    let (code, page) = ask(&old_client, "ann").await.unwrap();
    assert!(code == StatusCode::OK && gauge(&page, 1));

    fill("..2", &next);
    swap("..2");
    until("the renewed certificate to be shown", MINUTE, || async { ask(&new_client, "ann").await }).await.unwrap();
    assert!(ask(&old_client, "ann").await.is_err(), "the old certificate is gone");

    // A key that does not belong to the certificate, then half a configuration, then one without passwords.
    fill("..3", &next);
    fs::copy(&site.pki.server().key, volume.join("..3/tls.key")).unwrap();
    swap("..3");
    let broken = |what: &'static str| {
        until(what, MINUTE, || async {
            let (code, page) = ask(&new_client, "ann").await?;
            ensure!(code == StatusCode::OK && gauge(&page, 0), "not seen yet");
            Ok(())
        })
    };
    let whole = |user: &'static str| {
        let (ask, new_client, gauge) = (&ask, &new_client, &gauge);
        until("the whole configuration to be loaded", MINUTE, move || async move {
            let (code, page) = ask(new_client, user).await?;
            ensure!(code == StatusCode::OK && gauge(&page, 1), "not seen yet");
            Ok(())
        })
    };
    broken("the wrong key to be refused").await.unwrap();
    swap("..2");
    whole("ann").await.unwrap();
    site.write("basic_auth_users: {");
    broken("half a file to be refused").await.unwrap();
    site.write(&config("bob"));
    whole("bob").await.unwrap();
    assert_eq!(ask(&new_client, "ann").await.unwrap().0, StatusCode::UNAUTHORIZED, "who is no user any more");
    site.write("");
    until("an empty file to be refused", MINUTE, || async {
        let (code, page) = ask(&new_client, "bob").await?;
        ensure!(code == StatusCode::OK && gauge(&page, 0), "not seen yet");
        Ok(())
    })
    .await
    .unwrap();
    let log = defragd.log().unwrap();
    assert!(log.contains("tls_server_config.key: does not belong to the certificate"), "{log}");
    assert!(log.contains("tls_server_config was removed: to run without it, restart defragd"), "{log}");
}

#[test]
fn a_bad_web_configuration_is_found_before_a_start() {
    let site = Site::new();
    let config = site.path("config.yml");
    fs::write(&config, "clusters: [{name: demo, endpoints: ['http://127.0.0.1:1']}]").unwrap();
    let check = |web: &str, extra: &[&str]| {
        site.write(web);
        let mut command = std::process::Command::new(binary());
        let output = command.args(["check-config", &config, "--web.config.file", &site.path("web.yml")]).args(extra);
        let output = output.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(&Site::tls(""), &[]), (Some(0), String::new()));
    let (code, said) = check("tls_server_config: {cert_file: none.crt, key_file: web.yml}", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tls_server_config.cert_file: cannot read"), "{said}");
    assert!(said.contains("tls_server_config.key_file: contains no private key in PEM format"), "{said}");
    assert_eq!(check("tls_server_config: {cert_file: none.crt, key_file: web.yml}", &["--syntax-only"]).0, Some(0));
    assert_eq!(check("tls_server_config: {cert_file: none.crt}", &["--syntax-only"]).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_is_taken_over_by_signal_or_request_and_a_bad_one_is_not() {
    let site = Site::new();
    let path = site.path("config.yml");
    let write = |policy: &str| {
        fs::write(
            &path,
            format!("clusters: [{{name: demo, endpoints: ['http://127.0.0.1:1'], policy: {{{policy}}}}}]"),
        )
        .unwrap();
    };
    write("mode: observe");
    let tokens = [site.home.flag("--web.bearer-token-file", "token"), format!("--config={path}")];
    let defragd = site.start("", &tokens.each_ref().map(String::as_str)).await;
    let mode =
        async || defragd.json("/api/v1/clusters").await.unwrap()["clusters"][0]["mode"].as_str().unwrap().to_owned();
    let gauge = async |name: &str| defragd.metrics().await.unwrap().value(&format!("defragd_config_last_{name}"), &[]);
    let started = gauge("reload_success_timestamp_seconds").await.unwrap();
    assert!(started > 1.7e9 && gauge("reload_successful").await == Some(1.0));

    write("mode: approve");
    assert_eq!(defragd.get("/-/reload").await.unwrap().status, 405);
    assert_eq!(defragd.post("/-/reload", "", None).await.unwrap().status, 401);
    assert_eq!(mode().await, "observe");
    let gate = "{name: site, http: {url: 'http://127.0.0.1:1', headers: {X-Key: s3cret}}}";
    let good = fs::read_to_string(&path).unwrap().replace("}}]", &format!("}}, gates: [{gate}]}}]"));
    fs::write(&path, good).unwrap();
    assert_eq!(defragd.post("/-/reload", "", Some(Home::TOKEN)).await.unwrap().status, 200);
    assert_eq!(mode().await, "approve");
    let shown = defragd.json("/config").await.unwrap();
    assert_eq!(shown["clusters"][0]["policy"], serde_json::json!({"mode": "approve"}), "{shown}");
    assert_eq!(shown["clusters"][0]["gates"][0]["http"]["headers"]["X-Key"], "***", "{shown}");
    assert!(!shown.to_string().contains("s3cret"), "{shown}");

    write("mode: enforc, min_fragmentation_ratio: 2");
    let refused = defragd.post("/-/reload", "", Some(Home::TOKEN)).await.unwrap();
    assert!(refused.status == 500 && refused.body.contains("enforc"), "{}", refused.body);
    assert_eq!(gauge("reload_successful").await, Some(0.0));
    let then = gauge("reload_success_timestamp_seconds").await.unwrap();
    assert!(then > started, "it is the time of the last good one");
    assert_eq!(mode().await, "approve");

    write("mode: enforce");
    defragd.signal_hup().unwrap();
    until("the signal to be followed", MINUTE, || async {
        ensure!(mode().await == "enforce" && gauge("reload_successful").await == Some(1.0), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    defragd.ensure_running().unwrap();
}

/// What a browser adds to a request of a page on this site, to a server of this name.
fn browser(request: RequestBuilder, host: &str, site: &str, fetch: &str) -> RequestBuilder {
    request.header("host", host).header("origin", site).header("sec-fetch-site", fetch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_token_is_taken_up_and_one_that_cannot_be_used_is_not() {
    let site = Site::new();
    let flags = site.home.token_flags();
    let defragd = site.start("", &[&flags[0], &flags[1]]).await;
    let client = client(None).build().unwrap();
    let act = async |token: &str| {
        let request = client.post(format!("{}/api/v1/clusters/demo/resume", defragd.url())).bearer_auth(token);
        request.header("content-type", "application/json").send().await.unwrap().status()
    };
    let (renewed, file) = ("renewed-0123456789abcdef", flags[1].split_once('=').unwrap().1);
    assert_eq!(act(Home::ADMIN).await, StatusCode::OK);
    assert_eq!(act(renewed).await, StatusCode::UNAUTHORIZED);
    fs::write(file, renewed).unwrap();
    until("the renewed token to be accepted", MINUTE, || async {
        let status = act(renewed).await;
        ensure!(status == StatusCode::OK, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(act(Home::ADMIN).await, StatusCode::UNAUTHORIZED, "the token before");
    fs::write(file, "short").unwrap();
    until("the one that is too short to be noticed", MINUTE, || async {
        let status = act(renewed).await;
        ensure!(status == StatusCode::OK, "{status}");
        let log = defragd.log()?;
        ensure!(log.contains("the changed bearer token cannot be used; keeping the previous one"), "{log}");
        ensure!(!log.contains(renewed), "a secret in the log");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_can_neither_reload_nor_act() {
    let site = Site::new();
    let users = format!("basic_auth_users:\n  ann: {}\n", hash());
    let tokens = site.home.token_flags();
    let client = client(None).build().unwrap();
    // Without any credentials, with those that a browser adds by itself, and without a receiver.
    for (config, flags) in [("", &[][..]), (&*users, &[]), ("", &["--exporter-only"])] {
        let defragd = site.start(config, flags).await;
        let post =
            |path: &str| client.post(format!("{}{path}", defragd.url())).basic_auth("ann", Some("correct horse"));
        let host = defragd.target();
        let ours = format!("http://{host}");
        for path in ["/-/reload", "/api/v1/clusters/demo/resume", "/api/v1/alerts"] {
            for (host, page, fetch) in [
                (host, "http://evil.example", "cross-site"),
                (host, "http://127.0.0.1:1", "same-site"),
                (host, "null", "cross-site"),
            ] {
                let sent = browser(post(path), host, page, fetch).header("content-type", "text/plain").send().await;
                assert_eq!(sent.unwrap().status(), StatusCode::FORBIDDEN, "{flags:?}: {path} from {page}");
            }
        }
        if config.is_empty() {
            // A name of theirs that leads to 127.0.0.1.
            let sent = browser(post("/-/reload"), "evil.example", "http://evil.example", "same-origin").send().await;
            assert_eq!(sent.unwrap().status(), StatusCode::FORBIDDEN, "{flags:?}");
        }
        let own = browser(post("/-/reload"), host, &ours, "same-origin").send().await.unwrap();
        assert_eq!(own.status(), StatusCode::OK, "{flags:?}: our own page");
        assert_eq!(post("/-/reload").send().await.unwrap().status(), StatusCode::OK, "{flags:?}: a program");
        defragd.kill().await.unwrap();
    }

    // Where only metrics are exported, a stranger on the network cannot reload either.
    let flags = ["--exporter-only", "--web.listen-address=0.0.0.0:0"];
    let reload = async |flags: &[&str], token: Option<&'static str>| {
        let defragd = site.start("", flags).await;
        let port = defragd.target().rsplit_once(':').unwrap().1.to_owned();
        let request = client.post(format!("http://127.0.0.1:{port}/-/reload"));
        token.into_iter().fold(request, RequestBuilder::bearer_auth).send().await.unwrap().status()
    };
    assert_eq!(reload(&flags, None).await, StatusCode::UNAUTHORIZED);
    let flags = [flags[0], flags[1], &tokens[1]];
    assert_eq!(reload(&flags, None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(reload(&flags, Some(Home::ADMIN)).await, StatusCode::OK);
}
