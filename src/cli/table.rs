//! Aligned tables in etcdctl's style, readable without colour.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::core::estimate::Estimate;

/// A table under these headings. Columns whose heading ends in `>` are aligned to the right.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    // etcdctl's frame: no lines between rows.
    table.load_style(presets::ASCII_FULL_CONDENSED);
    let right: Vec<bool> = headings.iter().map(|heading| heading.ends_with('>')).collect();
    table.set_header(headings.iter().map(|heading| Cell::new(heading.trim_end_matches('>'))));
    for row in rows {
        table.add_row(row.into_iter().zip(&right).map(|(text, right)| {
            Cell::new(text).set_alignment(if *right { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    table.to_string()
}

pub(super) use crate::core::story::size;

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
