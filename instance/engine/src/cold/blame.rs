//! Which object of a log is to blame where the log can't be read: the libraries below name a table at best.

use deltalake_core::DeltaTableError;

use super::log::DeltaLog;
use crate::EngineError;

impl DeltaLog {
    /// The error for a version that could not be loaded: of the commit that is damaged or missing, or else of the checkpoint below it.
    pub(super) async fn blame(&self, version: i64, error: DeltaTableError) -> EngineError {
        let reason = error.to_string();
        let failed = self.failed(format!("load version {version} of {}", self.folder()), error);
        if matches!(failed, EngineError::Unavailable(_)) {
            return failed;
        }
        let Ok(entries) = self.entries().await else { return failed };
        let checkpoint = entries.checkpoints.iter().rfind(|(of, _)| *of <= version);
        for commit in checkpoint.map_or(0, |(of, _)| of + 1)..=version {
            match self.read(commit).await {
                Ok(Some(_)) => {}
                Ok(None) => return self.damaged(commit, "it is missing; restore it from a copy of the bucket".into()),
                Err(damaged) => return damaged,
            }
        }
        let Some((of, path)) = checkpoint else { return failed };
        let whole = (0..=*of).all(|commit| entries.commits.binary_search(&commit).is_ok());
        let mend = match whole {
            true => "every commit below it is still there: delete it, and the log is read without it",
            false => "commits below it are gone: restore it from a copy of the bucket",
        };
        EngineError::Corrupt { what: path.to_string(), reason: format!("{reason}; {mend}") }
    }

    /// The error for a commit that is not what was written.
    pub(super) fn damaged(&self, version: i64, reason: String) -> EngineError {
        EngineError::Corrupt { what: self.path_of(&format!("_delta_log/{version:020}.json")).to_string(), reason }
    }
}
