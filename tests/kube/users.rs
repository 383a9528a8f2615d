//! What the users of an API server notice while its etcd is defragmented: `tests/testkit/kube/clients`.

use std::time::Duration;

use serde_json::json;
use testkit::{GoClients, GoSample, fragment, until};

use crate::rig::{MIB, MINUTE, Rig};

/// A controller with client-go's leader election, a writer and a watcher.
pub(crate) struct Users(GoClients);

impl Users {
    /// Starts them, and waits until the controller leads, the writer writes and the watcher sees it.
    pub(crate) async fn start(rig: &Rig) -> Self {
        let clients = GoClients::of_api_server(rig.lab.tools(), rig.lab.kubeconfig(), &[]).unwrap();
        let clients = tokio::sync::Mutex::new(clients);
        until("the users to be at work", MINUTE, || async {
            let samples = clients.lock().await.so_far()?;
            for kind in ["elected", "write", "watch"] {
                anyhow::ensure!(ends(&samples, kind).next().is_some(), "no {kind} yet");
            }
            Ok(())
        })
        .await
        .unwrap();
        Self(clients.into_inner())
    }

    /// Ends them, and prints their figures, which depend on the machine.
    pub(crate) async fn stop(self) {
        let samples = self.0.stop().await.unwrap();
        let failed = |kind| samples.iter().filter(|sample| sample.kind == kind && !sample.error.is_empty()).count();
        println!(
            "what the API server's users noticed: {} writes, {} failed, longest gap {:?}; {} events, {} watches ended early, \
             longest gap {:?}; {} elections lost",
            ends(&samples, "write").count(),
            failed("write"),
            longest_gap(&samples, "write"),
            ends(&samples, "watch").count(),
            failed("watch_restart"),
            longest_gap(&samples, "watch"),
            failed("election_lost"),
        );
    }
}

/// When each of this kind succeeded, microseconds since 1970.
fn ends<'a>(samples: &'a [GoSample], kind: &'a str) -> impl Iterator<Item = i64> + 'a {
    let of = samples.iter().filter(move |sample| sample.kind == kind && sample.error.is_empty());
    of.map(|sample| sample.due + i64::try_from(sample.took).unwrap_or(i64::MAX))
}

fn longest_gap(samples: &[GoSample], kind: &str) -> Duration {
    let mut ends: Vec<_> = ends(samples, kind).collect();
    ends.sort_unstable();
    let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_micros(gaps.max().and_then(|gap| u64::try_from(gap).ok()).unwrap_or(0))
}

/// A roll of the control plane's etcd with thirty times the data of the night.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn a_large_roll() {
    let rig = Rig::of_the_control_plane().await;
    fragment(rig.etcd(), 400 * MIB, 150 * MIB).await.unwrap();
    rig.install(&rig.values()).await;
    let url = rig.url().await;
    let users = Users::start(&rig).await;
    rig.alert(&url).await;
    let run = rig.run_when(&url, "the run to end", |run| run["outcome"].is_string()).await;
    users.stop().await;
    assert_eq!((&run["outcome"], run["members"].as_array().unwrap().len()), (&json!("succeeded"), 3), "{run}");
    for member in run["members"].as_array().unwrap() {
        println!("{} took {} s", member["member"], member["took_seconds"]);
    }
}
