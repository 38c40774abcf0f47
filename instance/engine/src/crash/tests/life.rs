//! One process: it checks what the ones before left, and works until it is killed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use kalamdb_api::flush::{FlushReason, FlushState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::ledger::{Entry, History, Ledger, RowOf, apply};
use super::{FOLDER, PASSAGE, POINT, SEED};
use crate::EngineError;
use crate::catalog::CatalogChange;
use crate::engine::{Engine, LookUp, RowWrite};
use crate::flush::tests::deaths::Step;
use crate::flush::tests::{Ahead, Model, USERS, World, copy_folder};
use crate::schema::testing::table;
use crate::schema::{SqlType, TableKind, TableName, UserId};
use crate::transaction::TransactionLimits;
use crate::value::Value;

/// Where a compaction is held up, so that a flush comes first.
const BUILT: &str = "compaction.files_written";

/// What a process does, one after the other and from the start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Write,
    Flush,
    SettleFlush,
    Compact,
    OutrunCompaction,
    SettleCompaction,
    Vacuum,
    DropTable,
    LoseVolume,
    Trim,
    Expire,
}

const WORKS: [Work; 11] = [
    Work::Write,
    Work::Flush,
    Work::SettleFlush,
    Work::Compact,
    Work::OutrunCompaction,
    Work::SettleCompaction,
    Work::Vacuum,
    Work::DropTable,
    Work::LoseVolume,
    Work::Trim,
    Work::Expire,
];
/// Every point is passed three times by then.
const ROUNDS: usize = 5;

pub(super) struct Life {
    pub(super) world: World,
    ledger: Ledger,
    /// What the ledger says.
    pub(super) history: History,
    pub(super) random: StdRng,
    point: Option<String>,
}

/// It is the parent's test that starts it; among the other tests it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_ends_at_a_crash_point() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (point, seed) = (std::env::var(POINT).ok(), number(SEED).unwrap());
    let (ledger, passage) = (Ledger::in_folder(&folder), number(PASSAGE).unwrap_or(1) as usize);
    // Some die while they check what others left, the rest after that.
    let is_early = seed.is_multiple_of(2) || point.as_deref().is_some_and(|point| point.starts_with("start."));
    let arm = || point.iter().for_each(|point| arm(point, passage, ledger.clone()));
    if is_early {
        arm();
    }
    let mut life = Life::begin(folder, ledger.clone(), point.clone(), seed).await;
    life.check().await;
    if !is_early {
        arm();
    }
    if let Some(point) = &point {
        let works = WORKS.into_iter().cycle().skip(first_of(point)).take(ROUNDS * WORKS.len());
        for work in works {
            println!("{work:?}");
            life.work(work).await;
        }
    }
    life.world.stop().await;
}

/// The process dies when it passes the point for that time.
fn arm(point: &str, passage: usize, ledger: Ledger) {
    let (passed, hit) = (AtomicUsize::new(0), Entry::Hit(point.to_owned()));
    let pass = move || {
        let passed = passed.fetch_add(1, Ordering::SeqCst) + 1;
        if passed < passage {
            return;
        }
        if passed == passage {
            ledger.note(&hit);
            let id = std::process::id().to_string();
            std::process::Command::new("kill").args(["-KILL", &id]).status().unwrap();
        }
        // Nobody gets past it.
        loop {
            std::thread::park();
        }
    };
    fail::cfg_callback(point, pass).unwrap();
}

/// The work that passes the point soonest.
fn first_of(point: &str) -> usize {
    let area = point.split('.').next().unwrap_or_default();
    let work = match area {
        "flush" | "file" | "delta" | "intent" | "job" | "folder" | "checkpoint" => Work::Flush,
        "settle" | "takeover" | "start" | "fence" => Work::SettleFlush,
        "compaction" => Work::Compact,
        "vacuum" => Work::OutrunCompaction,
        "catalog" | "mirror" => Work::DropTable,
        "recovery" => Work::LoseVolume,
        "trim" => Work::Trim,
        "expiry" => Work::Expire,
        _ => Work::Write,
    };
    WORKS.iter().position(|known| *known == work).unwrap()
}

impl Life {
    /// Opens a copy of what is there, so that what a process left stays to be looked at.
    async fn begin(folder: PathBuf, ledger: Ledger, point: Option<String>, seed: u64) -> Self {
        let history = Ledger::history(&folder);
        let copy = tempfile::Builder::new().prefix("life-").tempdir_in(&folder).unwrap();
        if let Some(before) = &history.folder {
            copy_folder(before, copy.path());
        }
        ledger.note(&Entry::Folder(copy.path().into()));
        let clock = Arc::new(Ahead(history.ahead.into()));
        let mut world = World::over_at(copy, TableKind::User, clock).await;
        (world.model, world.jobs) = (history.model.clone(), 1000 * history.hits.len() as u32);
        let mut life = Self { world, ledger, history, random: StdRng::seed_from_u64(seed), point };
        life.settle_floor().await;
        life.settle_streams().await;
        if let Some(rows) = life.history.doubt.clone() {
            life.settle_doubt(&rows).await;
        }
        life
    }

