//! What the object store holds, read as an outside reader would: the entries of each Delta log, files minus deletion vectors. Beside it stands
//! what each version must hold, from the model of the history that made it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::AsArray;
use deltalake_core::kernel::{Action, DeletionVectorDescriptor};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::reference::{At, KEY, RowId, VALUE, known_user, values};
use super::tasks::numbers;
use super::wire::Sea;
use crate::cold::log::table_folder;
use crate::cold::{ColdStore, DeltaLog, name};
use crate::engine::Engine;
use crate::flush::{Epoch, Intent, IntentKind};
use crate::schema::{SEQ, Table, USER_ID};

/// A row of a cold file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColdRow {
    /// Which.
    pub row: RowId,
    /// [`VALUE`].
    pub value: i64,
    /// Its version.
    pub seq: i64,
}

/// Where a row lies: file and number.
pub type Place = (Arc<str>, u64);

/// A version of a table's log.
#[derive(Debug, Clone)]
pub struct Version {
    /// Of the commit that made it.
    pub intent: Intent,
    /// What it must hold: the state at its W.
    pub truth: At,
    /// The version of the schema at W, of which `truth` has the columns.
    pub schema: u32,
    /// Its rows, as an outside reader sees them.
    pub rows: Arc<Vec<(Place, ColdRow)>>,
    /// Files of it that are not there.
    pub missing: Vec<Arc<str>>,
    live: BTreeMap<Arc<str>, Option<DeletionVectorDescriptor>>,
}

/// What a commit is to hold once it has landed: known when its intent is stored.
#[derive(Debug, Clone)]
pub struct Meant {
    /// The state at W.
    pub truth: At,
    /// The version of the table's schema then.
    pub schema: u32,
}

/// What was read of the store so far.
#[derive(Clone)]
pub struct Bucket {
    /// The store.
    pub sea: Arc<Sea>,
    /// The versions of each table's log.
    pub versions: HashMap<Uuid, Vec<Version>>,
    /// What the commits of jobs are to hold.
    pub meant: HashMap<Uuid, Meant>,
    /// Which line of volumes has an epoch.
    pub lines: HashMap<Epoch, u32>,
    /// Versions of each table below this may lack files: what left them did so long ago.
    pub aged: HashMap<Uuid, usize>,
    /// Tables whose folder was deleted.
    pub gone: BTreeSet<Uuid>,
    files: HashMap<Arc<str>, Arc<Vec<ColdRow>>>,
    deleted: usize,
    /// The last checkpoint of each table that was looked at.
    checkpoints: HashMap<Uuid, Option<String>>,
}

impl Bucket {
    /// Nothing was read yet.
    pub fn new(sea: Sea) -> Self {
        Self {
            sea: Arc::new(sea),
            versions: HashMap::new(),
            meant: HashMap::new(),
            lines: HashMap::new(),
            aged: HashMap::new(),
            gone: BTreeSet::new(),
            files: HashMap::new(),
            deleted: 0,
            checkpoints: HashMap::new(),
        }
    }

    /// The same content, from which both go their own ways.
    pub fn fork(&self) -> Self {
        Self { sea: Arc::new(self.sea.fork()), deleted: 0, ..self.clone() }
    }

    /// A version of a table.
    pub fn version(&self, table: Uuid, version: i64) -> Option<&Version> {
        self.versions.get(&table)?.get(usize::try_from(version).ok()?)
    }

    /// Reads what was committed to these tables since the last time, and which files were deleted.
    pub async fn learn(&mut self, tables: impl IntoIterator<Item = Uuid>) {
        for table in tables {
            let next = self.versions.get(&table).map_or(0, Vec::len);
            let entry = |version: usize| Path::from(format!("{}/_delta_log/{version:020}.json", table_folder(table)));
            let mut version = next;
            while self.sea.objects.head(&entry(version)).await.is_ok() {
                let learnt = self.read(table, version).await;
                self.versions.entry(table).or_default().push(learnt);
                version += 1;
            }
        }
        let deleted = self.sea.deleted.load(Ordering::SeqCst);
        if deleted != self.deleted {
            self.deleted = deleted;
            self.look_for_files().await;
        }
    }

