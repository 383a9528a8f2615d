//! Aligned tables in etcdctl's style, readable without colour, that fit the terminal.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::args::Output;
use crate::core::{estimate::Estimate, gate::GateResult};

/// The widest table, also where standard output is no terminal.
const WIDEST: u16 = 120;
/// Narrower terminals get this width all the same: the sizes alone need it.
const NARROWEST: u16 = 80;
/// What the frame takes of each column.
const FRAME: u16 = 3;
/// The least that a column of text is shortened to.
const LEAST: u16 = 8;

/// A table under these headings. Marks in a heading:
///
/// - `NAME>`: aligned to the right;
/// - `?NAME`: left out, the last one first, if the table would not fit;
/// - `+NAME`: only with `-o wide`.
///
/// If that is not enough, texts are wrapped, and long words lose their middle. `-o wide` shows everything.
pub(super) fn table(output: Output, headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = terminal_size::terminal_size().map_or(WIDEST, |(width, _)| width.0.clamp(NARROWEST, WIDEST));
    fitted(if output == Output::Wide { None } else { Some(width) }, headings, rows)
}

fn fitted(limit: Option<u16>, headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut shown: Vec<_> =
        (0..headings.len()).filter(|at| limit.is_none() || !headings[*at].starts_with('+')).collect();
    let all = drawn(&(0..headings.len()).collect::<Vec<_>>(), headings, &rows).column_max_content_widths();
    let total = |shown: &[usize], cap: u16| -> u32 {
        let widths = shown.iter().map(|at| if headings[*at].ends_with('>') { all[*at] } else { all[*at].min(cap) });
        widths.map(|width| u32::from(width + FRAME)).sum::<u32>() + 1
    };
    let Some(limit) = limit else { return drawn(&shown, headings, &rows).to_string() };
    let too_wide = |shown: &[usize], cap| total(shown, cap) > u32::from(limit);
    while too_wide(&shown, u16::MAX) {
        let Some(at) = shown.iter().rposition(|at| headings[*at].starts_with('?')) else { break };
        shown.remove(at);
    }
    let cap = (LEAST..=limit).rev().find(|cap| !too_wide(&shown, *cap)).unwrap_or(LEAST);
    let shorten = |text: String| text.split(' ').map(|word| shortened(word, cap)).collect::<Vec<_>>().join(" ");
    let rows: Vec<Vec<_>> = rows.into_iter().map(|row| row.into_iter().map(shorten).collect()).collect();
    let mut table = drawn(&shown, headings, &rows);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(limit);
    // With the cell's padding.
    table.set_constraints(shown.iter().map(|at| {
        let is_text = !headings[*at].ends_with('>');
        let width = if is_text { all[*at].min(cap) } else { all[*at] };
        ColumnConstraint::Absolute(Width::Fixed(width + 2))
    }));
    table.to_string()
}

/// These columns, as wide as they are.
fn drawn(shown: &[usize], headings: &[&str], rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    // etcdctl's frame: no lines between rows.
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header(shown.iter().map(|at| Cell::new(headings[*at].trim_matches(['>', '?', '+']))));
    for row in rows {
        table.add_row(shown.iter().map(|at| {
            let right = headings[*at].ends_with('>');
            Cell::new(&row[*at]).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    table
}

/// A word without its middle: names often differ only at their end.
fn shortened(word: &str, most: u16) -> String {
    let (length, most) = (word.chars().count(), usize::from(most));
    if length <= most {
        return word.to_owned();
    }
    let end = most / 2;
    let start = most - end - 1;
    let from = |skipped: usize, taken: usize| word.chars().skip(skipped).take(taken).collect::<String>();
    format!("{}…{}", from(0, start), from(length - end, end))
}

/// What gates found, as a table.
pub(super) fn gate_table(output: Output, results: &[GateResult]) -> String {
    let row = |result: &GateResult| {
        vec![
            result.gate.clone(),
            result.kind.label().to_owned(),
            result.label().to_owned(),
            format!("{:.1} s", result.took.as_secs_f64()),
            result.detail.clone(),
        ]
    };
    table(output, &["GATE", "KIND", "RESULT", "TOOK>", "DETAIL"], results.iter().map(row).collect())
}

/// An estimate, such as `5 s (2-10 s)`; with a tilde if it was never measured in this cluster.
pub(super) fn expected(estimate: &Estimate) -> String {
    let seconds = |time: Duration| match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{seconds:.1}"),
        seconds => format!("{seconds:.0}"),
    };
    let (least, most) = (seconds(estimate.least), seconds(estimate.most));
    let guess = if estimate.measured { "" } else { "~" };
    format!("{guess}{} s ({least}-{most} s)", seconds(estimate.expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(table: &str) -> usize {
        table.lines().map(|line| line.chars().count()).max().unwrap()
    }

    fn members() -> Vec<Vec<String>> {
        let member = |number: u16| {
            let name = format!("etcd-production-eu-west-1-availability-zone-a-node-{number:04}");
            let url = format!("https://{name}.etcd.internal.example.com:2379");
            vec![
                name,
                "410.6 MiB".to_owned(),
                "it needs nothing at all for now, says the plan".to_owned(),
                url,
                "7".to_owned(),
            ]
        };
        (1..=9).map(member).collect()
    }

    const HEADINGS: [&str; 5] = ["MEMBER", "DB SIZE>", "WHY", "?ENDPOINT", "+RAFT TERM>"];

    #[test]
    fn a_table_fits_and_says_which_member_is_which_at_any_width() {
        for limit in [NARROWEST, 100, WIDEST] {
            let table = fitted(Some(limit), &HEADINGS, members());
            assert!(wide(&table) <= usize::from(limit), "{limit}:\n{table}");
            assert!(!table.contains("ENDPOINT") && !table.contains("RAFT"), "{table}");
            for number in 1..=9 {
                assert!(table.contains(&format!("node-{number:04}")), "{limit}:\n{table}");
            }
            // Sizes are whole, and texts lose no word.
            assert_eq!(table.matches("410.6 MiB").count(), 9, "{table}");
            assert_eq!(table.matches("nothing").count(), 9, "{table}");
        }
    }

    #[test]
    fn wide_shows_everything_and_what_fits_is_left_as_it_is() {
        let table = fitted(None, &HEADINGS, members());
        assert!(table.contains(
            "https://etcd-production-eu-west-1-availability-zone-a-node-0009.etcd.internal.example.com:2379"
        ));
        assert!(table.contains("RAFT TERM") && !table.contains('…'), "{table}");
        let row = ["etcd-1", "1 B", "fragmented", "http://10.0.0.1:2379", "7"].map(str::to_owned).to_vec();
        let table = fitted(Some(NARROWEST), &HEADINGS, vec![row]);
        assert!(table.contains("http://10.0.0.1:2379") && !table.contains('…'), "{table}");
    }
}
