//! The bytes of a member's `StatusResponse`, through the real client, from a server that answers everything with them.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use defragd::{
    adapters::etcd::EtcdCluster,
    app::connect::connect,
    config::Settings,
    core::{
        cluster::{Member, MemberId, Status},
        rule::Rule,
        version,
    },
    ports::etcd::Etcd,
};
use tokio::{net::TcpListener, runtime::Runtime, task::LocalSet, time::timeout};

use crate::Target;

const MEMBER: u64 = 0x8e9e_05c5_2164_694d;
/// It is on this machine, and answers at once, unless the machine has other things to do.
const LONG: Duration = Duration::from_mins(1);

const WORDS: [&str; 5] = ["3.5.16", "3.6.0-rc.1", "etcdserver: no leader", "memberID:1 alarm:NOSPACE ", "\\u{202e}"];

/// Protocol buffers' numbers, in groups of seven bits.
fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

fn number(field: u64, value: u64, into: &mut Vec<u8>) {
    varint(field << 3, into);
    varint(value, into);
}

fn text(field: u64, value: &[u8], into: &mut Vec<u8>) {
    varint(field << 3 | 2, into);
    varint(value.len() as u64, into);
    into.extend(value);
}

/// As a member of 3.6 sends it; `numbers` are those of sizes and indexes.
fn response(numbers: u64) -> Vec<u8> {
    let (mut header, mut all, mut downgrade) = (Vec::new(), Vec::new(), Vec::new());
    for (field, value) in [(1, 7), (2, MEMBER), (3, 100), (4, 2)] {
        number(field, value, &mut header);
    }
    number(1, 1, &mut downgrade);
    text(2, b"3.5.0", &mut downgrade);
    text(1, &header, &mut all);
    text(2, b"3.6.14", &mut all);
    for (field, value) in [(3, numbers), (4, MEMBER), (5, 9), (6, 2), (7, 9)] {
        number(field, value, &mut all);
    }
    text(8, b"etcdserver: no leader", &mut all);
    number(9, numbers, &mut all);
    number(10, 1, &mut all);
    text(11, b"3.6.0", &mut all);
    number(12, numbers, &mut all);
    text(13, &downgrade, &mut all);
    all
}

struct Oracle {
    runtime: Runtime,
    tasks: LocalSet,
    cluster: EtcdCluster,
    url: String,
    answer: Rc<RefCell<Vec<u8>>>,
}

impl Oracle {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = format!("clusters: [{{name: a, endpoints: ['{url}']}}]");
        let cluster = connect(&Settings::from_text(&config).unwrap().clusters[0]).unwrap();
        let (tasks, answer) = (LocalSet::new(), Rc::<RefCell<Vec<u8>>>::default());
        let said = Rc::clone(&answer);
        tasks.spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Otherwise each answer waits for an acknowledgement.
                socket.set_nodelay(true).unwrap();
                let said = Rc::clone(&said);
                tokio::task::spawn_local(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        let message = said.borrow().clone();
                        let mut data = vec![0];
                        data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
                        data.extend(message);
                        let head = axum::http::Response::builder().header("content-type", "application/grpc");
                        let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else { continue };
                        let _ = stream.send_data(Bytes::from(data), false);
                        let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                        let _ = stream.send_trailers(axum::http::HeaderMap::from_iter(trailers));
                    }
                });
            }
        });
        Self { runtime, tasks, cluster, url, answer }
    }

    fn judge(&self, bytes: &[u8]) -> Result<(), String> {
        *self.answer.borrow_mut() = bytes.to_vec();
        let client_urls = vec![self.url.clone()];
        let member = Member { id: MemberId(MEMBER), name: "m".to_owned(), client_urls, is_learner: false };
        let asked = self.tasks.block_on(&self.runtime, async { timeout(LONG, self.cluster.status(&member)).await });
        match asked.map_err(|_| "no answer")? {
            Ok(status) => sound(&status),
            Err(unknown) if unknown.detail.is_empty() => Err("no reason".to_owned()),
            Err(_) => Ok(()),
        }
    }
}

fn sound(status: &Status) -> Result<(), String> {
    if i64::try_from(status.db_size.0.max(status.db_size_in_use.0)).is_err() {
        return Err(format!("a negative size was read as {}", status.db_size.0));
    }
    let _ = (version::refusal(&status.version), version::warnings(&status.version));
    let _ = Rule::parse("dbSizeFree > dbQuota/2 || dbSizeInUse*2 > dbSize").unwrap().holds(status);
    Ok(())
}

pub(crate) fn target() -> Target {
    let oracle = Oracle::new();
    let seeds = vec![response(1 << 30), response(0), response(u64::MAX), Vec::new()];
    Target {
        name: "status",
        seeds,
        trees: Vec::new(),
        words: &WORDS,
        cost: 4,
        judge: Box::new(move |bytes| oracle.judge(bytes)),
    }
}

#[test]
fn whatever_a_member_says_of_itself_it_is_read_or_its_status_is_unknown() {
    target().attack();
}
