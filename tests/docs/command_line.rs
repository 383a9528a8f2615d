//! `docs/reference/command-line.md`: made of the command tree that reads the command line.

use std::{collections::BTreeMap, fmt::Write};

use clap::{Arg, Command, CommandFactory, Parser};
use defragd::{cli::Cli, config::schema};

use crate::held;

/// Without clap's own `help`, with what commands inherit.
fn tree() -> Command {
    let mut tree = Cli::command().disable_help_subcommand(true);
    tree.build();
    tree
}

/// All commands with their full names.
fn commands<'a>(name: &str, command: &'a Command, found: &mut Vec<(String, &'a Command)>) {
    let name = format!("{name} {}", command.get_name()).trim().to_owned();
    found.push((name.clone(), command));
    for below in command.get_subcommands() {
        commands(&name, below, found);
    }
}

fn is_own(arg: &Arg) -> bool {
    !["help", "version"].contains(&arg.get_id().as_str()) && !arg.is_hide_set()
}

fn list(words: impl Iterator<Item = String>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn row(arg: &Arg) -> String {
    let value = arg.get_action().takes_values().then(|| arg.get_value_names().unwrap_or_default().join(" "));
    let value = value.filter(|value| !value.is_empty());
    let mut names = Vec::new();
    if arg.is_positional() {
        names.push(format!("`{}`", value.clone().unwrap_or_default()));
    }
    names.extend(arg.get_short().map(|short| format!("`-{short}`")));
    names.extend(arg.get_long().map(|long| format!("`--{long}`")));
    let value = value.filter(|_| !arg.is_positional()).map(|value| format!(" {value}")).unwrap_or_default();
    let env = arg.get_env().map(|name| format!("`{}`", name.to_str().unwrap())).unwrap_or_default();
    // A flag without a value is off by default, which says nothing.
    let defaults = arg.get_default_values().iter().filter(|value| arg.get_action().takes_values() && !value.is_empty());
    let mut default = list(defaults.map(|value| value.to_str().unwrap().to_owned()));
    let mut help = arg.get_help().unwrap().to_string().replace('|', "\\|");
    if let Some((words, named)) = named_default(&help).map(|(words, named)| (words.to_owned(), named.to_owned())) {
        default = if named.contains(' ') { named } else { format!("`{named}`") };
        help = words;
    }
    let possible = arg.get_possible_values();
    if arg.get_action().takes_values() && !possible.is_empty() {
        write!(help, ". One of {}", list(possible.iter().map(|value| value.get_name().to_owned()))).unwrap();
    }
    if arg.is_required_set() {
        help += ". Required";
    }
    format!("| {}{value} | {env} | {default} | {help} |\n", names.join(", "))
}

/// A help that ends with a default, which is not clap's own, and without it.
fn named_default(help: &str) -> Option<(&str, &str)> {
    help.strip_suffix(']')?.rsplit_once(" [default: ")
}

/// The rows of each group, the command's own first.
fn groups(command: &Command) -> Vec<(String, String)> {
    let mut groups: Vec<(String, String)> = Vec::new();
    for arg in command.get_arguments().filter(|arg| is_own(arg)) {
        let group = arg.get_help_heading().unwrap_or_default().to_owned();
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, rows)) => *rows += &row(arg),
            None => groups.push((group, row(arg))),
        }
    }
    groups.sort_by_key(|(name, _)| !name.is_empty());
    groups
}

fn anchor(title: &str) -> String {
    let plain: String =
        title.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || " -".contains(*c)).collect();
    plain.replace(' ', "-")
}

fn page() -> String {
    const HEAD: &str = "| flag | environment | default | meaning |\n|---|---|---|---|\n";
    let tree = tree();
    let mut all = Vec::new();
    commands("", &tree, &mut all);
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for group in all.iter().flat_map(|(_, command)| groups(command)) {
        *counts.entry(group).or_default() += 1;
    }
    let is_shared = |group: &(String, String)| !group.0.is_empty() && counts[group] > 1;
    let mut page = "# Command line reference\n\n\
        <!-- Made by tests/docs from the code: UPDATE=1 cargo test --test docs -->\n\n\
        A flag on the command line wins over its environment variable. `defragd COMMAND --help` shows the same.\n"
        .to_owned();
    for (name, command) in &all {
        let usage = (*command).clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        write!(page, "\n## `{name}`\n\n{}.\n\n```text\n{usage}\n```\n", command.get_about().unwrap()).unwrap();
        let mut shared = Vec::new();
        for group in groups(command) {
            let (title, rows) = &group;
            if is_shared(&group) {
                shared.push(format!("[{title}](#{})", anchor(title)));
            } else if title.is_empty() {
                write!(page, "\n{HEAD}{rows}").unwrap();
            } else {
                write!(page, "\n{title}:\n\n{HEAD}{rows}").unwrap();
            }
        }
        if !shared.is_empty() {
            write!(page, "\nAlso the flags of {}.\n", shared.join(", ")).unwrap();
        }
        if let Some(after) = command.get_after_help() {
            write!(page, "\n```text\n{after}\n```\n").unwrap();
        }
    }
    for (group, _) in counts.iter().filter(|(group, _)| is_shared(group)) {
        write!(page, "\n## {}\n\n{HEAD}{}", group.0, group.1).unwrap();
    }
    page
}

#[test]
fn the_page_is_that_of_the_code() {
    held("docs/reference/command-line.md", &page());
}

#[test]
fn every_help_has_exit_codes_and_examples_that_are_right() {
    let tree = tree();
    let mut all = Vec::new();
    commands("", &tree, &mut all);
    for (name, command) in all {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{name}")).to_string();
        assert!(help.contains("Exit codes:\n  0  "), "{name}: {help}");
        let examples: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  defragd ")).collect();
        assert!(!examples.is_empty(), "{name}: {help}");
        for example in examples {
            let line = format!("defragd {example}");
            assert!(line == name || line.starts_with(&format!("{name} ")), "{line} is not of {name}");
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn the_commands_own_flags_come_first_and_the_connection_last() {
    let tree = tree();
    for command in tree.get_subcommands() {
        let mut groups: Vec<_> = command.get_arguments().filter(|arg| is_own(arg)).map(Arg::get_help_heading).collect();
        groups.dedup();
        if let Some(at) = groups.iter().position(|group| *group == Some("Connection")) {
            assert_eq!(at + 1, groups.len(), "{}: {groups:?}", command.get_name());
        }
    }
}

/// They are not clap's own: what is not given must not override the file.
#[test]
fn the_defaults_that_help_names_for_keys_of_the_file_are_those_of_the_file() {
    let file = schema::file();
    let policy = &file["properties"]["clusters"]["items"]["properties"]["policy"]["properties"];
    let tree = tree();
    let mut compared = 0;
    for arg in tree.find_subcommand("serve").unwrap().get_arguments().filter(|arg| arg.get_action().takes_values()) {
        let name = arg.get_id().as_str();
        let key = match arg.get_help_heading().and_then(|group| group.split_once(" (overrides")) {
            Some(("Policy", _)) => &policy[name],
            Some(("Lock", _)) if name != "token_file" => &file["properties"]["lock"]["properties"][name],
            _ => continue,
        };
        assert!(key.is_object(), "{arg} is no key");
        // That of the mode depends on the command.
        let Some(default) = key.get("default").filter(|_| name != "mode") else { continue };
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        let help = arg.get_help().unwrap().to_string();
        assert_eq!(named_default(&help).map(|(_, named)| named), Some(default.as_str()), "{arg}: {help:?}");
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
}
