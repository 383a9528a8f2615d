use super::*;
use crate::fixture;

#[test]
fn a_rule_replaces_the_thresholds_but_not_nospace() {
    let rule = |text: &str| Policy { rule: Some(Rule::parse(text).expect("a rule")), ..Policy::default() };
    // The thresholds would select the first and not the second.
    let status = fixture::status(1);
    assert_eq!(rule("dbSizeFree > 4e9").need(&status, false).map_err(|r| r.label()), Err("rule_not_met"));
    assert_eq!(
        rule("dbSize > 0").need(&Status { db_size_in_use: status.db_size, ..status.clone() }, false),
        Ok(Need::Rule)
    );
    assert_eq!(rule("false").need(&status, true), Ok(Need::NoSpace));
}

#[test]
fn need_is_decided_at_the_thresholds() {
    const MIB: u64 = 1 << 20;
    // (file MiB, in use MiB, quota MiB, NOSPACE armed) -> expected
    let table = [
        ((1000, 550, None, false), Some(Need::Fragmented)),
        ((1000, 551, None, false), None),
        // The stock alert does not cover this one: little in use, much to reclaim.
        ((2048, 90, None, false), Some(Need::Fragmented)),
        // A high ratio alone is not worth a stall.
        ((100, 1, None, false), None),
        ((200, 100, None, false), Some(Need::Fragmented)),
        ((800, 768, Some(1000), false), Some(Need::QuotaPressure)),
        ((800, 769, Some(1000), false), None),
        ((799, 700, Some(1000), false), None),
        ((1000, 999, None, true), Some(Need::NoSpace)),
        ((1000, 1000, None, true), None),
        // The size in use may be from before the compaction.
        ((1000, 1000, Some(1111), true), Some(Need::NoSpace)),
        ((1000, 1000, Some(1112), true), None),
        ((0, 0, Some(0), false), None),
    ];
    for ((size, in_use, quota, no_space), expected) in table {
        let mut status = fixture::status(1);
        status.db_size = ByteSize(size * MIB);
        status.db_size_in_use = ByteSize(in_use * MIB);
        status.quota = quota.map(|quota: u64| ByteSize(quota * MIB));
        let need = Policy::default().need(&status, no_space).ok();
        assert_eq!(need, expected, "{size} MiB, {in_use} in use, quota {quota:?}, NOSPACE {no_space}");
    }
}
