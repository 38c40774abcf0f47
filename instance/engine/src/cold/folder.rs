//! A local folder as an object store on which a power cut is survived: what can be seen under its name is on disk.
//!
//! `object_store`'s own folder links an object into place before its bytes are synced. A power cut then leaves an empty or torn
//! commit in a Delta log, which nobody could tell from a foreign one.

use std::fmt;
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The folder.
#[derive(Debug)]
pub struct DurableFolder {
    inner: LocalFileSystem,
    root: Arc<FilePath>,
}

impl DurableFolder {
    /// Over a folder that exists.
    pub fn new(root: &FilePath) -> Result<Self> {
        Ok(Self { inner: LocalFileSystem::new_with_prefix(root)?, root: root.into() })
    }

    async fn place(&self, path: &Path, bytes: PutPayload, mode: Place) -> Result<()> {
        let (root, target) = (self.root.clone(), self.inner.path_to_filesystem(path)?);
        let placed = tokio::task::spawn_blocking(move || place(&root, &target, &bytes, mode)).await;
        placed.expect("writing a file does not panic").map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: path.to_string(), source: source.into() },
            _ => Error::Generic { store: "folder", source: source.into() },
        })
    }
}

/// What becomes of an object that has the name already.
#[derive(Debug, Clone, Copy)]
enum Place {
    Create,
    Replace,
}

impl fmt::Display for DurableFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableFolder {
    async fn put_opts(&self, path: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => self.place(path, bytes, Place::Create).await?,
            PutMode::Overwrite => self.place(path, bytes, Place::Replace).await?,
            // A folder has no conditional update; the inner store says so.
            PutMode::Update(_) => return self.inner.put_opts(path, bytes, options).await,
        }
        // Nobody updates conditionally here, so nobody needs the tag.
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Large files are synced by [`super::ColdStore::make_durable`] once they are whole: nothing names them before.
    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A file that was begun beside its name and never got it: its process died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Where it lies.
    pub file: PathBuf,
    /// The name that it was to have, below the folder that was searched.
    pub name: String,
}

/// The staged files in a folder and in those folders right below it.
pub fn staged(folder: &FilePath) -> std::io::Result<Vec<Staged>> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            for below in entries(&entry.path())? {
                found.extend(staged_file(&below.path(), &format!("{name}/{}", below.file_name().to_string_lossy())));
            }
        } else {
            found.extend(staged_file(&entry.path(), &name));
        }
    }
    Ok(found)
}

/// None where there is no such folder.
fn entries(folder: &FilePath) -> std::io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn staged_file(file: &FilePath, name: &str) -> Option<Staged> {
    let (name, number) = name.rsplit_once('#')?;
    let is_staged = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_staged.then(|| Staged { file: file.into(), name: name.into() })
}

/// Writes the bytes beside the target, syncs them, and only then gives them the name.
fn place(root: &FilePath, target: &FilePath, bytes: &PutPayload, mode: Place) -> std::io::Result<()> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Listings of `object_store` leave names out that end in `#` and a number.
    let mut staged = target.as_os_str().to_owned();
    staged.push(format!("#{}", rand::random::<u64>()));
    let staged = PathBuf::from(staged);
    let placed = write_synced(&staged, bytes).and_then(|()| {
        crash_point!("folder.staged");
        match mode {
            Place::Create => std::fs::hard_link(&staged, target),
            Place::Replace => std::fs::rename(&staged, target),
        }
    });
    crash_point!("folder.placed");
    // After a rename it is gone already.
    let _ = std::fs::remove_file(&staged);
    placed?;
    sync_folders(target, root)
}

fn write_synced(path: &FilePath, bytes: &PutPayload) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    for chunk in bytes.iter() {
        file.write_all(chunk)?;
    }
    file.sync_all()
}

/// Syncs the file and the folders that lead to it: a new file is on disk only with its entries.
pub fn sync_up_to(file: &FilePath, root: &FilePath) -> std::io::Result<()> {
    std::fs::File::open(file)?.sync_all()?;
    sync_folders(file, root)
}

fn sync_folders(file: &FilePath, root: &FilePath) -> std::io::Result<()> {
    for parent in file.ancestors().skip(1) {
        std::fs::File::open(parent)?.sync_all()?;
        if parent == root {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn an_object_is_created_once_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableFolder::new(dir.path()).unwrap();
        let path = Path::from("tables/a/_delta_log/0.json");
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&path, "first".into(), create()).await.unwrap();
        let second = store.put_opts(&path, "second".into(), create()).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&path, "third".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "third");
        let names: Vec<_> = std::fs::read_dir(dir.path().join("tables/a/_delta_log")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn what_was_begun_and_never_got_its_name_is_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("0000000001")).unwrap();
        for name in ["part-1.parquet#1", "part-2.parquet", "0000000001/vector.bin#77", "odd#x", "odd#"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let mut names: Vec<_> = staged(dir.path()).unwrap().into_iter().map(|staged| staged.name).collect();
        names.sort();
        assert_eq!(names, ["0000000001/vector.bin", "part-1.parquet"]);
        assert_eq!(staged(&dir.path().join("nowhere")).unwrap(), []);
    }
}
