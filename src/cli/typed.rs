//! Which flags are on the command line itself: those of the environment are defaults, and conflict with none.

use std::sync::OnceLock;

use clap::{ArgMatches, Args, Command, parser::ValueSource};

/// The flags on the command line itself, by their long names.
static TYPED: OnceLock<Vec<String>> = OnceLock::new();

/// Keeps what the command line itself says, apart from the environment.
pub(super) fn remember_typed(mut command: &Command, mut matches: &ArgMatches) {
    let mut typed = Vec::new();
    loop {
        let is_typed = |id: &str| {
            matches.try_contains_id(id).is_ok() && matches.value_source(id) == Some(ValueSource::CommandLine)
        };
        let flags = command.get_arguments().filter(|flag| is_typed(flag.get_id().as_str()));
        typed.extend(flags.filter_map(|flag| Some(format!("--{}", flag.get_long()?))));
        let inner = matches.subcommand().and_then(|(name, inner)| Some((command.find_subcommand(name)?, inner)));
        let Some(inner) = inner else { break };
        (command, matches) = inner;
    }
    let _ = TYPED.set(typed);
}

/// The first of these flags that is on the command line itself, not in the environment.
pub(super) fn typed_flag(flags: &[&str]) -> Option<String> {
    TYPED.get()?.iter().find(|name| flags.contains(&name.as_str())).cloned()
}

/// The same, of the flags of a group, besides some of them.
pub(super) fn typed_among<A: Args>(except: &[&str]) -> Option<String> {
    let group = A::augment_args(Command::new("group"));
    let names: Vec<_> = group.get_arguments().filter_map(|flag| Some(format!("--{}", flag.get_long()?))).collect();
    let names: Vec<_> = names.iter().map(String::as_str).filter(|name| !except.contains(name)).collect();
    typed_flag(&names)
}

pub(super) fn is_typed(flags: &[&str]) -> bool {
    typed_flag(flags).is_some()
}
