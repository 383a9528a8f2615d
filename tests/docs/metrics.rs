//! `docs/reference/metrics.md`: made of what the registries show when everything that can have a series has one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use bytesize::ByteSize;
use defragd::{
    core::{
        cluster::{ClusterFacts, ClusterId, Member, MemberFacts, MemberId, Status, Unknown, UnknownKind},
        estimate::Speeds,
        fixture,
        gate::{GateKind, GateResult, GateRule, Moment, OnFailure},
        history::{Intent, MemberEnd, MemberResult, RunId, Sizes},
        policy::Need,
        reason::Reason,
    },
    ports::service::{AlertDecision, ScrapePage},
    telemetry::{
        counters::Counters,
        members::{AdmissionSample, ClusterSample, LastDefrag},
        probe,
    },
};
use jiff::Timestamp;

use crate::held;

/// What the labels mean.
const LABELS: [(&str, &str); 19] = [
    ("alarm", "An alarm of etcd"),
    ("cluster_id", "etcd's id of the cluster, in hexadecimal"),
    ("code", "An HTTP status"),
    ("decision", "What defragd decided: to start, skip, ignore, refuse, stop or wait"),
    ("etcd_cluster", "The cluster's name in the configuration; in `/probe`, the target"),
    ("gate", "The gate's name in the configuration"),
    ("member", "The member's name, or its id while it has none"),
    ("member_id", "The member's id, in hexadecimal"),
    ("moment", "When in a run a gate is checked"),
    ("outcome", "How a run ended"),
    ("page", "Which page was scraped"),
    ("reason", "The code of a [reason](reasons.md), or why a member or cluster does not answer"),
    ("result", "What came of it"),
    ("revision", "The commit that defragd was built from"),
    ("role", "Whether members vote"),
    ("storage_version", "The version of the member's storage format, of etcd 3.6 and later"),
    ("target", "The target's name in `notify`"),
    ("trigger", "What requested a run"),
    ("version", "A version, of the member or of defragd"),
];
/// Labels whose values all have a series from the start.
const LISTED: [&str; 7] = ["alarm", "moment", "outcome", "page", "result", "role", "trigger"];

const SIZES: Sizes = Sizes { db_size: ByteSize::gib(2), db_size_in_use: ByteSize::gib(1) };

fn member(id: u64, status: Result<Status, Unknown>) -> MemberFacts {
    MemberFacts {
        member: Member {
            id: MemberId(id),
            name: format!("etcd-{id}"),
            client_urls: vec!["http://127.0.0.1:1".to_owned()],
            is_learner: false,
        },
        status,
        gauges: None,
        linearizable_read: None,
        probe_duration: Duration::from_millis(3),
    }
}

/// A cluster with a member that answers and one that does not, both defragmented before.
fn cluster() -> ClusterSample {
    let status = Status {
        version: "3.6.0".to_owned(),
        storage_version: Some("3.6.0".to_owned()),
        db_size: SIZES.db_size,
        db_size_in_use: SIZES.db_size_in_use,
        ..fixture::status(1)
    };
    let down = Unknown { kind: UnknownKind::Unreachable, detail: String::new() };
    let facts = ClusterFacts {
        cluster_id: ClusterId(1),
        members: vec![member(1, Ok(status)), member(2, Err(down))],
        alarms: Ok(Vec::new()),
    };
    let last = |id| {
        let intent = Intent {
            member_id: id,
            member: "etcd-1".to_owned(),
            is_leader: false,
            need: Need::Fragmented,
            before: SIZES,
            expected: None,
            non_blocking: false,
        };
        let end = MemberEnd::Defragmented { after: SIZES, took: Duration::from_secs(1), unavailable: None };
        Some(LastDefrag { at: Timestamp::UNIX_EPOCH, result: MemberResult { intent, end } })
    };
    let mut sample = ClusterSample::new("a".to_owned(), true, Some(facts), None, last, Some(&Speeds::default()));
    sample.admission = Some(AdmissionSample {
        next_window: Some(Timestamp::UNIX_EPOCH),
        next_scheduled: Some(Timestamp::UNIX_EPOCH),
        waiting_for: Some("cooldown"),
        ..AdmissionSample::default()
    });
    sample.cluster_id = Some(ClusterId(1));
    sample.error = Some(UnknownKind::Unreachable);
    sample
}

/// `/metrics` and `/probe`.
fn pages() -> [String; 2] {
    let counters = Counters::new(["a"]);
    let gate = GateRule {
        name: "site".to_owned(),
        kind: GateKind::Http,
        when: BTreeSet::from(Moment::ALL),
        on_failure: OnFailure::Stop,
    };
    counters.expect_gates("a", [&gate]);
    let result = GateResult {
        gate: gate.name.clone(),
        kind: gate.kind,
        moment: Moment::Before,
        passed: true,
        on_failure: gate.on_failure,
        detail: String::new(),
        evidence: serde_json::Map::new(),
        baseline: None,
        took: Duration::from_millis(1),
    };
    counters.gate("a", &result);
    counters.waiting("a", &Reason::ObserveMode);
    counters.webhook(200);
    counters.alert(&AlertDecision::Accepted { cluster: "a".to_owned(), run: RunId(1) });
    counters.notifications().expect("chat");
    for page in ScrapePage::ALL {
        counters.scrapes.began(page);
        counters.scrapes.ended(page, 200, Duration::from_millis(1));
    }
    let mut page = String::new();
    counters.render(vec![cluster()], &mut page).unwrap();
    // What is only measured has no runs and no requests.
    let probed = ClusterSample { admission: None, ..cluster() };
    [page, probe::page(probed, Duration::from_millis(1)).unwrap()]
}

