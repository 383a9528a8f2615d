//! Clusters that are found by name: SRV records as etcdctl reads them, and names whose addresses change.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use testkit::{Defragd, Dns, EtcdCluster, EtcdSpec, EtcdVersion, Port, Transport, until};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::rig::{MINUTE, Rig, binary};

fn port(cluster: &EtcdCluster) -> u16 {
    cluster.endpoints()[0].rsplit(':').next().unwrap().parse().unwrap()
}

async fn one(transport: Transport) -> Rig {
    Rig::with(EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(transport)).await
}

/// Runs a command without `--endpoints`.
async fn status(rig: &Rig, dns: &Dns, extra: &[&str]) -> (Option<i32>, String) {
    let mut args = vec!["status".to_owned(), format!("--discovery-nameserver={}", dns.address())];
    args.extend(rig.cluster.connection_flags().into_iter().filter(|flag| !flag.starts_with("--endpoints")));
    args.extend(extra.iter().map(|flag| (*flag).to_owned()));
    let output = tokio::process::Command::new(binary()).args(args).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_records_are_read_as_etcdctl_reads_them() {
    let rig = one(Transport::Tls).await;
    let dns = Dns::start().await.unwrap();
    dns.set_address("etcd-1.example.test", Ipv4Addr::LOCALHOST);
    dns.set_address("localhost", Ipv4Addr::LOCALHOST);

    let (code, text) = status(&rig, &dns, &["--discovery-srv=example.test"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("_etcd-client-ssl._tcp.example.test.") && text.contains("no endpoint answered"), "{text}");

    dns.set_service("_etcd-client-ssl._tcp.example.test", &[("localhost", port(&rig.cluster))]);
    let (code, text) = status(&rig, &dns, &["--discovery-srv=example.test"]).await;
    assert!(code == Some(0) && text.contains("etcd-1"), "{text}");
    let (code, text) = status(&rig, &dns, &["-d", "example.test", "--discovery-srv-name=blue"]).await;
    assert!(code == Some(1) && text.contains("_etcd-client-ssl-blue._tcp.example.test."), "{text}");
    dns.set_service("_etcd-client-ssl-blue._tcp.example.test", &[("localhost", port(&rig.cluster))]);
    assert_eq!(status(&rig, &dns, &["-d", "example.test", "--discovery-srv-name=blue"]).await.0, Some(0));

    // The certificate is good for example.test, whatever the records call the host, and not for another domain.
    dns.set_service("_etcd-client-ssl._tcp.example.test", &[("etcd-1.example.test", port(&rig.cluster))]);
    let (code, text) = status(&rig, &dns, &["--discovery-srv=example.test"]).await;
    assert!(code == Some(1) && text.contains("certificate"), "{text}");
    let (code, text) = status(&rig, &dns, &["--discovery-srv=example.test", "--insecure-discovery=false"]).await;
    assert_eq!(code, Some(0), "{text}");
    dns.set_service("_etcd-client-ssl._tcp.other.test", &[("localhost", port(&rig.cluster))]);
    let (code, text) = status(&rig, &dns, &["--discovery-srv=other.test", "--insecure-discovery=false"]).await;
    assert!(code == Some(1) && text.contains("certificate"), "{text}");
    dns.set_service("_etcd-client._tcp.plain.test", &[("localhost", port(&rig.cluster))]);
    let (code, text) = status(&rig, &dns, &["--discovery-srv=plain.test", "--insecure-discovery=false"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("_etcd-client-ssl._tcp.plain.test.") && !text.contains("http://"), "{text}");
}

async fn serve(rig: &Rig, dns: &Dns) -> Defragd {
    let args = [
        "--discovery-srv=example.test".to_owned(),
        format!("--discovery-nameserver={}", dns.address()),
        "--cluster-name=demo".to_owned(),
        "--exporter-only".to_owned(),
    ];
    Defragd::start(binary(), &args, &rig.path("defragd.log")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_change_lead_elsewhere_without_a_restart() {
    let (rig, second) = (one(Transport::Plain).await, one(Transport::Plain).await);
    let dns = Dns::start().await.unwrap();
    dns.set_address("etcd.example.test", Ipv4Addr::LOCALHOST);
    dns.set_service("_etcd-client._tcp.example.test", &[("etcd.example.test", port(&rig.cluster))]);
    let defragd = serve(&rig, &dns).await;
    let shows = async |rig: &Rig| {
        let id = format!("{:x}", rig.cluster.status(0).await.unwrap().id);
        until("the member to be shown", MINUTE, || async {
            let up = defragd.metrics().await?.value("defragd_member_up", &[("member_id", &id)]);
            anyhow::ensure!(up == Some(1.0), "it is {up:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    shows(&rig).await;
    rig.cluster.kill(0).await.unwrap();
    dns.set_service("_etcd-client._tcp.example.test", &[("etcd.example.test", port(&second.cluster))]);
    shows(&second).await;
    // An unreachable name server does not remove known addresses. It is asked again after half a minute.
    drop(dns);
    until("a look-up in vain", 2 * MINUTE, || async {
        defragd.metrics().await?;
        anyhow::ensure!(defragd.log()?.contains("cannot look up the SRV records: using the last result"), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    shows(&second).await;
}

/// Passes connections on, and counts those for gRPC: a metrics page, which is read too where an answer is slow, has one
/// of its own. Dropping it breaks them.
struct Proxy {
    made: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn start(at: SocketAddr, to: u16) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Ends, and breaks its connections, with the proxy.
            let mut connections = JoinSet::new();
            while let Ok((mut inner, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    // HTTP/2 begins with "PRI", a page's request with "GET".
                    let mut first = [0];
                    if inner.peek(&mut first).await.is_ok() && first == *b"P" {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    let mut outer = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await.unwrap();
                    let _ = copy_bidirectional(&mut inner, &mut outer).await;
                });
            }
        });
        Self { made, _tasks: tasks }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_again_to_where_the_name_leads_by_then() {
    let mut outside = Port::reserve().unwrap();
    let number = outside.number();
    // The member publishes a name, so that nothing but the name is known.
    let spec = EtcdSpec::new(EtcdVersion::V3_5).members(1).transport(Transport::Plain);
    let rig = Rig::with(spec.arg(&format!("--advertise-client-urls=http://etcd.example.test:{number}"))).await;
    outside.release();
    let (old, new) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let first = Proxy::start((old, number).into(), port(&rig.cluster)).await;
    let second = Proxy::start((new, number).into(), port(&rig.cluster)).await;
    let dns = Dns::start().await.unwrap();
    dns.set_address("etcd.example.test", old);
    dns.set_service("_etcd-client._tcp.example.test", &[("etcd.example.test", number)]);
    let defragd = serve(&rig, &dns).await;
    let up = || async {
        let up = defragd.metrics().await?.value("defragd_member_up", &[("etcd_cluster", "demo")]);
        anyhow::ensure!(up == Some(1.0), "it is {up:?}");
        anyhow::Ok(())
    };
    until("the member to be up", MINUTE, up).await.unwrap();
    assert!(first.made() > 0);

    dns.set_address("etcd.example.test", new);
    for _ in 0..3 {
        up().await.unwrap();
    }
    assert_eq!(second.made(), 0, "a connection that works is kept");
    drop(first);
    until("the member to be up again", MINUTE, up).await.unwrap();
    assert!(second.made() > 0);
}
