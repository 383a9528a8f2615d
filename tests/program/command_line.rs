//! What a command line is answered with before anything is sent: mistakes, with what to write instead and the exit code
//! that systemd and scripts read; and flags that would otherwise have no effect.

use std::process::{Command, Output};

use axum::{Router, routing::get};
use serde_json::Value;
use testkit::{Home, Pki};

use crate::rig::{binary, home};

/// Nothing listens there, and no server of this machine is asked.
const NOWHERE: &str = "http://127.0.0.1:1";

fn defragd(args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(args).env("DEFRAGD_SERVER", NOWHERE).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Each is answered with this exit code, these words, and a cause that is not repeated.
fn answered(code: i32, cases: &[(&[&str], &str)]) {
    for (args, expected) in cases {
        let output = defragd(args);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?} says\n{said}");
        assert!(said.contains(expected), "{args:?} says\n{said}, without {expected:?}");
        assert!(said.matches("os error").count() <= 1, "{args:?} says\n{said}");
    }
}

/// A configuration of these clusters, with keys besides name and endpoints.
fn config(home: &Home, name: &str, clusters: &[(&str, &str)]) -> String {
    let one = |(index, (name, keys)): (usize, &(&str, &str))| {
        format!("{{name: {name}, endpoints: ['https://127.0.0.1:{}']{keys}}}", index + 1)
    };
    let all: Vec<_> = clusters.iter().enumerate().map(one).collect();
    home.write(name, format!("clusters: [{}]\n", all.join(", "))).unwrap();
    home.flag("--config", name)
}

#[test]
fn what_a_restart_cannot_repair_is_exit_code_2() {
    let home = home();
    home.write("short", "12345").unwrap();
    let pki = Pki::create(&home.path("pki")).unwrap();
    let cert = format!("--cert={}", pki.client().cert.display());
    let data = home.flag("--data-dir", "journal");
    let endpoints = NOWHERE.replace("http:", "--endpoints=https:");
    let keyless = format!(", tls: {{cert_file: '{}', key_file: none.key}}", pki.client().cert.display());
    let keyless = config(&home, "keyless.yaml", &[("a", &keyless)]);
    let gated = ", gates: [{name: g, http: {url: 'https://h/', tls: {ca_file: none.crt}}}]";
    let gated = config(&home, "gated.yaml", &[("a", gated)]);
    let plain = config(&home, "plain.yaml", &[("a", "")]);
    let absent = |flag: &str| home.flag(flag, "absent");
    let serve = |flag: &str| -> Output { defragd(&["serve", &data, &plain, "--web.listen-address=127.0.0.1:0", flag]) };
    answered(
        2,
        &[
            (&["serve", &data, &absent("--config")], "absent: No such file"),
            (&["serve", &data, &plain, "--web.listen-address=0.0.0.0:0"], "pass --web.bearer-token-file"),
            (&["status", &endpoints, &cert, &absent("--key")], "cannot read the client key"),
            (&["status", &endpoints, "--user=u", &absent("--password-file")], "cannot read the password"),
            (&["pause", "--cluster=a", "--reason=x", &absent("--token-file")], "absent: No such file"),
            (&["pause", "--cluster=a", "--reason=x", "--server=127.0.0.1:1"], "is not an http:// or https:// URL"),
        ],
    );
    for (flag, code, expected) in [
        (home.flag("--web.bearer-token-file", "short"), 2, "has 5 bytes and needs at least 16"),
        // It may be written later.
        (absent("--web.bearer-token-file"), 1, "cannot read the bearer token file"),
        (absent("--web.config.file"), 1, "absent: No such file"),
    ] {
        let output = serve(&flag);
        let said = said(&output);
        assert!(output.status.code() == Some(code) && said.contains(expected), "{flag}: {said}");
        assert!(said.matches("os error").count() <= 1, "{said}");
    }

    // A port in use may be free later, a server may answer later, and a file may be written later.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--web.listen-address={}", taken.local_addr().unwrap());
    answered(
        1,
        &[
            (&["serve", &data, &plain, &address], "cannot listen on 127.0.0.1:"),
            (&["serve", &data, &keyless], "cannot read the client key"),
            (&["serve", &data, &gated], "the gate g cannot be used"),
            (&["pause", "--cluster=a", "--reason=x"], "cannot reach http://127.0.0.1:1"),
        ],
    );
}