    async fn look_for_files(&mut self) {
        let objects: Vec<_> = self.sea.objects.list(None).try_collect().await.expect("a store in memory answers");
        let there: BTreeSet<_> = objects.into_iter().map(|object| object.location).collect();
        for (table, versions) in &mut self.versions {
            let is_there = |file: &str| there.contains(&Path::from(format!("{}/{file}", table_folder(*table))));
            for version in versions {
                let vectors = version.live.values().flatten().filter_map(name::vector_file).map(Arc::from);
                let names = version.live.keys().cloned().chain(vectors);
                version.missing = names.filter(|file| !is_there(file)).collect();
            }
        }
    }

    /// All that was removed by now was so long ago that it may go, and so is all of tables that are none of `served`.
    pub fn age(&mut self, served: &BTreeSet<Uuid>) {
        for (table, versions) in &self.versions {
            let newest = if served.contains(table) { versions.len().saturating_sub(1) } else { usize::MAX };
            self.aged.insert(*table, newest);
        }
    }

    /// Each table that was ever flushed is known to that process, to serve it or to delete its folder; or else the folder is gone.
    pub async fn no_folder_is_forgotten(&self, engine: &Engine) -> Result<(), String> {
        let catalog = engine.catalog();
        let dropped = engine.hot().snapshot().dropped_tables().map_err(|error| error.to_string())?;
        let known = catalog.tables.values().map(|table| table.uuid).chain(dropped.iter().map(|table| table.uuid));
        let known: BTreeSet<_> = known.collect();
        for table in self.versions.keys().filter(|table| !known.contains(*table)) {
            let left: Vec<_> =
                self.sea.objects.list(Some(&table_folder(*table))).try_collect().await.unwrap_or_default();
            if !left.is_empty() {
                return Err(format!("nobody knows of {} objects below {}", left.len(), table_folder(*table)));
            }
        }
        Ok(())
    }

    /// Looks at a table's newest checkpoint, if it is new; answers its version, and what is wrong where it says other than the commits.
    pub async fn learn_checkpoint(&mut self, table: &Table) -> Option<(i64, Result<(), String>)> {
        let hint = Path::from(format!("{}/_delta_log/_last_checkpoint", table_folder(table.uuid)));
        let found = self.sea.objects.get(&hint).await.ok()?;
        let tag = found.meta.e_tag.clone();
        if self.checkpoints.insert(table.uuid, tag.clone()) == Some(tag) {
            return None;
        }
        let hint: serde_json::Value =
            serde_json::from_slice(&found.bytes().await.expect("it is in memory")).expect("it is JSON");
        let version = hint["version"].as_i64().expect("it names its version");
        let store = ColdStore::over(Arc::new(self.sea.objects.clone()), "", "the model's store");
        let loaded = DeltaLog::of(&store, table.uuid).load(table, version).await;
        let known = self.version(table.uuid, version);
        let wanted: Option<BTreeSet<_>> = known.map(|known| {
            let vectors = known.live.values().flatten().filter_map(name::vector_file);
            known.live.keys().map(|file| file.to_string()).chain(vectors).collect()
        });
        let found =
            loaded.map(|loaded| loaded.files.iter().flat_map(|file| file.names().collect::<Vec<_>>()).collect());
        Some((
            version,
            match found {
                Ok(found) if Some(&found) == wanted.as_ref() => Ok(()),
                found => Err(format!("the checkpoint of version {version} tells {found:?}, and not {wanted:?}")),
            },
        ))
    }

