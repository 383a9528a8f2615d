//! Each etcd version that is here: start, write, fragment, defragment, and the servers' own word for it.

use anyhow::Result;
use testkit::{DefragWatch, EtcdCluster, EtcdSpec, EtcdVersion, Tools, Transport, Writer, fragment, on_each_version};

const MIB: u64 = 1024 * 1024;

async fn smoke(version: EtcdVersion) {
    let transport = if version == EtcdVersion::V3_5 { Transport::TlsEverywhere } else { Transport::Tls };
    defragments(version, transport).await.expect("the cluster to be defragmented");
}

async fn defragments(version: EtcdVersion, transport: Transport) -> Result<()> {
    let tools = Tools::find()?;
    let cluster = EtcdCluster::start(&tools, &EtcdSpec::new(version).transport(transport)).await?;
    assert!(cluster.status(0).await?.version.starts_with(cluster.version().as_str()));

    let mut writer = Writer::start(&cluster).await?;
    let fragmented = fragment(&cluster, 20 * MIB, 2 * MIB).await?;
    eprintln!("{version}: {fragmented:?}");

    let watch = DefragWatch::start(&cluster)?;
    cluster.move_leader(2).await?;
    for index in [1, 0, 2] {
        assert_eq!(cluster.defrags_done(index).await?, 0);
        cluster.defragment(index).await?;
        assert_eq!(cluster.defrags_done(index).await?, 1);
        assert!(!cluster.defrag_inflight(index).await?);
        assert!(cluster.status(index).await?.size < 20 * MIB);
    }
    let timeline = watch.stop().await;
    assert_eq!(timeline.order(), [1, 0, 2]);
    assert_eq!(timeline.max_in_flight(), 1);

    let report = writer.stop().await?;
    eprintln!("{version}: {report:?}");
    assert!(report.acked > 0);
    assert_eq!(writer.verify(&cluster).await?, report.acked);
    assert!(cluster.etcdctl(&["member", "list"]).await?.contains("etcd-3"));
    Ok(())
}

on_each_version! { etcd _ is_fragmented_and_defragmented => smoke }

#[tokio::test(flavor = "multi_thread")]
async fn a_single_member_without_tls_works() -> Result<()> {
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
    let cluster = EtcdCluster::start(&Tools::find()?, &spec).await?;
    assert!(cluster.leader().await? == 0);
    assert!(cluster.alarms().await?.is_empty());
    Ok(())
}
