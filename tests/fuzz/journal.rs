//! Journal entries written by another program, a newer version or a bad disk.

use std::{sync::Arc, time::Duration};

use bytesize::ByteSize;
use defragd::{
    adapters::{clock::SystemClock, journal::SqliteJournal},
    core::{
        cluster::MemberId,
        fixture::{gate_result, intent},
        history::{
            AlertKey, Cancellation, Entry, MemberEnd, MemberResult, Outcome, Record, Request, RunId, RunStep, RunView,
            Sizes, Trigger,
        },
        lock::Term,
        order::Order,
        policy::Mode,
        reason::Reason,
        verify::{DataHash, Verification},
    },
    ports::journal::Journal,
};
use serde_json::Value;

use crate::Target;

const WORDS: [&str; 30] = [
    "kind",
    "accepted",
    "joined",
    "resolved",
    "approved",
    "started",
    "step",
    "intent",
    "result",
    "gate",
    "finished",
    "outcome",
    "succeeded",
    "failed",
    "reason",
    "corrupt_alarm",
    "member_id",
    "ffffffffffffffff",
    "before",
    "after",
    "db_size",
    "took",
    "secs",
    "nanos",
    "4294967295",
    "18446744073709551615",
    "compact",
    "order",
    "pause",
    "resume",
];

fn entries() -> Vec<Entry> {
    let after = Sizes { db_size: ByteSize(1_001), ..intent().before };
    let alerts = vec![AlertKey::new("f".to_owned(), "2026-01-01T00:00:00Z")];
    vec![
        Entry::Accepted(Request {
            cluster: "a".to_owned(),
            trigger: Trigger::Manual,
            alerts: alerts.clone(),
            members: Vec::new(),
        }),
        Entry::Joined { alerts: alerts.clone() },
        Entry::Resolved { alerts },
        Entry::Approved { by: "ann".to_owned(), requested: true, members: vec!["etcd-1".to_owned()] },
        Entry::Cancelled(Cancellation { by: "ann".to_owned(), reason: String::new() }),
        Entry::Started { mode: Mode::Enforce, term: Some(Term(7)), compares: false },
        Entry::Gate(gate_result()),
        Entry::Step(RunStep::Compact { revision: u64::MAX }),
        Entry::Intent(intent()),
        Entry::Result(MemberResult {
            intent: intent(),
            end: MemberEnd::Defragmented { after, took: Duration::from_millis(1_500), unavailable: None },
        }),
        Entry::Result(MemberResult { intent: intent(), end: MemberEnd::NotSent { reason: Reason::CorruptAlarm } }),
        Entry::Verified(Verification::of(
            7,
            vec![(MemberId(1), "etcd-1".to_owned(), Ok(DataHash { hash: u32::MAX, compact_revision: -1 }))],
        )),
        Entry::Finished(Outcome::Failed { reason: Reason::CorruptAlarm }),
    ]
}

/// A journal's lines, one JSON text each, as a tree: a list of them.
fn trees() -> Vec<Value> {
    vec![entries().iter().map(|entry| serde_json::to_value(entry).unwrap()).collect()]
}

fn lines(bytes: &[u8]) -> Vec<String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Array(lines)) => lines.iter().map(Value::to_string).collect(),
        _ => String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect(),
    }
}

fn look(views: &[RunView]) {
    for view in views {
        let _ = (view.reclaimed(), view.touched_a_member(), view.baselines(), view.open_alerts().count());
        for member in &view.members {
            let _ = (member.label(), member.reclaimed());
        }
        let _ = view.outcome.as_ref().and_then(Outcome::reason).map(ToString::to_string);
        let _ = serde_json::to_string(view).unwrap();
    }
}

