//! `defragd explain`, and what to do below a reason that another command shows.

use std::io::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use strum::{IntoEnumIterator, ParseError};

use super::Exit;
use crate::core::{
    explain::Kind,
    reason::{Code, Reason},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A reason's code, as in JSON and in metrics; without it, all are listed
    #[arg(value_parser = codes(), hide_possible_values = true)]
    reason: Option<Code>,
}

/// Clap suggests the nearest code for a misspelt one, and completes them in shells.
fn codes() -> impl TypedValueParser<Value = Code> {
    PossibleValuesParser::new(Code::iter().map(Code::label))
        .try_map(|code| code.parse::<Code>() as Result<_, ParseError>)
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    if let Some(code) = args.reason {
        write!(out, "{code}\n\n{}", code.section())?;
        return Ok(Exit::Done);
    }
    for kind in Kind::ALL {
        writeln!(out, "{}:", kind.title())?;
        for code in Code::iter().filter(|code| code.kind() == kind) {
            writeln!(out, "  {:<22} {}", code.label(), code.severity().words())?;
        }
        writeln!(out)?;
    }
    writeln!(out, "`defragd explain REASON` says what one means and what to do.")?;
    Ok(Exit::Done)
}

/// Below a line that shows the reason.
pub(super) fn write_advice(out: &mut impl Write, reason: Option<&Reason>, cluster: &str) -> std::io::Result<()> {
    match reason.and_then(|reason| reason.to_do_for(cluster)) {
        Some(advice) => writeln!(out, "What to do: {advice}"),
        None => Ok(()),
    }
}
