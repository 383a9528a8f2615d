//! A small limit of file descriptors.

use std::{collections::BTreeSet, fs};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use testkit::{Defragd, Home, until, wrap};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex};

use super::{alert, assert_recorded, clusters, fingerprint, post};
use crate::rig::{MINUTE, binary, client, descriptors, home};

const LIMIT: usize = 64;

/// So many clients that say nothing, or begin a request and do not end it.
async fn crowd(target: &str, size: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for number in 0..size {
        let mut stream = TcpStream::connect(target).await.unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"POST /api/v1/alerts HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
        }
        crowd.push(stream);
    }
    crowd
}

/// The status of the answer on a new connection, if there is one.
async fn status(defragd: &Defragd, path: &str) -> Option<u16> {
    let client = client(None).build().unwrap();
    client.get(format!("{}{path}", defragd.url())).send().await.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_take_the_descriptors_that_the_rest_needs() {
    let limited = home();
    let script = limited.path("limited");
    wrap(binary(), &format!("ulimit -n {LIMIT} &&"), &script).unwrap();
    let home = Home::new(&script).unwrap();
    let flags = [clusters(&home, 2)];
    let defragd = home.serve(&flags).await.unwrap();
    let crowd = crowd(defragd.target(), 200).await;
    for path in ["/-/healthy", "/metrics"] {
        assert_eq!(status(&defragd, path).await, Some(200), "{path}");
    }
    assert_eq!(post(&defragd, &alert(0, 0)).await.0, 202);
    assert!(descriptors(&defragd) < LIMIT, "{} are open", descriptors(&defragd));
    drop(crowd);
    let log = defragd.log().unwrap();
    assert!(!log.contains("cannot accept"), "{log}");
    defragd.kill().await.unwrap();
    assert_recorded(&home, &BTreeSet::from([fingerprint(0, 0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_too_low_for_the_clusters_is_logged() {
    let limited = home();
    let script = limited.path("limited");
    wrap(binary(), "ulimit -n 256 &&", &script).unwrap();
    for (count, expected) in [(10, None), (30, Some("limit=256 needed=282 clusters=30"))] {
        let home = Home::new(&script).unwrap();
        let defragd = home.serve(&[clusters(&home, count)]).await.unwrap();
        let log = defragd.log().unwrap();
        assert_eq!(log.contains("the limit of open files is too low"), expected.is_some(), "{log}");
        assert!(log.contains(expected.unwrap_or_default()), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_descriptors_is_raised_as_far_as_the_system_allows() {
    let home = home();
    let script = home.path("limited");
    wrap(binary(), &format!("ulimit -S -n {LIMIT} &&"), &script).unwrap();
    let own = getrlimit(Resource::Nofile);
    let home = Home::new(&script).unwrap();
    let defragd = home.serve(&Home::nowhere()).await.unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", defragd.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = files.split_whitespace().nth(3).unwrap();
    assert_eq!(soft, own.maximum.map_or("unlimited".to_owned(), |maximum| maximum.to_string()), "{files}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_descriptor_left_it_serves_again_as_soon_as_there_is_one() {
    let home = home();
    let flags = [clusters(&home, 2)];
    let defragd = home.serve(&flags).await.unwrap();
    assert_eq!(post(&defragd, &alert(0, 0)).await.0, 202);
    let pid = Pid::from_raw(i32::try_from(defragd.pid()).unwrap());
    let few = Rlimit { current: Some(descriptors(&defragd) as u64 + 2), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(pid, Resource::Nofile, few).unwrap();
    // What was open only for a moment leaves places free, and so do gaps in the numbers, to which the limit applies.
    // So one client after the other comes, until there is no place for it.
    let clients = Mutex::new(Vec::<TcpStream>::new());
    until("the descriptors to be used up", MINUTE, || async {
        clients.lock().await.extend(crowd(defragd.target(), 1).await);
        let log = defragd.log()?;
        anyhow::ensure!(log.contains("cannot accept a connection"), "{log}");
        Ok(())
    })
    .await
    .unwrap();
    // The crowd's time is over after ten seconds.
    until("a client to be served", MINUTE, || async {
        let status = status(&defragd, "/metrics").await;
        anyhow::ensure!(status == Some(200), "{status:?}");
        Ok(())
    })
    .await
    .unwrap();
    drop(clients);
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert_eq!(post(&defragd, &alert(1, 1)).await.0, 202);
    defragd.kill().await.unwrap();
    assert_recorded(&home, &BTreeSet::from([fingerprint(0, 0), fingerprint(1, 1)]));
}
