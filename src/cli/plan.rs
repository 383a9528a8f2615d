//! `defragd plan`

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{
    Exit,
    args::{self, Connection, Output, PolicyArgs, UsageError},
    server::{Candidate, Responsible, ServedCluster, Server},
    status::warn_of_pages,
    table,
};
use crate::{
    adapters::{
        clock::SystemClock,
        journal::{FILE_NAME, SqliteJournal},
    },
    app::{checks, gates, ledger, observer},
    config::LockKind,
    core::{
        cluster::Unknown,
        explain::{self, Severity},
        gate::Moment,
        history::{RunId, Trigger},
        hold::HoldView,
        ledger::Ledger,
        plan::{Decision, PlanHistory},
        plan_view::{PlanInputs, PlanStep, PlanView},
        policy::Mode,
        reason::Reason,
        safety, story,
    },
    ports::clock::Clock,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this cluster, of the file or of the server
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Directory of the journal, to consider earlier attempts, pauses and limits [default: as for `defragd run`]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Show what would hold a run that an operator requests (`defragd run`), instead of an automatic one
    #[arg(long)]
    as_manual: bool,
    /// Ask no server, even if one on this machine serves the cluster
    #[arg(long)]
    standalone: bool,
    /// Output format
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(mut args: Args) -> anyhow::Result<Exit> {
    if args.connection.config.is_none() && args.policy.mode.is_none() {
        // As for `defragd run`, which is what such a plan is about.
        args.policy.mode = Some("enforce".to_owned());
    }
    args::refuse_beside_server()?;
    let data_dir = args::data_dir(args.data_dir.clone());
    let is_typed = args::is_typed(&["--server"]);
    let servers = if is_typed || asks_servers(&args) { args.server.candidates(&data_dir).await? } else { Vec::new() };
    let acts = |clusters: &[ServedCluster]| clusters.iter().any(|cluster| cluster.acts);
    let chosen = servers.iter().find(|one| is_typed || acts(&one.clusters));
    if let Some(Candidate { server, clusters, .. }) = chosen.filter(|_| is_typed || !args.connection.is_given()) {
        return of_server(&args, server, clusters).await;
    }
    let (settings, connect) = args.connection.settings_to_observe(Some(&args.policy))?;
    let mut exit = Exit::Done;
    let mut json_plans = Vec::new();
    let mut out = std::io::stdout().lock();
    let chosen = args::chosen(settings.clusters, args.cluster.as_deref())?;
    let several = chosen.len() > 1;
    // A running server has more holds than its journal shows.
    let is_served = SqliteJournal::is_held(&data_dir);
    let has_lock = settings.lock.kind != LockKind::None;
    for cluster in chosen {
        if let Some(Responsible { server, cluster }) =
            args.server.responsible_among(&servers, Some(&cluster), None).await?
        {
            let ended = show_plan_of(&mut out, &args, &server, &cluster, several, &mut json_plans).await?;
            exit = exit.worse(ended);
            continue;
        }
        let facts = match Box::pin(observer::observe_all(&connect(&cluster)?)).await {
            Ok(facts) => facts,
            Err(unknown) if several => {
                eprintln!("defragd: cluster {}: {}", cluster.name, unanswered(&unknown));
                json_plans.push(json!({ "cluster": cluster.name, "error": unknown.detail }));
                exit = exit.worse(Exit::Failed);
                continue;
            }
            Err(unknown) => return Err(anyhow!(unanswered(&unknown))),
        };
        let gates = checks::run(&gates::of(&cluster)?, Moment::Before, &BTreeMap::new()).await;
        let read = read_ledger(&data_dir, &cluster.name).await;
        let mut unknown_holds = Vec::new();
        if let Err(error) = &read {
            let why = if data_dir.join(FILE_NAME).exists() {
                error.clone()
            } else {
                format!("there is no journal in {} (--data-dir)", data_dir.display())
            };
            unknown_holds.push(format!("pauses, limits and earlier runs: {why}"));
        }
        if has_lock {
            unknown_holds.push("the cluster's lock: the running server knows who holds it".to_owned());
        }
        if let Some(url) = settings.shards.owner_of(&cluster.name).and_then(|owner| settings.shards.url_of(owner)) {
            let name = &cluster.name;
            unknown_holds
                .push(format!("what the shard that serves it knows: defragd plan --server {url} --cluster {name}"));
        }
        if is_served {
            unknown_holds.push("--max-concurrent-runs: the running server knows which runs are in progress".to_owned());
        }
        let ledger = read.unwrap_or_default();
        let open = ledger.runs.iter().rev().find(|run| run.outcome.is_none());
        let is_busy = open.is_some_and(|run| run.started_at.is_some() || run.request.trigger == Trigger::Manual);
        let busy = (is_served && is_busy && args.as_manual).then_some(Reason::AlreadyRequested);
        let at = SystemClock.now();
        let plan = PlanView::new(PlanInputs {
            cluster: &cluster.name,
            at,
            now: at,
            facts: &facts,
            policy: &cluster.policy,
            ledger: &ledger,
            run: open,
            as_manual: args.as_manual,
            gates,
            others: busy.into_iter().collect(),
            unknown_holds,
        });
        exit = exit.worse(if plan.is_held() { Exit::Refused } else { Exit::Done });
        match args.output {
            Output::Json => json_plans.push(serde_json::to_value(&plan)?),
            output @ (Output::Table | Output::Wide) => {
                if several {
                    writeln!(out, "cluster {}:", cluster.name)?;
                }
                write_plan(&mut out, output, &plan)?;
                warn_of_pages(&mut out, &facts)?;
            }
        }
    }
    if args.output == Output::Json {
        writeln!(out, "{:#}", json!({ "plans": json_plans }))?;
    }
    Ok(exit)
}

/// Flags that change the policy make it a plan of this process.
fn asks_servers(args: &Args) -> bool {
    !args.standalone && PolicyArgs::typed().is_none() && !args::is_typed(&["--mode"])
}

/// The plans of all clusters of a server.
async fn of_server(args: &Args, server: &Server, clusters: &[ServedCluster]) -> anyhow::Result<Exit> {
    if let Some(flag) = PolicyArgs::typed().or_else(|| args::typed_flag(&["--mode", "--standalone"])) {
        let what = format!("{flag} has no effect on a server, which has its own policy: leave out --server");
        return Err(UsageError(what).into());
    }
    let (mut exit, mut json_plans, mut out) = (Exit::Done, Vec::new(), std::io::stdout().lock());
    let acting: Vec<_> = clusters.iter().filter(|cluster| cluster.acts).cloned().collect();
    if acting.is_empty() {
        return Err(UsageError(format!("the server at {} acts on no cluster", server.url())).into());
    }
    let clusters = server.only(acting, args.cluster.as_deref())?;
    let several = clusters.len() > 1;
    for cluster in &clusters {
        exit = exit.worse(show_plan_of(&mut out, args, server, cluster, several, &mut json_plans).await?);
    }
    if args.output == Output::Json {
        writeln!(out, "{:#}", json!({ "plans": json_plans }))?;
    }
    Ok(exit)
}

/// The plan of one cluster of a server. Of several, one that cannot be observed does not keep the others from being
/// shown.
async fn show_plan_of(
    out: &mut impl Write,
    args: &Args,
    server: &Server,
    cluster: &ServedCluster,
    several: bool,
    json_plans: &mut Vec<Value>,
) -> anyhow::Result<Exit> {
    let plan = match server.plan(&cluster.name, args.as_manual).await {
        Ok(plan) => plan,
        Err(error) if several => {
            eprintln!("defragd: cluster {}: {error}", cluster.name);
            json_plans.push(json!({ "cluster": cluster.name, "error": error.to_string() }));
            return Ok(Exit::Failed);
        }
        Err(error) => return Err(error.into()),
    };
    match args.output {
        Output::Json => json_plans.push(serde_json::to_value(&plan)?),
        output => {
            let (name, url, mode) = (&plan.cluster, server.url(), plan.mode.label());
            writeln!(out, "cluster {name}, as the server at {url} sees it (mode {mode}):")?;
            write_plan(out, output, &plan)?;
        }
    }
    Ok(if plan.is_held() { Exit::Refused } else { Exit::Done })
}

pub(super) fn unanswered(unknown: &Unknown) -> String {
    format!("no endpoint answered: {unknown}\nWhat to do: {}", safety::no_member_list(unknown).advice())
}

/// What the journal records of earlier runs and of operators' actions. The error is for people.
async fn read_ledger(data_dir: &Path, cluster: &str) -> Result<Ledger, String> {
    let journal = SqliteJournal::open_read_only(data_dir).map_err(|error| error.to_string())?;
    ledger::read(&journal, cluster).await.map_err(|error| error.to_string())
}

/// The same for commands that only need earlier attempts, if a journal exists and is readable.
pub(super) async fn past(data_dir: &Path, cluster: &str) -> PlanHistory {
    if !data_dir.join(FILE_NAME).exists() {
        return PlanHistory::default();
    }
    let ledger = read_ledger(data_dir, cluster).await.unwrap_or_else(|error| {
        eprintln!("defragd: {error}; earlier attempts are not considered");
        Ledger::default()
    });
    PlanHistory::of(&ledger)
}

/// The plan as a table, with everything that holds it back and a summary.
pub(super) fn write_plan(out: &mut impl Write, output: Output, plan: &PlanView) -> std::io::Result<()> {
    let mut order = 0;
    let rows = plan.steps.iter().map(|step| {
        if matches!(step.planned.decision, Decision::Defragment { .. }) {
            order += 1;
        }
        row(step, order)
    });
    let headings = ["ORDER>", "MEMBER", "+ID", "ROLE", "DB SIZE>", "IN USE>", "FRAG>", "?EXPECTED>", "DECISION", "WHY"];
    writeln!(out, "{}", table::table(output, &headings, rows.collect()))?;
    // Its advice follows below.
    let is_hold = |reason: &Reason| plan.holds.iter().any(|hold| hold.reason == *reason);
    let needs_operator = plan.steps.iter().filter_map(|step| match &step.planned.decision {
        Decision::Skip { reason } if reason.severity() == Severity::Operator && !is_hold(reason) => {
            Some((&step.planned.member, reason))
        }
        _ => None,
    });
    for (member, reason) in needs_operator {
        writeln!(out, "What to do about {member}: {}", explain::for_cluster(reason.advice(), &plan.cluster))?;
    }
    for warning in &plan.warnings {
        writeln!(out, "Warning: {warning}")?;
    }
    if !plan.gates.is_empty() {
        writeln!(out, "{}", table::gate_table(output, &plan.gates))?;
    }
    if plan.totals.members > 0 {
        writeln!(out, "{}", plan.leader)?;
    }
    if let Some(age) = story::measured(plan.age) {
        writeln!(out, "{age}; a run measures everything again before each member.")?;
    }
    writeln!(out, "{}", summary(plan))?;
    if plan.is_held() {
        writeln!(out, "{}", held(plan))?;
    }
    for hold in &plan.holds {
        let (line, advice) = hold_lines(hold, plan.run, &plan.cluster);
        writeln!(out, "- {line}")?;
        if let Some(advice) = advice {
            writeln!(out, "  What to do: {advice}")?;
        }
    }
    for unknown in &plan.unknown_holds {
        writeln!(out, "Not checked: {unknown}")?;
    }
    Ok(())
}

fn summary(plan: &PlanView) -> String {
    let totals = &plan.totals;
    let (freed, time) = (story::size(totals.reclaimable), story::about_seconds(totals.unavailable));
    match totals.members {
        0 => "Nothing to do.".to_owned(),
        1 => format!("1 member would be defragmented: up to {freed} freed, unavailable for {time}."),
        members => format!(
            "{members} members would be defragmented, one at a time, in this order: up to {freed} freed; each is \
             unavailable in turn, for {time} together."
        ),
    }
}

fn held(plan: &PlanView) -> &'static str {
    match (plan.as_manual, plan.mode) {
        (_, Mode::Observe) => "A run is held now:",
        (true, _) => "A run that an operator requests is held now:",
        (false, _) => "An automatic run is held now:",
    }
}

