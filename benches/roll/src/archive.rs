//! Finished trials in files, so that a bench that was stopped continues where it was.

use std::{
    fs,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{contender::Contender, scenario::Scenario, trial::Trial};

/// The trials of one build of defragd on members of one kind.
pub(crate) struct Archive(PathBuf);

impl Archive {
    /// `defragd` is the program that is measured; `what` names all else that makes trials comparable.
    pub(crate) fn open(dir: &Path, what: &str, defragd: &Path) -> Result<Self> {
        // The commit does not tell two builds of changed files apart.
        let mut hash = DefaultHasher::new();
        hash.write(&fs::read(defragd).with_context(|| format!("no {}", defragd.display()))?);
        let dir = dir.join("trials").join(format!("{what}-{:016x}", hash.finish()));
        fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        Ok(Self(dir))
    }

    fn path(&self, scenario: Scenario, who: Contender, run: u32) -> PathBuf {
        self.0.join(format!("{}-{who:?}-{run}.json", scenario.label()))
    }

    /// The trial, if it was finished.
    pub(crate) fn get(&self, scenario: Scenario, who: Contender, run: u32) -> Result<Option<Trial>> {
        let path = self.path(scenario, who, run);
        if !path.exists() {
            return Ok(None);
        }
        let read = || anyhow::Ok(serde_json::from_slice(&fs::read(&path)?)?);
        read().map(Some).with_context(|| format!("{} is not a trial of this version; remove it", path.display()))
    }

    /// Keeps a finished trial.
    pub(crate) fn put(&self, scenario: Scenario, who: Contender, run: u32, trial: &Trial) -> Result<()> {
        let path = self.path(scenario, who, run);
        // Renamed when it is whole.
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(trial)?)?;
        fs::rename(&part, &path).with_context(|| format!("failed to keep {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::example;

    #[test]
    fn a_finished_trial_is_found_again_by_the_same_build_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("defragd");
        let open = |what: &str, build: &str| {
            fs::write(&program, build).expect("built");
            Archive::open(dir.path(), what, &program).expect("opened")
        };
        let (scenario, who) = (Scenario::ApiServer, Contender::Defragd);
        let find = |what, build, run| open(what, build).get(scenario, who, run).expect("read");
        assert!(find("v1-3.5", "a build", 2).is_none());
        open("v1-3.5", "a build").put(scenario, who, 2, &example()).expect("kept");
        assert_eq!(find("v1-3.5", "a build", 2).expect("there"), example());
        assert!(find("v1-3.5", "a build", 1).is_none(), "another run");
        assert!(find("v2-3.5", "a build", 2).is_none(), "another commit");
        assert!(find("v1-3.5", "another build", 2).is_none(), "built again from changed files");
    }
}
