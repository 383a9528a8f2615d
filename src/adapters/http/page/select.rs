//! Selects and sorts the clusters to show: those that need attention first, with pages for large fleets.

use std::cmp::Reverse;

use serde::Deserialize;

use super::{
    bars::File,
    condition::{self, Badge},
};
use crate::{core::cluster::MemberFacts, ports::overview::ClusterView};

/// With one row per cluster.
const ROWS_ON_A_PAGE: usize = 50;
/// With all its members, a cluster takes as much space as many rows.
const CARDS_ON_A_PAGE: usize = 10;
/// Up to this number of clusters the members are shown, unless rows are requested.
pub(super) const SMALL_FLEET: usize = 10;

/// The query of the URL. All of it is text, so that a mistyped URL still shows something.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// A part of the name, in any case.
    pub(super) q: String,
    /// A state's label; all where empty.
    pub(super) state: String,
    /// `members` or `clusters`.
    pub(super) show: String,
    /// From 1 on.
    pub(super) page: String,
}

pub(super) struct Selection<'a> {
    /// In order.
    pub(super) shown: Vec<&'a ClusterView>,
    /// The states in which clusters of the whole fleet are, with their number.
    pub(super) counts: Vec<(Badge, usize)>,
    pub(super) fleet: usize,
    /// How many clusters match the query.
    pub(super) found: usize,
    /// From 1 on.
    pub(super) page: usize,
    /// At least 1.
    pub(super) pages: usize,
    pub(super) with_members: bool,
}

fn is_in(view: &ClusterView, state: Badge) -> bool {
    Badge::of(view).any(|badge| badge.label == state.label)
}

pub(super) fn select<'a>(views: &'a [ClusterView], wanted: &Wanted) -> Selection<'a> {
    let counts = Badge::all().map(|state| (state, views.iter().filter(|view| is_in(view, state)).count()));
    let counts = counts.filter(|(_, count)| *count > 0).collect();
    let query = wanted.q.trim().to_lowercase();
    let state = Badge::all().find(|state| state.label == wanted.state);
    let mut all: Vec<_> = views.iter().collect();
    all.retain(|view| {
        state.is_none_or(|state| is_in(view, state)) && view.summary.name.to_lowercase().contains(&query)
    });
    // Within a state, the most fragmented first.
    all.sort_by_cached_key(|view| {
        (condition::rank(view), Reverse(thousandths(fragmentation(view))), view.summary.name.clone())
    });
    let with_members = match wanted.show.as_str() {
        "members" => true,
        "clusters" => false,
        _ => all.len() <= SMALL_FLEET,
    };
    let size = if with_members { CARDS_ON_A_PAGE } else { ROWS_ON_A_PAGE };
    let found = all.len();
    let pages = found.div_ceil(size).max(1);
    let page = wanted.page.parse().unwrap_or(1).clamp(1, pages);
    let shown = all.into_iter().skip((page - 1) * size).take(size).collect();
    Selection { shown, counts, fleet: views.len(), found, page, pages, with_members }
}

/// The most fragmented member.
pub(super) fn worst(view: &ClusterView) -> Option<(&MemberFacts, File)> {
    files(view).max_by(|(_, a), (_, b)| a.fragmentation().total_cmp(&b.fragmentation()))
}

fn fragmentation(view: &ClusterView) -> f64 {
    worst(view).map_or(0.0, |(_, file)| file.fragmentation())
}

/// The member that is nearest to its quota; if no quota is known, the most fragmented one.
pub(super) fn fullest(view: &ClusterView) -> Option<(&MemberFacts, File)> {
    files(view).max_by(|(_, a), (_, b)| {
        let order = a.usage().unwrap_or(0.0).total_cmp(&b.usage().unwrap_or(0.0));
        order.then(a.fragmentation().total_cmp(&b.fragmentation()))
    })
}

fn files(view: &ClusterView) -> impl Iterator<Item = (&MemberFacts, File)> {
    let facts = view.observation.as_ref().and_then(|seen| seen.facts.as_deref());
    facts.into_iter().flat_map(|facts| &facts.members).filter_map(|member| Some((member, File::of(member)?)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one")]
fn thousandths(share: f64) -> u32 {
    (share * 1_000.0) as u32
}
