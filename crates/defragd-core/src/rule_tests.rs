use bytesize::ByteSize;

use super::*;
use crate::fixture;

const MIB: u64 = 1 << 20;

fn status(size: u64, in_use: u64, quota: Option<u64>) -> Status {
    let mut status = fixture::status(1);
    status.db_size = ByteSize(size * MIB);
    status.db_size_in_use = ByteSize(in_use * MIB);
    status.quota = quota.map(|quota| ByteSize(quota * MIB));
    status
}

fn decide(rule: &str, status: &Status) -> Result<(), &'static str> {
    Rule::parse(rule).unwrap_or_else(|error| panic!("{rule}: {error}")).holds(status).map_err(|reason| reason.label())
}

#[test]
fn rules_as_users_of_etcd_defrag_write_them() {
    // 1000 MiB of which 500 in use, quota 2048: usage 0.488, free 500 MiB.
    let status = status(1000, 500, Some(2048));
    let table = [
        ("dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024", true),
        ("dbQuotaUsage > 0.8 && dbSizeFree > 200*1024*1024", false),
        ("dbSize > dbQuota*80/100 || dbSize - dbSizeInUse > 200*1024*1024", true),
        ("dbSize > dbQuota*80/100 && dbSize - dbSizeInUse > 200*1024*1024", false),
        ("dbSizeFree/dbSize > 0.45", true),
        ("dbSizeFree/dbSize > 0.5", false),
        ("dbSizeFree / dbSize >= 0.5", true),
        ("dbSizeFree/dbSize >= 1/2", true),
        ("dbSizeFree * 2 == dbSize", true),
        ("dbSizeFree * 100 / dbSize > 45 && dbSizeFree > 104857600", true),
        ("dbSize > 0.4 * dbQuota", true),
        ("dbSize*1.0 > 524288000", true),
        ("!(dbSizeInUse > 500*1024*1024)", true),
        ("dbSizeInUse != dbSize", true),
        ("dbQuotaUsage <= 1", true),
        ("dbSize % 2 == 0", true),
        ("dbSize % (300*1024*1024) == 104857600.0", true),
        ("-dbSizeFree < -1e6", true),
        ("double(dbSizeFree) / double(dbSize) > 0.4", true),
        ("dbQuota > 8*1024*1024*1024 ? dbSizeFree > 5e9 : dbSizeFree > 1e8", true),
        ("true", true),
        ("dbSize > 100u", true),
        ("dbQuotaUsage > 0.3 &&\n  dbSizeFree > 100", true),
    ];
    for (rule, expected) in table {
        let expected = if expected { Ok(()) } else { Err("rule_not_met") };
        assert_eq!(decide(rule, &status), expected, "{rule}");
    }
}

#[test]
fn a_rule_that_cannot_be_decided_does_not_hold() {
    let no_quota = status(1000, 500, None);
    for (rule, expected) in [
        ("dbQuotaUsage > 0.8", Err("rule_failed")),
        ("dbSize > dbQuota*80/100", Err("rule_failed")),
        ("!(dbQuotaUsage > 0.8)", Err("rule_failed")),
        ("dbQuotaUsage > 0.8 && dbSizeFree > 1", Err("rule_failed")),
        // True whatever the quota is.
        ("dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024", Ok(())),
        ("dbSizeFree > 200*1024*1024 || dbQuotaUsage > 0.8", Ok(())),
        ("dbQuotaUsage > 0.8 && dbSizeFree < 1", Err("rule_not_met")),
    ] {
        assert_eq!(decide(rule, &no_quota), expected, "{rule}");
    }
    let empty = status(0, 0, Some(0));
    assert_eq!(decide("dbSizeFree/dbSize > 0.45", &empty), Err("rule_failed"), "0/0 is nothing to compare");
    let reason = Rule::parse("dbQuotaUsage > 0.8").expect("a rule").holds(&no_quota).expect_err("undecided");
    assert!(reason.to_string().contains("quota is unknown"), "{reason}");
}

#[test]
fn a_bad_rule_is_refused_with_its_position() {
    for (rule, line, column, what) in [
        ("dbSize >", 1, 9, "Syntax error"),
        ("dbSize > 1 dbQuota", 1, 12, "Syntax error"),
        ("dbSize > 1 ||\n  dbsize > 2", 2, 3, "there is no variable dbsize; use dbSize, dbSizeInUse"),
        ("dbSizeFree/dbSize", 1, 1, "is a number, but must be true or false"),
        ("dbSize > 1 && dbQuota", 1, 15, "this is a number, but must be true or false"),
        ("dbSize + true > 1", 1, 10, "this is true or false, but must be a number"),
        ("dbSize == true", 1, 11, "but must be a number"),
        ("dbSize > '1GB'", 1, 10, "only constants"),
        ("size('x') > 1", 1, 5, "size is not supported in rules"),
        ("dbSize.free > 1", 1, 7, "numbers, variables, arithmetic"),
        ("[1,2].exists(x, x > 1)", 1, 13, "numbers, variables, arithmetic"),
        ("", 1, 1, "the rule is empty"),
    ] {
        let error = Rule::parse(rule).expect_err(rule);
        assert!(error.what.contains(what), "{rule}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{rule}: {error}");
    }
    assert!(Rule::parse(&"(".repeat(2_000)).is_err());
}

#[test]
fn long_and_deep_rules_do_not_exhaust_the_stack() {
    let status = status(1000, 500, None);
    let nested = |depth: usize| format!("{}dbSize > 1{}", "!!(".repeat(depth), ")".repeat(depth));
    assert_eq!(decide(&nested(MAX_DEPTH), &status), Ok(()));
    assert!(Rule::parse(&nested(MAX_DEPTH + 1)).expect_err("too deep").what.contains("brackets"));
    for (part, times, rest) in [
        ("1+", 29, "1 > 0"),
        ("false||", 15, "true"),
        ("!", 30, "true"),
        ("--", 14, "1 < 2"),
        ("true?true:", 3, "true"),
    ] {
        assert_eq!(decide(&format!("{}{rest}", part.repeat(times)), &status), Ok(()), "{part}");
        assert!(Rule::parse(&format!("{}{rest}", part.repeat(times + 2))).is_err(), "{part}");
    }
}
