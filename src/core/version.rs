//! Server versions with defects that bear on defragmentation.

/// `major.minor.patch` of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `3.5.16`, with or without a pre-release suffix. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.trim().split(['-', '+']).next()?;
        let mut parts = plain.split('.').map(str::parse::<u32>);
        let version = Self(parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        parts.next().is_none().then_some(version)
    }

    /// Whether it is older than `first`, in the same release line.
    fn is_before(self, first: Self) -> bool {
        (first.0, first.1) == (self.0, self.1) && self < first
    }
}

/// The first patch releases that survive a full disk during a defragmentation (#18810).
const MENDED_FULL_DISK: [Version; 2] = [Version(3, 4, 35), Version(3, 5, 17)];

/// Why this version must not be defragmented at all. The numbers in the texts are etcd's issues.
pub fn refusal(version: &str) -> Option<&'static str> {
    let Some(version) = Version::parse(version) else {
        // A fork's free-form version: nothing is known of it, so nothing may be risked.
        return Some("its version is not understood");
    };
    if version < Version(3, 4, 4) {
        return Some("an interrupted defragmentation can corrupt the database (#11613, mended in 3.4.4)");
    }
    if version >= Version(3, 5, 0) && version <= Version(3, 5, 5) {
        return Some("a crash while defragmenting leaves revisions inconsistent (#14685, mended in 3.5.6)");
    }
    None
}

/// Whether a full disk during a defragmentation crashes this version, before it can answer (#18810).
pub fn dies_of_a_full_disk(version: &str) -> bool {
    Version::parse(version).is_some_and(|version| MENDED_FULL_DISK.iter().any(|first| version.is_before(*first)))
}

/// Whether a member of this version may answer while it defragments (etcd's pull request 22425). One whose version is not
/// understood may.
pub fn defragments_without_blocking(version: &str) -> bool {
    Version::parse(version).is_none_or(|version| (version.0, version.1) >= (3, 8))
}

/// Defects that are worth a word but do not forbid a defragmentation.
pub fn warnings(version: &str) -> Vec<&'static str> {
    /// A defect, and for each release line the first patch release without it.
    const DEFECTS: [(&str, &[Version]); 3] = [
        (
            "a snapshot applied during a defragmentation corrupts the database (#20271)",
            &[Version(3, 4, 38), Version(3, 5, 23), Version(3, 6, 5)],
        ),
        (
            "a full disk during a defragmentation crashes the server (#18810): watch the free space of its data directory",
            &MENDED_FULL_DISK,
        ),
        (
            "a defragmentation drops the database's tuning options until restart (#13713)",
            &[Version(3, 4, 19), Version(3, 5, 3)],
        ),
    ];
    let Some(version) = Version::parse(version) else { return Vec::new() };
    DEFECTS
        .iter()
        .filter(|(_, mended)| mended.iter().any(|first| version.is_before(*first)))
        .map(|(text, _)| *text)
        .collect()
}

#[cfg(test)]
mod tests {
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
        assert_eq!(warnings("3.4.18").len(), 3);
        assert_eq!(warnings("3.4.23").len(), 2);
        assert_eq!(warnings("3.5.16").len(), 2);
        assert_eq!(warnings("3.5.17").len(), 1);
        assert_eq!(warnings("3.5.23").len(), 0);
        assert_eq!(warnings("3.6.4").len(), 1);
        assert_eq!(warnings("3.6.5").len(), 0);
    }
}
