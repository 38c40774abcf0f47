//! Which object is to blame where something cold can't be read: the libraries below name a table at best.

use std::error::Error;
use std::time::Duration;

use deltalake_core::DeltaTableError;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::log::DeltaLog;
use super::store::ColdStore;
use super::trouble::Trouble;
use crate::EngineError;

/// How long the error of a read waits to learn more of its file.
const PATIENCE: Duration = Duration::from_secs(5);

impl ColdStore {
    /// An error of a read, which may hide one of the object store.
    pub fn read_failed(&self, action: String, error: Box<dyn Error + Send + Sync>) -> EngineError {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error.as_ref());
        while let Some(found) = cause {
            let store = found.downcast_ref::<object_store::Error>();
            if let Some(trouble) = store.and_then(|error| Trouble::of(self.name(), error)) {
                return EngineError::Unavailable(format!("failed to {action}: {trouble}"));
            }
            cause = found.source();
        }
        // DataFusion's reader keeps nothing but the text of why it got no footer.
        if error.to_string().contains("Object Store error: ") {
            let text =
                format!("failed to {action}: the object store ({}) does not answer as it should: {error}", self.name());
            return EngineError::Unavailable(text);
        }
        EngineError::Cold { action: format!("{action} in {}", self.name()), source: error }
    }

    /// The error for a file that is not what was written.
    pub(super) fn damaged(&self, path: &Path, reason: &str) -> EngineError {
        EngineError::Corrupt {
            what: format!("{path} in {}", self.name()),
            reason: format!("{reason}; restore it from a copy of the bucket"),
        }
    }

    /// An error of the kernel, which may hide one of the object store.
    pub fn kernel_failed(&self, action: String, error: delta_kernel::Error) -> EngineError {
        match error {
            delta_kernel::Error::ObjectStore(error) => self.failed(action, error),
            error => self.read_failed(action, error.into()),
        }
    }

    /// The error of a read of a file that never changes: whether the store or the file is to blame. `size` is what the Delta log says, if it
    /// does.
    pub async fn blame(&self, path: &Path, size: Option<u64>, error: EngineError) -> EngineError {
        if !matches!(error, EngineError::Cold { .. } | EngineError::Unavailable(_)) {
            return error;
        }
        let size = |found: u64| size.filter(|size| *size != found);
        match (tokio::time::timeout(PATIENCE, self.objects().head(path)).await, error) {
            (Ok(Ok(found)), error) => match (size(found.size), error) {
                (Some(size), _) => {
                    self.damaged(path, &format!("it has {} bytes, and the Delta log says {size}", found.size))
                }
                (None, EngineError::Cold { source, .. }) => self.damaged(path, &source.to_string()),
                (None, error) => error,
            },
            (Ok(Err(object_store::Error::NotFound { .. })), _) => self.damaged(path, "it is missing"),
            // Who can't be asked for the file's size can't be asked for its bytes.
            (Ok(Err(store)), EngineError::Cold { .. }) => self.failed(format!("read {path}"), store),
            (_, error) => error,
        }
    }
}

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
