//! The command line: one file per command.

mod args;
mod check_config;
mod control;
mod docs;
mod etcdctl;
mod explain;
mod follow;
mod gates;
mod health;
mod help;
mod keys;
mod lock;
mod lock_run;
mod plan;
mod report;
mod run;
mod run_result;
mod runs;
mod serve;
mod server;
mod shards;
mod standalone;
mod status;
mod table;
mod terminal;
mod typed;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    adapters::{etcd::ConnectError, http::TokenError, outgoing::CallError},
    config::ConfigError,
    core::story::count,
};

/// etcd fragmentation exporter that also runs rolling defragmentations
#[derive(Debug, Parser)]
#[command(name = "defragd", version, about, after_help = help::DEFRAGD, max_term_width = 100, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Export metrics, receive alerts, and defragment when they fire
    #[command(after_help = help::SERVE)]
    Serve(Box<serve::Args>),
    /// Show every member: role, size, in use, fragmentation, quota, version; with `-o wide` also id, raft term and indexes
    #[command(after_help = help::STATUS)]
    Status(status::Args),
    /// Show what a run would do: in which order, and why or why not for each member
    #[command(after_help = help::PLAN)]
    Plan(plan::Args),
    /// Check the gates now, without a run: pods, API server, ingress, Prometheus, Alertmanager
    #[command(after_help = help::GATES)]
    Gates(gates::Args),
    /// Run one rolling defragmentation now: followers first, the leader last
    ///
    /// If a `defragd serve` is responsible for the cluster, the server runs it and this command follows: the one of
    /// --server, or one on this machine that uses the same --data-dir or listens on 127.0.0.1:9379 and serves the same
    /// cluster. Otherwise this process runs it.
    #[command(after_help = help::RUN)]
    Run(run::Args),
    /// Show past runs from the journal, or one of them step by step
    #[command(after_help = help::RUNS)]
    Runs(runs::Args),
    /// Review capacity from Prometheus' history: growth, days to quota, fragmentation, runs, recommendations
    #[command(after_help = help::REPORT)]
    Report(report::Args),
    /// Explain what a reason means and what to do about it, or list all reasons
    #[command(after_help = help::EXPLAIN)]
    Explain(explain::Args),
    /// Approve a run that is waiting for approval (mode approve)
    #[command(after_help = help::APPROVE)]
    Approve(control::ApproveArgs),
    /// Reject a run that is waiting for approval: it ends, and nothing is changed
    #[command(after_help = help::REJECT)]
    Reject(control::RejectArgs),
    /// Stop new runs of a cluster from starting; a run in progress starts no further member
    #[command(after_help = help::PAUSE)]
    Pause(control::PauseArgs),
    /// End a pause, close the breaker, and allow runs again after a hash mismatch or a failure that needs an operator
    #[command(after_help = help::RESUME)]
    Resume(control::ResumeArgs),
    /// Cancel the open request of a cluster; a run in progress starts no further member
    #[command(after_help = help::CANCEL)]
    Cancel(control::CancelArgs),
    /// Check a configuration file and report every problem
    #[command(after_help = help::CHECK_CONFIG)]
    CheckConfig(check_config::Args),
    /// Check a running `defragd serve`: exit code 0 if it is healthy, 1 if not
    #[command(after_help = help::HEALTH)]
    Health(health::Args),
    /// Write a completion script for a shell to standard output
    #[command(after_help = help::COMPLETIONS)]
    Completions(docs::CompletionsArgs),
    /// Write the manual page, in roff, to standard output
    #[command(after_help = help::MAN)]
    Man(docs::ManArgs),
}

/// The program's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    Done,
    Failed,
    Usage,
    Refused,
}

impl Exit {
    /// Of two clusters: one that could not be observed counts most.
    const fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Failed, _) | (_, Self::Done) => self,
            _ => other,
        }
    }
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
    /// What the program was started with. Ends the program if that is wrong, or if it only asks for help.
    pub fn of_program() -> Self {
        let mut command = Self::command();
        let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
            typed::remember_typed(&command, &matches);
            Self::from_arg_matches(&matches)
        });
        parsed.unwrap_or_else(|error| etcdctl::explained(error).exit())
    }

    pub async fn run(self) -> ExitCode {
        let is_restarted = matches!(self.command, Command::Serve(_));
        let result = match self.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Status(args) => status::run(args).await,
            Command::Plan(args) => plan::run(args).await,
            Command::Gates(args) => gates::run(args).await,
            Command::Run(args) => Box::pin(run::run(args)).await,
            Command::Runs(args) => runs::run(args).await,
            Command::Report(args) => Box::pin(report::run(args)).await,
            Command::Explain(args) => explain::run(&args),
            Command::Approve(args) => control::approve(args).await,
            Command::Reject(args) => control::reject(args).await,
            Command::Pause(args) => control::pause(args).await,
            Command::Resume(args) => control::resume(args).await,
            Command::Cancel(args) => control::cancel(args).await,
            Command::CheckConfig(args) => check_config::run(&args),
            Command::Health(args) => health::run(args).await,
            Command::Completions(args) => docs::completions(&args),
            Command::Man(args) => docs::man(&args),
        };
        result.unwrap_or_else(|error| exit_for(&error, is_restarted)).into()
    }
}

fn exit_for(error: &anyhow::Error, is_restarted: bool) -> Exit {
    // It is not a failure if the reader of a pipe has seen enough and closes it.
    if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return Exit::Done;
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        print_config_error(error);
    } else {
        eprintln!("defragd: {error:#}");
    }
    if is_of_configuration(error) && !(is_restarted && may_pass(error)) { Exit::Usage } else { Exit::Failed }
}

/// Whether the flags, the configuration or a file that they name must change first.
fn is_of_configuration(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<args::UsageError>()
            || cause.is::<ConfigError>()
            || cause.is::<ConnectError>()
            || cause.is::<TokenError>()
            || cause.downcast_ref().is_some_and(CallError::is_of_settings)
    })
}

/// Whether another start may find it repaired: files are missing until another service has written them at boot, and a
/// certificate and its key do not belong together between the writes of the two. All else stays as it is, so the systemd unit
/// does not start again after exit code 2.
fn may_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConnectError>()
            || matches!(cause.downcast_ref(), Some(TokenError::Unreadable { .. }))
            || matches!(cause.downcast_ref(), Some(ConfigError::Unusable(_)))
    })
}

/// Lines that name a place in a file have no prefix: editors and CI jump to it.
fn print_config_error(error: &ConfigError) {
    match error {
        ConfigError::Invalid { path: Some(path), problems } => {
            let many = count(problems.len(), "problem");
            eprintln!("defragd: {} is not valid, {many}:\n{error}", path.display());
        }
        _ => eprintln!("defragd: {error}"),
    }
}