    /// Adds a line to the ledger.
    pub(super) fn note(&mut self, entry: Entry) {
        self.ledger.note(&entry);
        self.history.add(entry);
    }

    /// The last statement is there.
    fn done(&mut self) {
        let last = self.world.engine().committer().shared().committed();
        self.note(Entry::Done(last));
    }

    /// The one statement whose answer never came is there as a whole, or not at all.
    async fn settle_doubt(&mut self, rows: &[RowOf]) {
        let mut after = self.world.model.clone();
        apply(&mut after, rows);
        let mut found = Model::new();
        for user in USERS {
            let rows = self.world.select(user).await;
            found.extend(rows.into_iter().map(|(first, second, value)| ((user.to_owned(), first, second), value)));
        }
        assert!(
            found == after || found == self.world.model,
            "{rows:?} is half there, or something else is lost: {found:?} instead of {:?}",
            self.world.model
        );
        match found == after {
            true => self.done(),
            false => self.note(Entry::Undone),
        }
        self.world.model = found;
    }

    /// Everything that was acknowledged is there, in one place, and stays so over jobs that tidy up; nothing is left behind.
    async fn check(&mut self) {
        self.world.check("after the death").await;
        self.check_changes("after the death");
        self.check_streams("after the death").await;
        self.write().await;
        self.world.await_jobs().await;
        assert_ne!(self.world.compact().await, FlushState::Failed);
        self.world.check("compacted").await;
        self.write_some().await;
        assert_eq!(self.world.flush().await, FlushState::Completed);
        self.world.check("flushed").await;
        self.world.vacuum(Duration::ZERO).await;
        self.world.check("vacuumed").await;
        assert_eq!(self.world.objects().await, self.world.live_objects().await, "nothing is left behind");
    }

    async fn work(&mut self, work: Work) {
        match work {
            Work::Write => {
                self.write().await;
                self.write().await;
            }
            Work::Flush => self.flush_beside_writes().await,
            Work::SettleFlush => {
                self.write_some().await;
                self.world.die_in_flush(Step::Committed).await;
                self.go_on_after_death().await;
            }
            Work::Compact => {
                self.two_runs().await;
                let id = self.world.start_compaction().await;
                self.write().await;
                self.world.end_of(&id).await;
            }
            Work::OutrunCompaction => self.outrun_compaction().await,
            Work::SettleCompaction => {
                self.two_runs().await;
                let step = [Step::Written, Step::Committed][self.random.random_range(0..2)];
                self.world.die_in_compaction(step).await;
                self.go_on_after_death().await;
            }
            Work::Vacuum => {
                self.two_runs().await;
                self.world.compact().await;
                self.world.vacuum(Duration::ZERO).await;
            }
            Work::DropTable => self.drop_table().await,
            Work::LoseVolume => self.lose_volume().await,
            Work::Trim => {
                self.write().await;
                self.trim().await;
            }
            Work::Expire => self.expire().await,
        }
        let when = format!("after {work:?}");
        self.world.check(&when).await;
        self.check_changes(&when);
        self.check_streams(&when).await;
    }

    /// Rows that a flush's end must mask are written before the next life settles it.
    async fn go_on_after_death(&mut self) {
        self.rewrite().await;
        let id = format!("job-{}", self.world.jobs);
        self.world.restart().await;
        self.world.end_of(&id).await;
        self.world.flush().await;
    }

    async fn flush_beside_writes(&mut self) {
        self.write_some().await;
        let id = self.world.start_flush().await;
        self.rewrite().await;
        self.write().await;
        assert_ne!(self.world.end_of(&id).await.state, FlushState::Failed);
    }

    async fn two_runs(&mut self) {
        for _ in 0..2 {
            self.write_some().await;
            assert_eq!(self.world.flush().await, FlushState::Completed);
        }
    }

