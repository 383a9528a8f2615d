//! The limits in deploy/THREAT-MODEL.md: each value is that of the constant which its row names.

use std::fs;

use super::{held, root};

const PAGE: &str = "deploy/THREAT-MODEL.md";

/// The value of a constant or static, as its file has it.
fn defined(file: &str, name: &str) -> String {
    let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{PAGE}: {file}: {error}"));
    let definitions: Vec<_> = source
        .split(['\n', ';'])
        .filter_map(|line| line.split_once("const ").or_else(|| line.split_once("static ")))
        .filter_map(|(_, rest)| rest.strip_prefix(name)?.strip_prefix(": ")?.split_once(" = "))
        .collect();
    let [(_, value)] = definitions.as_slice() else { panic!("{PAGE}: {file} does not define {name} once") };
    (*value).to_owned()
}

fn number(text: &str) -> u64 {
    let plain = |text: &str| text.trim().replace('_', "").parse::<u64>().unwrap_or_else(|_| panic!("{text:?}"));
    text.split_once("<<").map_or_else(|| plain(text), |(base, shift)| plain(base) << plain(shift))
}

/// What is between the first of these and the next closing parenthesis.
fn argument<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(')')?.0)
}

fn time(value: &str) -> Option<String> {
    let units = [("from_millis(", "ms"), ("from_secs(", "s"), ("from_mins(", "min"), ("from_hours(", "h")];
    units.into_iter().find_map(|(before, unit)| Some(format!("{} {unit}", argument(value, before)?)))
}

/// For people.
fn words(name: &str, value: &str) -> String {
    if let Some((_, burst)) = value.split_once("burst: ") {
        let burst = burst.trim_end_matches([' ', '}']);
        return format!("{burst} at once, then one every {}", time(value).unwrap());
    }
    if let Some(time) = time(value) {
        return time;
    }
    let number = number(argument(value, "const_new(").unwrap_or(value));
    match name.rsplit('_').next().unwrap() {
        "BYTES" if number >= 1 << 20 => format!("{} MiB", number >> 20),
        "BYTES" if number >= 1 << 10 => format!("{} KiB", number >> 10),
        unit @ ("BYTES" | "CHARS") => {
            format!("{number} {}", if unit == "BYTES" { "bytes" } else { "characters" })
        }
        _ => number.to_string(),
    }
}

#[test]
fn the_limits_in_the_threat_model_are_those_of_the_code() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let mut limits = 0;
    let made: Vec<_> = page
        .lines()
        .map(|line| {
            // | limit | value | `CONSTANT` in `file` |
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let ["", limit, _, constant, ""] = cells.as_slice() else { return line.to_owned() };
            let Some((name, file)) = constant.split_once("` in `") else { return line.to_owned() };
            let (name, file) = (name.trim_matches('`'), file.trim_matches('`'));
            limits += 1;
            format!("| {limit} | {} | {constant} |", words(name, &defined(file, name)))
        })
        .collect();
    assert!(limits > 20, "only {limits} limits were found: the search is broken");
    held(PAGE, &(made.join("\n") + "\n"));
}
