//! `defragd completions` and `defragd man`: what they write can be used, and names every command. And the pages in
//! `docs/reference/`, which are made of the code.
//!
//! `UPDATE=1 cargo test --test docs` writes those pages; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod names;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use defragd::core::{explain::Kind, reason::Code};
use strum::IntoEnumIterator as _;

mod accepted;
mod api;
mod command_line;
mod configuration;
mod metrics;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file is this text, or it becomes so with `UPDATE=1`.
fn held(path: &str, text: &str) {
    let file = root().join(path);
    let committed = fs::read_to_string(&file).unwrap_or_default();
    if committed == text {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        return fs::write(&file, text).unwrap();
    }
    let is_other = |(committed, text): &(&str, &str)| committed != text;
    let lines = committed.lines().chain(std::iter::repeat("")).zip(text.lines());
    let (committed, made) = lines.into_iter().find(is_other).unwrap_or(("more lines", ""));
    panic!(
        "{path} is not what the code says: run UPDATE=1 cargo test --test docs, read the difference and commit it\n\
         committed: {committed}\nthe code:  {made}"
    );
}

fn defragd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_defragd")).args(args).output().unwrap()
}

fn text(args: &[&str]) -> String {
    let output = defragd(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, as the program lists them.
fn commands() -> Vec<String> {
    let help = text(&["--help"]);
    let list = help.split_once("Commands:\n").unwrap().1.split("\n\n").next().unwrap();
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = list.lines().filter(is_name).map(|line| line.split_whitespace().next().unwrap().to_owned());
    let names: Vec<_> = names.filter(|name| name != "help").collect();
    assert!(names.len() > 10, "{names:?}");
    names
}

/// A shell's verdict on a script; `None` if that shell is not installed.
fn checked(shell: &str, args: &[&str], script: &str) -> Option<Output> {
    let mut child = Command::new(shell)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn the_completions_of_every_shell_name_every_command_and_can_be_read() {
    for (shell, check) in [
        ("bash", Some(("bash", vec!["-n"]))),
        ("zsh", Some(("zsh", vec!["-n"]))),
        ("fish", Some(("fish", vec!["--no-execute"]))),
        ("elvish", None),
        ("powershell", None),
    ] {
        let script = text(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell} lacks {command}");
        }
        assert!(script.contains("--web.systemd-socket") || script.contains("web.systemd-socket"), "{shell}");
        let Some((program, args)) = check else { continue };
        match checked(program, &args, &script) {
            Some(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            None => testkit::skipped(format_args!("no {program} here")),
        }
    }
    assert_eq!(defragd(&["completions", "cmd"]).status.code(), Some(2));
}

/// As readline would ask it, in a real bash.
#[test]
fn bash_completes_a_command_and_a_flag() {
    let script = text(&["completions", "bash"]);
    let ask = |words: &str, last: usize| {
        let asked = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={last}; _defragd defragd \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            last - 1
        );
        let output = checked("bash", &["--norc"], &asked).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask("defragd check", 1).contains("check-config"));
    assert!(ask("defragd serve --web.sys", 2).contains("--web.systemd-socket"));
}

#[test]
fn there_is_a_manual_page_for_every_command_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    text(&["man", "--dir", pages.to_str().unwrap()]);
    let main = text(&["man"]);
    for command in commands() {
        let page = fs::read_to_string(pages.join(format!("defragd-{command}.1"))).unwrap();
        assert!(page.contains(".TH defragd") && page.contains(".SH NAME"), "{command}: {page}");
        assert!(main.contains(&format!("defragd\\-{}(1)", command.replace('-', "\\-"))), "{command} is not in {main}");
    }
    assert_eq!(fs::read_to_string(pages.join("defragd.1")).unwrap(), main);
    let serve = fs::read_to_string(pages.join("defragd-serve.1")).unwrap();
    assert!(serve.contains("DEFRAGD_WEB_LISTEN_ADDRESS") && serve.contains("shutdown"), "{serve}");
    for page in fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()) {
        warnings(&page);
    }
}

fn warnings(page: &Path) {
    let lint = |program: &str, args: &[&str]| Command::new(program).args(args).arg(page).output().ok();
    let Some(output) = lint("groff", &["-Kutf8", "-man", "-ww", "-Tutf8", "-z"]) else {
        return testkit::skipped("no groff here");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
}

#[test]
fn the_page_of_reasons_is_current() {
    let mut page = "\
# Reasons

<!-- Written by `UPDATE=1 cargo test --test docs`: do not edit. -->

Whenever defragd does not do something, it gives a reason: a code for metrics and JSON, a text with the details, and what to
do. This page lists all codes. `defragd explain CODE` prints the same on a terminal.
"
    .to_owned();
    for kind in Kind::ALL {
        write!(page, "\n## {}\n\nShown: {}.\n", kind.title(), kind.appears()).unwrap();
        for code in Code::iter().filter(|code| code.kind() == kind) {
            let (meaning, severity, advice) = (code.meaning(), code.severity().words(), code.advice());
            write!(page, "\n### {code}\n\n{meaning}\n\n- Severity: {severity}\n- What to do: {advice}\n").unwrap();
        }
    }
    held("docs/reference/reasons.md", &page);
}

#[test]
fn explain_says_what_a_reason_means_and_knows_a_misspelt_one() {
    let section = text(&["explain", "lock_settling"]);
    let code = Code::LockSettling;
    assert!(section.contains(&code.meaning()) && section.contains(code.advice()), "{section}");
    let list = text(&["explain"]);
    for code in Code::iter() {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(code.label())), "{code} is not listed");
    }
    let misspelt = defragd(&["explain", "lock_setling"]);
    let said = String::from_utf8_lossy(&misspelt.stderr);
    assert_eq!(misspelt.status.code(), Some(2), "{said}");
    assert!(said.contains("a similar value exists: 'lock_settling'"), "{said}");
}
