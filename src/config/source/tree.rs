//! A YAML text as a tree with positions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::files::Files;
use crate::{
    config::problem::{Place, Problem},
    ports::access::SecretUrl,
};

/// Deeper than any key.
const MAX_DEPTH: usize = 64;
/// Aliases multiply what is written; a thousand clusters with all keys have fewer values.
const MAX_NODES: usize = 500_000;

/// The library's error, and its most likely cause.
const HINTS: [(&str, &str); 4] = [
    ("placement of ':'", "; is a [, a { or a quote before it not closed?"),
    ("block collection", "; is it indented like the lines above it?"),
    ("tabs", "; indent with spaces"),
    ("unclosed quote", "; it begins here"),
];

/// Where values are that are not in the file.
pub(super) const NOWHERE: Place = Place { line: 0, column: 0 };

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Not quoted: it may be a number, a boolean or null.
    Plain(String),
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Replaces a wrong or missing value: it reads as the smallest value of any type.
    Hole,
    /// Replaces a hole that cannot be read either: see [`crate::core::wire::text`].
    Blank,
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Place,
}

/// A text that is YAML.
pub(super) struct Parsed {
    pub(super) root: Node,
    /// Keys that are defined twice. The first one counts.
    pub(super) problems: Vec<Problem>,
}

impl Node {
    /// From a flag.
    pub(super) fn of(value: &Value) -> Self {
        let key = |name: &String| Key { name: name.clone(), place: NOWHERE };
        let kind = match value {
            Value::Null => Kind::Plain(String::new()),
            Value::Bool(_) | Value::Number(_) => Kind::Plain(value.to_string()),
            Value::String(text) => Kind::Quoted(text.clone()),
            Value::Array(items) => Kind::List(items.iter().map(Self::of).collect()),
            Value::Object(map) => Kind::Map(map.iter().map(|(name, value)| (key(name), Self::of(value))).collect()),
        };
        Self { place: NOWHERE, kind }
    }

    /// See [`super::Source::read_with`]. What is of another type here stays, and is refused later.
    pub(super) fn merge(&mut self, over: &Value) {
        match (&mut self.kind, over) {
            (Kind::List(items), Value::Array(over)) => {
                for item in items {
                    for over in over {
                        item.merge(over);
                    }
                }
            }
            (Kind::Map(entries), Value::Object(over)) => {
                for (name, over) in over {
                    match entries.iter_mut().find(|(key, _)| key.name == *name) {
                        Some((_, node)) if over.is_array() || (over.is_object() && !node.is_null()) => node.merge(over),
                        Some((_, node)) => *node = Self::of(over),
                        None if over.is_array() => {}
                        None => entries.push((Key { name: name.clone(), place: NOWHERE }, Self::of(over))),
                    }
                }
            }
            _ => {}
        }
    }

    /// An absent value, like that after `key:`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Where a node is: at its key, if it has one and spans more than one line.
    pub(super) fn places(&self) -> HashMap<String, Place> {
        let mut places = HashMap::new();
        if self.place != NOWHERE {
            places.insert(String::new(), self.place);
        }
        self.walk(&mut String::new(), &mut |path, key, node| {
            let place = match (&node.kind, key) {
                (Kind::Plain(text), Some(key)) if text.is_empty() => key.place,
                (Kind::List(_) | Kind::Map(_) | Kind::Hole | Kind::Blank, Some(key)) => key.place,
                _ => node.place,
            };
            if place != NOWHERE {
                places.insert(path.to_owned(), place);
            }
        });
        places
    }

    /// See [`super::Source::named_files`].
    pub(super) fn named_files(&self, files: &Files) -> Vec<(String, PathBuf)> {
        let (found, mut named) = (files.found.borrow(), Vec::new());
        self.walk(&mut String::new(), &mut |path, _, node| {
            if let Kind::Plain(text) | Kind::Quoted(text) = &node.kind
                && found.contains(&node.place)
            {
                named.push((path.to_owned(), files.resolve(text)));
            }
        });
        named
    }

    /// The same, with only the host of the secret URLs in these places.
    pub(super) fn redacted(&self, secret_urls: &BTreeSet<Place>) -> Self {
        let redacted = |node: &Self| node.redacted(secret_urls);
        let kind = match &self.kind {
            Kind::Plain(text) | Kind::Quoted(text) if secret_urls.contains(&self.place) => {
                Kind::Quoted(text.parse::<SecretUrl>().map_or_else(|_| "***".to_owned(), |url| url.to_string()))
            }
            Kind::List(items) => Kind::List(items.iter().map(redacted).collect()),
            Kind::Map(entries) => Kind::Map(entries.iter().map(|(key, node)| (key.clone(), redacted(node))).collect()),
            other => other.clone(),
        };
        Self { place: self.place, kind }
    }