    /// A flush comes between a compaction's files and its commit.
    async fn outrun_compaction(&mut self) {
        self.two_runs().await;
        if self.point.as_deref() == Some(BUILT) {
            return;
        }
        let ((built, is_built), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
        let may_go_on = Mutex::new(may_go_on);
        let hold_up = move || {
            let _ = built.send(());
            let _ = may_go_on.lock().unwrap().recv();
        };
        fail::cfg_callback(BUILT, hold_up).unwrap();
        let id = self.world.start_compaction().await;
        let waited = tokio::task::spawn_blocking(move || is_built.recv_timeout(Duration::from_secs(60)));
        waited.await.unwrap().expect("two runs are merged");
        self.write_some().await;
        assert_eq!(self.world.flush().await, FlushState::Completed);
        go_on.send(()).unwrap();
        fail::remove(BUILT);
        assert_eq!(self.world.end_of(&id).await.state, FlushState::Completed);
        self.world.vacuum(Duration::ZERO).await;
    }

    /// A table comes, is flushed, goes, and its folder with it.
    async fn drop_table(&mut self) {
        let engine = self.world.engine().clone();
        self.world.jobs += 1;
        let name = TableName::new("default", format!("extra{}", self.world.jobs));
        let mut made = table(TableKind::Shared, &[SqlType::Int, SqlType::Text, SqlType::BigInt], &[0, 1]);
        (made.uuid, made.name) = (uuid::Uuid::new_v4(), name.clone());
        engine.change_catalog(CatalogChange::CreateTable(Box::new(made))).await.unwrap();
        let made = engine.catalog().tables[&name].clone();
        let row = vec![Value::Int(1), Value::Text("a".into()), Value::BigInt(1)];
        let look_up = LookUp::Read { found: None, cold_version: -1, unwritten_through: None };
        let (key, id) = (Engine::key(&made, &row).unwrap(), made.id);
        engine.commit(vec![RowWrite { table: made, user: None, key, look_up, new: Some(row) }]).await.unwrap();
        let job = format!("job-{}", self.world.jobs);
        engine.start_flush(&job, &name, FlushReason::Statement).await.unwrap();
        assert_eq!(self.world.end_of(&job).await.state, FlushState::Completed);
        engine.change_catalog(CatalogChange::DropTable { name, id }).await.unwrap();
        for dropped in engine.hot().snapshot().dropped_tables().unwrap() {
            self.world.runner().vacuum_dropped(&dropped, Duration::ZERO).await.unwrap();
        }
    }

    /// The database goes on from its object store alone, after all was flushed.
    async fn lose_volume(&mut self) {
        self.flush_beside_writes().await;
        self.write_some().await;
        assert_eq!(self.world.flush().await, FlushState::Completed);
        self.world.mirrored().await;
        let flushed = self.world.model.clone();
        self.note(Entry::Losing);
        self.world.lose_volume(flushed).await;
        self.world.recovered().await;
        self.settle_floor().await;
    }

    /// Some statements, among them a transaction over both users' rows.
    async fn write(&mut self) {
        self.write_some().await;
        let rows = USERS.map(|user| self.rows_of(user, 2)).concat();
        self.transact(rows).await;
        self.rewrite().await;
    }

    /// At least one row that is new or changes.
    async fn write_some(&mut self) {
        let user = USERS[self.random.random_range(0..2)];
        let mut rows = self.rows_of(user, 6);
        rows[0].3 = Some(self.random.random());
        self.statement(rows).await;
    }

    /// Changes and deletions of rows that are there.
    async fn rewrite(&mut self) {
        let user = USERS[self.random.random_range(0..2)];
        let known: Vec<_> = self.world.model.keys().filter(|key| key.0 == user).cloned().collect();
        let changed = known.into_iter().step_by(3).take(4).map(|(user, first, second)| {
            (user, first, second, self.random.random_bool(0.7).then(|| self.random.random()))
        });
        let rows: Vec<_> = changed.collect();
        if !rows.is_empty() {
            self.statement(rows).await;
        }
    }

    fn rows_of(&mut self, user: &str, rows: i32) -> Vec<RowOf> {
        let random = &mut self.random;
        let first = random.random_range(0..50);
        (first..first + rows)
            .map(|row| {
                let second = if random.random() { "a" } else { "b" };
                (user.to_owned(), row, second.to_owned(), random.random_bool(0.8).then(|| random.random()))
            })
            .collect()
    }

    /// Rows of one user.
    async fn statement(&mut self, rows: Vec<RowOf>) {
        self.note(Entry::Begun(rows.clone()));
        let written: Vec<_> = rows.iter().map(|(_, first, second, value)| (*first, second.as_str(), *value)).collect();
        self.world.write(&rows[0].0, &written).await;
        self.done();
    }

    /// Rows of several users, in a transaction that looks them up in its own snapshot.
    async fn transact(&mut self, rows: Vec<RowOf>) {
        self.note(Entry::Begun(rows.clone()));
        while !self.try_transact(&rows).await {}
        apply(&mut self.world.model, &rows);
        self.done();
    }

    async fn try_transact(&self, rows: &[RowOf]) -> bool {
        let transaction = self.world.engine().begin(TransactionLimits { rows: 1000, bytes: 1 << 20 });
        for (user, first, second, value) in rows {
            let (table, user) = (self.world.table.clone(), Some(UserId::from(user.as_str())));
            let key_values = vec![Value::Int(*first), Value::Text(second.as_str().into())];
            let key = Engine::key_of(&table, &key_values).unwrap();
            let keys = std::slice::from_ref(&key);
            let look_up = transaction.snapshot().look_up(&table, user.as_ref(), keys).await.unwrap().remove(0);
            let new = value.map(|value| [key_values, vec![Value::BigInt(value)]].concat());
            if new.is_some() || look_up.found().is_some() {
                transaction.write(vec![RowWrite { table, user, key, look_up, new }]).unwrap();
            }
        }
        match transaction.commit().await {
            Ok(_) => true,
            Err(EngineError::Conflict { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

impl World {
    /// Returns once no job runs or waits.
    async fn await_jobs(&self) {
        for job in self.engine().jobs() {
            self.end_of(&job.job.id).await;
        }
    }
}
