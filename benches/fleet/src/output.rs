//! Figures as an aligned table or as JSON, and their section of `benches/FLEET.md`.

use std::{fmt::Write, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    Common,
    figures::{Goal, Machine},
};

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// What a measurement found.
#[derive(Serialize)]
pub(crate) struct Findings<T> {
    /// The section of the file.
    pub(crate) name: &'static str,
    pub(crate) machine: Machine,
    pub(crate) goals: Vec<Goal>,
    pub(crate) figures: T,
}

impl<T: Serialize> Findings<T> {
    /// Prints them, and writes them where they are to be kept. `table` is of `figures`.
    pub(crate) fn report(&self, common: &Common, table: &Table) -> Result<()> {
        let text = self.text(table);
        match common.output {
            Format::Table => print!("{text}"),
            Format::Json => println!("{}", serde_json::to_string_pretty(self)?),
        }
        common.write.as_deref().map_or(Ok(()), |path| replace(path, self.name, &text))
    }

    fn text(&self, table: &Table) -> String {
        let Machine { processor, cores, memory_gib, kernel, compiler, commit, load_average } = &self.machine;
        let mut goals = Table::new(&["goal", "measured", ""]);
        for goal in &self.goals {
            goals.row(&[&goal.wanted, &goal.measured, if goal.met { "met" } else { "MISSED" }]);
        }
        format!(
            "{processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}, {compiler}, commit {commit}; load average at \
             the start {load_average}.\n\n{}\n{}",
            table.text(),
            goals.text()
        )
    }
}

/// Puts the text between the marks of the section.
fn replace(path: &Path, section: &str, text: &str) -> Result<()> {
    let old = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (begin, end) = (format!("<!-- begin {section} -->\n"), format!("<!-- end {section} -->"));
    let place = || {
        let (before, rest) = old.split_once(&begin)?;
        let (_, after) = rest.split_once(&end)?;
        Some(format!("{before}{begin}{text}{end}{after}"))
    };
    let new = place().with_context(|| format!("{} has no place for {section}", path.display()))?;
    std::fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

/// Text in columns, which is also a table of Markdown. All but the first column are aligned to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.row(head);
        table
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
            }
            text.push_str("|\n");
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let colon = if column == 0 { '-' } else { ':' };
                    let _ = write!(text, "|{}{colon}", "-".repeat(width + 1));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_is_markdown() {
        let mut table = Table::new(&["what", "µs"]);
        table.row(&["a", "12345"]);
        assert_eq!(table.text(), "| what |    µs |\n|------|------:|\n| a    | 12345 |\n");
    }

    #[test]
    fn only_the_sections_own_place_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.md");
        std::fs::write(&path, "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n").unwrap();
        replace(&path, "x", "new\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n");
        assert!(replace(&path, "y", "new\n").is_err());
    }
}