    fn walk(&self, path: &mut String, visit: &mut impl FnMut(&str, Option<&Key>, &Node)) {
        let length = path.len();
        match &self.kind {
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    push_index(path, index);
                    visit(path, None, item);
                    item.walk(path, visit);
                    path.truncate(length);
                }
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    push_key(path, &key.name);
                    visit(path, Some(key), value);
                    value.walk(path, visit);
                    path.truncate(length);
                }
            }
            Kind::Plain(_) | Kind::Quoted(_) | Kind::Hole | Kind::Blank => {}
        }
    }
}

pub(super) fn push_index(path: &mut String, index: usize) {
    path.push('[');
    path.push_str(&index.to_string());
    path.push(']');
}

pub(super) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Parses the first document. The error is the one after which nothing can be read.
pub(super) fn parse(text: &str) -> Result<Parsed, Problem> {
    let mut builder = Builder {
        events: Parser::new_from_str(text.trim_start_matches('\u{feff}')),
        anchors: BTreeMap::new(),
        nodes: 0,
        problems: Vec::new(),
        path: String::new(),
    };
    let mut root = None;
    loop {
        match builder.next()? {
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (Event::StreamEnd, _) => break,
            (_, place) if root.is_some() => return Err(problem(place, "has a second document; use a single one")),
            (event, place) => root = Some(builder.node(event, place, 0)?),
        }
    }
    let root = root.ok_or_else(|| problem(Place { line: 1, column: 1 }, "is empty"))?;
    Ok(Parsed { root, problems: builder.problems })
}

fn problem(place: Place, what: impl Into<String>) -> Problem {
    Problem { at: String::new(), place: Some(place), what: what.into() }
}

struct Builder<I> {
    events: I,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    problems: Vec<Problem>,
    path: String,
}

impl<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Builder<I> {
    fn next(&mut self) -> Result<(Event<'a>, Place), Problem> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, place(&span.start))),
                Some(Err(error)) => {
                    let info = error.info();
                    let said = info.lines().next().unwrap_or_default();
                    let hint = HINTS.iter().find(|(part, _)| said.contains(part)).map_or("", |(_, hint)| hint);
                    return Err(problem(place(error.marker()), format!("is not YAML: {said}{hint}")));
                }
                None => return Ok((Event::StreamEnd, Place { line: 1, column: 1 })),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, place: Place, depth: usize) -> Result<Node, Problem> {
        self.count(place, 1)?;
        if depth > MAX_DEPTH {
            return Err(problem(place, format!("is nested in more than {MAX_DEPTH} others")));
        }
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix() == "str");
                (anchor, if is_text { Kind::Quoted(text.into_owned()) } else { Kind::Plain(text.into_owned()) })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Kind::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Kind::Map(self.map(depth)?)),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or_else(|| problem(place, "is an alias (*…) inside its own anchor"))?;
                self.count(place, node.size())?;
                return Ok(Node { place, ..node });
            }
            _ => return Err(problem(place, "is not a value")),
        };
        let node = Node { place, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let length = self.path.len();
        let mut items = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            push_index(&mut self.path, items.len());
            items.push(self.node(event, place, depth + 1)?);
            self.path.truncate(length);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let length = self.path.len();
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines = BTreeMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, place) = self.next()?;
            let name = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) if style == ScalarStyle::Plain && text == "<<" => None,
                Event::Scalar(text, ..) => Some(text.into_owned()),
                _ => return Err(problem(place, "is a list, a mapping or an alias, but must be a key's name")),
            };
            push_key(&mut self.path, name.as_deref().unwrap_or("<<"));
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            match name {
                None => merged.push(value),
                Some(name) => match lines.get(&name) {
                    Some(line) => {
                        let what = format!("is defined twice, first in line {line}");
                        self.problems.push(Problem { at: self.path.clone(), place: Some(place), what });
                    }
                    None => {
                        lines.insert(name.clone(), place.line);
                        entries.push((Key { name, place }, value));
                    }
                },
            }
            self.path.truncate(length);
        }
        // `<<: *other`: adds the keys of the other mapping that are missing here.
        let mut names: BTreeSet<String> = lines.into_keys().collect();
        for value in merged {
            let maps = if let Kind::List(maps) = value.kind { maps } else { vec![value] };
            for entry in maps
                .into_iter()
                .filter_map(|map| if let Kind::Map(map) = map.kind { Some(map) } else { None })
                .flatten()
            {
                if names.insert(entry.0.name.clone()) {
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    fn count(&mut self, place: Place, more: usize) -> Result<(), Problem> {
        self.nodes += more;
        let what = "is too large: too many values, or aliases of aliases";
        if self.nodes > MAX_NODES { Err(problem(place, what)) } else { Ok(()) }
    }
}

impl Node {
    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::List(items) => items.iter().map(Self::size).sum(),
            Kind::Map(entries) => entries.iter().map(|(_, value)| value.size()).sum(),
            Kind::Plain(_) | Kind::Quoted(_) | Kind::Hole | Kind::Blank => 0,
        }
    }
}

/// Columns are counted from 1, like in editors.
fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}
