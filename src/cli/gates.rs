//! `defragd gates`

use std::{collections::BTreeMap, io::Write};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::{
    Exit,
    args::{self, Connection, Output},
    table,
};
use crate::{
    app::{checks, gates},
    core::gate::{GateResult, Moment},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this cluster of the file
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Check as at this moment of a run; gates that compare with the start of the run have no baseline here
    #[arg(long, value_parser = moments(), default_value = "before")]
    moment: Moment,
    /// Output format
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

fn moments() -> impl TypedValueParser<Value = Moment> {
    PossibleValuesParser::new(Moment::ALL.map(Moment::label)).try_map(|text| text.parse::<Moment>())
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let settings = args.connection.settings(None)?;
    let clusters = args::chosen(settings.clusters, args.cluster.as_deref())?;
    let several = clusters.len() > 1;
    let (mut exit, mut found) = (Exit::Done, Vec::new());
    let mut out = std::io::stdout().lock();
    for cluster in clusters {
        let results = checks::run(&gates::of(&cluster)?, args.moment, &BTreeMap::new()).await;
        if results.iter().any(|result| result.against().is_some()) {
            exit = Exit::Refused;
        }
        match args.output {
            Output::Json => found.push(json!({ "cluster": cluster.name, "gates": results })),
            Output::Table | Output::Wide => {
                if several {
                    writeln!(out, "cluster {}:", cluster.name)?;
                }
                writeln!(out, "{}", said(args.output, &results))?;
            }
        }
    }
    if args.output == Output::Json {
        writeln!(out, "{:#}", json!({ "clusters": found }))?;
    }
    Ok(exit)
}

fn said(output: Output, results: &[GateResult]) -> String {
    if results.is_empty() {
        return "No gate is configured for this moment: see `gates` in the configuration file.".to_owned();
    }
    let against = results.iter().find_map(GateResult::against);
    let sentence = against.map_or_else(|| "No gate blocks a run.".to_owned(), |reason| format!("Refused: {reason}"));
    format!("{}\n{sentence}", table::gate_table(output, results))
}
