//! Rules in CEL, parsed and then evaluated for members of all kinds.

use bytesize::ByteSize;
use defragd::core::{cluster::Status, fixture, rule::Rule};

use crate::Target;

const WORDS: [&str; 34] = [
    "dbSize",
    "dbSizeInUse",
    "dbSizeFree",
    "dbQuota",
    "dbQuotaUsage",
    " > ",
    " < ",
    " == ",
    " != ",
    " >= ",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " && ",
    " || ",
    "!",
    "(",
    ")",
    " ? ",
    " : ",
    "0.8",
    "1024",
    "-1",
    "1u",
    "\"x\"",
    ".all(x, x)",
    "size(",
    "in",
    "dyn(",
    "timestamp(",
    "b'\\xff'",
    "9223372036854775808",
];

pub(crate) fn target() -> Target {
    let seeds = [
        "dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024",
        "dbSize > dbQuota*80/100 && !(dbSizeInUse % 2 == 0)",
        "dbSizeFree/dbSize > 0.45 ? dbSize > 1e9 : false",
        "((((((dbSize))))))>0",
    ];
    let mut seeds = seeds.map(|text| text.as_bytes().to_vec()).to_vec();
    // As deep as their length allows, in ways that are no brackets within brackets.
    for deep in [".a", "[0]", "()", ".a()", " in a", "\n", "{}"] {
        seeds.push(["dbSize", &deep.repeat(990 / deep.len())].concat().into_bytes());
    }
    let judge = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let rule = match Rule::parse(&text) {
            Ok(rule) => rule,
            Err(error) if error.line >= 1 && error.column >= 1 && !error.what.is_empty() => return Ok(()),
            Err(error) => return Err(format!("{error:?}")),
        };
        for (size, in_use, quota) in
            [(0, 0, None), (1, 1, Some(0)), (1 << 30, 1 << 20, Some(2 << 30)), (u64::MAX, 0, Some(1))]
        {
            // A reason, or none: both are valid results.
            if let Err(reason) = rule.holds(&status(size, in_use, quota)) {
                let _ = reason.to_string();
            }
        }
        Ok(())
    };
    Target { name: "rule", seeds, trees: Vec::new(), words: &WORDS, cost: 1, judge: Box::new(judge) }
}

#[test]
fn whatever_a_rule_is_it_is_decided_or_refused() {
    target().attack();
}

fn status(size: u64, in_use: u64, quota: Option<u64>) -> Status {
    Status {
        db_size: ByteSize(size),
        db_size_in_use: ByteSize(in_use),
        quota: quota.map(ByteSize),
        ..fixture::status(1)
    }
}
