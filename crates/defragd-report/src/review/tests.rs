//! Whole histories with everything that happens to clusters, and the resulting reviews.

use super::*;

const HOUR: i64 = 3_600;
const MIB: f64 = 1_048_576.0;
const FRAME: Frame = Frame { from: 0, to: 30 * 24 * HOUR, step: HOUR };

fn hours(from_day: i64, to_day: i64, value: impl Fn(f64) -> f64) -> Vec<Point> {
    (from_day * 24..=to_day * 24).map(|hour| (hour * HOUR, value(days(hour * HOUR)))).collect()
}

fn member(
    name: &str,
    from: i64,
    to: i64,
    in_use: impl Fn(f64) -> f64,
    file: impl Fn(f64) -> f64,
    quota: f64,
) -> MemberHistory {
    MemberHistory {
        name: name.to_owned(),
        size: hours(from, to, |day| file(day) * MIB),
        in_use: hours(from, to, |day| in_use(day) * MIB),
        quota: hours(from, to, |_| quota * MIB),
    }
}

fn kinds(review: &Review) -> Vec<Kind> {
    review.recommendations.iter().map(|recommendation| recommendation.kind).collect()
}

#[test]
fn the_fullest_member_decides_also_when_it_is_replaced_and_the_quota_is_the_one_of_now() {
    let line = |day: f64| 500.0 + 10.0 * day;
    let mut old = member("a", 0, 20, line, |_| 1_500.0, 2_048.0);
    old.quota.iter_mut().skip(15 * 24).for_each(|point| point.1 = 4_096.0 * MIB);
    let new = member("c", 20, 30, line, |_| 900.0, 4_096.0);
    let other = member("b", 0, 30, |day| line(day) - 100.0, |_| 800.0, 4_096.0);
    let review = review("x", &History { members: vec![old, new, other], ..History::default() }, FRAME).unwrap();
    assert_eq!((review.now.member.as_str(), &review.members[..]), ("c", &["c".to_owned(), "b".to_owned()][..]));
    assert_eq!(review.former_members, ["a"]);
    assert_eq!(review.quota_changes.len(), 1, "{:?}", review.quota_changes);
    let Forecast::Growing { days_to_quota, .. } = review.forecast else { panic!("{:?}", review.forecast) };
    let truth = (4_096.0 - 800.0) / 10.0;
    assert!((days_to_quota / truth - 1.0).abs() < 0.01, "{days_to_quota} instead of {truth}");
    assert_eq!(kinds(&review), [Kind::Later]);
}

#[test]
fn flat_and_shrinking_clusters_are_stable_and_a_full_one_has_no_day_left() {
    let full = [Kind::OverQuota, Kind::Capacity];
    for (per_day, level, expected) in
        [(0.0, 900.0, &[Kind::Stable][..]), (-20.0, 900.0, &[Kind::Stable]), (0.0, 2_100.0, &full)]
    {
        let history = vec![member("a", 0, 30, |day| level + per_day * day, |day| level + per_day * day + 1.0, 2_048.0)];
        let review = review("x", &History { members: history, ..History::default() }, FRAME).unwrap();
        assert_eq!(kinds(&review), expected, "{:?}", review.recommendations);
        assert_eq!(review.forecast == Forecast::Stable, expected == [Kind::Stable]);
    }
}

#[test]
fn growth_asks_for_a_quota_unless_it_is_at_the_most_that_etcd_suggests() {
    for (quota, words) in [(2_048.0, "raise the quota"), (8_192.0, "delete keys or keep")] {
        let members = vec![member("a", 0, 30, |day| quota - 900.0 + 20.0 * day, |_| quota, quota)];
        let review = review("x", &History { members, ..History::default() }, FRAME).unwrap();
        let capacity = &review.recommendations[0];
        assert!(capacity.action.starts_with(words) && capacity.action.ends_with("within 15 days"), "{capacity:?}");
        assert!(capacity.reason.contains("the quota is reached in 15.0 days"), "{capacity:?}");
    }
    let mut unknown = member("a", 0, 30, |day| 500.0 + 20.0 * day, |_| 2_000.0, 0.0);
    unknown.quota.clear();
    let history = History { members: vec![unknown], ..History::default() };
    assert_eq!(review("x", &history, FRAME).unwrap().forecast, Forecast::GrowingWithoutQuota);
}