#[test]
fn a_mistake_in_a_flag_is_reported_as_that_flag() {
    let home = home();
    let two = config(&home, "two.yaml", &[("a", ""), ("b", "")]);
    let data = home.flag("--data-dir", "journal");
    answered(
        2,
        &[
            (&["status", "--endpoints=https://a:1", "--cert=c"], "--key: is missing; it is required with --cert"),
            (
                &["status", "--endpoints=http://a:1", "--cacert=c"],
                "but --cacert is set: write https://, or remove --cacert",
            ),
            (&["gates", "--cluster=prod"], "--cluster prod: the flags describe one cluster, and its name is etcd"),
            (&["plan", "--standalone", "--endpoints=a:1", "--rule=dbSize >"], "defragd: --rule: "),
            (&["plan", "--standalone", &two, "--rule=dbSize >"], "defragd: --rule: "),
            (&["status", "--standalone", &two, "--cluster=c"], "there is no cluster \"c\"; the file has: a, b"),
            (&["plan", "--standalone", &two, "--cluster=c"], "there is no cluster \"c\"; the file has: a, b"),
            (&["run", "--standalone", &data], "there is no cluster to defragment"),
            (&["run", "--standalone", &data, &two], "choose one cluster: a, b"),
            (&["runs", "--limit=0"], "0 is not in 1.."),
            (&["status", "--password=x"], "write the password to a file"),
            (&["status", "--command-timeout=5s"], "defragd has its own time limits"),
            (&["status", "--insecure-transport=false"], "does not have this flag of etcdctl: leave it out"),
        ],
    );
}

#[test]
fn a_flag_without_effect_is_refused() {
    let home = home();
    let plain = config(&home, "plain.yaml", &[("a", "")]);
    let data = home.flag("--data-dir", "journal");
    answered(
        2,
        &[
            (&["status", "--server=http://x:1", "--endpoints=a:1"], "--server and --endpoints cannot be used together"),
            (&["plan", "--server=http://x:1", &plain], "--server and --config cannot be used together"),
            (&["serve", &data, &plain, "--cluster-name=x"], "--config and --cluster-name cannot be used together"),
            (&["status", &plain, "-d", "example.test"], "--config and --discovery-srv cannot be used together"),
            (
                &["resume", "--cluster=a", &data, "--server=http://x:1"],
                "--data-dir and --server cannot be used together",
            ),
            (&["run", "--endpoints=a:1", &data, "--compaction=older-than=1h"], "works only with `defragd serve`"),
        ],
    );
}

#[test]
fn status_and_plan_are_about_the_named_cluster() {
    let home = home();
    let two = config(&home, "two.yaml", &[("a", ""), ("b", "")]);
    let output = defragd(&["status", "--standalone", &two, "--cluster=b", "-o=json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = shown["clusters"].as_array().unwrap().iter().map(|one| one["cluster"].clone()).collect();
    assert_eq!(names, ["b"], "{shown}");
    let output = defragd(&["plan", "--standalone", &two, "--cluster=b"]);
    let said = said(&output);
    assert!(said.contains("127.0.0.1:2") && !said.contains("127.0.0.1:1:"), "{said}");
}

#[test]
fn a_bad_credential_is_reported_with_its_own_file_and_key() {
    let home = home();
    let pki = Pki::create(&home.path("pki")).unwrap();
    home.write("empty", "").unwrap();
    let cert = pki.client().cert.display();
    let auth = ", auth: {username: u, password_file: empty}";
    let tls = format!(", tls: {{cert_file: '{cert}', key_file: empty}}");
    config(&home, "both.yaml", &[("a", auth), ("b", &tls)]);
    let output = defragd(&["check-config", home.path("both.yaml").to_str().unwrap()]);
    let said = said(&output);
    let empty = home.path("empty").display().to_string();
    for expected in [
        format!("clusters[0].auth.password_file: the password {empty} is not usable: the file is empty"),
        format!(
            "clusters[1].tls.key_file: the client key {empty} is not usable: it contains no private key in PEM format"
        ),
    ] {
        assert!(said.contains(&expected), "{said}, without {expected}");
    }
    assert!(!said.contains(&cert.to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_is_not_healthy() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--url=http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/-/healthy", get(|| async { "OK" }));
    let router = router.route("/-/ready", get(|| async { "Another Server is Ready.\n" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    for page in [None, Some("--ready")] {
        let mut command = tokio::process::Command::new(binary());
        // Its own limit is three seconds, in which a busy machine need not answer.
        let output = command.args(["health", "--timeout=1m", &url]).args(page).output().await.unwrap();
        let said = said(&output);
        assert!(output.status.code() == Some(1) && said.contains("it is not from defragd: "), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_says_which_one_to_pass() {
    let home = home();
    let mut flags = Home::nowhere();
    flags.extend(home.token_flags());
    let server = home.serve(&flags).await.unwrap();
    for (token, expected) in [
        (
            None,
            "answered 401: a valid bearer token is required: pass --token-file with the file of the server's admin token",
        ),
        (Some("token"), "answered 403: this bearer token does not allow this action: the token in "),
    ] {
        let mut command = tokio::process::Command::new(binary());
        command.args(["pause", "--cluster=demo", "--reason=x", "--server", server.url()]);
        command.args(token.map(|token| home.flag("--token-file", token)));
        let output = command.output().await.unwrap();
        let said = said(&output);
        assert!(output.status.code() == Some(1) && said.contains(expected), "{said}");
    }
}