    async fn read(&mut self, table: Uuid, number: usize) -> Version {
        let store = ColdStore::over(Arc::new(self.sea.objects.clone()), "", "the model's store");
        let log = DeltaLog::of(&store, table);
        let commit = log.read(number as i64).await.expect("a commit can be read").expect("it is there");
        let intent = commit.intent.expect("every commit of the model's is KalamDB's");
        let before = number.checked_sub(1).map(|before| self.versions[&table][before].clone());
        let mut live = before.as_ref().map(|before| before.live.clone()).unwrap_or_default();
        for action in &commit.actions {
            if let Action::Remove(remove) = action {
                live.remove(remove.path.as_str());
            }
        }
        for action in commit.actions {
            if let Action::Add(add) = action {
                live.insert(add.path.as_str().into(), add.deletion_vector);
            }
        }
        let nothing = Meant { truth: At { seq: intent.w, state: Arc::default() }, schema: 1 };
        let unchanged = before.map_or(nothing, |before| Meant { truth: before.truth, schema: before.schema });
        let Meant { truth, schema } = match intent.kind {
            IntentKind::Flush => self.meant.get(&intent.job).cloned().expect("an intent is stored before its commit"),
            IntentKind::Fence | IntentKind::Compaction => unchanged,
        };
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for (file, vector) in &live {
            let Some(found) = self.file(&log, file).await else {
                missing.push(file.clone());
                continue;
            };
            let hidden = match vector {
                Some(vector) => log.read_vector(vector).await.unwrap_or_default(),
                None => RoaringTreemap::new(),
            };
            let visible = (0..).zip(found.iter()).filter(|(row, _)| !hidden.contains(*row));
            rows.extend(visible.map(|(row, found)| ((file.clone(), row), *found)));
        }
        Version { intent, truth, schema, rows: rows.into(), missing, live }
    }

    /// The rows of a file, in its order; none where it is not there.
    async fn file(&mut self, log: &DeltaLog, file: &Arc<str>) -> Option<Arc<Vec<ColdRow>>> {
        if let Some(known) = self.files.get(file) {
            return Some(known.clone());
        }
        let bytes = self.sea.objects.get(&log.path_of(file)).await.ok()?.bytes().await.expect("it is in memory");
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(bytes).expect("it is Parquet").build().expect("it can be read");
        let mut rows = Vec::new();
        for batch in reader {
            let batch = batch.expect("it can be read");
            let column = |name: &str| numbers(&batch, name).expect("every file has it");
            let (keys, found, seqs) = (column(KEY), column(VALUE), column(SEQ));
            let users = batch.column_by_name(USER_ID);
            for at in 0..batch.num_rows() {
                let user = users.map(|users| known_user(users.as_string::<i32>().value(at)));
                let key = i32::try_from(keys.value(at)).expect("keys are small");
                rows.push(ColdRow { row: (user, key), value: found.value(at), seq: seqs.value(at) });
            }
        }
        let rows = Arc::new(rows);
        self.files.insert(file.clone(), rows.clone());
        Some(rows)
    }
}

impl Version {
    /// What is wrong with it for an outside reader; none where it is what it must be.
    pub fn fault(&self) -> Option<String> {
        if !self.missing.is_empty() {
            return Some(format!("{} lacks {:?}", self.intent, self.missing));
        }
        let (wanted, found) = (values(&self.truth.state), values_of(self.rows.iter().map(|(_, row)| row)));
        match found {
            Ok(found) if found == wanted => None,
            found => Some(format!("{} has {found:?}, and must have {wanted:?}", self.intent)),
        }
    }
}

/// [`VALUE`] by row; fails with a row that stands there twice.
pub fn values_of<'a>(rows: impl IntoIterator<Item = &'a ColdRow>) -> Result<BTreeMap<RowId, i64>, RowId> {
    let mut found = BTreeMap::new();
    for row in rows {
        if found.insert(row.row, row.value).is_some() {
            return Err(row.row);
        }
    }
    Ok(found)
}
