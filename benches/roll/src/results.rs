//! The tables, with the same text in the terminal and in `benches/RESULTS.md`.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{
    contender::{Contender, PEERS},
    estimates::{self, Estimate},
    figures::{self, Figure, Spread},
    markdown,
    scenario::Scenario,
    trial::Trial,
};

/// All trials of one scenario.
#[derive(Default)]
pub(crate) struct Results {
    figures: BTreeMap<(Scenario, Contender), Vec<Vec<Figure>>>,
    failures: BTreeMap<(Scenario, Contender), Vec<String>>,
    estimates: BTreeMap<Scenario, Vec<Estimate>>,
}

/// One figure of one contender under one load, for `-o json`.
#[derive(Serialize)]
pub(crate) struct Line {
    load: &'static str,
    tool: &'static str,
    figure: String,
    runs: usize,
    #[serde(flatten)]
    spread: Spread,
}

impl Results {
    /// Takes one trial's figures.
    pub(crate) fn add(&mut self, scenario: Scenario, who: Contender, trial: &Trial) {
        self.figures.entry((scenario, who)).or_default().push(figures::of(trial));
    }

    /// A contender that did not come to its end is a result, too.
    pub(crate) fn failed(&mut self, scenario: Scenario, who: Contender, why: String) {
        self.failures.entry((scenario, who)).or_default().push(why);
    }

    /// Takes what defragd expected of each member, and what it measured.
    pub(crate) fn estimated(&mut self, scenario: Scenario, estimates: Vec<Estimate>) {
        self.estimates.insert(scenario, estimates);
    }

    /// How many trials came to their end.
    pub(crate) fn measured(&self) -> usize {
        self.figures.values().map(Vec::len).sum()
    }

    /// Whether this load has any result, even a failure.
    pub(crate) fn knows(&self, scenario: Scenario) -> bool {
        self.figures.keys().chain(self.failures.keys()).any(|(of, _)| *of == scenario)
    }

    /// How many trials of this kind came to their end.
    pub(crate) fn runs(&self, scenario: Scenario, who: Contender) -> usize {
        self.figures.get(&(scenario, who)).map_or(0, Vec::len)
    }

    /// The middle value of a figure.
    pub(crate) fn spread(&self, scenario: Scenario, who: Contender, name: &str) -> Option<Spread> {
        let trials = self.figures.get(&(scenario, who))?;
        let value = |trial: &Vec<Figure>| {
            let found = trial.iter().find(|figure| figure.name == name).map(|figure| figure.value);
            found.or_else(|| name.starts_with(figures::FAILED_WITH).then_some(0.0))
        };
        Spread::of(trials.iter().filter_map(value))
    }

