//! `defragd check-config`: reports everything that is wrong with the configuration and the files it names, at once.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use super::{Exit, args::Output};
use crate::{
    adapters::{clock::SystemClock, etcd::ConnectError},
    app::{
        connect::{connect, connect_module},
        gates, locks,
        web::WebFile,
    },
    config::{ClusterSettings, ConfigError, Overrides, Problem, Settings, Source, schema, web},
    core::{shard::owner, story::count},
    ports::clock::Clock,
};

/// How many due times are shown for each cluster.
const TIMES_SHOWN: usize = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    #[arg(required_unless_present_any = ["config", "schema"])]
    file: Option<PathBuf>,
    /// The file, with the flag of the other commands
    #[arg(long, env = "DEFRAGD_CONFIG", value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Also check this web configuration file of `defragd serve`
    #[arg(long = "web.config.file", env = "DEFRAGD_WEB_CONFIG_FILE", value_name = "FILE")]
    web_config_file: Option<PathBuf>,
    /// Do not open the files that the configuration names: certificates, keys, passwords, tokens
    #[arg(long)]
    syntax_only: bool,
    /// Write the JSON schema of the configuration file to standard output, for editors that complete and check with it
    #[arg(long)]
    schema: bool,
    /// Output format
    #[arg(short, long, short_alias = 'w', alias = "write-out", value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.schema {
        writeln!(std::io::stdout(), "{:#}", schema::file())?;
        return Ok(Exit::Done);
    }
    let file = args.file.as_ref().or(args.config.as_ref()).context("no file given")?;
    let mut errors = Vec::new();
    let counted = main_file(file, args.syntax_only).map_err(|error| errors.push(error)).ok();
    let (counted, schedules) = counted.unzip();
    let schedules = schedules.unwrap_or_default();
    if let Some(path) = &args.web_config_file {
        errors.extend(web_file(path, args.syntax_only).err());
    }
    let exit = if errors.is_empty() { Exit::Done } else { Exit::Usage };
    match args.output {
        Output::Json => {
            let problems: Vec<_> = errors.iter().flat_map(shown).collect();
            let result = json!({
                "valid": errors.is_empty(), "problems": problems,
                "clusters": counted.as_ref().map(|counts| counts.clusters),
                "modules": counted.as_ref().map(|counts| counts.modules),
                "shards": counted.as_ref().map(|counts| &counts.of_shards),
                "schedules": schedules.iter().map(Due::json).collect::<Vec<_>>(),
            });
            writeln!(std::io::stdout(), "{result:#}")?;
        }
        Output::Table | Output::Wide => {
            errors.iter().for_each(super::print_config_error);
            if let (Some(Counts { clusters, modules, of_shards }), Exit::Done) = (counted, exit) {
                let modules = if modules == 0 { String::new() } else { format!(", {}", count(modules, "module")) };
                writeln!(std::io::stdout(), "{}: valid, {}{modules}", file.display(), count(clusters, "cluster"))?;
                for (ordinal, clusters) in of_shards.into_iter().enumerate() {
                    writeln!(std::io::stdout(), "shard {ordinal}: {}", count(clusters, "cluster"))?;
                }
                for due in &schedules {
                    writeln!(std::io::stdout(), "{}: next scheduled runs {}", due.cluster, due.words())?;
                }
            }
        }
    }
    Ok(exit)
}

fn shown(error: &ConfigError) -> Vec<serde_json::Value> {
    match error {
        ConfigError::Unreadable { path, cause } => {
            let what = format!("cannot be read: {cause}");
            vec![json!({ "file": path, "line": null, "column": null, "key": "", "problem": what })]
        }
        ConfigError::Unusable(what) => {
            vec![json!({ "file": null, "line": null, "column": null, "key": "", "problem": what })]
        }
        ConfigError::Invalid { path, problems } => {
            let one = |problem: &Problem| {
                let (line, column) = problem.place.map(|place| (place.line, place.column)).unzip();
                json!({ "file": path, "line": line, "column": column, "key": problem.at, "problem": problem.what })
            };
            problems.iter().map(one).collect()
        }
    }
}

/// When a cluster's schedule next requests a run.
struct Due {
    cluster: String,
    next: Vec<Timestamp>,
}

impl Due {
    fn json(&self) -> serde_json::Value {
        json!({ "cluster": self.cluster, "next": self.next })
    }

    fn words(&self) -> String {
        let at = |time: &Timestamp| time.strftime("at %Y-%m-%d %H:%M UTC").to_string();
        self.next.iter().map(at).collect::<Vec<_>>().join(", ")
    }
}

/// What is configured.
struct Counts {
    clusters: usize,
    modules: usize,
    /// The clusters of each shard; empty if they are not divided.
    of_shards: Vec<usize>,
}