#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    /// Each with the values that it has.
    labels: BTreeMap<String, BTreeSet<String>>,
    pages: BTreeSet<&'static str>,
}

/// Of the OpenMetrics text format.
fn families() -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for (path, page) in ["/metrics", "/probe"].into_iter().zip(pages()) {
        let mut current = String::new();
        for line in page.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                name.clone_into(&mut current);
                let family = families.entry(name.to_owned()).or_default();
                help.trim_end_matches('.').clone_into(&mut family.help);
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                kind.clone_into(&mut families.get_mut(name).unwrap().kind);
            } else if !line.starts_with('#') {
                let family = families.get_mut(&current).unwrap();
                family.pages.insert(path);
                let labels =
                    line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
                for (label, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
                    let values = family.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_end_matches('"').to_owned());
                }
            }
        }
    }
    families
}

fn unit(name: &str) -> &'static str {
    [
        ("_timestamp_seconds", "seconds since 1970"),
        ("_start_time_seconds", "seconds since 1970"),
        ("_seconds", "seconds"),
        ("_bytes", "bytes"),
        ("_ratio", "0 to 1"),
    ]
    .into_iter()
    .find_map(|(end, unit)| name.ends_with(end).then_some(unit))
    .unwrap_or_default()
}

fn row(name: &str, family: &Family) -> String {
    let shown = if family.kind == "counter" { format!("{name}_total") } else { name.to_owned() };
    let label = |(label, values): (&String, &BTreeSet<String>)| {
        let values = values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        if LISTED.contains(&label.as_str()) { format!("`{label}` ({values})") } else { format!("`{label}`") }
    };
    let labels = family.labels.iter().filter(|(name, _)| *name != "le").map(label).collect::<Vec<_>>().join(", ");
    let help = family.help.replace('|', "\\|");
    format!("| `{shown}` | {} | {labels} | {} | {help} |\n", family.kind, unit(name))
}

fn page(families: &BTreeMap<String, Family>) -> String {
    const HEAD: &str = "| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n";
    let mut page = "# Metrics reference\n\n\
        <!-- Made by tests/docs from the code: UPDATE=1 cargo test --test docs -->\n\n\
        All metrics of `/metrics`, and those of `/probe`. A gauge whose help begins with *Whether* is 0 or 1. A series is \
        absent while its value is not known. Names are those of PromQL; a histogram has the series `_bucket`, `_sum` and \
        `_count`.\n"
        .to_owned();
    let sections: [(&str, &str); 4] = [
        ("Members", "defragd_member_"),
        ("Clusters", "defragd_cluster_"),
        ("defragd", "defragd_"),
        ("Process", "process_"),
    ];
    let section = |name: &str| sections.iter().position(|(_, prefix)| name.starts_with(prefix));
    for (index, (title, _)) in sections.iter().enumerate() {
        write!(page, "\n## {title}\n\n{HEAD}").unwrap();
        for (name, family) in families.iter().filter(|(name, _)| section(name) == Some(index)) {
            page += &row(name, family);
        }
    }
    page += "\n## Metrics of `/probe`\n\nOf a cluster that is not in the configuration, and of the probe itself:\n\n";
    let of_probe = families.iter().filter(|(_, family)| family.pages.contains("/probe"));
    page += &of_probe.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    page += ".\n\n## Labels\n\n| label | meaning |\n|---|---|\n";
    for (label, meaning) in LABELS {
        writeln!(page, "| `{label}` | {meaning} |").unwrap();
    }
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_that_of_the_registry() {
    let families = families();
    for (name, family) in &families {
        let sections = ["defragd_", "process_"];
        assert!(sections.iter().any(|prefix| name.starts_with(prefix)), "{name} has no section");
        assert!(family.help.len() > 10 && !family.kind.is_empty(), "{name}: {}", family.help);
    }
    let labels: BTreeSet<_> =
        families.values().flat_map(|family| family.labels.keys()).filter(|name| *name != "le").collect();
    assert_eq!(labels.into_iter().map(String::as_str).collect::<Vec<_>>(), LABELS.map(|(label, _)| label));
    held("docs/reference/metrics.md", &page(&families));
}

/// A family without a series may not be shown at all: this is how one that the test above forgets is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_a_series_here() {
    let pages = pages().concat();
    let families = families();
    for name in families.keys() {
        let is_sample = |line: &str| !line.starts_with('#') && line.starts_with(name.as_str());
        assert!(pages.lines().any(is_sample), "{name} has no series");
    }
    let mut registered = 0;
    for file in std::fs::read_dir(crate::root().join("src/telemetry")).unwrap().map(|entry| entry.unwrap().path()) {
        let source = std::fs::read_to_string(&file).unwrap();
        // The macro `metrics!` registers what its tables name.
        let written = source.split("registry.register(").skip(1).filter(|rest| !rest.starts_with("$name"));
        let tables = source.split("::metrics! {").skip(1).map(|table| table.split("\n}\n").next().unwrap());
        for rest in written.chain(tables.flat_map(|table| table.split(" = ").skip(1))) {
            let name = rest.split('"').nth(1).unwrap();
            assert!(families.contains_key(&format!("defragd_{name}")), "{}: {name} is not in the page", file.display());
            registered += 1;
        }
    }
    assert!(registered > 20, "{registered}");
}