#[test]
fn gaps_old_data_and_too_little_of_it_are_said() {
    let mut gone = member("a", 0, 25, |_| 500.0, |_| 600.0, 2_048.0);
    gone.in_use.retain(|(at, _)| !(10 * 24 * HOUR..12 * 24 * HOUR).contains(at));
    let history = History { members: vec![gone], ..History::default() };
    let review = super::review("x", &history, FRAME).unwrap();
    let expected =
        Gaps { over_seconds: 2 * HOUR, count: 1, longest_seconds: 49 * HOUR, last_sample_age_seconds: 5 * 24 * HOUR };
    assert_eq!((review.gaps, kinds(&review)), (expected, vec![Kind::NoRecentData]));
    let history = History { members: vec![member("a", 30, 30, |_| 5.0, |_| 6.0, 9.0)], ..History::default() };
    assert_eq!(kinds(&super::review("x", &history, FRAME).unwrap()), [Kind::TooLittleData]);
    assert_eq!(super::review("x", &History::default(), FRAME), None);
}

#[test]
fn fragmentation_that_returns_soon_is_measured_from_each_defragmentation() {
    // Every five days from 400 MiB of which 300 are in use, up by 100 MiB a day: at 0.45 after 1.46 days.
    let file = |day: f64| 400.0 + 100.0 * (day % 5.0);
    let history = History { members: vec![member("a", 0, 30, |_| 300.0, file, 8_192.0)], ..History::default() };
    let review = review("x", &history, FRAME).unwrap();
    let fragmentation = &review.fragmentation;
    assert_eq!((fragmentation.defragmentations, fragmentation.returns), (6, 5));
    let days = fragmentation.days_to_return.unwrap();
    assert!((1.45..1.55).contains(&days), "{days}");
    assert_eq!(kinds(&review), [Kind::ReturnsSoon]);
}

#[test]
fn counters_are_added_up_across_restarts_and_processes() {
    let counter =
        |values: &[f64], from: i64| values.iter().zip(from..).map(|(v, i)| (i * HOUR, *v)).collect::<Vec<_>>();
    let history = History {
        members: vec![member("a", 0, 30, |_| 300.0, |_| 400.0, 8_192.0)],
        // One is there from before, restarts, and a second one comes later, which began at 0.
        reclaimed: vec![counter(&[500.0, 500.0, 700.0, 50.0], 0), counter(&[30.0, 40.0], 90)],
        runs: vec![
            ("succeeded".to_owned(), counter(&[3.0, 4.0, 0.0, 1.0], 0)),
            ("failed".to_owned(), counter(&[0.0, 1.0, 1.0, 1.0], 0)),
            ("refused".to_owned(), counter(&[7.0, 7.0], 0)),
            // Perhaps before it began.
            ("stopped".to_owned(), counter(&[0.0, 1.0], 0)),
        ],
    };
    let review = review("x", &history, FRAME).unwrap();
    assert!((review.runs.reclaimed_bytes - (200.0 + 50.0 + 30.0 + 10.0)).abs() < 1e-9, "{:?}", review.runs);
    assert_eq!((review.runs.count(&["succeeded"]), review.runs.all()), (2.0, 4.0));
    assert_eq!(review.runs.reclaimed_per_run_bytes, Some(290.0 / 3.0));
    assert_eq!(kinds(&review), [Kind::FailedRuns]);
}

#[test]
fn space_that_no_run_reclaims_is_reported_with_the_reason() {
    let mut history =
        History { members: vec![member("a", 0, 30, |_| 300.0, |_| 900.0, 8_192.0)], ..History::default() };
    let review = |history: &History| super::review("x", history, FRAME).unwrap();
    assert_eq!(kinds(&review(&history)), [Kind::NoRuns]);
    history.runs = vec![("observed".to_owned(), vec![(0, 0.0), (HOUR, 2.0)])];
    let found = review(&history);
    assert_eq!(kinds(&found), [Kind::ObserveMode]);
    assert!(found.recommendations[0].reason.contains("600.0 MiB are reclaimable"), "{:?}", found.recommendations);
}
