//! Uploads of objects whose size is not known at their begin: one put where they stay small, parts where they do not.
//!
//! Whatever fails on the way aborts the upload, for its parts would lie in the object store unseen and be paid for; `object_store`'s own writer
//! leaves them there where the last parts fail.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayloadMut, Result};
use tokio::task::{JoinError, JoinSet};

/// Bytes of one part; S3 wants at least 5 MiB, and some stores want all parts but the last to be equal.
pub const PART_BYTES: usize = 8 << 20;
/// Parts that are on their way at once.
const PARTS: usize = 2;

/// An object on its way.
pub struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Less than a part.
    pending: PutPayloadMut,
    parts: Option<Parts>,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    running: JoinSet<Result<()>>,
}

impl Upload {
    /// Sends nothing yet.
    pub fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, pending: PutPayloadMut::new(), parts: None }
    }

    /// Adds bytes; waits while too many parts are on their way.
    pub async fn put(&mut self, mut bytes: Bytes) -> Result<()> {
        while self.pending.content_length() + bytes.len() >= PART_BYTES {
            self.pending.push(bytes.split_to(PART_BYTES - self.pending.content_length()));
            self.send_part().await?;
        }
        self.pending.push(bytes);
        Ok(())
    }

    /// Returns once the object is there as a whole.
    pub async fn end(mut self) -> Result<()> {
        let ended = self.try_end().await;
        if ended.is_err() {
            self.abort().await;
        }
        ended
    }

    /// Takes back what was sent. Where that can't be done either, the bucket's own rule for unfinished uploads has to.
    pub async fn abort(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        parts.running.shutdown().await;
        if let Err(error) = parts.upload.abort().await {
            tracing::debug!(path = %self.path, %error, "an upload was not aborted");
        }
    }

    async fn try_end(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let bytes = std::mem::take(&mut self.pending).freeze();
            return self.store.put(&self.path, bytes).await.map(drop);
        }
        if !self.pending.is_empty() {
            self.send_part().await?;
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        while let Some(sent) = parts.running.join_next().await {
            joined(sent)?;
        }
        parts.upload.complete().await.map(drop)
    }

    async fn send_part(&mut self) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let upload = self.store.put_multipart(&self.path).await?;
                self.parts.insert(Parts { upload, running: JoinSet::new() })
            }
        };
        while parts.running.len() >= PARTS
            && let Some(sent) = parts.running.join_next().await
        {
            joined(sent)?;
        }
        let part = std::mem::take(&mut self.pending).freeze();
        parts.running.spawn(parts.upload.put_part(part));
        Ok(())
    }
}

fn joined(sent: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    sent.map_err(|error| object_store::Error::Generic { store: "upload", source: error.into() })?
}
