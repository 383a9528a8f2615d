//! Slopes that are known beforehand, under everything that happens to real series.

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600;
const MIB: f64 = 1_048_576.0;

/// Thirty days, hourly, from a function of the day, with noise that repeats.
fn series(noise: f64, value: impl Fn(f64) -> f64) -> Vec<Point> {
    let mut seed = 1_u64;
    (0..30 * 24)
        .map(|hour| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = f64::from(u32::try_from(seed >> 32).unwrap()) / f64::from(u32::MAX) - 0.5;
            (hour * HOUR, value(number(hour) / 24.0) + 2.0 * noise * random)
        })
        .collect()
}

fn assert_slope(what: &str, points: &[Point], truth: f64) -> Trend {
    let trend = trend(points).unwrap();
    let Slope { per_day, low, high } = trend.slope;
    assert!((per_day / truth - 1.0).abs() < 0.05, "{what}: {} instead of {} MiB", per_day / MIB, truth / MIB);
    assert!(low <= truth * 1.02 && truth * 0.98 <= high, "{what}: {low} to {high} has not {truth} in it");
    trend
}

fn is_step(day: f64, after: f64, by: f64) -> f64 {
    if day >= after { by } else { 0.0 }
}

#[test]
fn the_slope_is_found_under_noise_gaps_spikes_and_steps() {
    let line = |day: f64| (1_000.0 + 20.0 * day) * MIB;
    let truth = 20.0 * MIB;
    assert_slope("a line", &series(0.0, line), truth);
    assert_slope("noise", &series(30.0 * MIB, line), truth);
    let daily = |day: f64| line(day) + 40.0 * MIB * (day * std::f64::consts::TAU).sin();
    assert_slope("day and night", &series(5.0 * MIB, daily), truth);
    let mut gap = series(10.0 * MIB, line);
    gap.retain(|point| !(9 * 86_400..15 * 86_400).contains(&point.0));
    assert!(assert_slope("a gap", &gap, truth).steps.is_empty(), "growth in a gap is no step");
    let mut spikes = series(10.0 * MIB, line);
    spikes.iter_mut().step_by(29).for_each(|point| point.1 *= 1.8);
    assert!(assert_slope("spikes", &spikes, truth).steps.is_empty(), "a spike is no step");
}

#[test]
fn a_step_is_left_out_and_counted_and_the_level_is_the_one_after_it() {
    let line = |day: f64| (1_000.0 + 20.0 * day) * MIB;
    for (by, noise) in [(-700.0, 0.0), (-300.0, 15.0), (400.0, 5.0)] {
        let points = series(noise * MIB, |day| line(day) + is_step(day, 22.0, by * MIB));
        let trend = assert_slope("a step", &points, 20.0 * MIB);
        assert_eq!(trend.steps.len(), 1, "{:?}", trend.steps);
        assert!((trend.steps[0].by / MIB / by - 1.0).abs() < 0.15, "{:?}", trend.steps);
        assert!((trend.steps[0].at - 22 * 86_400).abs() <= 2 * HOUR, "{:?}", trend.steps);
        assert!((trend.level / MIB - (1_600.0 + by)).abs() < 20.0, "{}", trend.level / MIB);
    }
}

#[test]
fn growth_that_comes_in_steps_is_growth_and_a_saw_that_goes_nowhere_is_none() {
    let stairs = series(MIB, |day| (1_000.0 + 50.0 * day.floor()) * MIB);
    let trend = assert_slope("stairs", &stairs, 50.0 * MIB);
    assert!(trend.recurring_steps > 3 && trend.steps.is_empty());
    let saw = trend_of_saw();
    assert!(saw.slope.low <= 0.0 && saw.slope.high >= 0.0, "{:?}", saw.slope);
}

fn trend_of_saw() -> Trend {
    trend(&series(MIB, |day| (1_000.0 + 80.0 * (day % 3.0)) * MIB)).unwrap()
}

#[test]
fn flat_and_random_series_have_zero_in_their_interval() {
    for noise in [0.0, 1.0, 100.0] {
        let slope = trend(&series(noise * MIB, |_| 500.0 * MIB)).unwrap().slope;
        assert!(slope.low <= 0.0 && slope.high >= 0.0, "{slope:?}");
    }
    // A random walk has slopes, but none that lasts.
    let mut walk = series(MIB, |_| 0.0);
    let mut sum = 500.0 * MIB;
    for point in &mut walk {
        sum += point.1;
        point.1 = sum;
    }
    let slope = trend(&walk).unwrap().slope;
    assert!(slope.low <= 0.0 && slope.high >= 0.0, "{slope:?}");
}

#[test]
fn too_little_is_said_to_be_too_little() {
    assert_eq!(trend(&[]), Err(TooLittle::Points(0)));
    let points = series(0.0, |_| MIB);
    assert_eq!(trend(&points[..11]), Err(TooLittle::Points(11)));
    assert_eq!(trend(&points[..20]), Err(TooLittle::Span(19 * HOUR)));
    assert!(trend(&points[..25]).is_ok());
}

#[test]
fn days_are_counted_from_the_level_to_the_limit() {
    assert_eq!(days_until(10.0, 4.0, 2.0), Some(3.0));
    assert_eq!(days_until(10.0, 11.0, -2.0), Some(0.0));
    assert_eq!(days_until(10.0, 4.0, 0.0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_line_with_a_step_and_a_gap_gives_its_slope(
        base in 200.0..4_000.0_f64, per_day in 2.0..200.0_f64, step in -0.8..0.8_f64,
        step_day in 3.0..27.0_f64, gap_day in 2.0..20.0_f64,
    ) {
        let truth: f64 = per_day * MIB;
        let by: f64 = step * base * MIB;
        // A step that is not worth a cut stays in and changes the slope: up to twice MIN_STEP_RATIO of the level, if it
        // is in the middle of a bucket. Compared with a day's growth or less it does not matter.
        prop_assume!(step.abs() > 0.03 || by.abs() < truth);
        let mut points = series(0.1 * truth, |day| base * MIB + per_day * MIB * day + is_step(day, step_day, by));
        points.retain(|(at, _)| { let day = number(*at) / DAY; !(gap_day..gap_day + 3.0).contains(&day) });
        let trend = trend(&points).unwrap();
        // A step that is small compared with a day's growth may stay in: it changes the slope little.
        prop_assert!((trend.slope.per_day / truth - 1.0).abs() < 0.05, "{} of {truth}", trend.slope.per_day);
        prop_assert!(trend.slope.low <= trend.slope.per_day && trend.slope.per_day <= trend.slope.high);
    }

    #[test]
    fn whatever_comes_in_the_result_is_finite_and_in_order(
        values in prop::collection::vec(0.0..1e12, 0..900), width in 1_i64..20_000,
    ) {
        let points: Vec<_> = values.iter().zip(0_i64..).map(|(value, index)| (index * width, *value)).collect();
        if let Ok(trend) = trend(&points) {
            let Slope { per_day, low, high } = trend.slope;
            prop_assert!(low <= per_day && per_day <= high && low.is_finite() && high.is_finite());
            prop_assert!(trend.level.is_finite());
        }
    }
}
