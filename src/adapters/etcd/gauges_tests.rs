use super::*;

fn connection() -> super::super::Connection {
    let files = super::super::CredentialFiles::default();
    let read = files.read().expect("no files");
    super::super::Connection::new(&files, read, &super::super::Sources::default()).expect("no files")
}

#[test]
fn a_page_is_the_same_however_it_is_cut() {
    let page = "# HELP x y\netcd_disk_defrag_inflight 1\r\n\netcd_mvcc_db_total_size_in_bytes 5\n\
                etcd_server_quota_backend_bytes 7";
    let whole = read(page);
    assert_eq!(
        (whole.defrag_in_flight, whole.db_size, whole.quota),
        (Some(true), Some(ByteSize(5)), Some(ByteSize(7)))
    );
    for size in 1..page.len() {
        let mut reader = Reader::default();
        page.as_bytes().chunks(size).for_each(|chunk| reader.take(chunk));
        assert_eq!(reader.end(), whole, "in pieces of {size}");
    }
}

#[test]
fn the_page_of_a_busy_member_is_read() {
    let page = "# HELP etcd_disk_defrag_inflight Whether or not defrag is active on the member.\n\
                # TYPE etcd_disk_defrag_inflight gauge\n\
                etcd_disk_defrag_inflight 1\n\
                etcd_server_quota_backend_bytes 2.147483648e+09\n\
                etcd_mvcc_db_total_size_in_bytes 1.48e+09\n\
                etcd_mvcc_db_total_size_in_use_in_bytes NaN\n";
    let gauges = read(page);
    assert_eq!(gauges.defrag_in_flight, Some(true));
    assert_eq!(gauges.quota, Some(ByteSize::gib(2)));
    assert_eq!(gauges.db_size, Some(ByteSize(1_480_000_000)));
    assert_eq!(gauges.db_size_in_use, None);
}

#[test]
fn snapshots_that_are_being_sent_are_counted() {
    let started = |count: u32| {
        format!(
            "grpc_server_started_total{{grpc_method=\"Snapshot\",grpc_service=\"etcdserverpb.Maintenance\",\
             grpc_type=\"server_stream\"}} {count}\n\
             grpc_server_started_total{{grpc_method=\"Status\",grpc_type=\"unary\"}} 50\n"
        )
    };
    let handled = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Snapshot\"} 2\n\
                   grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Snapshot\"} 1\n\
                   grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Status\"} 49\n";
    let open = |page: &str| read(page).open_snapshots;
    assert_eq!(open(&format!("{}{handled}", started(3))), Some(0));
    assert_eq!(open(&format!("{handled}{}", started(5))), Some(2));
    // A counter that was read before its counterpart rose.
    assert_eq!(open(&format!("{}{handled}", started(2))), Some(0));
    let to_member = "etcd_network_snapshot_send_inflights_total{To=\"8e9e05c52164694d\"} 1\n";
    assert_eq!(open(&format!("{}{handled}{to_member}", started(4))), Some(2));
    assert_eq!(open(to_member), None, "whether a client has one open is not known");
}

#[tokio::test]
async fn a_page_that_leads_elsewhere_is_not_followed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let bind = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound") };
    let (member, elsewhere) = (bind().await, bind().await);
    let to = elsewhere.local_addr().expect("an address");
    let url = format!("http://{}/metrics", member.local_addr().expect("an address"));
    let answering = tokio::spawn(async move {
        let (mut stream, _) = member.accept().await.expect("asked");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{to}/metrics\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("sent");
    });
    let connection = connection();
    let answer = fetch(connection.http(&url).expect("plain"), &url, Visit::Single).await.expect_err("not followed");
    assert!(answer.detail.contains("answered 302"), "{}", answer.detail);
    answering.await.expect("no panic");
    let asked = tokio::time::timeout(Duration::from_millis(100), elsewhere.accept()).await;
    assert!(asked.is_err(), "the redirect was followed");
}

#[tokio::test]
async fn a_connection_is_kept_only_where_the_next_visit_is_near() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let member = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}/metrics", member.local_addr().expect("an address"));
    let accepted = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = member.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut request = [0; 1024];
                while stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("sent");
                }
            });
        }
    });
    let connection = connection();
    let visits = [Visit::Repeated, Visit::Repeated, Visit::Single, Visit::Single, Visit::Repeated];
    let mut connections = Vec::new();
    for visit in visits {
        fetch(connection.http(&url).expect("plain"), &url, visit).await.expect("a page");
        connections.push(accepted.load(Ordering::SeqCst));
    }
    assert_eq!(connections, [1, 1, 1, 2, 3], "so many so far, after {visits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_longer_for_a_page_than_a_scrape() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // The kernel accepts connections, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/metrics", silent.local_addr().expect("an address"));
    let connection = connection();
    for (visit, limit) in [(Visit::Single, SCRAPE_LIMIT), (Visit::Repeated, RUN_LIMIT)] {
        let begun = tokio::time::Instant::now();
        let answer = fetch(connection.http(&url).expect("plain"), &url, visit).await;
        assert_eq!(answer.expect_err("no answer").kind, UnknownKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), limit.as_secs(), "{visit:?}, in virtual time");
    }
}

#[test]
fn a_page_says_whose_it_is_and_which_gates_are_on() {
    let page = "etcd_server_feature_enabled{name=\"StopGRPCServiceOnDefrag\",stage=\"ALPHA\"} 1\n\
                etcd_server_feature_enabled{name=\"NonBlockingDefrag\",stage=\"BETA\"} 0\n\
                etcd_server_id{server_id=\"8e9e05c52164694d\"} 1\n";
    let mut reader = Reader::default();
    reader.take(page.as_bytes());
    assert_eq!(reader.whose, Some(MemberId(0x8e9e_05c5_2164_694d)));
    let gauges = reader.end();
    assert_eq!((gauges.stop_grpc_on_defrag, gauges.non_blocking_defrag), (Some(true), Some(false)));
    for foreign in ["", "server_id=\"\"", "server_id=\"ten\"", "id=\"1\""] {
        assert_eq!(member_id(foreign), None, "{foreign}");
    }
}

#[test]
fn an_old_or_foreign_page_says_nothing() {
    assert_eq!(read("etcd_disk_defrag_inflight{a=\"b\"} 1\ngarbage\n\n"), Gauges::default());
}
