//! Reading the Prometheus text format: just enough to look up a sample.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// One `/metrics` page.
#[derive(Debug, Clone)]
pub struct Exposition(String);

impl Exposition {
    /// Takes the page's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The page as it came.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The value of the first sample of a metric whose labels include these.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples(name)
            .find(|(own, _)| labels.iter().all(|&(key, value)| own.get(key).is_some_and(|own| own == value)))
            .map(|(_, value)| value)
    }

    /// The value, or an error naming what was looked for.
    pub fn require(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        self.value(name, labels).with_context(|| format!("no sample {name}{labels:?} in the metrics"))
    }

    /// The value of a counter, as the whole number that it is.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let value = self.value(name, labels)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within what a double holds exactly"
        )]
        (0.0..9e15).contains(&value).then_some(value as u64)
    }

    /// Every sample of a metric: its labels and value.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (BTreeMap<String, String>, f64)> + 'a {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            if let Some(inner) = rest.strip_prefix('{') {
                let (labels, after) = labels(inner)?;
                Some((labels, number(after)?))
            } else if rest.starts_with(' ') {
                Some((BTreeMap::new(), number(rest)?))
            } else {
                None // a longer name
            }
        })
    }
}

fn number(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Parses labels up to the closing brace; gives what follows it.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(after) = text.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, quoted) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.to_owned(), value);
        text = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# HELP a_total x\na_total 3\na_total_more 9\nb{x=\"1\",y=\"q\\\"}\\n\"} 2.5e1 1700000000\nb{x=\"2\"} +Inf\n";

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let page = Exposition::new(PAGE);
        assert_eq!(page.value("a_total", &[]), Some(3.0));
        assert_eq!(page.value("a", &[]), None);
        assert!(page.require("zzz", &[]).is_err());
    }

    #[test]
    fn labels_select_and_escapes_are_undone() {
        let page = Exposition::new(PAGE);
        assert_eq!(page.value("b", &[("x", "1")]), Some(25.0));
        assert_eq!(page.value("b", &[("x", "2")]), Some(f64::INFINITY));
        assert_eq!(page.value("b", &[("x", "3")]), None);
        assert_eq!(page.samples("b").next().unwrap().0["y"], "q\"}\n");
    }
}
