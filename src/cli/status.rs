//! `defragd status`

use std::{io::Write, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use serde_json::json;

use super::{
    Exit,
    args::{self, Connection, Output, UsageError},
    plan::{past, role},
    server::{Candidate, Server},
    table,
};
use crate::{
    app::observer,
    core::{
        cluster::ClusterFacts,
        explain::for_cluster,
        page, state,
        status_view::{MemberView, StatusView},
        story,
    },
};

/// The same as etcdctl's default command timeout.
const BUDGET: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this cluster, of the file or of the server
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Directory of the journal, to estimate durations from earlier runs [default: as for `defragd run`]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Ask no server, even if there is one on this machine
    #[arg(long)]
    standalone: bool,
    /// Output format
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let is_typed = args::is_typed(&["--server"]);
    if is_typed && args.standalone {
        return Err(UsageError("--standalone has no effect with --server: leave out one of them".to_owned()).into());
    }
    args::refuse_beside_server()?;
    let data_dir = args::data_dir(args.data_dir.clone());
    let cluster = args.cluster.as_deref();
    if is_typed || (!args.standalone && !args.connection.is_given()) {
        match args.server.candidates(&data_dir).await {
            Ok(found) => {
                if let Some(Candidate { server, clusters, shard }) = found.into_iter().next() {
                    let clusters = server.only(clusters, cluster)?;
                    return of_server(args.output, &Candidate { server, clusters, shard }).await;
                }
            }
            Err(error) if is_typed => return Err(error),
            // What etcd answers is as good.
            Err(error) => eprintln!("defragd: {error}; asking etcd itself"),
        }
    }
    let (settings, connect) = args.connection.settings_to_observe(None)?;
    let etcds = args::chosen(settings.clusters, cluster)?
        .into_iter()
        .map(|cluster| anyhow::Ok((connect(&cluster)?, cluster)))
        .collect::<Result<Vec<_>, _>>()?;
    let views = join_all(etcds.iter().map(|(etcd, cluster)| async {
        let (facts, past) = tokio::join!(observer::observe_with_gauges(etcd, BUDGET), past(&data_dir, &cluster.name));
        let (error, facts) = (facts.as_ref().err(), facts.as_ref().ok());
        let left_alone = facts.and_then(|facts| state::left_alone(facts, &cluster.policy));
        StatusView::new(&cluster.name, Duration::ZERO, error, facts, left_alone, Some(&past.speeds))
    }))
    .await;
    write(args.output, &views)
}

