//! defragd's main job on real software, on one machine: three etcd members with TLS fill with free space
//! under a client's load, Prometheus fires the shipped alert, Alertmanager posts it, defragd defragments the
//! followers and then the leader. The results that it prints come from the servers' own logs and RPCs, not from defragd.
//!
//! In reading order: `args`, `story` (what happens), `stack` (what runs), `config` (its configuration),
//! `report` (what is checked), `by_hand` (the cluster alone), `console`.

mod args;
mod by_hand;
mod config;
mod console;
mod report;
mod stack;
mod story;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use args::{Args, Parsed};
use console::Console;
use story::StoryResult;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(args)) => args,
        Ok(Parsed::Help) => {
            println!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("demo: {error}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let console = Console::start();
    match Box::pin(run(&args, &console)).await {
        Ok(code) => code,
        Err(error) => {
            console.say(&format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Plays the story until it ends or is interrupted. Every child process ends when this function's values are dropped.
async fn run(args: &Args, console: &Console) -> Result<ExitCode> {
    let tools = stack::preflight(args)?;
    let logs = tempfile::Builder::new().prefix("defragd-demo-logs-").tempdir()?.keep();
    if let Some(command) = &args.run {
        return tokio::select! {
            code = by_hand::run(command, &tools, args, console, &logs) => code,
            interrupted = interruption() => interrupted.map(|()| ExitCode::from(130)),
        };
    }
    let story = tokio::select! {
        story = story::tell(&tools, args, console, &logs) => Some(story),
        interrupted = interruption() => {
            interrupted?;
            None
        }
    };
    let code = match story {
        Some(Ok(story)) => finish(args, console, story).await,
        Some(Err(error)) => Err(error),
        None => {
            console.say("interrupted");
            Ok(ExitCode::from(130)) // as a shell says it of a program that SIGINT ended
        }
    };
    let code = code.unwrap_or_else(|error| {
        console.say(&format!("FAILED: {error:#}"));
        ExitCode::FAILURE
    });
    if code == ExitCode::FAILURE {
        print_tails(&logs)?;
    }
    console.say(&format!("all processes have ended, their data is removed; the logs are in {}", logs.display()));
    Ok(code)
}

/// Stays up if that is wanted, then ends everything.
async fn finish(args: &Args, console: &Console, mut story: StoryResult) -> Result<ExitCode> {
    let code = if story.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !args.exit {
        story.stay(console).await?;
    }
    story.end().await?;
    Ok(code)
}

/// Waits for Ctrl-C, SIGTERM or the end of the terminal.
pub(crate) async fn interruption() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

fn print_tails(logs: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(logs)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let lines = if file.file_name() == "defragd.log" { 60 } else { 8 };
        eprintln!("--- the end of {}\n{}", file.path().display(), testkit::tail(&file.path(), lines));
    }
    Ok(())
}
