//! How long a reload of a large configuration takes, with a journal at its size limit.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    Common,
    figures::{Goal, Machine, Spread},
    output::{Findings, Table},
    past,
    start::{calm, serve},
    subject::{Rig, Shape, Usage},
};

const GOAL_MILLISECONDS: f64 = 300.0;
/// What precedes each cluster in the configuration.
const CLUSTER: &str = "  - name: ";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Another binary to measure in the same run, before the first
    #[arg(long)]
    before: Option<PathBuf>,
    /// Clusters, of three members each
    #[arg(long, default_value_t = 1_000)]
    clusters: usize,
    /// Reloads of each kind
    #[arg(long, default_value_t = 5)]
    reloads: usize,
    /// Size of the journal; the default is the default limit
    #[arg(long, default_value_t = 256)]
    journal_mib: u64,
}

/// What a reload changes.
#[derive(Clone, Copy)]
enum Kind {
    Nothing,
    OnePolicy,
    OneCluster,
    AllPolicies,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Nothing, Self::OnePolicy, Self::OneCluster, Self::AllPolicies];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::OnePolicy => "a policy",
            Self::OneCluster => "a cluster added or removed",
            Self::AllPolicies => "all policies",
        }
    }

    /// This configuration with another change in every round.
    fn configuration(self, base: &str, round: usize) -> String {
        let policy = format!("    policy: {{cooldown: {}h}}\n", round + 7);
        let mut clusters = base.split(CLUSTER);
        let mut text = clusters.next().unwrap_or_default().to_owned();
        for (number, cluster) in clusters.enumerate() {
            if matches!(self, Self::OneCluster) && number == 0 && round.is_multiple_of(2) {
                continue;
            }
            let is_changed = matches!(self, Self::AllPolicies) || matches!(self, Self::OnePolicy) && number == 0;
            let _ = write!(text, "{CLUSTER}{cluster}{}", if is_changed { &policy } else { "" });
        }
        text
    }
}

/// What was found for one binary and one kind.
#[derive(Serialize)]
struct Row {
    binary: String,
    changes: &'static str,
    milliseconds: Spread,
    cpu_milliseconds_until_calm: Spread,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let machine = Machine::look();
    let rig = Rig::start(Shape { clusters: args.clusters, ..Shape::default() }).await?;
    let data_dir = rig.dir().join("journal");
    past::make(&args.common.defragd, &rig, &data_dir, args.journal_mib).await?;
    let mut rows = Vec::new();
    for (name, binary) in args.before.iter().map(|path| ("before", path)).chain([("now", &args.common.defragd)]) {
        eprintln!("measuring {name}");
        rows.extend(measure(&args, name, binary, &rig, &data_dir).await.with_context(|| name.to_owned())?);
    }
    let slowest = rows.iter().filter(|row| row.binary == "now").map(|row| row.milliseconds.highest).fold(0.0, f64::max);
    let wanted = format!("a reload of {} clusters in less than 300 ms, whatever it changes", args.clusters);
    let goals = vec![Goal::new(wanted, format!("{slowest:.0} ms at most"), slowest < GOAL_MILLISECONDS)];
    let table = table(&rows);
    Findings { name: "reload", machine, goals, figures: rows }.report(&args.common, &table)
}

async fn measure(args: &Args, name: &str, binary: &Path, rig: &Rig, data_dir: &Path) -> Result<Vec<Row>> {
    let base = std::fs::read_to_string(rig.config())?;
    let defragd = serve(binary, rig, data_dir).await?;
    calm(defragd.pid()).await?;
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let (mut took, mut cpu) = (Vec::new(), Vec::new());
        for round in 0..args.reloads {
            std::fs::write(rig.config(), kind.configuration(&base, round))?;
            let before = Usage::of(defragd.pid())?.cpu;
            let begun = Instant::now();
            let answer = defragd.post("/-/reload", "", None).await?;
            took.push(begun.elapsed());
            ensure!(answer.status == 200, "the reload was answered with {}", answer.body);
            cpu.push(calm(defragd.pid()).await?.cpu.saturating_sub(before));
        }
        let spread = |times: Vec<Duration>| Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3).collect());
        let (milliseconds, cpu_milliseconds_until_calm) = (spread(took), spread(cpu));
        rows.push(Row { binary: name.to_owned(), changes: kind.name(), milliseconds, cpu_milliseconds_until_calm });
    }
    defragd.terminate(Duration::from_mins(1)).await?;
    std::fs::write(rig.config(), base)?;
    Ok(rows)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["binary", "changes", "reload", "CPU until calm"]);
    let spread = |Spread { median, lowest, highest }: Spread| format!("{median:.0} ms ({lowest:.0}–{highest:.0})");
    for row in rows {
        let (took, cpu) = (spread(row.milliseconds), spread(row.cpu_milliseconds_until_calm));
        table.row(&[&row.binary, row.changes, &took, &cpu]);
    }
    table
}
