//! `defragd status`

use std::{io::Write, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Exit,
    args::{self, Connection, Output},
    plan::{past, unanswered},
    table,
};
use crate::{
    app::observer,
    core::{
        cluster::{ClusterFacts, MemberFacts, Status},
        estimate::Speeds,
        page, safety, story,
    },
};

/// The same as etcdctl's default command timeout.
const BUDGET: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory of the journal, to estimate durations from earlier runs [default: as for `defragd run`]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let (settings, connect) = args.connection.settings_to_observe(None)?;
    let several = settings.clusters.len() > 1;
    let etcds = settings
        .clusters
        .into_iter()
        .map(|cluster| anyhow::Ok((connect(&cluster)?, cluster.name)))
        .collect::<Result<Vec<_>, _>>()?;
    let data_dir = args::data_dir(args.data_dir);
    let observed = join_all(etcds.iter().map(|(etcd, name)| async {
        let (facts, past) = tokio::join!(observer::observe_with_gauges(etcd, BUDGET), past(&data_dir, name));
        (name.clone(), facts, past.speeds)
    }))
    .await;
    let complete = observed.iter().all(|(_, facts, _)| {
        facts.as_ref().is_ok_and(|facts| facts.members.iter().all(|member| member.status.is_ok()))
    });
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => {
            let clusters: Vec<_> =
                observed.iter().map(|(name, facts, speeds)| cluster_json(name, facts.as_ref(), speeds)).collect();
            writeln!(out, "{:#}", json!({ "clusters": clusters }))?;
        }
        Output::Table => {
            let mut headings = vec![
                "ENDPOINT",
                "ID",
                "NAME",
                "VERSION",
                "DB SIZE>",
                "IN USE>",
                "FRAG>",
                "QUOTA>",
                "EXPECTED>",
                "IS LEADER",
                "IS LEARNER",
                "RAFT TERM>",
                "RAFT INDEX>",
                "RAFT APPLIED INDEX>",
                "ERRORS",
            ];
            let mut rows = Vec::new();
            for (name, facts, speeds) in &observed {
                match facts {
                    Ok(facts) => rows.extend(facts.members.iter().map(|member| (name, row(facts, member, speeds)))),
                    Err(unknown) => eprintln!("defragd: cluster {name}: {}", unanswered(unknown)),
                }
            }
            if several {
                headings.insert(0, "CLUSTER");
            }
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(name, mut row)| {
                    if several {
                        row.insert(0, name.clone());
                    }
                    row
                })
                .collect();
            if !rows.is_empty() {
                writeln!(out, "{}", table::table(&headings, rows))?;
            }
            for facts in observed.iter().filter_map(|(_, facts, _)| facts.as_ref().ok()) {
                advise(&mut out, facts)?;
                warn_of_pages(&mut out, facts)?;
            }
        }
    }
    Ok(if complete { Exit::Done } else { Exit::Failed })
}

/// Below the table: what to do about members that do not answer. One that is being defragmented needs nothing.
fn advise(out: &mut impl Write, facts: &ClusterFacts) -> std::io::Result<()> {
    for member in facts.members.iter().filter(|member| member.defrag_in_flight() != Some(true)) {
        if let Err(unknown) = &member.status {
            let name = member.member.label();
            let reason = safety::unknown_status(name.clone(), unknown);
            writeln!(out, "What to do about {name}: {}", reason.advice())?;
        }
    }
    Ok(())
}

/// Below a table: the members whose metrics page cannot be read, so that some values are unknown.
pub(super) fn warn_of_pages(out: &mut impl Write, facts: &ClusterFacts) -> std::io::Result<()> {
    facts.members.iter().filter_map(page::unread).try_for_each(|detail| writeln!(out, "Warning: {detail}"))
}

