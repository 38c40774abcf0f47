//! The way of encoded bytes into the object store: a sink that hands them on in chunks, and the uploads at its other end.
//!
//! What waits between the two is bounded, and so are the parts of a file that are on their way at once.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::EngineError;
use crate::cold::log::DeltaLog;
use crate::cold::store::ColdStore;
use crate::cold::upload::Upload;

/// Bytes that go to the uploader at once; [`CHUNKS_WAITING`] such chunks wait at most.
const CHUNK_BYTES: usize = 4 << 20;
/// See [`CHUNK_BYTES`].
pub const CHUNKS_WAITING: usize = 2;

/// What goes from the encoder to the uploader.
pub enum Part {
    /// A file of that name begins.
    Begin(String),
    /// Its next bytes.
    Bytes(Bytes),
    /// It ends.
    End,
}

/// A sink that hands its bytes on in chunks.
pub struct Chunks {
    sender: mpsc::Sender<Part>,
    pending: BytesMut,
}

impl Chunks {
    /// Begins a file of that name.
    pub fn begin(sender: mpsc::Sender<Part>, name: String) -> std::io::Result<Self> {
        let chunks = Self { sender, pending: BytesMut::new() };
        chunks.send(Part::Begin(name))?;
        Ok(chunks)
    }

    fn send(&self, part: Part) -> std::io::Result<()> {
        self.sender.blocking_send(part).map_err(|_| std::io::Error::other("the upload has ended"))
    }

    fn send_pending(&mut self) -> std::io::Result<()> {
        let bytes = self.pending.split().freeze();
        if bytes.is_empty() { Ok(()) } else { self.send(Part::Bytes(bytes)) }
    }

    /// Ends the file.
    pub fn end(&mut self) -> std::io::Result<()> {
        self.send_pending()?;
        self.send(Part::End)
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK_BYTES {
            self.send_pending()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Uploads all files that come.
pub async fn upload(store: &ColdStore, log: &DeltaLog, mut parts: mpsc::Receiver<Part>) -> Result<(), EngineError> {
    while let Some(part) = parts.recv().await {
        if let Part::Begin(name) = part {
            upload_file(store, log, &name, &mut parts).await?;
        }
    }
    Ok(())
}

/// Uploads one file. Where it can't be done, or the encoder went away before its end, the upload is aborted: its parts would lie in the
/// object store unseen.
async fn upload_file(
    store: &ColdStore,
    log: &DeltaLog,
    name: &str,
    parts: &mut mpsc::Receiver<Part>,
) -> Result<(), EngineError> {
    let path = log.path_of(name);
    let failed = |error| store.failed(format!("write {path}"), error);
    let mut upload = Upload::new(store.objects().clone(), path.clone());
    loop {
        match parts.recv().await {
            Some(Part::Bytes(bytes)) => {
                if let Err(error) = upload.put(bytes).await {
                    upload.abort().await;
                    return Err(failed(error));
                }
            }
            Some(Part::End) => break,
            _ => {
                upload.abort().await;
                return Ok(());
            }
        }
    }
    crash_point!("file.encoded");
    upload.end().await.map_err(failed)?;
    crash_point!("file.uploaded");
    store.make_durable(&path).await
}
