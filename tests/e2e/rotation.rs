//! Certificates, keys, authorities and passwords that change while defragd serves: loaded without a restart if they
//! are complete, and never at the cost of a Defragment under way.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use testkit::{Defragd, EtcdSpec, EtcdVersion, Identity, Pki, Transport, until};

use crate::{
    faults::{self, received},
    rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing},
};

const GOOD: &str = "defragd_etcd_credentials_last_reload_successful";

/// A directory as Kubernetes mounts a secret: links through `..data`, which one rename swaps.
struct Mount {
    dir: PathBuf,
    versions: usize,
}

impl Mount {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), dir.join(file)).unwrap();
        }
        Self { dir, versions: 0 }
    }

    fn publish(&mut self, ca: &Path, identity: &Identity) {
        self.versions += 1;
        let version = format!("..v{}", self.versions);
        let inside = self.dir.join(&version);
        fs::create_dir(&inside).unwrap();
        for (from, to) in [(ca, "ca.crt"), (&identity.cert, "tls.crt"), (&identity.key, "tls.key")] {
            fs::copy(from, inside.join(to)).unwrap();
        }
        symlink(&version, self.dir.join("..next")).unwrap();
        fs::rename(self.dir.join("..next"), self.dir.join("..data")).unwrap();
    }

    fn flags(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.dir.join(name).display());
        vec![file("cacert", "ca.crt"), file("cert", "tls.crt"), file("key", "tls.key")]
    }
}

async fn serve(rig: &Rig, mount: &Mount) -> Defragd {
    let mut args = vec![format!("--endpoints={}", rig.cluster.endpoints().join(",")), "--cluster-name=demo".to_owned()];
    args.extend(mount.flags());
    // No member meets the rule, and without its quota it is unknown whether one does.
    args.push("--rule=dbQuota < 1".to_owned());
    args.push(format!("--data-dir={}", rig.path("journal").display()));
    Defragd::start(binary(), &args, &rig.path("defragd.log")).await.unwrap()
}

