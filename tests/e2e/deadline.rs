//! A defrag that outlasts the deadline: the server continues, so the run follows it to its end, sends it
//! nothing more, and then ends.

use std::time::{Duration, Instant};

use testkit::{EtcdVersion, Writer, on_each_version};

use crate::{
    faults::{self, logs, serves},
    rig::{MINUTE, Rig, TOKEN, ended_run, firing},
};

on_each_version! { a_defrag_past_the_deadline_is_followed_to_its_end_on _ => past_the_deadline }

async fn past_the_deadline(version: EtcdVersion) {
    let rig = Rig::fragmented(version).await;
    let writer = Writer::start(&rig.cluster).await.unwrap();
    let held = faults::hold(&rig).await;
    let defragd = rig.serve(&["--mode=enforce", "--defrag-deadline=1s"]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    let member = faults::defragmenting(&rig.cluster).await;
    let begun = Instant::now();
    serves(&writer).await;
    defragd.logs("code=deadline_exceeded", MINUTE).await.unwrap();
    // defragd's second begins before the member's: on a busy machine, the request is on its way for a while.
    tokio::time::sleep(Duration::from_millis(1_100).saturating_sub(begun.elapsed())).await;
    drop(held);
    let run = ended_run(&defragd, 1).await;
    // Judged at the moment when the run has ended.
    let reported = logs(&rig.cluster);
    assert_eq!(run["outcome"], "failed", "{run}");
    assert_eq!(run["reason"]["code"], "deadline_exceeded", "{run}");
    assert_eq!(run["reason"]["member"], rig.cluster.member(member).name());
    for (index, log) in reported.iter().enumerate() {
        let expected = usize::from(index == member);
        assert_eq!((log.started, log.finished), (expected, expected), "member {index} of {reported:?}");
    }
    assert_eq!(rig.cluster.defrags_done(member).await.unwrap(), 1);
    let took = rig
        .cluster
        .metrics(member)
        .await
        .unwrap()
        .require("etcd_disk_backend_defrag_duration_seconds_sum", &[])
        .unwrap();
    assert!(took > 1.0, "the defrag took {took} s only, so this has shown nothing");
    let result = &run["members"][0];
    let file = |when: &str| result[when]["db_size_bytes"].as_u64().unwrap();
    assert!(file("after") < file("before"), "the end was measured: {result}");
    rig.cluster.ready().await.unwrap();
    faults::reads_back(writer, &rig.cluster).await;
    eprintln!("etcd {version}: the defrag took {took:.1} s under a deadline of 1 s");
}
