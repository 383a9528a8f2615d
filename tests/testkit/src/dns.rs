//! A name server for tests, on loopback: answers A and SRV queries over UDP with the records that a test sets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const A: u16 = 1;
const SRV: u16 = 33;
/// A header with one question, before its name.
const HEADER: usize = 12;

type Records = Arc<Mutex<BTreeMap<(String, u16), Vec<Vec<u8>>>>>;

/// A running name server. Dropping it ends it.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    records: Records,
    task: JoinHandle<()>,
}

impl Dns {
    /// Starts one that knows no names.
    pub async fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, records) = (socket.local_addr()?, Records::default());
        let task = tokio::spawn(serve(socket, Arc::clone(&records)));
        Ok(Self { address, records, task })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name has this address.
    pub fn set_address(&self, name: &str, ip: Ipv4Addr) {
        self.set(name, A, vec![ip.octets().to_vec()]);
    }

    /// From now on the service is at these hosts and ports.
    pub fn set_service(&self, name: &str, at: &[(&str, u16)]) {
        let record = |(host, port): &(&str, u16)| {
            // Priority and weight, then the port and the host.
            let mut data = vec![0, 1, 0, 1];
            data.extend(port.to_be_bytes());
            for label in host.split('.') {
                data.push(u8::try_from(label.len()).unwrap_or(0));
                data.extend(label.as_bytes());
            }
            data.push(0);
            data
        };
        self.set(name, SRV, at.iter().map(record).collect());
    }

    fn set(&self, name: &str, kind: u16, data: Vec<Vec<u8>>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert((name.to_owned(), kind), data);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, records: Records) {
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        if let Some(answer) = answer(&packet[..length], &records) {
            // A client that misses it asks again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

fn answer(query: &[u8], records: &Records) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let question = query.get(HEADER..end + 4)?;
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    let found = records.get(&(name.clone(), kind)).cloned().unwrap_or_default();
    let exists = records.keys().any(|(known, _)| *known == name);
    // An answer with authority to a query with recursion; "no such name" is 3.
    let mut out = [&query[..2], &[0x85, if exists { 0x80 } else { 0x83 }, 0, 1]].concat();
    out.extend(u16::try_from(found.len()).ok()?.to_be_bytes());
    out.extend([0; 4]);
    out.extend(question);
    for data in found {
        // The question's name, type, class IN, one second to live.
        out.extend([0xc0, 0x0c]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 1]);
        out.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// The name in the question, in small letters, and where it ends.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
}
