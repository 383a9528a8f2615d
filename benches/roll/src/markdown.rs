//! Tables for the terminal and for files in Markdown.

use comfy_table::{CellAlignment, Row, Table, presets};

/// The first `names` columns are text, the others numbers.
pub(crate) fn table(header: impl Into<Row>, rows: impl IntoIterator<Item = Vec<String>>, names: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(names) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
