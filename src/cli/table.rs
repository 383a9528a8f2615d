//! Aligned tables in etcdctl's style, readable without colour.

use comfy_table::{Cell, CellAlignment, Table, presets};

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
