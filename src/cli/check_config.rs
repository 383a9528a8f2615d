//! `defragd check-config`

use std::path::PathBuf;

use anyhow::Context;

use super::Exit;
use crate::{
    app::{gates, serve::connect, web::WebFile},
    config::{Settings, web},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    #[arg(required_unless_present = "config")]
    file: Option<PathBuf>,
    /// The file, named as for the other commands
    #[arg(long, env = "DEFRAGD_CONFIG", value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Also check this file of `defragd serve`
    #[arg(long = "web.config.file", env = "DEFRAGD_WEB_CONFIG_FILE", value_name = "FILE")]
    web_config_file: Option<PathBuf>,
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
    if let Some(path) = &args.web_config_file {
        let checked = if args.syntax_only {
            web::from_file(path).map(drop).map_err(|error| error.to_string())
        } else {
            WebFile::new(path.clone(), |_| {}).check()
        };
        if let Err(problems) = checked {
            eprintln!("defragd: {problems}");
            exit = Exit::Usage;
        }
    }
    if exit == Exit::Done {
        println!("{}: valid, {} cluster(s)", file.display(), settings.clusters.len());
    }
    Ok(exit)
}
