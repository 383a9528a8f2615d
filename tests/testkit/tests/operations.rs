//! What the testkit can do to a cluster really happens to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::{
    Alertmanager, EtcdCluster, EtcdSpec, EtcdVersion, GoClients, Prometheus, Tools, Transport, fragment, until,
};
use tokio::sync::Mutex;

/// Long for anything here, also on half a processor.
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn members_are_killed_restarted_frozen_and_thawed() -> Result<()> {
    let cluster = EtcdCluster::start(&Tools::find()?, &EtcdSpec::new(EtcdVersion::V3_5)).await?;
    let before = cluster.member(1).pid();
    cluster.kill(1).await?;
    assert_eq!(cluster.member(1).pid(), None);
    assert!(cluster.status(1).await.is_err());
    cluster.restart(1).await?;
    assert_ne!(cluster.member(1).pid(), before);

    cluster.pause(2)?;
    assert!(cluster.status(2).await.is_err());
    cluster.resume(2)?;
    until("the thawed member", MINUTE, || cluster.status(2)).await?;
    cluster.ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_auth_on_every_client_is_root_and_others_are_not() -> Result<()> {
    let spec = EtcdSpec::new(EtcdVersion::V3_4).members(1).transport(Transport::Plain);
    let cluster = EtcdCluster::start(&Tools::find()?, &spec).await?;
    cluster.add_plain_user("reader", "secret").await?;
    cluster.enable_auth("very secret").await?;
    cluster.defragment(0).await?;
    assert!(cluster.etcdctl(&["user", "list"]).await?.contains("reader"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_quota_raises_nospace_on_the_members() -> Result<()> {
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).quota_bytes(16 * 1024 * 1024);
    let cluster = EtcdCluster::start(&Tools::find()?, &spec).await?;
    let mut client = cluster.client(0).await?;
    let full = loop {
        if let Err(error) = client.put("key", vec![0; 1_000_000], None).await {
            break error.to_string();
        }
    };
    assert!(full.contains("database space exceeded"), "{full}");
    let alarms = cluster.alarms().await?;
    assert_eq!(alarms, [(cluster.status(0).await?.id, "NOSPACE".to_owned())]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_restored_from_a_file_have_its_keys_and_its_free_pages() -> Result<()> {
    let tools = Tools::find()?;
    let spec = EtcdSpec::new(EtcdVersion::V3_5);
    let one = EtcdCluster::start(&tools, &spec.clone().members(1)).await?;
    fragment(&one, 20 << 20, 2 << 20).await?;
    one.stop_all().await?;
    let three = EtcdCluster::start(&tools, &spec).await?;
    three.client(0).await?.put("earlier", "", None).await?;
    three.restore(&one.member(0).data_dir().join("member/snap/db")).await?;
    for index in 0..3 {
        let mut client = three.client(index).await?;
        assert_eq!(client.get("fragment/00000000", None).await?.count(), 1);
        assert_eq!(client.get("earlier", None).await?.count(), 0);
        let status = three.status(index).await?;
        assert!(status.size >= 20 << 20 && status.in_use < 12 << 20, "{status:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn go_clients_write_read_and_watch() -> Result<()> {
    let tools = Tools::find()?;
    if let Some(why) = GoClients::missing(&tools) {
        testkit::skipped(why);
        return Ok(());
    }
    let cluster = EtcdCluster::start(&tools, &EtcdSpec::new(EtcdVersion::V3_5)).await?;
    for more in [&[][..], &["--health-checks"]] {
        let flags = [&["--leaders=0", "--listers=1"], more].concat();
        let clients = Mutex::new(GoClients::of_etcd(&tools, &cluster, &flags)?);
        until("a write, a list and an event", MINUTE, || async {
            let samples = clients.lock().await.so_far()?;
            for kind in ["write", "list", "watch"] {
                ensure!(samples.iter().any(|one| one.kind == kind && one.error.is_empty()), "no {kind} yet");
            }
            Ok(())
        })
        .await?;
        assert!(!clients.into_inner().stop().await?.is_empty());
    }
    assert_eq!(cluster.client(0).await?.get("clients/0", None).await?.count(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_and_alertmanager_serve() -> Result<()> {
    let (tools, dir) = (Tools::find()?, tempfile::tempdir()?);
    let routes = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
    let alertmanager = Alertmanager::start(&tools, routes, &dir.path().join("alertmanager.log")).await?;
    alertmanager.post(&serde_json::json!([{"labels": {"alertname": "Test"}}])).await?;
    // It takes an alert in before it shows it.
    let alert = until("the alert", MINUTE, || async {
        alertmanager.alerts().await?.into_iter().next().context("there is none yet")
    })
    .await?;
    assert_eq!(alert.labels["alertname"], "Test");

    let rules = dir.path().join("rules.yml");
    std::fs::write(&rules, "groups: [{name: g, rules: [{alert: Always, expr: vector(1)}]}]\n")?;
    let config = format!("global: {{evaluation_interval: 1s}}\nrule_files: ['{}']\n", rules.display());
    let prometheus = Prometheus::start(&tools, &config, &dir.path().join("prometheus.log")).await?;
    assert!((prometheus.query("1 + 1 + vector(0)").await?[0].value - 2.0).abs() < f64::EPSILON);
    prometheus.wait_firing("Always", MINUTE).await?;
    Ok(())
}
