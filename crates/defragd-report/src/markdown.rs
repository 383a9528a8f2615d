//! The report as Markdown, which is also readable as plain text.

use std::fmt::Write;

use crate::{Report, review::Recommendation, words};

pub(crate) fn page(report: &Report) -> String {
    let mut page = format!(
        "# etcd capacity review\n\n{}\n\n{}\n\n",
        escaped(&words::summary(report)),
        words::introduction(report)
    );
    line(&mut page, words::HEADS.map(str::to_owned));
    page.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for review in &report.clusters {
        line(&mut page, words::row(review));
    }
    for review in &report.clusters {
        let _ = write!(page, "\n## {}\n\n", escaped(&review.cluster));
        for Recommendation { action, reason, .. } in &review.recommendations {
            let _ = writeln!(page, "- **{}**: {}", escaped(action), escaped(reason));
        }
        page.push('\n');
        for remark in words::remarks(review) {
            let _ = writeln!(page, "- {}", escaped(&remark));
        }
    }
    page
}

fn line(page: &mut String, cells: [String; 10]) {
    let _ = writeln!(page, "| {} |", cells.map(|cell| escaped(&cell)).join(" | "));
}

/// Names come from labels: they must not end a cell or begin a tag.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '<' | '>' | '*' | '_' | '[' | ']' | '\\' => safe.extend(['\\', c]),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
