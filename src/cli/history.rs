//! What the journal's entries and the gates' results look like on a terminal.

use super::table;
use crate::core::gate::GateResult;
pub(super) use crate::core::story::{about, alert, gate, line, repeats_of, requester, role, verified, why};

/// What gates found, as a table.
pub(super) fn gate_table(results: &[GateResult]) -> String {
    let row = |result: &GateResult| {
        vec![
            result.gate.clone(),
            result.kind.label().to_owned(),
            result.label().to_owned(),
            format!("{:.1} s", result.took.as_secs_f64()),
            result.detail.clone(),
        ]
    };
    table::table(&["GATE", "KIND", "RESULT", "TOOK>", "DETAIL"], results.iter().map(row).collect())
}
