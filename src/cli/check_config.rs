//! `defragd check-config`

use std::path::PathBuf;

use super::Exit;
use crate::{app::serve::connect, config::Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    file: PathBuf,
    /// Do not look at the TLS and password files that it names
    #[arg(long)]
    syntax_only: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let settings = Settings::from_file(&args.file)?;
    let mut exit = Exit::Done;
    if !args.syntax_only {
        for cluster in &settings.clusters {
            if let Err(error) = connect(cluster) {
                eprintln!("defragd: {error:#}");
                exit = Exit::Usage;
            }
        }
    }
    if exit == Exit::Done {
        println!("{}: valid, {} cluster(s)", args.file.display(), settings.clusters.len());
    }
    Ok(exit)
}
