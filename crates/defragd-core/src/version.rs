//! What is known of etcd's releases: defects that affect defragmentation, the end of support, and who may call what.
//!
//! One table for each. What a release's answers show needs no entry here.

use std::{collections::BTreeMap, fmt::Write};

use strum::{EnumIter, EnumString};

use super::cluster::ClusterFacts;

/// `major.minor.patch` of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Parses `3.5.16`, with or without a pre-release suffix. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.trim().split(['-', '+']).next()?;
        let mut parts = plain.split('.').map(str::parse::<u32>);
        let version = Self(parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        parts.next().is_none().then_some(version)
    }

    /// `(3, 5)` of 3.5.16: members of one cluster differ in it only during an upgrade or a downgrade.
    pub const fn minor(self) -> (u32, u32) {
        (self.0, self.1)
    }

    /// The last patch release before this one.
    fn previous(self) -> String {
        format!("{}.{}.{}", self.0, self.1, self.2.saturating_sub(1))
    }
}

/// What a defect means for a defragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// It may destroy data: never defragment.
    Refused,
    /// A full disk crashes the server before it can answer.
    DiesOfAFullDisk,
    /// Worth a word.
    Warned,
}

struct Defect {
    severity: Severity,
    /// The numbers in the texts are etcd's issues.
    text: &'static str,
    /// From the first version to the one that no longer has it.
    affected: &'static [(Version, Version)],
}

const DEFECTS: &[Defect] = &[
    Defect {
        severity: Severity::Refused,
        text: "an interrupted defragmentation can corrupt the database (#11613, fixed in 3.4.4)",
        affected: &[(Version(0, 0, 0), Version(3, 4, 4))],
    },
    Defect {
        severity: Severity::Refused,
        text: "a crash while defragmenting leaves revisions inconsistent (#14685, fixed in 3.5.6)",
        affected: &[(Version(3, 5, 0), Version(3, 5, 6))],
    },
    Defect {
        severity: Severity::Warned,
        text: "a snapshot applied during a defragmentation corrupts the database (#20271)",
        affected: &[
            (Version(3, 4, 0), Version(3, 4, 38)),
            (Version(3, 5, 0), Version(3, 5, 23)),
            (Version(3, 6, 0), Version(3, 6, 5)),
        ],
    },
    Defect {
        severity: Severity::DiesOfAFullDisk,
        text: "a full disk during a defragmentation crashes the server (#18810): watch the free space of its data directory",
        affected: &[(Version(3, 4, 0), Version(3, 4, 35)), (Version(3, 5, 0), Version(3, 5, 17))],
    },
    Defect {
        severity: Severity::Warned,
        text: "a defragmentation drops the database's tuning options until restart (#13713)",
        affected: &[(Version(3, 4, 0), Version(3, 4, 19)), (Version(3, 5, 0), Version(3, 5, 3))],
    },
];

/// Minor versions that get no more fixes, and since when. Versions older than the first get none either.
const SUPPORT_ENDED: &[((u32, u32), &str)] = &[((3, 4), "May 2026")];

fn defects(version: Version) -> impl Iterator<Item = &'static Defect> {
    let within = move |(first, fixed): &(Version, Version)| (*first..*fixed).contains(&version);
    DEFECTS.iter().filter(move |defect| defect.affected.iter().any(within))
}

/// Why this version must not be defragmented at all.
pub fn refusal(version: &str) -> Option<&'static str> {
    let Some(version) = Version::parse(version) else {
        // A fork's free-form version: nothing is known of it, so nothing may be risked.
        return Some("its version cannot be parsed");
    };
    defects(version).find(|defect| defect.severity == Severity::Refused).map(|defect| defect.text)
}

/// Whether a full disk during a defragmentation crashes this version, before it can answer (#18810).
pub fn dies_of_a_full_disk(version: &str) -> bool {
    Version::parse(version)
        .is_some_and(|version| defects(version).any(|defect| defect.severity == Severity::DiesOfAFullDisk))
}

