//! The disk under the journal: full, not answering, read-only.

use std::collections::BTreeSet;

use testkit::{FailingDisk, SmallDisk, in_namespaces, is_inside, skipped};

use super::{alert, assert_recorded, clusters, fingerprint, post};
use crate::rig::{MINUTE, client, home};

/// SQLite's, and that of a file system in memory.
const PAGE: u64 = 4096;
/// An accepted request and the end of its run are some ten pages in SQLite's log: whichever write of the first two
/// requests does not fit, there is a round in which it does not.
const ROUNDS: usize = 24;

async fn inside(test: &str) {
    if let Some(why) = in_namespaces(&format!("machine::disk::{test}")).await.unwrap() {
        skipped(why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_write_does_not_fit_on_the_disk_nothing_accepted_is_lost() {
    inside("inside_a_disk_that_fills_up").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_a_disk_that_fills_up() {
    if !is_inside() {
        return;
    }
    let home = home();
    let disk = SmallDisk::mount(&home.path("journal"), 16 << 20).unwrap();
    let flags = [clusters(&home, ROUNDS)];
    let mut promised = BTreeSet::new();
    for round in 0..ROUNDS {
        let defragd = home.serve(&flags).await.unwrap();
        disk.fill(PAGE * round as u64).unwrap();
        // Runs end meanwhile, which is written as well.
        for number in 0.. {
            let cluster = (round + number) % ROUNDS;
            match post(&defragd, &alert(cluster, round * 1_000 + number)).await {
                (202, _) => promised.insert(fingerprint(cluster, round * 1_000 + number)),
                (503, _) => break,
                (status, _) => panic!("round {round}: answered {status}"),
            };
        }
        // In every second round it closes the journal, for which there is no space either.
        if round % 2 == 0 {
            defragd.kill().await.unwrap();
        } else {
            defragd.terminate(MINUTE).await.unwrap();
        }
        disk.clear().unwrap();
        assert_recorded(&home, &promised);
    }
    let defragd = home.serve(&flags).await.unwrap();
    assert!(promised.len() > ROUNDS, "only {promised:?} fitted");
    assert_eq!(post(&defragd, &alert(0, 0)).await.0, 202, "there is space again");
    promised.insert(fingerprint(0, 0));
    assert_recorded(&home, &promised);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_or_becomes_read_only_loses_nothing_accepted_and_scrapes_are_served() {
    inside("inside_a_disk_that_fails").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "in namespaces of its own, by the test above"]
async fn inside_a_disk_that_fails() {
    if !is_inside() {
        return;
    }
    let home = home();
    let disk = match FailingDisk::mount(&home.path("journal")) {
        Ok(disk) => disk,
        Err(why) => return skipped(why),
    };
    let flags = [clusters(&home, 4)];
    let defragd = home.serve(&flags).await.unwrap();
    assert_eq!(post(&defragd, &alert(0, 0)).await.0, 202);
    let mut promised = BTreeSet::from([fingerprint(0, 0)]);

    disk.freeze().unwrap();
    let client = client(None).build().unwrap();
    let waits = async {
        // Not by `post`: all the scrapes come before its answer, and its client has less patience than that may take.
        let request = client.post(format!("{}/api/v1/alerts", defragd.url())).body(alert(1, 1).to_string());
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        answer.status().as_u16()
    };
    let scraped = async {
        // More than there are threads: none of them waits for the disk.
        for _ in 0..20 {
            for path in ["/-/healthy", "/metrics", "/api/v1/clusters"] {
                let answer = client.get(format!("{}{path}", defragd.url())).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 200, "{path}");
            }
        }
        disk.thaw().unwrap();
    };
    tokio::pin!(waits);
    tokio::select! {
        biased;
        answer = &mut waits => panic!("{answer}, though nothing can be written"),
        () = scraped => (),
    }
    assert_eq!(waits.await, 202, "the disk answers again");
    promised.insert(fingerprint(1, 1));

    disk.fail().unwrap();
    // What is in SQLite's memory and in the kernel's is no use: the write must reach the disk.
    for number in 0..2 {
        assert_eq!(post(&defragd, &alert(2, number)).await, (503, None));
    }
    let ready = defragd.get("/-/ready").await.unwrap();
    assert_eq!(ready.status, 503, "{}", ready.body);
    defragd.kill().await.unwrap();
    disk.repair().unwrap();
    assert_recorded(&home, &promised);
    let defragd = home.serve(&flags).await.unwrap();
    assert_eq!(post(&defragd, &alert(2, 0)).await.0, 202);
    promised.insert(fingerprint(2, 0));
    assert_recorded(&home, &promised);
    // The process must be gone before its disk.
    defragd.terminate(MINUTE).await.unwrap();
}
