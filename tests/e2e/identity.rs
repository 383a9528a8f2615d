//! Where calls go: to addresses with the configured scheme, to the address that works, to the intended member.

use std::sync::Arc;

use defragd::{
    adapters::etcd::{EtcdCluster as Adapter, Sources},
    core::{
        cluster::{Alarm, AlarmKind, Member, UnknownKind},
        run::DefragError,
    },
    ports::etcd::{Etcd, Permitted, Visit},
};
use parking_lot::Mutex;
use serde_json::json;
use testkit::{Defragd, EtcdSpec, EtcdVersion, Exposition, Transport, until};

use crate::{
    faults::received,
    listeners::{Recorder, Relay},
    rig::{MINUTE, Rig, binary},
};

const PASSWORD: &str = "s3cret-of-root";

fn port(url: &str) -> u16 {
    url.rsplit_once(':').unwrap().1.parse().unwrap()
}

async fn status(rig: &Rig, extra: &[&str]) -> (Option<i32>, String) {
    let output = rig.command("status", extra).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// One member with TLS and authentication; the flags that log root in.
async fn guarded(spec: EtcdSpec) -> (Rig, [String; 2]) {
    let rig = Rig::with(spec).await;
    rig.cluster.enable_auth(PASSWORD).await.unwrap();
    std::fs::write(rig.path("password"), PASSWORD).unwrap();
    let login = ["--user=root".to_owned(), format!("--password-file={}", rig.path("password").display())];
    (rig, login)
}

/// Scrapes until the only member is up and its quota is known. Before 3.6 that is on its metrics page, for which a
/// scrape waits two seconds and no longer.
async fn is_measured(defragd: &Defragd) {
    until("the member's quota", MINUTE, || async {
        let metrics = defragd.metrics().await?;
        let up = metrics.value("defragd_member_up", &[("etcd_cluster", "demo")]);
        let quota = metrics.value("defragd_member_db_quota_bytes", &[]);
        anyhow::ensure!(up == Some(1.0) && quota.is_some(), "{}", metrics.text());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_in_clear_text_to_a_member_of_a_cluster_that_is_reached_by_tls() {
    let recorder = Recorder::before_all_members().await;
    let url = format!("http://127.0.0.1:{}", recorder.port());
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).arg(&format!("--advertise-client-urls={url}"));
    let (rig, login) = guarded(spec).await;
    let login = [login[0].as_str(), login[1].as_str()];
    let (code, text) = status(&rig, &login).await;
    assert!(!recorder.has_received(PASSWORD), "root's password went out in clear text");
    assert_eq!((code, recorder.connections()), (Some(1), 0), "{text}");
    let says = format!("{url} is not dialled: this cluster is configured with TLS, but that URL is without");
    assert!(text.contains(&says) && text.contains("--advertise-client-urls"), "{text}");

    let defragd = rig.serve(&[login[0], login[1], "--exporter-only"]).await;
    for _ in 0..2 {
        let metrics = defragd.metrics().await.unwrap();
        assert_eq!(metrics.value("defragd_cluster_up", &[("etcd_cluster", "demo")]), Some(1.0));
        assert_eq!(metrics.value("defragd_member_up", &[("etcd_cluster", "demo")]), Some(0.0));
        assert_eq!(metrics.value("defragd_member_error", &[("reason", "tls")]), Some(1.0), "{}", metrics.text());
    }
    assert_eq!(defragd.log().unwrap().matches(&says).count(), 1, "it is logged once");
    assert_eq!(recorder.connections(), 0, "nor is the member's metrics page asked there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_the_member_within_the_scheme_is_used_instead() {
    let recorder = Recorder::before_all_members().await;
    let url = format!("http://127.0.0.1:{}", recorder.port());
    let (rig, login) = guarded(EtcdSpec::new(EtcdVersion::V3_5).members(1).publishes_also(&url)).await;
    let (code, text) = status(&rig, &[&login[0], &login[1]]).await;
    assert!(code == Some(0) && text.contains(rig.cluster.endpoints()[0].as_str()), "{text}");
    let defragd = rig.serve(&[&login[0], &login[1], "--exporter-only"]).await;
    is_measured(&defragd).await;
    assert_eq!(recorder.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_a_cluster_with_tls_dials_nothing_without() {
    let recorder = Recorder::before_all_members().await;
    let url = format!("http://127.0.0.1:{}", recorder.port());
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).arg(&format!("--advertise-client-urls={url}"));
    let (rig, _) = guarded(spec).await;
    let own = port(&rig.cluster.endpoints()[0]);
    let pki = rig.cluster.pki().unwrap();
    let config = json!({"modules": {"lab": {
        "tls": {"ca_file": pki.ca(), "cert_file": pki.client().cert, "key_file": pki.client().key},
        "auth": {"username": "root", "password_file": rig.path("password")},
        "allowed_targets": ["127.0.0.1"], "allowed_ports": [own, recorder.port()],
    }}});
    std::fs::write(rig.path("probe.yaml"), config.to_string()).unwrap();
    let args = [format!("--config={}", rig.path("probe.yaml").display()), "--exporter-only".to_owned()];
    let defragd = Defragd::start(binary(), &args, &rig.path("probe.log")).await.unwrap();
    let answer = defragd.get(&format!("/probe?module=lab&target=127.0.0.1:{own}")).await.unwrap();
    let page = Exposition::new(answer.body);
    assert_eq!(page.value("defragd_cluster_up", &[]), Some(1.0), "{}", page.text());
    assert_eq!(page.value("defragd_member_up", &[]), Some(0.0), "{}", page.text());
    assert_eq!(recorder.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_reached_by_its_next_url_where_the_first_leads_nowhere() {
    // Nobody listens there, and it sorts before the member's own.
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
    let rig = Rig::with(spec.publishes_also("http://127.0.0.1:1")).await;
    let defragd = rig.serve(&["--exporter-only"]).await;
    is_measured(&defragd).await;
    rig.fragment().await;
    let done = rig.command("run", &["--allow-without-quorum-slack"]).await;
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(0) && text.contains("Succeeded"), "{text}");
    assert_eq!(received(&rig.cluster), [1]);
    // Where no URL works, each is named.
    rig.cluster.stop(0).await.unwrap();
    until("the member to be down", MINUTE, || async {
        let up = defragd.metrics().await?.value("defragd_member_up", &[("etcd_cluster", "demo")]);
        anyhow::ensure!(up == Some(0.0), "it is {up:?}");
        Ok(())
    })
    .await
    .unwrap();
    rig.cluster.restart(0).await.unwrap();
    until("the member to be up again", MINUTE, || async {
        let up = defragd.metrics().await?.value("defragd_member_up", &[("etcd_cluster", "demo")]);
        anyhow::ensure!(up == Some(1.0), "it is {up:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_accepts_and_says_nothing_is_passed_over_and_the_one_that_works_is_remembered() {
    let recorder = Recorder::before_all_members().await;
    let url = format!("https://127.0.0.1:{}", recorder.port());
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).members(1).publishes_also(&url)).await;
    let defragd = rig.serve(&["--exporter-only"]).await;
    until("the member to be up", MINUTE, || async {
        let up = defragd.metrics().await?.value("defragd_member_up", &[("etcd_cluster", "demo")]);
        anyhow::ensure!(up == Some(1.0), "it is {up:?}");
        Ok(())
    })
    .await
    .unwrap();
    let tried = recorder.connections();
    assert!(tried > 0);
    for _ in 0..3 {
        let up = defragd.metrics().await.unwrap().value("defragd_member_up", &[("etcd_cluster", "demo")]);
        assert_eq!(up, Some(1.0));
    }
    assert_eq!(recorder.connections(), tried, "it is not tried again while another one works");
}

/// Three members, and a proxy in front of the first one that a client takes for it.
async fn relayed() -> (Rig, Relay, Adapter, Vec<Member>) {
    // Which of them leads is up to the test.
    let rig = Rig::with(EtcdSpec::new(EtcdVersion::V3_5).transport(Transport::Plain).patient()).await;
    let relay = Relay::to(port(&rig.cluster.endpoints()[0])).await;
    let etcd = Adapter::open(Sources { endpoints: rig.cluster.endpoints(), ..Sources::default() }).unwrap();
    let mut members = etcd.members().await.unwrap().members;
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members[0].client_urls = vec![relay.url()];
    (rig, relay, etcd, members)
}

#[tokio::test(flavor = "multi_thread")]
async fn defragment_goes_out_on_the_connection_whose_peer_was_verified_or_not_at_all() {
    let (rig, relay, etcd, members) = relayed().await;
    let second = port(&rig.cluster.endpoints()[1]);
    let relay = Arc::new(Mutex::new(relay));
    // The permit is requested after the check and before the RPC.
    let meanwhile = Arc::clone(&relay);
    let permit = move || {
        meanwhile.lock().lead_to(second);
        None
    };
    let sent = etcd.defragment(&members[0], &permit).await;
    assert_eq!(received(&rig.cluster), [0, 0, 0], "{sent:?}");
    assert!(matches!(sent, Err(DefragError::NotSent(_))), "{sent:?}");
    // By now it leads to another member for good, which says so itself.
    let sent = etcd.defragment(&members[0], &Permitted).await;
    assert!(
        matches!(&sent, Err(DefragError::NotSent(unknown)) if unknown.kind == UnknownKind::WrongMember),
        "{sent:?}"
    );
    relay.lock().lead_to(port(&rig.cluster.endpoints()[0]));
    etcd.defragment(&members[0], &Permitted).await.unwrap();
    assert_eq!(received(&rig.cluster), [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_a_cluster_is_sent_to_no_other_member_after_a_reconnect() {
    let (rig, relay, etcd, members) = relayed().await;
    rig.cluster.move_leader(0).await.unwrap();
    let mut writer = rig.cluster.client(1).await.unwrap();
    for value in ["1", "2", "3"] {
        writer.put("key", value, None).await.unwrap();
    }
    let revision = etcd.status(&members[0]).await.unwrap().revision;
    relay.lead_to(port(&rig.cluster.endpoints()[1]));
    let wrong = |fact: Result<(), defragd::core::cluster::Unknown>| match fact {
        Err(unknown) => assert_eq!(unknown.kind, UnknownKind::WrongMember, "{unknown}"),
        Ok(()) => panic!("another member was taken for it"),
    };
    wrong(etcd.compact(&members[0], revision).await);
    wrong(etcd.move_leader(&members[0], &members[2]).await);
    wrong(etcd.disarm(&members[0], Alarm { kind: AlarmKind::NoSpace, member: Some(members[0].id) }).await);
    wrong(etcd.alarms(&members[0]).await.map(drop));
    let old = etcd_client_get_at(&rig, i64::try_from(revision).unwrap() - 1).await;
    assert!(old.is_ok(), "the history is still there: {old:?}");
    assert_eq!(rig.cluster.leader().await.unwrap(), 0);

    relay.lead_to(port(&rig.cluster.endpoints()[0]));
    etcd.compact(&members[0], revision).await.unwrap();
    etcd.move_leader(&members[0], &members[2]).await.unwrap();
    until("the new leader", MINUTE, || async {
        let leader = rig.cluster.leader().await?;
        anyhow::ensure!(leader == 2, "it is {leader}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(etcd_client_get_at(&rig, i64::try_from(revision).unwrap() - 1).await.is_err(), "it is compacted now");
    assert!(etcd.gauges(&members[0], Visit::Single).await.is_ok());
}

async fn etcd_client_get_at(rig: &Rig, revision: i64) -> anyhow::Result<()> {
    let mut client = rig.cluster.client(1).await?;
    let options = etcd_client::GetOptions::new().with_revision(revision);
    client.get("key", Some(options)).await?;
    Ok(())
}