/// Whether a member of this version may answer while it defragments (etcd's pull request 22425). One whose version is
/// not understood may.
pub fn defragments_without_blocking(version: &str) -> bool {
    Version::parse(version).is_none_or(|version| (version.0, version.1) >= (3, 8))
}

/// Defects that deserve a warning but do not forbid a defragmentation.
pub fn warnings(version: &str) -> Vec<&'static str> {
    let Some(version) = Version::parse(version) else { return Vec::new() };
    defects(version).filter(|defect| defect.severity != Severity::Refused).map(|defect| defect.text).collect()
}

/// Since when this version gets no more fixes, like `May 2026`; `None` for one that does, or may.
pub fn support_ended(version: &str) -> Option<&'static str> {
    let minor = Version::parse(version)?.minor();
    SUPPORT_ENDED.iter().find(|(last, _)| minor <= *last).map(|(_, since)| *since)
}

/// What is known against the versions that the members run, each with the members that run it.
pub fn of_cluster(facts: &ClusterFacts) -> Vec<String> {
    let mut members: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for member in &facts.members {
        if let Ok(status) = &member.status {
            members.entry(&status.version).or_default().push(member.member.label());
        }
    }
    let known = members.into_iter().flat_map(|(version, mut names)| {
        names.sort_unstable();
        let ended = support_ended(version).map(|since| format!("no fixes since {since}: upgrade it"));
        let defects = warnings(version).into_iter().chain(refusal(version)).map(str::to_owned);
        let names = names.join(", ");
        ended.into_iter().chain(defects).map(move |known| format!("etcd {version} ({names}): {known}"))
    });
    known.collect()
}

/// RPCs that only read, and whose required permission differs between releases. All others that defragd sends need root
/// in every release, as Defragment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, EnumString)]
pub enum ReadRpc {
    /// Without it a cluster cannot be observed.
    MemberList,
    /// Without it a member cannot be measured.
    Status,
    /// Lists the armed alarms; a run needs it.
    #[strum(serialize = "Alarm")]
    AlarmList,
}

/// Who may call an RPC while authentication is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// Including a client that does not log in.
    Anyone,
    User,
    /// Users with the role root.
    Root,
}

