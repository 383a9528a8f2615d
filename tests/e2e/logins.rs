//! Logins: repeated when etcd no longer knows the token, not repeated when etcd rejects them.

use std::{fs, path::Path};

use defragd::{
    adapters::etcd::{CredentialFiles, EtcdCluster as Adapter, Sources},
    core::cluster::{Alarm, AlarmKind},
    ports::{
        access::User,
        etcd::{Etcd, Permitted},
    },
};
use testkit::{Defragd, EtcdSpec, EtcdVersion, Transport, on_version, until};

use crate::{
    faults::{received, versions},
    rig::{MINUTE, Rig},
};

const PASSWORD: &str = "s3cret-of-root";

/// Members whose tokens are signed, and hold the revision of the users at the time of the login.
async fn with_signed_tokens(version: EtcdVersion, dir: &Path) -> Rig {
    let key = dir.join("jwt.key");
    fs::write(&key, "a secret of sixteen bytes or more").unwrap();
    let token = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl=10m", key.display());
    let rig = Rig::with(EtcdSpec::new(version).transport(Transport::Plain).arg(&token).patient()).await;
    rig.cluster.enable_auth(PASSWORD).await.unwrap();
    rig
}

fn logged_in(rig: &Rig) -> Adapter {
    let password = rig.path("password");
    fs::write(&password, PASSWORD).unwrap();
    let user = User { username: "root".to_owned(), password_file: password };
    let files = CredentialFiles { user: Some(user), ..CredentialFiles::default() };
    Adapter::open(Sources { endpoints: rig.cluster.endpoints(), files, ..Sources::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_users_costs_a_new_login_and_no_call() {
    let dir = tempfile::tempdir().unwrap();
    for version in versions().into_iter().filter(|version| *version != EtcdVersion::V3_4) {
        let rig = with_signed_tokens(version, dir.path()).await;
        let etcd = logged_in(&rig);
        let members = etcd.members().await.unwrap().members;
        let leader = rig.cluster.leader().await.unwrap();
        let id = rig.cluster.status(leader).await.unwrap().id;
        let leader = members.iter().find(|member| member.id.0 == id).unwrap();
        let other = members.iter().find(|member| member.id.0 != id).unwrap();
        for member in &members {
            etcd.linearizable_read(member).await.unwrap();
        }
        // Each after a change of its own, by which all logins are old.
        let mut number = 0;
        let mut change = async || {
            number += 1;
            let user = format!("user-{number}");
            rig.cluster.client(0).await.unwrap().user_add(user, "password", None).await.unwrap();
        };
        change().await;
        etcd.linearizable_read(other).await.unwrap();
        change().await;
        etcd.alarms(other).await.unwrap();
        change().await;
        etcd.members().await.unwrap();
        change().await;
        let revision = etcd.status(other).await.unwrap().revision;
        change().await;
        etcd.compact(other, revision).await.unwrap();
        change().await;
        etcd.disarm(other, Alarm { kind: AlarmKind::NoSpace, member: Some(other.id) }).await.unwrap();
        change().await;
        etcd.defragment(other, &Permitted).await.unwrap();
        change().await;
        etcd.move_leader(leader, other).await.unwrap();
        assert_eq!(received(&rig.cluster).iter().sum::<usize>(), 1, "{version}");
    }
}

/// How often a client tried to log in, by the member's own count.
async fn tries(rig: &Rig) -> u64 {
    let labels = [("grpc_method", "Authenticate")];
    rig.cluster.metrics(0).await.unwrap().count("grpc_server_started_total", &labels).unwrap_or(0)
}

async fn becomes_up(defragd: &Defragd) {
    until("the cluster to be up", MINUTE, || async {
        let up = defragd.metrics().await?.value("defragd_cluster_up", &[("etcd_cluster", "demo")]);
        anyhow::ensure!(up == Some(1.0), "it is {up:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_password_is_not_tried_again_at_every_scrape_and_a_new_one_at_once() {
    // A release where `Status` needs a login.
    on_version(EtcdVersion::V3_6, rejected_and_replaced).await;
}

async fn rejected_and_replaced(version: EtcdVersion) {
    let rig = Rig::with(EtcdSpec::new(version).members(1).transport(Transport::Plain)).await;
    rig.cluster.enable_auth(PASSWORD).await.unwrap();
    let password = rig.path("password");
    fs::write(&password, "wrong\n").unwrap();
    let before = tries(&rig).await;
    let file = format!("--password-file={}", password.display());
    let defragd = rig.serve(&["--user=root", &file, "--exporter-only"]).await;
    // Its own observation at the start has made the one try. A scrape beside it waits half a second for its turn and
    // then logs in itself, and on a busy machine etcd compares passwords for longer.
    defragd.logs("the next login attempt is at", MINUTE).await.unwrap();
    for _ in 0..5 {
        let metrics = defragd.metrics().await.unwrap();
        let reason = [("etcd_cluster", "demo"), ("reason", "login_refused")];
        assert_eq!(metrics.value("defragd_cluster_error", &reason), Some(1.0), "{}", metrics.text());
    }
    assert_eq!(tries(&rig).await - before, 1, "one try for all of them");
    fs::write(&password, PASSWORD).unwrap();
    becomes_up(&defragd).await;
    let logged_in = tries(&rig).await - before;
    assert_eq!(logged_in, 2);
    for _ in 0..5 {
        becomes_up(&defragd).await;
    }
    assert_eq!(tries(&rig).await - before, logged_in, "one login lasts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_forgotten_the_login_is_logged_in_to_anew_and_defragmented_once() {
    for version in versions() {
        let rig = Rig::with(EtcdSpec::new(version).members(1).transport(Transport::Plain)).await;
        rig.cluster.enable_auth(PASSWORD).await.unwrap();
        let etcd = logged_in(&rig);
        let member = etcd.members().await.unwrap().members.remove(0);
        etcd.linearizable_read(&member).await.unwrap();
        // It keeps simple tokens in memory. Up to 3.5 `Status` asks for none, so Defragment is the first to be denied.
        rig.cluster.restart(0).await.unwrap();
        etcd.defragment(&member, &Permitted).await.unwrap();
        assert_eq!(rig.defrags().await, [1], "{version}");
    }
}