pub(crate) fn entries_target() -> Target {
    let trees = trees();
    let seeds = trees.iter().map(|tree| tree.to_string().into_bytes()).collect();
    let judge = |bytes: &[u8]| {
        let mut records = Vec::new();
        for line in lines(bytes) {
            let _ = serde_json::from_str::<Order>(&line);
            let Ok(entry) = serde_json::from_str::<Entry>(&line) else { continue };
            let again: Entry =
                serde_json::from_str(&serde_json::to_string(&entry).unwrap()).map_err(|e| e.to_string())?;
            if again != entry {
                return Err(format!("{entry:?} became {again:?}"));
            }
            records.push(Record { run: RunId(1), at: "2026-01-01T00:00:00Z".parse().unwrap(), entry });
        }
        look(&RunView::fold(records));
        Ok(())
    };
    Target { name: "journal", seeds, trees, words: &WORDS, cost: 1, judge: Box::new(judge) }
}

#[test]
fn whatever_the_entries_of_a_journal_are_they_make_runs_or_are_refused() {
    entries_target().attack();
}

pub(crate) fn tables_target() -> Target {
    let trees = trees();
    let seeds = trees.iter().map(|tree| tree.to_string().into_bytes()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(dir.path(), Arc::new(SystemClock)).unwrap();
    let other = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    // For speed: there is no power failure here.
    other.pragma_update(None, "synchronous", "OFF").unwrap();
    let judge = move |bytes: &[u8]| {
        let _kept = &dir;
        other.execute_batch("DELETE FROM entry; DELETE FROM run; DELETE FROM person_order;").unwrap();
        let open = i64::from(bytes.len() % 2 == 1);
        other.execute("INSERT INTO run (id, cluster, open) VALUES (1, 'a', ?1)", [open]).unwrap();
        for (number, line) in lines(bytes).into_iter().enumerate() {
            let at = if number == 7 { line.as_str() } else { "2026-01-01T00:00:00Z" };
            other.execute("INSERT INTO entry (run, at, body) VALUES (1, ?1, ?2)", (at, &line)).unwrap();
            other.execute("INSERT INTO person_order (cluster, at, body) VALUES ('a', ?1, ?2)", (at, &line)).unwrap();
        }
        runtime.block_on(async {
            // An error says what is wrong: the program does not start with it.
            look(&journal.open_runs().await.unwrap_or_default());
            look(&journal.runs_of("a", 10).await.unwrap_or_default());
            let _ = journal.records(RunId(1)).await;
            let _ = journal.orders("a").await;
        });
        Ok(())
    };
    Target { name: "tables", seeds, trees, words: &WORDS, cost: 8, judge: Box::new(judge) }
}

#[test]
fn whatever_is_in_the_journals_tables_it_is_read_or_refused() {
    tables_target().attack();
}

/// The file itself, as a bad disk or another program leaves it.
pub(crate) fn file_target() -> Target {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = SqliteJournal::open(dir.path(), Arc::new(SystemClock)).unwrap();
    runtime.block_on(async {
        let request = Request::new("a", Trigger::Alert);
        let run = journal.accept(request).await.unwrap();
        for entry in entries().into_iter().skip(1) {
            journal.append(run, entry).await.unwrap();
        }
    });
    drop(journal);
    // In one file: no log beside it.
    let seed = std::fs::read(&path).unwrap();
    let judge = move |bytes: &[u8]| {
        for file in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        let Ok(journal) = SqliteJournal::open(dir.path(), Arc::new(SystemClock)) else { return Ok(()) };
        runtime.block_on(async {
            let sound = journal.verify().await.is_ok();
            look(&journal.open_runs().await.unwrap_or_default());
            look(&journal.runs_of("a", 10).await.unwrap_or_default());
            let request = Request::new("a", Trigger::Alert);
            match journal.accept(request).await {
                // What is accepted can be read.
                Ok(_) if !sound => Err("a damaged journal accepts a request".to_owned()),
                Ok(run) if journal.run(run).await.ok().flatten().is_none() => Err(format!("{run} is lost")),
                _ => Ok(()),
            }
        })
    };
    Target { name: "journal-file", seeds: vec![seed], trees: Vec::new(), words: &[], cost: 8, judge: Box::new(judge) }
}

#[test]
fn whatever_the_file_of_a_journal_is_it_is_read_or_refused() {
    file_target().attack();
}
