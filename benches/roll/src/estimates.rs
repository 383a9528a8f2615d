//! How long defragd expected each member to take and how long it took, on two rolls with one journal: the first member of
//! the first roll is estimated by the rule of thumb, the others from the members before them, and each member of the second
//! roll from its own time in the first.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use testkit::Tools;
use tokio::process::Command;

use crate::{contender::Contender, dataset::Dataset, load::Spec, markdown, trial};

/// One member in one roll.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    /// 1 or 2.
    pub(crate) roll: u32,
    /// The attempt, as defragd's journal has it.
    #[serde(flatten)]
    pub(crate) attempt: Attempt,
}

/// What the journal says of a member that was defragmented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The member's name.
    pub(crate) member: String,
    /// Whether it led.
    pub(crate) is_leader: bool,
    /// Estimated before, seconds.
    pub(crate) expected_seconds: f64,
    /// Measured, seconds.
    pub(crate) took_seconds: f64,
}

impl Estimate {
    /// Taken / expected.
    pub(crate) fn ratio(&self) -> f64 {
        self.attempt.took_seconds / self.attempt.expected_seconds.max(1e-9)
    }

    /// Whether it is within the factor of 2 that a measured estimate promises.
    pub(crate) fn holds(&self) -> bool {
        (0.5..=2.0).contains(&self.ratio())
    }
}

/// Rolls twice under this load, with the same data and one journal, the leader last.
pub(crate) async fn two_rolls(data: &Dataset, load: &Spec, tools: &Tools, defragd: &Path) -> Result<Vec<Estimate>> {
    let journal = tempfile::tempdir()?;
    let mut estimates = Vec::new();
    for roll in [1, 2] {
        Box::pin(trial::run(data, Contender::Defragd, load, tools, defragd, journal.path())).await?;
        let output = Command::new(defragd)
            .args(["runs", "--limit=1", "-o", "json", "--data-dir"])
            .arg(journal.path())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "defragd runs: {}", String::from_utf8_lossy(&output.stderr));
        estimates.extend(newest(&output.stdout)?.into_iter().map(|attempt| Estimate { roll, attempt }));
    }
    Ok(estimates)
}

/// The members of the newest run in the output of `defragd runs -o json`.
fn newest(json: &[u8]) -> Result<Vec<Attempt>> {
    #[derive(Deserialize)]
    struct Runs {
        runs: Vec<Run>,
    }
    #[derive(Deserialize)]
    struct Run {
        members: Vec<Attempt>,
    }
    let runs: Runs = serde_json::from_slice(json).context("the output of defragd runs is not understood")?;
    Ok(runs.runs.into_iter().next().context("the journal has no run")?.members)
}

/// A row for each member and roll.
pub(crate) fn table(estimates: &[Estimate]) -> String {
    let row = |estimate: &Estimate| {
        let Attempt { member, is_leader, expected_seconds, took_seconds } = &estimate.attempt;
        let member = if *is_leader { format!("{member} (leader)") } else { member.clone() };
        let numbers = [*expected_seconds, *took_seconds, estimate.ratio()].map(|number| format!("{number:.2}"));
        [estimate.roll.to_string(), member].into_iter().chain(numbers).collect()
    };
    let header = ["roll", "member", "expected, s", "taken, s", "taken / expected"];
    let table = markdown::table(header, estimates.iter().map(row), 2);
    format!(
        "Estimates: two rolls with one journal, the leader last. In roll 2 each member is estimated from its time in roll 1.\n\n{table}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_run_is_read_from_the_output_of_defragd_runs() {
        let json = r#"{"runs": [
            {"id": 2, "members": [{"member_id": 7, "member": "etcd-2", "is_leader": false, "expected_seconds": 2.0,
             "result": "defragmented", "took_seconds": 5.0}]},
            {"id": 1, "members": []}]}"#;
        let attempt = newest(json.as_bytes()).expect("read").remove(0);
        let estimate = Estimate { roll: 2, attempt };
        assert!((estimate.ratio() - 2.5).abs() < 1e-9 && !estimate.holds());
        let text = table(&[estimate]);
        assert!(text.contains("etcd-2") && text.contains("2.50"), "{text}");
        // A member that failed has no time, and the roll no result.
        let failed = r#"{"runs": [{"members": [{"member": "etcd-2", "is_leader": false, "expected_seconds": 2.0,
            "result": "failed"}]}]}"#;
        assert!(newest(failed.as_bytes()).is_err());
    }
}
