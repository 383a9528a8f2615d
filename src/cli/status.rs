//! `defragd status`

use std::{io::Write, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Exit,
    args::{self, Connection, Output},
    plan::{past, role, unanswered},
    table,
};
use crate::{
    app::observer,
    core::{
        cluster::{ClusterFacts, Fact, MemberFacts, Status, Unknown},
        estimate::Speeds,
        page, safety, story, version,
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
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let (settings, connect) = args.connection.settings_to_observe(None)?;
    let etcds = settings
        .clusters
        .into_iter()
        .map(|cluster| anyhow::Ok((connect(&cluster)?, cluster.name)))
        .collect::<Result<Vec<_>, _>>()?;
    let data_dir = args::data_dir(args.data_dir);
    let observed = join_all(etcds.iter().map(|(etcd, name)| async {
        let (mut facts, past) = tokio::join!(observer::observe_with_gauges(etcd, BUDGET), past(&data_dir, name));
        if let Ok(facts) = &mut facts {
            facts.members.sort_by_cached_key(|member| member.member.label());
        }
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
        output @ (Output::Table | Output::Wide) => write_clusters(&mut out, output, &observed)?,
    }
    Ok(if complete { Exit::Done } else { Exit::Failed })
}

/// One table for all clusters, and below it what needs attention.
fn write_clusters(
    out: &mut impl Write,
    output: Output,
    observed: &[(String, Fact<ClusterFacts>, Speeds)],
) -> std::io::Result<()> {
    let several = observed.len() > 1;
    let mut headings = HEADINGS.to_vec();
    if several {
        headings.insert(0, "CLUSTER");
    }
    let mut rows = Vec::new();
    for (name, facts, speeds) in observed {
        match facts {
            Ok(facts) => rows.extend(facts.members.iter().map(|member| {
                let cluster = several.then(|| name.clone());
                cluster.into_iter().chain(row(facts, member, speeds)).collect()
            })),
            Err(unknown) => eprintln!("defragd: cluster {name}: {}", unanswered(unknown)),
        }
    }
    if !rows.is_empty() {
        writeln!(out, "{}", table::table(output, &headings, rows))?;
    }
    for facts in observed.iter().filter_map(|(_, facts, _)| facts.as_ref().ok()) {
        write_errors(out, facts)?;
        warn_of_versions(out, facts)?;
        warn_of_pages(out, facts)?;
    }
    Ok(())
}

/// Below the table: what members report, and what to do about those that do not answer. One that is being defragmented
/// needs nothing.
fn write_errors(out: &mut impl Write, facts: &ClusterFacts) -> std::io::Result<()> {
    for member in &facts.members {
        let name = member.member.label();
        match &member.status {
            Ok(status) => {
                let errors = errors(member, status);
                if !errors.is_empty() {
                    writeln!(out, "{name}: {errors}")?;
                }
            }
            Err(_) if member.defrag_in_flight() == Some(true) => writeln!(out, "{name}: is being defragmented")?,
            Err(unknown) => {
                let advice = safety::unknown_status(name.clone(), unknown).advice();
                writeln!(out, "{name}: {}\nWhat to do about {name}: {advice}", unknown.detail)?;
            }
        }
    }
    Ok(())
}

/// Below a table: what is known against the versions that the members run.
fn warn_of_versions(out: &mut impl Write, facts: &ClusterFacts) -> std::io::Result<()> {
    version::of_cluster(facts).iter().try_for_each(|warning| writeln!(out, "Warning: {warning}"))
}

/// Below a table: the members whose metrics page cannot be read, so that some values are unknown.
pub(super) fn warn_of_pages(out: &mut impl Write, facts: &ClusterFacts) -> std::io::Result<()> {
    facts.members.iter().filter_map(page::unread).try_for_each(|detail| writeln!(out, "Warning: {detail}"))
}

/// See [`table::table`] for the marks.
const HEADINGS: [&str; 13] = [
    "MEMBER",
    "ROLE",
    "DB SIZE>",
    "IN USE>",
    "FRAG>",
    "QUOTA>",
    "?EXPECTED>",
    "?VERSION",
    "?ENDPOINT",
    "+ID",
    "+RAFT TERM>",
    "+RAFT INDEX>",
    "+RAFT APPLIED INDEX>",
];

fn row(facts: &ClusterFacts, member: &MemberFacts, speeds: &Speeds) -> [String; HEADINGS.len()] {
    let known = |show: &dyn Fn(&Status) -> String| member.status.as_ref().map_or_else(|_| "-".to_owned(), show);
    let id = member.member.id;
    [
        member.member.label(),
        role(facts.leader() == Some(id), facts.member(id).is_some_and(|facts| facts.member.is_learner)).to_owned(),
        known(&|status| table::size(status.db_size)),
        known(&|status| table::size(status.db_size_in_use)),
        known(&|status| format!("{:.0}%", status.fragmentation_ratio() * 100.0)),
        known(&|status| status.quota.map_or("-".to_owned(), table::size)),
        known(&|status| table::expected(&speeds.estimate(id, status.db_size_in_use))),
        known(&|status| status.version.clone()),
        member.member.client_urls.first().cloned().unwrap_or_default(),
        id.to_string(),
        known(&|status| status.raft_term.to_string()),
        known(&|status| status.raft_index.to_string()),
        known(&|status| status.raft_applied_index.to_string()),
    ]
}

/// The errors that the member itself reports, and snapshots that block its defragmentation.
fn errors(member: &MemberFacts, status: &Status) -> String {
    let open = member.open_snapshots().filter(|open| *open > 0);
    let open = open.map(|open| format!("sending {}", story::snapshots(open)));
    status.errors.iter().map(|error| error.trim().to_owned()).chain(open).collect::<Vec<_>>().join(", ")
}

fn cluster_json(name: &str, facts: Result<&ClusterFacts, &Unknown>, speeds: &Speeds) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{cluster::UnknownKind, fixture};

    fn shown(output: Output, observed: &[(String, Fact<ClusterFacts>, Speeds)]) -> String {
        let mut out = Vec::new();
        write_clusters(&mut out, output, observed).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn table(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.starts_with(['|', '+'])).collect()
    }

    fn long_names() -> ClusterFacts {
        let mut facts = fixture::cluster(9);
        for member in &mut facts.members {
            let name = format!("ip-10-0-{}-17.eu-central-1.compute.internal", member.member.id);
            member.member.client_urls = vec![format!("https://{name}:2379")];
            member.member.name = name;
        }
        facts
    }

    #[test]
    fn nine_members_with_long_names_fit_into_120_columns_and_wide_shows_all_of_them() {
        let facts = long_names();
        for observed in [
            vec![("etcd".to_owned(), Ok(facts.clone()), Speeds::default())],
            vec![
                ("kube-system-production-eu-central-1".to_owned(), Ok(facts.clone()), Speeds::default()),
                ("events".to_owned(), Ok(facts.clone()), Speeds::default()),
            ],
        ] {
            let text = shown(Output::Table, &observed);
            let widths: std::collections::BTreeSet<_> = table(&text).iter().map(|line| line.chars().count()).collect();
            assert!(widths.len() == 1 && widths.iter().all(|width| *width <= 120), "{widths:?}\n{text}");
            assert!(text.contains("FRAG") && text.contains("QUOTA") && text.contains("90%"), "{text}");
            let wide = shown(Output::Wide, &observed);
            for member in &facts.members {
                assert!(wide.contains(&member.member.client_urls[0]), "{wide}");
            }
            assert!(wide.contains("RAFT APPLIED INDEX") && wide.contains("VERSION"), "{wide}");
        }
    }

    #[test]
    fn errors_and_what_is_known_of_the_versions_are_below_the_table() {
        let mut facts = fixture::cluster(3);
        fixture::status_mut(&mut facts, 0).version = "3.5.16".to_owned();
        fixture::status_mut(&mut facts, 1).version = "3.4.23".to_owned();
        facts.members[2].status = Err(Unknown::new(UnknownKind::Unreachable, "connection refused"));
        let text = shown(Output::Table, &[("etcd".to_owned(), Ok(facts), Speeds::default())]);
        assert!(
            text.contains("\nWarning: etcd 3.5.16 (etcd-1): a snapshot applied during a defragmentation"),
            "{text}"
        );
        assert!(text.contains("(#20271)"), "{text}");
        assert!(text.contains("\nWarning: etcd 3.4.23 (etcd-2): no fixes since May 2026: upgrade it\n"), "{text}");
        assert!(text.contains("\netcd-3: connection refused\nWhat to do about etcd-3: "), "{text}");
    }
}
