//! Makes inputs with proptest, tries them, and keeps those that fail. A stack overflow ends the process: its input is then left in
//! `defragd-fuzz-TARGET.last` in the directory for temporary files.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};
use serde_json::{Map, Value};

use crate::Target;

/// Of processor time, in a debug build; far from what no limit would give. On a busy machine the clock shows many times that.
const LONGEST: Duration = Duration::from_secs(30);
/// Trees in trees may be printed as hundreds of megabytes. What is longer than the readers take has tests of its own.
const MOST_BYTES: usize = 1 << 20;
/// For the whole process. Inputs are a few megabytes at most.
const MOST_MEMORY_KIB: u64 = 1 << 20;
const CASES: u32 = 256;

impl Target {
    /// Tries what has failed before, the corpus, the seeds, and many cases.
    pub(crate) fn attack(self) {
        // A case that ends the whole process is found here.
        let last = std::env::temp_dir().join(format!("defragd-fuzz-{}.last", self.name));
        let timed = |bytes: &[u8]| {
            fs::write(&last, bytes).unwrap();
            let began = processor_time();
            (self.judge)(bytes)?;
            let took = processor_time().saturating_sub(began);
            if took > LONGEST { Err(format!("took {took:?}")) } else { Ok(()) }
        };
        let kept_in = |folder: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(self.name);
        let (found, corpus) = (kept_in("found"), kept_in("corpus"));
        let entries = [&found, &corpus].into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
        let old = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap());
        for bytes in old.chain(self.seeds.iter().cloned()) {
            timed(&bytes).unwrap_or_else(|what| panic!("{}: {what}: {}", self.name, shown(&bytes)));
        }
        let asked = std::env::var("FUZZ_CASES").ok().map(|text| text.parse().expect("FUZZ_CASES is a number"));
        let cases = (asked.unwrap_or(CASES) / self.cost).max(1);
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let began = Instant::now();
        let inputs = self.inputs().prop_map(|mut bytes| {
            bytes.truncate(MOST_BYTES);
            bytes
        });
        let result = runner.run(&inputs, |bytes| timed(&bytes).map_err(TestCaseError::fail));
        if let Err(TestError::Fail(why, bytes)) = result {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            let kept = found.join(format!("{:016x}", hasher.finish()));
            fs::create_dir_all(&found).unwrap();
            fs::write(&kept, &bytes).unwrap();
            panic!("{}: {why}; kept as {}: {}", self.name, kept.display(), shown(&bytes));
        }
        result.unwrap();
        let most = most_memory_kib();
        assert!(most < MOST_MEMORY_KIB, "{}: {most} KiB", self.name);
        println!("{}: {cases} cases in {:.1} s, at most {} MiB", self.name, began.elapsed().as_secs_f64(), most >> 10);
    }

    fn inputs(&self) -> BoxedStrategy<Vec<u8>> {
        let words: Vec<Vec<u8>> = self.words.iter().chain(&WORDS).map(|word| word.as_bytes().to_vec()).collect();
        let piece = prop_oneof![8 => select(words), 2 => vec(any::<u8>(), 0..4)].boxed();
        let soup = vec(piece.clone(), 0..60).prop_map(|pieces| pieces.concat());
        let noise = vec(any::<u8>(), 0..200);
        let broken = broken(self.seeds.clone(), piece);
        if self.trees.is_empty() {
            return prop_oneof![6 => broken, 3 => soup, 1 => noise].boxed();
        }
        let twisted = twisted(self.trees.clone(), self.words);
        prop_oneof![6 => twisted, 4 => broken, 2 => soup, 1 => noise].boxed()
    }
}

/// Of every format.
const WORDS: [&str; 24] = [
    "",
    " ",
    "\n",
    "\t",
    "{",
    "}",
    "[",
    "]",
    ":",
    ": ",
    ",",
    "\"",
    "'",
    "\\",
    "-",
    "- ",
    "0",
    "1e999",
    "null",
    "true",
    "\u{0}",
    "ü",
    "99999999999999999999",
    "NaN",
];

