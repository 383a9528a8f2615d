//! The command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

pub(crate) const HELP: &str = "\
usage: demo [--exit | --run COMMAND] [--size-mb N] [--defragd PATH]

Starts three etcd members with TLS, Prometheus, Alertmanager and defragd on free loopback ports, fills the
databases with free space, waits until the alert has made defragd roll over the members, and checks the result.

  --exit           end when all is checked: exit status 0 if every check holds, else 1
                   (without it everything stays up until Ctrl-C)
  --run COMMAND    only start and fragment the etcd members, then run COMMAND in a shell, with defragd in its PATH
                   and the cluster in etcdctl's environment variables; exit with its status
  --size-mb N      how large the databases get, 200 to 1500 (default 400)
  --defragd PATH   the binary (default: $DEFRAGD_BIN, else target/release/defragd)

Install etcd, Prometheus and Alertmanager with tests/testkit/tools first.";

/// Below, less than the alert's 100 MiB are reclaimable; above, etcd's default quota of 2 GiB is near.
const SIZE_MB: std::ops::RangeInclusive<u64> = 200..=1500;

/// What the demo is to do.
#[derive(Debug, PartialEq)]
pub(crate) struct Args {
    /// End by itself.
    pub(crate) exit: bool,
    /// A shell command that takes the place of the story.
    pub(crate) run: Option<String>,
    /// How large the databases get, in MiB.
    pub(crate) size_mb: u64,
    /// The binary to run.
    pub(crate) defragd: PathBuf,
}

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Parsed {
    /// To see the help.
    Help,
    /// To run.
    Run(Args),
}

impl Args {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Parsed> {
        let mut args = Self { exit: false, run: None, size_mb: 400, defragd: default_binary() };
        let mut words = words;
        while let Some(word) = words.next() {
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || inline.clone().or_else(|| words.next()).with_context(|| format!("{name} needs a value"));
            match name {
                "--help" | "-h" => return Ok(Parsed::Help),
                "--exit" => args.exit = true,
                "--run" => args.run = Some(value()?),
                "--size-mb" => {
                    args.size_mb = value()?.parse().context("--size-mb needs a number")?;
                }
                "--defragd" => args.defragd = PathBuf::from(value()?),
                _ => bail!("unknown argument {word}"),
            }
        }
        ensure!(SIZE_MB.contains(&args.size_mb), "--size-mb must be {} to {}", SIZE_MB.start(), SIZE_MB.end());
        Ok(Parsed::Run(args))
    }
}

fn default_binary() -> PathBuf {
    std::env::var_os("DEFRAGD_BIN").map_or_else(|| repository().join("target/release/defragd"), PathBuf::from)
}

/// The repository's root, where the shipped alerts are.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Parsed> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn values_come_after_a_space_or_an_equals_sign() {
        let expected = Parsed::Run(Args { exit: true, run: None, size_mb: 300, defragd: PathBuf::from("/x") });
        assert_eq!(parse("--exit --size-mb 300 --defragd=/x").unwrap(), expected);
        let expected = Args { exit: false, run: Some("true".to_owned()), size_mb: 300, defragd: PathBuf::from("/x") };
        assert_eq!(parse("--run true --size-mb=300 --defragd /x").unwrap(), Parsed::Run(expected));
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        for (line, said) in [
            ("--size-mb 100", "200 to 1500"),
            ("--size-mb x", "needs a number"),
            ("--size-mb", "needs a value"),
            ("--fast", "unknown argument --fast"),
        ] {
            let error = format!("{:#}", parse(line).unwrap_err());
            assert!(error.contains(said), "{line}: {error}");
        }
        assert_eq!(parse("-h").unwrap(), Parsed::Help);
    }
}
