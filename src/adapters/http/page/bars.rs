//! The pictures of a member's file: a bar against its quota, and its size over the last days. The text beside them has
//! the same figures, so that screen readers need only that.

use std::time::Duration;

use bytesize::ByteSize;
use maud::{Markup, PreEscaped, html};

use super::words;
use crate::core::{
    cluster::MemberFacts,
    sizes::{SizePoint, sizes_of},
};

/// A chart of this width shows no more.
const POINTS: usize = 48;
/// Of a chart, in units of its `viewBox`; the style sheet stretches it.
const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 30.0;

#[derive(Clone, Copy)]
pub(super) struct File {
    pub(super) size: ByteSize,
    pub(super) in_use: ByteSize,
    quota: Option<ByteSize>,
}

impl File {
    pub(super) fn of(member: &MemberFacts) -> Option<Self> {
        let sizes = sizes_of(member)?;
        let gauges = || member.gauges.as_ref()?.as_ref().ok()?.quota;
        let quota = member.status.as_ref().map_or_else(|_| gauges(), |status| status.quota);
        Some(Self { size: sizes.db_size, in_use: sizes.db_size_in_use, quota: quota.filter(|quota| quota.0 > 0) })
    }

    fn reclaimable(self) -> ByteSize {
        ByteSize(self.size.0.saturating_sub(self.in_use.0))
    }

    /// Of the file.
    pub(super) fn fragmentation(self) -> f64 {
        share(self.reclaimable(), self.size)
    }

    /// Of the quota.
    pub(super) fn usage(self) -> Option<f64> {
        self.quota.map(|quota| share(self.size, quota))
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of databases stay below 2^52 bytes")]
fn share(part: ByteSize, whole: ByteSize) -> f64 {
    if whole.0 == 0 { 0.0 } else { (part.0 as f64 / whole.0 as f64).min(1.0) }
}

/// The hatching of reclaimable space, once per page for all bars: their parts must not differ by colour only.
pub(super) fn patterns() -> Markup {
    PreEscaped(
        "<svg class=\"defs\" width=\"0\" height=\"0\" aria-hidden=\"true\" focusable=\"false\"><defs>\
         <pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect class=\"hatch-back\" width=\"6\" height=\"6\"/><rect class=\"hatch-line\" width=\"2.5\" height=\"6\"/>\
         </pattern></defs></svg>"
            .to_owned(),
    )
}

/// The legend of the bars.
pub(super) fn key() -> Markup {
    html! {
        ul.key aria-label="What the bars show" {
            li { (swatch("used", None)) "in use" }
            li { (swatch("gap", Some("url(#hatch)"))) "reclaimable" }
            li { (swatch("free", None)) "free to quota" }
        }
    }
}

fn swatch(class: &str, fill: Option<&str>) -> Markup {
    html! { svg.swatch aria-hidden="true" focusable="false" { rect class=(class) fill=[fill] width="100%" height="100%" {} } }
}

/// The bar is as long as the quota: in use, reclaimable, free. Without a known quota it is as long as the file.
pub(super) fn file(file: File) -> Markup {
    let whole = file.quota.unwrap_or(file.size);
    let used = share(file.in_use, whole) * 100.0;
    let gap = (share(file.reclaimable(), whole) * 100.0).min(100.0 - used);
    html! {
        svg.bar aria-hidden="true" focusable="false" {
            rect.free width="100%" height="100%" {}
            rect.used width=(format!("{used:.2}%")) height="100%" {}
            rect.gap fill="url(#hatch)" x=(format!("{used:.2}%")) width=(format!("{gap:.2}%")) height="100%" {}
        }
        div.figures {
            b { (words::size(file.size)) } ", " (words::size(file.in_use)) " in use; "
            @if let (Some(quota), Some(usage)) = (file.quota, file.usage()) {
                (words::percent(usage)) " of " (words::size(quota))
            } @else {
                "quota unknown"
            }
        }
    }
}

/// The size of the file as a line, the part in use as an area. Nothing before there is a second point.
pub(super) fn sparkline(points: &[SizePoint]) -> Markup {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return html! { "–" } };
    let days = f64::from(last.seconds() - first.seconds());
    let highest = points.iter().map(|point| point.size()).max().unwrap_or_default();
    if days <= 0.0 {
        return html! { span.dim { "–" } };
    }
    // From the end, so that the newest is always drawn.
    let mut drawn: Vec<_> = points.iter().rev().step_by(points.len().div_ceil(POINTS)).collect();
    drawn.reverse();
    let start = drawn.first().map_or(0, |point| point.seconds());
    let span = f64::from(last.seconds() - start).max(1.0);
    let x = |point: &SizePoint| f64::from(point.seconds() - start) / span * WIDTH;
    let y = |size: ByteSize| (1.0 - share(size, highest)) * (HEIGHT - 2.0) + 1.0;
    let line = |size: fn(SizePoint) -> ByteSize| {
        let points: Vec<_> = drawn.iter().map(|point| format!("{:.0} {:.1}", x(point), y(size(**point)))).collect();
        points.join("L")
    };
    let (size, in_use) = (line(SizePoint::size), line(SizePoint::in_use));
    let lasts = words::span(Duration::from_secs_f64(days));
    let label = format!(
        "Size over the last {lasts}: from {} to {}, at most {}",
        words::size(first.size()),
        words::size(last.size()),
        words::size(highest)
    );
    html! {
        svg.spark role="img" aria-label=(label) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" focusable="false" {
            title { (label) }
            path.spark-used d=(format!("M0 {HEIGHT}L{in_use}L{WIDTH} {HEIGHT}Z")) {}
            path.spark-size d=(format!("M{size}")) {}
        }
        span.detail { (lasts) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::core::{cluster::MemberId, fixture, sizes::SizeHistory};

    #[test]
    fn a_chart_goes_from_the_first_point_to_the_newest_and_stays_small() {
        let mut sizes = SizeHistory::default();
        let mut facts = fixture::cluster(1);
        assert!(!sparkline(sizes.of(MemberId(1))).into_string().contains("svg"), "nothing is known");
        for step in 0..500 {
            let now = Timestamp::from_second(1_700_000_000 + step * 600).expect("a time");
            fixture::status_mut(&mut facts, 0).db_size = ByteSize::mib(if step < 400 { 200 } else { 1_000 });
            sizes.record(now, &facts);
        }
        let chart = sparkline(sizes.of(MemberId(1))).into_string();
        assert!(chart.contains("L120 1.0\""), "the newest point is the highest: {chart}");
        let label = words::unbroken("from 200.0 MiB to 1000.0 MiB")
            .replace("from\u{a0}", "from ")
            .replace("\u{a0}to\u{a0}", " to ");
        assert!(chart.contains(&label), "{chart}");
        assert!(chart.len() < 2_000, "{} bytes", chart.len());
    }
}