fn row(facts: &ClusterFacts, member: &MemberFacts, speeds: &Speeds) -> Vec<String> {
    let mut row = vec![
        member.member.client_urls.first().cloned().unwrap_or_default(),
        member.member.id.to_string(),
        member.member.name.clone(),
    ];
    match &member.status {
        Ok(status) => row.extend([
            status.version.clone(),
            table::size(status.db_size),
            table::size(status.db_size_in_use),
            format!("{:.0}%", status.fragmentation_ratio() * 100.0),
            status.quota.map_or("-".to_owned(), table::size),
            table::expected(&speeds.estimate(member.member.id, status.db_size_in_use)),
            (facts.leader() == Some(member.member.id)).to_string(),
            member.member.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            errors(member, status),
        ]),
        Err(unknown) => {
            row.extend(std::iter::repeat_n("-".to_owned(), 7));
            row.push(member.member.is_learner.to_string());
            row.extend(std::iter::repeat_n("-".to_owned(), 3));
            let busy = member.defrag_in_flight() == Some(true);
            row.push(if busy { "is being defragmented".to_owned() } else { unknown.detail.clone() });
        }
    }
    row
}

/// The errors that the member itself reports, and snapshots that block its defragmentation.
fn errors(member: &MemberFacts, status: &Status) -> String {
    let open = member.open_snapshots().filter(|open| *open > 0);
    let open = open.map(|open| format!("sending {}", story::snapshots(open)));
    status.errors.iter().map(|error| error.trim().to_owned()).chain(open).collect::<Vec<_>>().join(", ")
}

fn cluster_json(name: &str, facts: Result<&ClusterFacts, &crate::core::cluster::Unknown>, speeds: &Speeds) -> Value {
    match facts {
        Err(unknown) => json!({ "cluster": name, "error": unknown.detail }),
        Ok(facts) => json!({
            "cluster": name,
            "cluster_id": facts.cluster_id,
            "alarms": facts.alarms.as_ref().ok().map(|alarms| alarms.iter().map(|alarm| json!({
                "alarm": alarm.kind.as_str(), "member_id": alarm.member,
            })).collect::<Vec<_>>()),
            "members": facts.members.iter().map(|member| member_json(facts, member, speeds)).collect::<Vec<_>>(),
        }),
    }
}

fn member_json(facts: &ClusterFacts, member: &MemberFacts, speeds: &Speeds) -> Value {
    let status = member.status.as_ref().ok();
    json!({
        "endpoint": member.member.client_urls.first(),
        "member_id": member.member.id,
        "member": member.member.name,
        "is_learner": member.member.is_learner,
        "is_leader": facts.leader() == Some(member.member.id),
        "defrag_in_progress": member.defrag_in_flight(),
        "open_snapshots": member.open_snapshots(),
        "stops_grpc_on_defrag": member.gauges.as_ref().and_then(|gauges| gauges.as_ref().ok()?.stop_grpc_on_defrag),
        "metrics_page_error": member.gauges.as_ref().and_then(|gauges| gauges.as_ref().err()).map(|error| &error.detail),
        "expected_defrag": status.map(|s| speeds.estimate(member.member.id, s.db_size_in_use)),
        "version": status.map(|s| &s.version),
        "storage_version": status.map(|s| &s.storage_version),
        "db_size_bytes": status.map(|s| s.db_size.0),
        "db_size_in_use_bytes": status.map(|s| s.db_size_in_use.0),
        "db_quota_bytes": status.and_then(|s| s.quota).map(|quota| quota.0),
        "fragmentation_ratio": status.map(Status::fragmentation_ratio),
        "quota_usage_ratio": status.and_then(Status::quota_usage_ratio),
        "raft_term": status.map(|s| s.raft_term),
        "raft_index": status.map(|s| s.raft_index),
        "raft_applied_index": status.map(|s| s.raft_applied_index),
        "errors": status.map(|s| &s.errors),
        "unreachable": member.status.as_ref().err().map(|unknown| &unknown.detail),
    })
}