/// Waits until a sample of the cluster has this value.
async fn becomes(defragd: &Defragd, name: &str, value: f64) {
    until(&format!("{name} to be {value}"), MINUTE, || async {
        let now = defragd.metrics().await?.value(name, &[("etcd_cluster", "demo")]);
        anyhow::ensure!(now == Some(value), "it is {now:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until the cluster is away because of its certificates, not because it does not run.
async fn fails_for_tls(defragd: &Defragd) {
    // Not at every observation: the server's reset may overtake its own alert.
    until("the reason", MINUTE, || async {
        let reason = [("etcd_cluster", "demo"), ("reason", "tls")];
        let reported = defragd.metrics().await?.value("defragd_cluster_error", &reason);
        anyhow::ensure!(reported == Some(1.0), "{}", defragd.log()?);
        Ok(())
    })
    .await
    .unwrap();
}

/// A member that defragd reaches with the credentials in a mount.
async fn reached() -> (Rig, Mount, Defragd) {
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).members(1)).await;
    let pki = rig.cluster.pki().unwrap();
    let mut mount = Mount::new(rig.path("secret"));
    mount.publish(pki.ca(), pki.client());
    let defragd = serve(&rig, &mount).await;
    becomes(&defragd, "defragd_cluster_up", 1.0).await;
    (rig, mount, defragd)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_is_taken_and_a_broken_pair_is_not() {
    let (rig, mut mount, defragd) = reached().await;
    let pki = rig.cluster.pki().unwrap();
    becomes(&defragd, GOOD, 1.0).await;

    // The certificate of one and the key of the other, as between two writes.
    let other = pki.client_named("other").unwrap();
    mount.publish(pki.ca(), &Identity { cert: other.cert.clone(), key: pki.client().key.clone() });
    becomes(&defragd, GOOD, 0.0).await;
    let metrics = defragd.metrics().await.unwrap();
    assert_eq!(metrics.value("defragd_member_up", &[("etcd_cluster", "demo")]), Some(1.0), "the old one stays in use");
    let log = defragd.log().unwrap();
    assert!(log.contains("the changed credentials are invalid") && log.contains("do not belong together"), "{log}");
    mount.publish(pki.ca(), pki.client());
    becomes(&defragd, GOOD, 1.0).await;
    let log = defragd.log().unwrap();
    assert!(log.contains("the credentials are valid again"), "{log}");

    // One that the server no longer accepts: a new connection made with it shows that it is in use.
    mount.publish(pki.ca(), &pki.expired_client().unwrap());
    becomes(&defragd, "defragd_cluster_up", 0.0).await;
    becomes(&defragd, GOOD, 1.0).await;
    fails_for_tls(&defragd).await;

    mount.publish(pki.ca(), &other);
    becomes(&defragd, "defragd_cluster_up", 1.0).await;
    becomes(&defragd, "defragd_member_up", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_with_another_authority_is_reached_without_a_restart() {
    let (rig, mut mount, defragd) = reached().await;
    let pki = rig.cluster.pki().unwrap();

    let next = Pki::create(&rig.path("next")).unwrap();
    let dir = pki.ca().parent().unwrap();
    for name in ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"] {
        fs::copy(next.ca().parent().unwrap().join(name), dir.join(name)).unwrap();
    }
    rig.cluster.restart(0).await.unwrap();
    becomes(&defragd, "defragd_cluster_up", 0.0).await;
    fails_for_tls(&defragd).await;
    mount.publish(next.ca(), next.client());
    becomes(&defragd, "defragd_cluster_up", 1.0).await;
    becomes(&defragd, "defragd_member_up", 1.0).await;
    // Scrapes remember a quota; a plan reads the metrics page, the only place where 3.5 has it.
    let plan = defragd.json("/api/v1/clusters/demo/plan").await.unwrap();
    assert_eq!(plan["steps"][0]["reason"]["code"], "rule_not_met", "the page is reached with them, too: {plan:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_the_certificates_change_in_the_middle_of_a_member() {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let pki = rig.cluster.pki().unwrap();
    let mut mount = Mount::new(rig.path("secret"));
    mount.publish(pki.ca(), pki.client());
    let flags = mount.flags();
    let mut extra: Vec<&str> = flags.iter().map(String::as_str).collect();
    extra.push("--mode=enforce");
    let defragd = rig.serve(&extra).await;
    let held = faults::hold(&rig).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    faults::defragmenting(&rig.cluster).await;
    mount.publish(pki.ca(), &pki.client_named("next").unwrap());
    until("the change to be taken", MINUTE, || async {
        anyhow::ensure!(defragd.log()?.contains("credentials reloaded"), "it is not");
        Ok(())
    })
    .await
    .unwrap();
    drop(held);
    let run = ended_run(&defragd, 1).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    assert_eq!(received(&rig.cluster), [1, 1, 1]);
    rig.assert_tight().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_is_taken_up() {
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
    let rig = Rig::with(spec).await;
    rig.cluster.enable_auth("old-s3cret").await.unwrap();
    let password = rig.path("password");
    fs::write(&password, "old-s3cret\n").unwrap();
    let file = format!("--password-file={}", password.display());
    let defragd = rig.serve(&["--user=root", &file, "--exporter-only"]).await;
    becomes(&defragd, "defragd_cluster_up", 1.0).await;
    let mut root = rig.cluster.client(0).await.unwrap();
    root.user_change_password("root", "new-s3cret").await.unwrap();
    fs::write(&password, "").unwrap();
    becomes(&defragd, GOOD, 0.0).await;
    fs::write(&password, "new-s3cret\n").unwrap();
    becomes(&defragd, GOOD, 1.0).await;
    becomes(&defragd, "defragd_cluster_up", 1.0).await;
    becomes(&defragd, "defragd_member_up", 1.0).await;
    assert!(!defragd.log().unwrap().contains("s3cret"));
}
