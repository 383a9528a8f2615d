//! What defragd shows on a terminal, and how wide it is.

use std::process::Command;

use testkit::EtcdVersion;

use crate::rig::{Rig, binary};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_shows_its_number_how_long_it_still_checks_and_what_it_did_in_total() {
    // An election in a pause would begin its countdown anew.
    let rig = Rig::steady(EtcdVersion::V3_5).await;
    let run = rig.command("run", &["--pause-between-members=2s"]).await;
    let (out, err) = (text(&run.stdout), text(&run.stderr));
    assert_eq!(run.status.code(), Some(0), "{err}");
    assert!(err.lines().next().unwrap().ends_with("] run 1 of cluster etcd"), "{err}");
    assert_eq!(err.matches("] checking that the cluster stays healthy (0 of 2 s)\n").count(), 3, "{err}");
    assert!(!err.contains('\r'), "a file or pipe has no lines to overwrite: {err:?}");
    let totals = out.lines().last().unwrap();
    assert!(totals.starts_with("Run 1: 3 members defragmented in ") && totals.ends_with(" MiB freed."), "{out}");

    // On a terminal the countdown replaces itself, and the next line replaces the countdown.
    rig.fragment().await;
    let mut args = vec![binary().display().to_string(), "run".to_owned(), "--pause-between-members=4s".to_owned()];
    args.extend(rig.flags().into_iter().filter(|flag| !flag.starts_with("--pause")));
    let run = Command::new("script").args(["-qec", &args.join(" "), "/dev/null"]).output().unwrap();
    let shown = text(&run.stdout);
    assert!(run.status.success(), "{shown}");
    let replaced = |second: u32| shown.contains(&format!("({second} of 4 s)\r\u{1b}[K["));
    assert!(replaced(0), "{shown:?}");
    // It is written when the cluster is observed, which a busy machine does less often than once a second.
    assert!((1..4).any(replaced), "{shown:?}");
    assert!(!shown.contains(" of 4 s)\r\n"), "{shown:?}");
    assert!(shown.contains("Run 2: 3 members defragmented in "), "{shown}");
}

/// `defragd status` with these variables, and what it writes to standard error.
fn status_with(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(binary()).arg("status").args(args).envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn an_etcdctl_variable_that_is_not_used_is_named_and_its_value_is_not_shown() {
    let here = "--endpoints=http://127.0.0.1:1";
    let (code, err) = status_with(&[here], &[("ETCDCTL_PASSWORD", "s3cret"), ("ETCDCTL_API", "3")]);
    assert_eq!(code, Some(1), "{err}");
    let warning =
        "defragd: warning: ETCDCTL_PASSWORD is ignored: write the password to a file, and set ETCDCTL_PASSWORD_FILE";
    assert!(err.contains(warning) && !err.contains("s3cret") && !err.contains("ETCDCTL_API"), "{err}");
    let (code, err) = status_with(&[here], &[("ETCDCTL_USER", "root:s3cret")]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("ETCDCTL_USER takes only a name") && !err.contains("s3cret"), "{err}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "clusters: [{name: a, endpoints: ['http://127.0.0.1:1']}]").unwrap();
    let config = format!("--config={}", file.display());
    let (_, err) = status_with(&[&config], &[("ETCDCTL_ENDPOINTS", "http://127.0.0.1:2")]);
    assert!(err.contains("ETCDCTL_ENDPOINTS is ignored: the configuration file says how to connect"), "{err}");
}
