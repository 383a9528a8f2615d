//! The command line: one file a command.

mod args;
mod check_config;
mod control;
mod docs;
mod gates;
mod health;
mod history;
mod lock;
mod lock_run;
mod plan;
mod report;
mod run;
mod runs;
mod serve;
mod status;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;

const EXIT_CODES: &str = "Exit codes: 0 done, or nothing to do; 1 failed; 2 wrong usage or configuration; \
                          3 refused, because it would not be safe or the mode is observe";

/// The etcd fragmentation exporter that also cures what it measures.
#[derive(Debug, Parser)]
#[command(name = "defragd", version, about, after_help = EXIT_CODES, max_term_width = 100, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Export metrics, receive alerts, and defragment when they fire
    Serve(Box<serve::Args>),
    /// Show every member, as `etcdctl endpoint status --cluster -w table` does, with IN USE, FRAG and QUOTA
    Status(status::Args),
    /// Show what a run would do: in which order, and for each member why or why not
    Plan(plan::Args),
    /// Check the gates now, alone: pods, API server, ingress, Prometheus, Alertmanager
    Gates(gates::Args),
    /// Do one rolling defragmentation now: followers first, the leader last
    Run(run::Args),
    /// Show past runs from the journal, or one of them step by step
    Runs(runs::Args),
    /// Review capacity from Prometheus' history: growth, days to quota, fragmentation, runs, what to do
    Report(report::Args),
    /// Agree to a run that waits for a person (mode approve)
    Approve(control::ApproveArgs),
    /// Keep runs of a cluster from beginning; one under way starts no new member
    Pause(control::PauseArgs),
    /// End a pause, and close the breaker
    Resume(control::ResumeArgs),
    /// Withdraw the standing request of a cluster; a run under way starts no new member
    Cancel(control::CancelArgs),
    /// Check a configuration file, and report every problem
    CheckConfig(check_config::Args),
    /// Ask a running `defragd serve` how it is: exit code 0 if it is well, 1 if not
    Health(health::Args),
    /// Write a completion script for a shell to standard output
    Completions(docs::CompletionsArgs),
    /// Write the manual page, in roff, to standard output
    Man(docs::ManArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done,
    Failed,
    Usage,
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
        })
    }
}

impl Cli {
    pub async fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Status(args) => status::run(args).await,
            Command::Plan(args) => plan::run(args).await,
            Command::Gates(args) => gates::run(args).await,
            Command::Run(args) => Box::pin(run::run(args)).await,
            Command::Runs(args) => runs::run(args).await,
            Command::Report(args) => Box::pin(report::run(args)).await,
            Command::Approve(args) => control::approve(args).await,
            Command::Pause(args) => control::pause(args).await,
            Command::Resume(args) => control::resume(args).await,
            Command::Cancel(args) => control::cancel(args).await,
            Command::CheckConfig(args) => check_config::run(&args),
            Command::Health(args) => health::run(args).await,
            Command::Completions(args) => docs::completions(&args),
            Command::Man(args) => docs::man(&args),
        };
        result.unwrap_or_else(|error| exit_for(&error)).into()
    }
}

fn exit_for(error: &anyhow::Error) -> Exit {
    // The reader of a pipe that has seen enough is no failure.
    if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return Exit::Done;
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        print_config_error(error);
    } else {
        eprintln!("defragd: {error:#}");
    }
    if error.is::<ConfigError>() || error.is::<args::UsageError>() { Exit::Usage } else { Exit::Failed }
}

/// With nothing before the lines that name a place in a file: editors and CI jump to it.
fn print_config_error(error: &ConfigError) {
    match error {
        ConfigError::Invalid { path: Some(path), problems } => {
            let many =
                if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
            eprintln!("defragd: {} is not valid, {many}:\n{error}", path.display());
        }
        _ => eprintln!("defragd: {error}"),
    }
}
