//! The end of the results file, which outlives a new bench: a few figures of each commit that was measured.

use std::fmt::Write as _;

use crate::{contender::Contender, figures::Spread, results::Results, scenario::Scenario};

const TITLE: &str = "## By commit";
const HEADER: &str =
    "| commit | date | machine, etcd | load | tool | runs | roll / servers' sum | longest gap, s | failed |";
const RULE: &str = "|---|---|---|---|---|---:|---:|---:|---:|";

/// What the rows of one bench share.
pub(crate) struct Bench<'a> {
    pub(crate) commit: &'a str,
    pub(crate) date: &'a str,
    pub(crate) machine: &'a str,
}

/// The rows of a results file by other commits, and this one's behind them. Without this one's where files differ from the
/// commit: nobody could measure that again.
pub(crate) fn section(
    before: &str,
    bench: &Bench<'_>,
    results: &Results,
    loads: &[Scenario],
    tools: &[Contender],
) -> String {
    let Bench { commit, date, machine } = bench;
    let own = format!("| {commit} |");
    let (_, old) = before.split_once(TITLE).unwrap_or_default();
    let mut rows: Vec<String> = old
        .lines()
        .filter(|line| line.starts_with("| ") && *line != HEADER && !line.starts_with(&own))
        .map(str::to_owned)
        .collect();
    if !commit.ends_with("-dirty") {
        for (load, tool) in loads.iter().flat_map(|load| tools.iter().map(move |tool| (*load, *tool))) {
            let find = |name: &str| results.spread(load, tool, name);
            let Some(ratio) = find("roll / servers' sum") else { continue };
            let of = |figure: &str| {
                let clients = ["failover", "API server", "Go client"];
                clients.iter().find_map(|clients| find(&figure.replace("CLIENTS", clients)))
            };
            let shown =
                |spread: Option<Spread>| spread.map_or("–".to_owned(), |spread| format!("{:.2}", spread.median));
            rows.push(format!(
                "{own} {date} | {machine} | {} | {} | {} | {} | {} | {} |",
                load.label(),
                tool.label(),
                results.runs(load, tool),
                shown(Some(ratio)),
                shown(of("longest gap without a write, CLIENTS, s")),
                shown(of("failed, CLIENTS")),
            ));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{TITLE}\n\nMedians. Compare the tools of one commit, load and machine with one another, and not two commits: the machine \
         had other work each time. Gap and failures are those of failover clients; of the API server's or of Go's without health \
         checks, where those are the load.\n\n{HEADER}\n{RULE}\n"
    );
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{row}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::example;

    #[test]
    fn rows_of_other_commits_stay_and_the_own_are_replaced() {
        let mut results = Results::default();
        results.add(Scenario::Idle, Contender::Defragd, &example());
        let of = |commit: &str, before: &str| {
            let bench = Bench { commit, date: "2026-11-30", machine: "2 × CPU, 3.5.16" };
            section(before, &bench, &results, &[Scenario::Idle], &[Contender::Defragd, Contender::EtcdDefrag])
        };
        let first = of("v1", "");
        let row = "| v1 | 2026-11-30 | 2 × CPU, 3.5.16 | idle | defragd | 1 | 2.00 | – | – |";
        assert!(first.ends_with(&format!("{RULE}\n{row}\n")), "{first}");
        assert_eq!(of("v1", &format!("| another | table |\n{first}")), first);
        assert_eq!(of("v2", &first).lines().filter(|line| line.starts_with("| v")).count(), 2);
        assert_eq!(of("v2-dirty", &first), first);
        assert_eq!(of("v2-dirty", ""), "");
    }
}
