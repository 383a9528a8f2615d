//! Steps of the system's clock, as by an NTP daemon or an operator, under the real program: libfaketime answers for the
//! clock on the wall, and the monotonic one is the machine's. The simulator has many more of them, at any moment.

use std::{collections::BTreeSet, fs};

use anyhow::ensure;
use serde_json::Value;
use testkit::{Defragd, Home, Tools, until, wrap};

use super::{alert, assert_recorded, clusters, fingerprint, post};
use crate::rig::{MINUTE, binary, home};

/// When the next attempt at this cluster is due. The end of a run is in the journal a moment before its successor is known.
async fn retry_at(defragd: &Defragd, cluster: usize) -> jiff::Timestamp {
    until("the next attempt", MINUTE, || async {
        let view = defragd.json("/api/v1/clusters").await?["clusters"][cluster].clone();
        Ok(view["retry_at"].as_str().ok_or_else(|| anyhow::anyhow!("{view}"))?.parse()?)
    })
    .await
    .unwrap()
}

async fn ended(defragd: &Defragd, run: i64) -> Value {
    until("the run to end", MINUTE, || async {
        let run = defragd.json(&format!("/api/v1/runs/{run}")).await?;
        ensure!(run["outcome"].is_string(), "{run}");
        Ok(run)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_the_clock_lose_nothing_and_stop_nothing() {
    let Some(library) = Tools::find().unwrap().faketime() else {
        return testkit::skipped("no libfaketime here; tests/testkit/tools gets it");
    };
    let faked = home();
    let offset = faked.write("offset", "+0").unwrap();
    let variables = format!(
        "LD_PRELOAD={library:?} FAKETIME_TIMESTAMP_FILE={offset:?} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    );
    let script = faked.path("faked");
    wrap(binary(), &variables, &script).unwrap();
    let home = Home::new(&script).unwrap();
    let flags = [clusters(&home, 4)];
    let mut defragd = home.serve(&flags).await.unwrap();
    let mut promised = BTreeSet::new();
    let began = jiff::Timestamp::now();
    for (number, step) in ["+0", "-1d", "+400d", "+0", "-30d"].into_iter().enumerate() {
        // Debian 13's libfaketime ends the program if it finds the file empty.
        let replacement = faked.write("offset.new", step).unwrap();
        fs::rename(replacement, &offset).unwrap();
        let (status, run) = post(&defragd, &alert(number % 4, number)).await;
        assert_eq!(status, 202, "at {step}");
        promised.insert(fingerprint(number % 4, number));
        let view = ended(&defragd, run.unwrap()).await;
        assert_eq!(view["reason"]["code"], "cluster_unreachable", "{view}");
        // Otherwise this test tests nothing.
        let ended: jiff::Timestamp = view["finished_at"].as_str().unwrap().parse().unwrap();
        let days = (ended.duration_since(began).as_hours() + 12).div_euclid(24);
        assert_eq!(days, step.trim_end_matches('d').parse::<i64>().unwrap(), "{view}");
        // The next attempt is soon, by the clock of now, and not where the clock was.
        let next = retry_at(&defragd, number % 4).await;
        assert!(next.duration_since(ended).abs() < jiff::SignedDuration::from_hours(1), "{next}");
        assert!(defragd.get("/metrics").await.unwrap().body.contains("defragd_build_info"));
        if number == 2 {
            defragd.kill().await.unwrap();
            drop(defragd);
            defragd = home.serve(&flags).await.unwrap();
        }
    }
    assert_recorded(&home, &promised);
    // What ended in a future that is not any more does not wait for it.
    let next = retry_at(&defragd, 2).await;
    assert!(next.duration_since(began).as_hours() < -29 * 24, "{next}");
    assert!(!defragd.log().unwrap().contains("panicked"));
}