/// The hold, and what to do about it. `run` is the one that waits for it.
fn hold_lines(hold: &HoldView, run: Option<RunId>, cluster: &str) -> (String, Option<String>) {
    let since = hold.since.map_or(String::new(), |since| format!(" (since {})", story::time(since)));
    let line = format!("{}{since}", hold.reason);
    match (&hold.reason, run) {
        (Reason::AwaitingApproval { .. }, Some(run)) => {
            let decide = "or decide on the status page.";
            (line, Some(format!("`defragd approve {run}`, or `defragd reject {run} --reason TEXT`, {decide}")))
        }
        (Reason::AwaitingApproval { .. }, None) => {
            ("once requested, a run waits for an operator's approval".to_owned(), None)
        }
        (reason, _) => (line, reason.to_do_for(cluster)),
    }
}

/// `order` is how many members come up to this one.
fn row(step: &PlanStep, order: usize) -> Vec<String> {
    let planned = &step.planned;
    let (number, decision, why) = match &planned.decision {
        Decision::Defragment { need } => {
            let why = planned.waits_for.as_ref().map_or_else(|| story::why(*need).to_owned(), ToString::to_string);
            let decision = match (&planned.waits_for, planned.transfer_first) {
                (Some(_), _) => "wait",
                (None, true) => "transfer leadership, defragment",
                (None, false) => "defragment",
            };
            (order.to_string(), decision, why)
        }
        Decision::Skip { reason } => ("-".to_owned(), "skip", reason.to_string()),
    };
    let none = || "-".to_owned();
    let size = |size: fn(&crate::core::history::Sizes) -> bytesize::ByteSize| {
        step.sizes.as_ref().map_or_else(none, |sizes| story::size(size(sizes)))
    };
    vec![
        number,
        planned.member.clone(),
        planned.member_id.to_string(),
        role(step.planned.is_leader, step.is_learner).to_owned(),
        size(|sizes| sizes.db_size),
        size(|sizes| sizes.db_size_in_use),
        step.sizes.as_ref().map_or_else(none, |sizes| format!("{:.0}%", sizes.fragmentation_ratio() * 100.0)),
        planned.expected.map_or_else(none, |estimate| table::expected(&estimate)),
        decision.to_owned(),
        why,
    ]
}

pub(super) fn role(is_leader: bool, is_learner: bool) -> &'static str {
    match (is_leader, is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_the_run_that_waits_for_approval_and_asks_for_none_before_there_is_one() {
        let hold = HoldView::new(Reason::AwaitingApproval { until: jiff::Timestamp::UNIX_EPOCH }, None);
        let (line, advice) = hold_lines(&hold, Some(RunId(7)), "a");
        assert_eq!(line, "waiting for approval, until 1970-01-01 00:00 UTC");
        assert!(
            advice.is_some_and(|advice| advice.starts_with("`defragd approve 7`, or `defragd reject 7 --reason TEXT`"))
        );
        let none = ("once requested, a run waits for an operator's approval".to_owned(), None);
        assert_eq!(hold_lines(&hold, None, "a"), none);
    }
}