    fn names(&self, scenario: Scenario) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for ((_, _), trials) in self.figures.iter().filter(|((of, _), _)| *of == scenario) {
            for figure in trials.iter().flatten() {
                if !names.contains(&figure.name) {
                    names.push(figure.name.clone());
                }
            }
        }
        names
    }

    /// For programs.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for ((scenario, who), trials) in &self.figures {
            for name in self.names(*scenario) {
                let Some(spread) = self.spread(*scenario, *who, &name) else { continue };
                lines.push(Line {
                    load: scenario.label(),
                    tool: who.label(),
                    figure: name,
                    runs: trials.len(),
                    spread,
                });
            }
        }
        for (scenario, estimate) in self.estimates.iter().flat_map(|(of, all)| all.iter().map(move |one| (of, one))) {
            lines.extend(Spread::of(std::iter::once(estimate.ratio())).map(|spread| Line {
                load: scenario.label(),
                tool: Contender::Defragd.label(),
                figure: format!("taken / expected, roll {}, {}", estimate.roll, estimate.attempt.member),
                runs: 1,
                spread,
            }));
        }
        lines
    }

    /// The scenario's table: a row a figure, a column a contender; the middle of all runs, and both ends.
    pub(crate) fn table(&self, scenario: Scenario) -> String {
        let contenders: Vec<_> = self.figures.keys().filter(|(of, _)| *of == scenario).map(|(_, who)| *who).collect();
        let mut header = vec!["median (min–max)".to_owned()];
        for who in &contenders {
            let runs = self.runs(scenario, *who);
            header.push(format!("{}, {runs} run{}", who.label(), if runs == 1 { "" } else { "s" }));
        }
        let row = |name: String| {
            let figures = contenders.iter().map(|who| self.spread(scenario, *who, &name));
            let shown = figures.map(|spread| spread.map_or("–".to_owned(), shown)).collect::<Vec<_>>();
            std::iter::once(name).chain(shown).collect()
        };
        let table = markdown::table(header, self.names(scenario).into_iter().map(row), 1);
        let mut text = format!("### {}\n\n{}.\n\n{table}\n", scenario.label(), scenario.description());
        if let Some(estimates) = self.estimates.get(&scenario) {
            let _ = write!(text, "\n{}", estimates::table(estimates));
        }
        for ((_, who), failures) in self.failures.iter().filter(|((of, _), _)| *of == scenario) {
            for failure in failures {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "\nOne run of {} failed:\n\n```\n{failure}\n```", who.label());
            }
        }
        text
    }

    /// Each goal, met or missed, with its figures.
    pub(crate) fn goals(&self) -> String {
        let mut text = String::from("### Goals\n\n");
        let mut goal = |says: String, met: Option<bool>| {
            let word = match met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let _ = writeln!(text, "- {word}: {says}");
        };
        for (scenario, estimates) in &self.estimates {
            let second = estimates.iter().filter(|estimate| estimate.roll == 2);
            let says =
                format!("{}: each member within a factor of 2 of its estimate on a second roll", scenario.label());
            goal(says, Some(second.clone().count() > 0 && second.clone().all(Estimate::holds)));
        }
        for (scenario, who) in self.figures.keys().filter(|(_, who)| who.has_goals()) {
            let at = format!("{}, {}", scenario.label(), who.label());
            let find = |name: &str| self.spread(*scenario, *who, name);
            if let Some(ratio) = find("roll / servers' sum") {
                let most = if who.transfers() { 1.15 } else { 1.08 };
                goal(
                    format!("{at}: roll time {:.2} × the servers' own sum (at most {most:.2})", ratio.median),
                    Some(ratio.median <= most),
                );
            }
            if let Some(cpu) = find("CPU of the tool while it waits, %") {
                let says = format!("{at}: {:.2} % of one core while members defragment (less than 1)", cpu.median);
                goal(says, Some(cpu.median < 1.0));
            }
            if let Some(failed) = find("failed, failover") {
                goal(
                    format!("{at}: at most {} failed requests through failover clients (none)", failed.max),
                    Some(failed.max < 1.0),
                );
            }
            if let Some(lost) = find("leases lost, failover").filter(|_| who.transfers()) {
                goal(
                    format!("{at}: at most {} leases lost through failover clients (none)", lost.max),
                    Some(lost.max < 1.0),
                );
            }
            let api_gap = find("longest gap without a write, API server, s");
            if let Some((gap, away)) = api_gap.zip(find("longest defragmentation, s")) {
                let says = format!(
                    "{at}: longest gap without a write through the API server {:.2} s, the longest defragmentation {:.2} s \
                     (at most half of it)",
                    gap.median, away.median
                );
                goal(says, Some(gap.median <= away.median / 2.0));
            }
            if let Some(lost) = find("elections lost, API server") {
                goal(format!("{at}: at most {} elections lost (none)", lost.max), Some(lost.max < 1.0));
            }
            let gap = "longest gap without a write, failover, s";
            if let Some(ours) = find(gap) {
                let best = PEERS.iter().filter_map(|peer| self.spread(*scenario, *peer, gap)).map(|gap| gap.median);
                let best = best.min_by(f64::total_cmp);
                let says = format!(
                    "{at}: longest gap without a write {:.2} s, best peer {} (below it)",
                    ours.median,
                    best.map_or("not measured".to_owned(), |best| format!("{best:.2} s"))
                );
                goal(says, best.map(|best| ours.median < best));
            }
        }
        text
    }
}

fn shown(spread: Spread) -> String {
    let number = |value: f64| match value {
        value if value.fract() == 0.0 && value < 1e6 => format!("{value:.0}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    if (spread.max - spread.min).abs() < 1e-9 {
        return number(spread.median);
    }
    format!("{} ({}–{})", number(spread.median), number(spread.min), number(spread.max))
}
