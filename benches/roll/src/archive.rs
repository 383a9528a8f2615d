//! Finished trials in files, so that a bench that was stopped continues where it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{contender::Contender, scenario::Scenario, trial::Trial};

/// The trials of one build of defragd on members of one kind.
pub(crate) struct Archive(PathBuf);

impl Archive {
    /// `what` names the build and all else that makes trials comparable.
    pub(crate) fn open(dir: &Path, what: &str) -> Result<Self> {
        let dir = dir.join("trials").join(what);
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
        let archive = Archive::open(dir.path(), "v1-3.5").expect("opened");
        let key = (Scenario::ApiServer, Contender::Defragd, 2);
        assert!(archive.get(key.0, key.1, key.2).expect("read").is_none());
        archive.put(key.0, key.1, key.2, &example()).expect("kept");
        let again = Archive::open(dir.path(), "v1-3.5").expect("opened").get(key.0, key.1, key.2);
        assert_eq!(again.expect("read").expect("there"), example());
        assert!(archive.get(key.0, key.1, 1).expect("read").is_none());
        assert!(Archive::open(dir.path(), "v2-3.5").expect("opened").get(key.0, key.1, key.2).expect("read").is_none());
    }
}