impl ReadRpc {
    /// From which version on who may call it, oldest first. A minor version that is not listed is like the one before.
    ///
    /// CVE-2026-33413 restricted them (3.4.42, 3.5.28, 3.6.9), and later releases opened them to users again. For 3.4
    /// it is unknown which release did, if one did: root is enough in all.
    const fn callers(self) -> &'static [(Version, Caller)] {
        use Caller::{Anyone, Root, User};
        match self {
            Self::MemberList | Self::AlarmList => &[
                (Version(0, 0, 0), Anyone),
                (Version(3, 4, 42), Root),
                (Version(3, 5, 0), Anyone),
                (Version(3, 5, 28), Root),
                (Version(3, 5, 29), User),
                (Version(3, 6, 0), Anyone),
                (Version(3, 6, 9), Root),
                (Version(3, 6, 10), User),
            ],
            Self::Status => &[
                (Version(0, 0, 0), Anyone),
                (Version(3, 4, 42), Root),
                (Version(3, 5, 0), Anyone),
                (Version(3, 5, 28), Root),
                (Version(3, 5, 32), User),
                (Version(3, 6, 0), Root),
                (Version(3, 6, 12), User),
            ],
        }
    }

    /// Who may call it in this version.
    pub fn caller(self, version: Version) -> Caller {
        let reached = self.callers().iter().take_while(|(from, _)| *from <= version);
        reached.last().map_or(Caller::Root, |(_, caller)| *caller)
    }

    /// The releases in which only root may call it, like `3.5.28 to 3.5.31`.
    pub fn root_only_in(self) -> String {
        let mut text = String::new();
        for pair in self.callers().windows(2) {
            let [(from, Caller::Root), (next, _)] = pair else { continue };
            let Version(major, minor, patch) = *from;
            let separator = if text.is_empty() { "" } else { ", " };
            let range = match (next.minor() == from.minor(), next.previous()) {
                (false, _) => format!("{major}.{minor}.{patch} and later {major}.{minor}"),
                (true, last) if last == format!("{major}.{minor}.{patch}") => last,
                (true, last) => format!("{major}.{minor}.{patch} to {last}"),
            };
            let _ = write!(text, "{separator}{range}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn dangerous_versions_are_refused_and_their_neighbours_are_not() {
        for (version, refused) in [
            ("3.3.27", true),
            ("3.4.3", true),
            ("3.4.4", false),
            ("3.4.23", false),
            ("3.5.0-rc.1", true),
            ("3.5.5", true),
            ("3.5.6", false),
            ("3.6.0", false),
            ("3.7.3", false),
            ("3.8.0-alpha.0", false),
            ("4.0.0", false),
            ("", true),
            ("3.5", true),
            ("banana", true),
        ] {
            assert_eq!(refusal(version).is_some(), refused, "{version}");
        }
    }

    #[test]
    fn warnings_follow_each_release_line() {
        for (version, count) in [
            ("3.4.18", 3),
            ("3.4.23", 2),
            ("3.5.16", 2),
            ("3.5.17", 1),
            ("3.5.23", 0),
            ("3.6.4", 1),
            ("3.6.5", 0),
            ("3.7.0", 0),
        ] {
            assert_eq!(warnings(version).len(), count, "{version}");
        }
    }

    #[test]
    fn support_has_ended_for_3_4_and_what_came_before_it() {
        assert_eq!(support_ended("3.4.45"), Some("May 2026"));
        assert_eq!(support_ended("3.3.27"), Some("May 2026"));
        for version in ["3.5.16", "3.6.14", "3.7.3", "3.8.0-alpha.0", "banana"] {
            assert_eq!(support_ended(version), None, "{version}");
        }
    }

    /// Read in the sources of 3.5.21, 3.5.31, 3.5.32, 3.6.0, 3.6.8, 3.6.12 and 3.7.0; for the others, in etcd's issue
    /// 21663 and its pull requests 21549 to 21551.
    #[test]
    fn each_release_admits_its_own_callers() {
        use Caller::{Anyone, Root, User};
        for (version, listing, status) in [
            ("3.4.23", Anyone, Anyone),
            ("3.4.42", Root, Root),
            ("3.5.16", Anyone, Anyone),
            ("3.5.28", Root, Root),
            ("3.5.29", User, Root),
            ("3.5.31", User, Root),
            ("3.5.32", User, User),
            ("3.6.0", Anyone, Root),
            ("3.6.8", Anyone, Root),
            ("3.6.9", Root, Root),
            ("3.6.10", User, Root),
            ("3.6.11", User, Root),
            ("3.6.12", User, User),
            ("3.7.0", User, User),
            ("3.8.0-alpha.0", User, User),
        ] {
            let parsed = Version::parse(version).unwrap();
            assert_eq!(ReadRpc::MemberList.caller(parsed), listing, "{version}");
            assert_eq!(ReadRpc::AlarmList.caller(parsed), listing, "{version}");
            assert_eq!(ReadRpc::Status.caller(parsed), status, "{version}");
        }
    }

    #[test]
    fn the_documents_name_the_releases_that_admit_root_only() {
        assert_eq!(ReadRpc::MemberList.root_only_in(), "3.4.42 and later 3.4, 3.5.28, 3.6.9");
        assert_eq!(ReadRpc::Status.root_only_in(), "3.4.42 and later 3.4, 3.5.28 to 3.5.31, 3.6.0 to 3.6.11");
        let page = include_str!("../../../docs/configuration.md").replace('\n', " ");
        for rpc in ReadRpc::iter() {
            assert!(page.contains(&rpc.root_only_in()), "docs/configuration.md: {rpc:?}");
        }
    }
}
