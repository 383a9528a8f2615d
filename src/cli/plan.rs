//! `defragd plan`

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use serde_json::json;

use super::{
    Exit,
    args::{self, Connection, Output, PolicyArgs},
    explain::write_advice,
    history,
    status::warn_of_pages,
    table,
};
use crate::{
    adapters::journal::SqliteJournal,
    app::{checks, gates, ledger, observer},
    core::{
        cluster::{ClusterFacts, MemberId, Unknown},
        explain::{Explained, Severity},
        gate::{GateResult, Moment},
        plan::{Decision, Plan, PlanHistory},
        safety,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the journal, to consider earlier attempts [default: as for `defragd run`]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Output format
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let (settings, connect) = args.connection.settings_to_observe(Some(&args.policy))?;
    let mut exit = Exit::Done;
    let mut json_plans = Vec::new();
    let mut out = std::io::stdout().lock();
    let several = settings.clusters.len() > 1;
    let data_dir = args::data_dir(args.data_dir);
    for cluster in settings.clusters {
        let facts = match Box::pin(observer::observe(&connect(&cluster)?)).await {
            Ok(facts) => facts,
            Err(unknown) if several => {
                eprintln!("defragd: cluster {}: {}", cluster.name, unanswered(&unknown));
                json_plans.push(json!({ "cluster": cluster.name, "error": unknown.detail }));
                exit = Exit::Failed;
                continue;
            }
            Err(unknown) => return Err(anyhow!(unanswered(&unknown))),
        };
        let plan = Plan::new(&facts, &cluster.policy, &past(&data_dir, &cluster.name).await);
        let gates = checks::run(&gates::of(&cluster)?, Moment::Before, &BTreeMap::new()).await;
        let against = plan.blocked.is_some() || gates.iter().any(|gate| gate.against().is_some());
        if against && exit == Exit::Done {
            exit = Exit::Refused;
        }
        match args.output {
            Output::Json => json_plans.push(json!({
                "cluster": cluster.name,
                "mode": cluster.policy.mode,
                "blocked": plan.blocked.as_ref().map(Explained::from),
                "blocked_message": plan.blocked.as_ref().map(ToString::to_string),
                "steps": plan.steps,
                "warnings": plan.warnings,
                "gates": gates,
            })),
            output @ (Output::Table | Output::Wide) => {
                if several {
                    writeln!(out, "cluster {}:", cluster.name)?;
                }
                write_plan(&mut out, output, &plan, &facts, &gates)?;
            }
        }
    }
    if args.output == Output::Json {
        writeln!(out, "{:#}", json!({ "plans": json_plans }))?;
    }
    Ok(exit)
}

pub(super) fn unanswered(unknown: &Unknown) -> String {
    format!("no endpoint answered: {unknown}\nWhat to do: {}", safety::no_member_list(unknown).advice())
}

/// What the journal, if it exists and is readable, records of earlier attempts: later decisions depend on them.
pub(super) async fn past(data_dir: &Path, cluster: &str) -> PlanHistory {
    let Ok(journal) = SqliteJournal::open_read_only(data_dir) else { return PlanHistory::default() };
    match ledger::read(&journal, cluster).await {
        Ok(ledger) => PlanHistory::of(&ledger),
        Err(error) => {
            eprintln!("defragd: {error}; earlier attempts are not considered");
            PlanHistory::default()
        }
    }
}

/// The plan as a table, and a summary sentence.
fn write_plan(
    out: &mut impl Write,
    output: Output,
    plan: &Plan,
    facts: &ClusterFacts,
    gates: &[GateResult],
) -> std::io::Result<()> {
    let mut order = 0;
    let rows = plan.steps.iter().map(|step| {
        let (number, decision, why) = match &step.decision {
            Decision::Defragment { need } => {
                order += 1;
                let why = step.waits_for.as_ref().map_or_else(|| history::why(*need).to_owned(), ToString::to_string);
                let decision = match (&step.waits_for, step.transfer_first) {
                    (Some(_), _) => "wait",
                    (None, true) => "transfer leadership, defragment",
                    (None, false) => "defragment",
                };
                (order.to_string(), decision, why)
            }
            Decision::Skip { reason } => ("-".to_owned(), "skip", reason.to_string()),
        };
        let (total, in_use, frag) = sizes(facts, step.member_id);
        let role = role(facts, step.member_id, step.is_leader);
        vec![
            number,
            step.member.clone(),
            step.member_id.to_string(),
            role,
            total,
            in_use,
            frag,
            step.expected.map_or_else(|| "-".to_owned(), |estimate| table::expected(&estimate)),
            decision.to_owned(),
            why,
        ]
    });
    let headings = ["ORDER>", "MEMBER", "+ID", "ROLE", "DB SIZE>", "IN USE>", "FRAG>", "?EXPECTED>", "DECISION", "WHY"];
    writeln!(out, "{}", table::table(output, &headings, rows.collect()))?;
    let needs_operator = plan.steps.iter().filter_map(|step| match &step.decision {
        Decision::Skip { reason } if reason.severity() == Severity::Operator => Some((&step.member, reason)),
        _ => None,
    });
    for (member, reason) in needs_operator {
        writeln!(out, "What to do about {member}: {}", reason.advice())?;
    }
    for warning in &plan.warnings {
        writeln!(out, "Warning: {warning}")?;
    }
    warn_of_pages(out, facts)?;
    if !gates.is_empty() {
        writeln!(out, "{}", history::gate_table(output, gates))?;
    }
    let against = plan.blocked.clone().or_else(|| gates.iter().find_map(GateResult::against));
    match &against {
        Some(reason) => {
            writeln!(out, "A run would be refused and change nothing: {reason}")?;
            write_advice(out, Some(reason))
        }
        None if order == 0 => writeln!(out, "Nothing to do."),
        None if order == 1 => writeln!(out, "1 member would be defragmented."),
        None => writeln!(out, "{order} members would be defragmented, one at a time, in this order."),
    }
}

fn sizes(facts: &ClusterFacts, member: MemberId) -> (String, String, String) {
    match facts.member(member).map(|facts| &facts.status) {
        Some(Ok(status)) => (
            table::size(status.db_size),
            table::size(status.db_size_in_use),
            format!("{:.0}%", status.fragmentation_ratio() * 100.0),
        ),
        _ => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
    }
}

pub(super) fn role(facts: &ClusterFacts, member: MemberId, is_leader: bool) -> String {
    let learner = facts.member(member).is_some_and(|facts| facts.member.is_learner);
    let role = match (is_leader, learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    };
    role.to_owned()
}