/// A document with some bytes changed, left out, repeated or put in.
fn broken(seeds: Vec<Vec<u8>>, piece: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    let change = (any::<Index>(), any::<Index>(), 0..5_u8, 0..200_usize, piece);
    (select(seeds), vec(change, 1..6))
        .prop_map(|(mut bytes, changes)| {
            for (from, to, how, times, piece) in changes {
                let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
                let (from, to) = (from.min(to), from.max(to));
                match how {
                    0 => drop(bytes.splice(from..(from + 1).min(bytes.len()), piece)),
                    1 => drop(bytes.splice(from..from, piece)),
                    2 => drop(bytes.drain(from..to)),
                    3 => bytes.truncate(to),
                    _ => {
                        let part = bytes[from..to.min(from + 40)].repeat(times);
                        bytes.splice(from..from, part);
                    }
                }
            }
            bytes
        })
        .boxed()
}

/// A document whose tree has something else at some places: values of other kinds, keys that are gone, misspelt, or new.
fn twisted(trees: Vec<Value>, words: &'static [&'static str]) -> BoxedStrategy<Vec<u8>> {
    let change = (any::<Index>(), 0..4_u8, value(words), word(words));
    (select(trees), vec(change, 1..5))
        .prop_map(|(mut tree, changes)| {
            for (place, how, value, word) in changes {
                let mut left = place.index(count(&tree));
                twist(&mut tree, &mut left, how, &value, &word);
            }
            serde_json::to_vec_pretty(&tree).unwrap()
        })
        .boxed()
}

fn word(words: &'static [&'static str]) -> BoxedStrategy<String> {
    let known: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    prop_oneof![3 => select(known), 1 => any::<String>(), 1 => "[a-z_]{0,12}", 1 => "[a-z]{1,3}".prop_map(|s| s.repeat(2_000))]
        .boxed()
}

fn value(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3..100_i64).prop_map(Value::from),
        word(words).prop_map(Value::from),
    ];
    // Deep ones are made of one value in many lists.
    let deep =
        (leaf.clone(), 0..200_usize).prop_map(|(leaf, depth)| (0..depth).fold(leaf, |value, _| vec![value].into()));
    let nested = leaf.prop_recursive(4, 40, 6, move |inner| {
        let map = vec((word(words), inner.clone()), 0..5).prop_map(|pairs| Value::Object(Map::from_iter(pairs)));
        prop_oneof![vec(inner, 0..6).prop_map(Value::from), map]
    });
    prop_oneof![9 => nested, 1 => deep].boxed()
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value with that number.
fn twist(tree: &mut Value, left: &mut usize, how: u8, value: &Value, word: &str) {
    if *left == 0 {
        match tree {
            Value::Object(map) if how == 1 => drop(map.insert(word.to_owned(), value.clone())),
            Value::Object(map) if how == 2 && !map.is_empty() => {
                let key = map.keys().nth(word.len() % map.len()).unwrap().clone();
                let value = map.remove(&key).unwrap();
                if !word.is_empty() {
                    // A typing mistake.
                    map.insert(key.chars().skip(1).chain(['s']).collect(), value);
                }
            }
            Value::Array(items) if how == 1 => items.push(value.clone()),
            Value::Array(items) if how == 2 => items.extend(items.clone().into_iter().cycle().take(100)),
            _ => *tree = value.clone(),
        }
        *left = usize::MAX;
        return;
    }
    if *left == usize::MAX {
        return;
    }
    *left -= 1;
    match tree {
        Value::Array(items) => items.iter_mut().for_each(|item| twist(item, left, how, value, word)),
        Value::Object(map) => map.values_mut().for_each(|item| twist(item, left, how, value, word)),
        _ => {}
    }
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().chars().take(2_000).collect()
}

/// The most that this process ever had.
fn most_memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What this process has had, with threads that have ended: the journal works in threads of its own. nextest gives each
/// target a process.
fn processor_time() -> Duration {
    let times = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = times.rsplit_once(')').unwrap().1.split_whitespace();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
