//! Listeners between defragd and members, or in a member's place: they record what is sent to them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Accepts connections, keeps all that comes in, and answers nothing.
pub(crate) struct Recorder {
    port: u16,
    connections: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Recorder {
    /// On a port that sorts before those of all members, as etcd sorts the client URLs that a member publishes.
    pub(crate) async fn before_all_members() -> Self {
        for port in 10_000..10_240 {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                return Self::on(listener);
            }
        }
        panic!("no port from 10000 to 10239 is free");
    }

    fn on(listener: TcpListener) -> Self {
        let (connections, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let port = listener.local_addr().unwrap().port();
        let (count, keep) = (Arc::clone(&connections), Arc::clone(&received));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut readers = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let keep = Arc::clone(&keep);
                readers.spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(length @ 1..) = socket.read(&mut buffer).await {
                        keep.lock().unwrap().extend_from_slice(&buffer[..length]);
                    }
                });
            }
        });
        Self { port, connections, received, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn has_received(&self, text: &str) -> bool {
        self.received.lock().unwrap().windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// Forwards connections to one port, until the test sets another one: then it ends the open ones, and new ones lead
/// there. As a load balancer does.
pub(crate) struct Relay {
    address: SocketAddr,
    target: watch::Sender<u16>,
    ended: mpsc::Receiver<()>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((target, targets), (end, ended)) = (watch::channel(target), mpsc::channel());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((inner, _)) = listener.accept().await {
                connections.spawn(pass(inner, targets.clone(), end.clone()));
            }
        });
        Self { address, target, ended, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns when the client has closed its side of a connection, too: from then on it knows. Blocks, so that it can
    /// stand in a permit.
    pub(crate) fn lead_to(&self, port: u16) {
        while self.ended.try_recv().is_ok() {}
        self.target.send(port).unwrap();
        self.ended.recv_timeout(crate::rig::MINUTE).expect("the client closes what the server has closed");
    }
}

async fn pass(mut inner: TcpStream, mut targets: watch::Receiver<u16>, end: mpsc::Sender<()>) {
    let port = *targets.borrow_and_update();
    let Ok(mut outer) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
        _ = targets.changed() => {
            drop(outer);
            let _ = inner.shutdown().await;
            while let Ok(1..) = inner.read(&mut [0; 4096]).await {}
            let _ = end.send(());
        }
    }
}