/// The numbers of clusters and modules, and the due times of the schedules.
fn main_file(path: &Path, syntax_only: bool) -> Result<(Counts, Vec<Due>), ConfigError> {
    let mut source = Source::open(path)?;
    let settings = Settings::from_source(&mut source, &Overrides::default());
    if syntax_only {
        return settings.map(|settings| (counts(&settings), schedules(&settings)));
    }
    let mut problems = unreadable_files(&source);
    for (index, cluster) in settings.iter().flat_map(|settings| &settings.clusters).enumerate() {
        let at = format!("clusters[{index}]");
        if problems.iter().any(|problem| problem.at.starts_with(&format!("{at}."))) {
            continue;
        }
        let add = |at: String, what: String| problems.push(Problem { at, place: None, what });
        of_cluster(&at, &source, cluster, add);
    }
    let is_named = |problems: &[Problem], at: &str| problems.iter().any(|problem| problem.at.starts_with(at));
    if let Ok(settings) = &settings {
        for (name, module) in &settings.modules {
            let at = format!("modules.{name}");
            if let (false, Err(error)) = (is_named(&problems, &at), connect_module(module, Vec::new())) {
                let at = key_of_file(&at, &source, &error).unwrap_or_else(|| format!("{at}.tls"));
                problems.push(Problem { at, place: None, what: causes(&error) });
            }
        }
        // All clusters make their lock the same way, so checking one is enough; the cluster itself is checked above.
        let own = settings.clusters.first().filter(|_| !settings.lock.is_in_the_target());
        if let (false, Some(Err(error))) =
            (is_named(&problems, "lock"), own.map(|cluster| locks::store(&settings.lock, cluster)))
        {
            let at = key_of_file("lock", &source, &error).unwrap_or_else(|| "lock".to_owned());
            problems.push(Problem { at, place: None, what: causes(&error) });
        }
    }
    match settings {
        Ok(settings) if problems.is_empty() => Ok((counts(&settings), schedules(&settings))),
        Err(error) if problems.is_empty() => Err(error),
        _ => Err(source.error(problems)),
    }
}

fn counts(settings: &Settings) -> Counts {
    let total = settings.shards.total;
    let of_shard = |ordinal| settings.clusters.iter().filter(|of| owner(&of.name, total) == ordinal).count();
    let of_shards = if total > 1 { (0..total).map(of_shard).collect() } else { Vec::new() };
    Counts { clusters: settings.clusters.len(), modules: settings.modules.len(), of_shards }
}

fn schedules(settings: &Settings) -> Vec<Due> {
    let of = |cluster: &ClusterSettings| {
        let timetable = &cluster.policy.schedule;
        let next = std::iter::successors(timetable.next(SystemClock.now()), |due| timetable.next(*due));
        Due { cluster: cluster.name.clone(), next: next.take(TIMES_SHOWN).collect() }
    };
    settings.clusters.iter().filter(|cluster| !cluster.policy.schedule.is_empty()).map(of).collect()
}

/// The error in one line, without what the key path already says.
fn causes(error: &anyhow::Error) -> String {
    let named = |cause: &String| ["cluster ", "module ", "lock.etcd"].iter().any(|name| cause.starts_with(name));
    error.chain().map(ToString::to_string).filter(|cause| !named(cause)).collect::<Vec<_>>().join(": ")
}

/// Finds files with unusable content, or content that does not suit its purpose.
fn of_cluster(at: &str, source: &Source, cluster: &ClusterSettings, mut add: impl FnMut(String, String)) {
    if let Err(error) = connect(cluster) {
        add(key_of_file(at, source, &error).unwrap_or_else(|| format!("{at}.tls")), causes(&error));
    }
    for error in gates::gates(&cluster.gates).err().into_iter().flatten() {
        let index = cluster.gates.iter().position(|gate| gate.name == error.gate).unwrap_or_default();
        add(format!("{at}.gates[{index}]"), error.detail);
    }
}

/// The key below `at` that names the file which the error is about.
fn key_of_file(at: &str, source: &Source, error: &anyhow::Error) -> Option<String> {
    let path = error.chain().find_map(|cause| cause.downcast_ref::<ConnectError>())?.path()?;
    let is_it = |(key, named): &(String, PathBuf)| key.starts_with(&format!("{at}.")) && named == path;
    source.named_files().into_iter().find(is_it).map(|(key, _)| key)
}

fn unreadable_files(source: &Source) -> Vec<Problem> {
    let judge = |(at, path): (String, PathBuf)| {
        let what = match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(meta) if meta.is_dir() => format!("{} is a directory, not a file", path.display()),
            Ok(_) => return None,
            Err(_) if path.as_os_str().is_empty() => "is empty: name a file, or remove the key".to_owned(),
            Err(error) => format!("cannot read {}: {error}", path.display()),
        };
        Some(Problem { at, place: None, what })
    };
    source.named_files().into_iter().filter_map(judge).collect()
}

fn web_file(path: &Path, syntax_only: bool) -> Result<(), ConfigError> {
    let mut source = Source::open(path)?;
    web::from_source(&mut source)?;
    if syntax_only {
        return Ok(());
    }
    WebFile::new(path.to_owned(), |_| {}).check().map_err(|problems| {
        let problem = |line: &str| {
            let (at, what) = line.split_once(": ").unwrap_or(("", line));
            Problem { at: at.to_owned(), place: None, what: what.to_owned() }
        };
        source.error(problems.lines().map(problem).collect())
    })
}
