//! `defragd check-config`

use std::path::PathBuf;

use anyhow::Context;

use super::Exit;
use crate::{
    app::{gates, serve::connect},
    config::Settings,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    #[arg(required_unless_present = "config")]
    file: Option<PathBuf>,
    /// The file, named as for the other commands
    #[arg(long, env = "DEFRAGD_CONFIG", value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Do not look at the files that it names: certificates, keys, passwords, tokens
    #[arg(long)]
    syntax_only: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let file = args.file.as_ref().or(args.config.as_ref()).context("a file is given")?;
    let settings = Settings::from_file(file)?;
    let mut exit = Exit::Done;
    if !args.syntax_only {
        for cluster in &settings.clusters {
            for error in [connect(cluster).err(), gates::of(cluster).err()].into_iter().flatten() {
                eprintln!("defragd: {error:#}");
                exit = Exit::Usage;
            }
        }
    }
    if exit == Exit::Done {
        println!("{}: valid, {} cluster(s)", file.display(), settings.clusters.len());
    }
    Ok(exit)
}