/// The members of all clusters of a server, as it measured them.
async fn of_server(output: Output, Candidate { server, clusters, shard }: &Candidate) -> anyhow::Result<Exit> {
    let mut views = Vec::new();
    let mut exit = Exit::Done;
    for (cluster, answer) in clusters.iter().zip(join_all(clusters.iter().map(|one| server.status(&one.name))).await) {
        match answer {
            Ok(view) => views.push(view),
            Err(error) if clusters.len() > 1 => {
                eprintln!("defragd: cluster {}: {error}", cluster.name);
                exit = Exit::Failed;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if output != Output::Json {
        let shard = shard.map_or(String::new(), |here| format!(", {here},"));
        writeln!(std::io::stdout(), "As the server at {}{shard} sees it:", server.url())?;
    }
    Ok(exit.worse(write(output, &views)?))
}

fn write(output: Output, views: &[StatusView]) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{:#}", json!({ "clusters": views }))?,
        output @ (Output::Table | Output::Wide) => write_clusters(&mut out, output, views)?,
    }
    Ok(if views.iter().all(StatusView::is_complete) { Exit::Done } else { Exit::Failed })
}

/// One table for all clusters, and below it what needs attention.
fn write_clusters(out: &mut impl Write, output: Output, views: &[StatusView]) -> std::io::Result<()> {
    let several = views.len() > 1;
    let mut headings = HEADINGS.to_vec();
    if several {
        headings.insert(0, "CLUSTER");
    }
    let mut rows = Vec::new();
    for view in views {
        if let Some(error) = &view.error {
            eprintln!("defragd: cluster {}: {error}", view.cluster);
        }
        if let Some(advice) = &view.advice {
            eprintln!("What to do: {}", here(advice));
        }
        rows.extend(view.members.iter().map(|member| {
            let cluster = several.then(|| view.cluster.clone());
            cluster.into_iter().chain(row(member)).collect()
        }));
    }
    if !rows.is_empty() {
        writeln!(out, "{}", table::table(output, &headings, rows))?;
    }
    for view in views {
        let of = if several { format!("{}: ", view.cluster) } else { String::new() };
        for (armed, advice) in view.armed() {
            writeln!(out, "{of}{armed}\nWhat to do: {}", for_cluster(advice, &view.cluster))?;
        }
        write_errors(out, view, &of)?;
        for warning in &view.warnings {
            writeln!(out, "Warning: {of}{warning}")?;
        }
        if let Some(left_alone) = &view.left_alone {
            writeln!(out, "{of}{left_alone}")?;
        }
        if let Some(measured) = story::measured(view.age) {
            writeln!(out, "{of}{measured}.")?;
        }
    }
    Ok(())
}

/// Below the table: what members report, and what to do about those that do not answer. One that is being defragmented
/// needs nothing. Names follow `of`.
fn write_errors(out: &mut impl Write, view: &StatusView, of: &str) -> std::io::Result<()> {
    for member in &view.members {
        let name = format!("{of}{}", member.label());
        match (&member.unreachable, &member.advice) {
            (None, _) => {
                let errors = errors(member);
                if !errors.is_empty() {
                    writeln!(out, "{name}: {errors}")?;
                }
            }
            (Some(_), None) => writeln!(out, "{name}: is being defragmented")?,
            (Some(detail), Some(advice)) => {
                writeln!(out, "{name}: {detail}\nWhat to do about {name}: {}", here(advice))?;
            }
        }
    }
    Ok(())
}

/// Advice of a reason, without the command that shows it.
fn here(advice: &str) -> String {
    let advice = advice.replace("see `defragd status`, ", "see ").replace(" (`defragd status`)", "");
    match advice.split_once(": `defragd status`") {
        Some((before, shows)) => format!("{before}{}", shows.find('.').map_or(".", |end| &shows[end..])),
        None => advice,
    }
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

fn row(member: &MemberView) -> [String; HEADINGS.len()] {
    fn known<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
        value.map_or_else(|| "-".to_owned(), show)
    }
    let number = |value| known(value, |number: u64| number.to_string());
    [
        member.label(),
        role(member.is_leader, member.is_learner).to_owned(),
        known(member.db_size, story::size),
        known(member.db_size_in_use, story::size),
        known(member.fragmentation_ratio, |ratio| format!("{:.0}%", ratio * 100.0)),
        known(member.db_quota, story::size),
        known(member.expected_defrag.as_ref(), table::expected),
        known(member.version.clone(), |version| version),
        member.endpoint.clone().unwrap_or_default(),
        member.member_id.to_string(),
        number(member.raft_term),
        number(member.raft_index),
        number(member.raft_applied_index),
    ]
}

/// The errors that the member itself reports, without alarms, which are the cluster's, and snapshots that block its
/// defragmentation.
fn errors(member: &MemberView) -> String {
    let open = member.open_snapshots.filter(|open| *open > 0);
    let open = open.map(|open| format!("sending {}", story::snapshots(open)));
    let reported = member.errors.iter().flatten().filter(|error| !error.contains(" alarm:"));
    let reported = reported.map(|error| error.trim().to_owned());
    reported.chain(open).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;
    use crate::core::{
        cluster::{Alarm, AlarmKind, Unknown, UnknownKind},
        estimate::Speeds,
        fixture,
        reason::Code,
    };

    fn shown(output: Output, clusters: &[(&str, ClusterFacts)]) -> String {
        let mut out = Vec::new();
        let view = |(name, facts): &(&str, ClusterFacts)| {
            StatusView::new(name, Duration::ZERO, None, Some(facts), None, Some(&Speeds::default()))
        };
        write_clusters(&mut out, output, &clusters.iter().map(view).collect::<Vec<_>>()).unwrap();
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
            vec![("etcd", facts.clone())],
            vec![("kube-system-production-eu-central-1", facts.clone()), ("events", facts.clone())],
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
    fn an_armed_alarm_is_named_once_with_the_members_and_what_to_do() {
        let mut facts = fixture::cluster(3);
        for index in 0..3 {
            fixture::status_mut(&mut facts, index).errors = vec!["memberID:3 alarm:NOSPACE ".to_owned()];
        }
        facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: Some(facts.members[2].member.id) }]);
        let text = shown(Output::Table, &[("etcd", facts)]);
        let named =
            "\nalarm NOSPACE is armed, raised by etcd-3: the cluster accepts no writes\nWhat to do: A run defragments";
        assert!(text.contains(named) && !text.contains("memberID"), "{text}");
    }

    #[test]
    fn no_advice_leads_back_to_this_command() {
        for code in Code::iter().filter(|code| *code != Code::UnknownMember) {
            let shown = here(code.advice());
            assert!(!shown.contains("`defragd status`") && shown.ends_with('.'), "{shown}");
        }
        let shown = here("Wait until it ends: `defragd status` shows it. Then continue.");
        assert_eq!(shown, "Wait until it ends. Then continue.");
    }

    #[test]
    fn errors_and_what_is_known_of_the_versions_are_below_the_table() {
        let mut facts = fixture::cluster(3);
        fixture::status_mut(&mut facts, 0).version = "3.5.16".to_owned();
        fixture::status_mut(&mut facts, 1).version = "3.4.23".to_owned();
        facts.members[2].status = Err(Unknown::new(UnknownKind::Unreachable, "connection refused"));
        let text = shown(Output::Table, &[("etcd", facts)]);
        assert!(
            text.contains("\nWarning: etcd 3.5.16 (etcd-1): a snapshot applied during a defragmentation"),
            "{text}"
        );
        assert!(text.contains("(#20271)"), "{text}");
        assert!(text.contains("\nWarning: etcd 3.4.23 (etcd-2): no fixes since May 2026: upgrade it\n"), "{text}");
        assert!(text.contains("\netcd-3: connection refused\nWhat to do about etcd-3: "), "{text}");
    }
}
