//! Random programs of writes, flushes, compactions, fences, lost answers and restarts, against a plain map. After every step the invariants of
//! the storage model hold; they bear its names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::super::*;
use super::world::{ColdRow, ColdVersion, Found, World, block_on, integer, value_of};
use crate::engine::LookUp;
use crate::flush::IntentKind;
use crate::hot::changes::Operation;
use crate::schema::TableKind;
use crate::seq::Seq;

#[derive(Debug, Clone)]
enum Step {
    /// A write reads its key.
    LookUp(i64),
    /// The writes that wait are committed together; those with true delete.
    CommitGroup(Vec<bool>),
    /// Flush, step 1.
    BeginFlush,
    /// A flush that nothing comes between: steps 1 to 4.
    Flush,
    /// A compaction reads the newest version.
    BuildCompaction,
    /// It stores its intent, or gives up.
    StoreCompaction,
    /// Steps 2 and 3.
    PutCommit,
    /// Step 4, or whatever the log says.
    Settle,
    /// Step 5: some rows.
    DeleteFlushed(usize),
    /// A fence at the next version.
    Fence,
    /// The process ends, and another opens its volume. What it had begun may still land.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4i64).prop_map(Step::LookUp),
        8 => prop::collection::vec(any::<bool>(), 3).prop_map(Step::CommitGroup),
        2 => Just(Step::BeginFlush),
        2 => Just(Step::Flush),
        2 => Just(Step::BuildCompaction),
        2 => Just(Step::StoreCompaction),
        3 => Just(Step::PutCommit),
        3 => Just(Step::Settle),
        1 => (1..3usize).prop_map(Step::DeleteFlushed),
        1 => Just(Step::Fence),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_agree_with_the_model(steps in steps(), per_user in any::<bool>()) {
        block_on(async {
            let kind = if per_user { TableKind::User } else { TableKind::Shared };
            let mut program = Program::new(kind).await;
            for step in steps {
                program.run(step).await;
                program.check();
            }
            program.world.close().await;
        });
    }
}

/// A Delta commit on its way to the log.
struct Job {
    intent: Intent,
    work: Work,
}

enum Work {
    Fence,
    Flush(HotSnapshot),
    Compaction(Built),
}

/// What a compaction has read, and of which version.
struct Built {
    base: i64,
    inputs: Vec<Arc<str>>,
    rows: Vec<ColdRow>,
}

struct Program {
    world: World,
    reference: BTreeMap<i64, i64>,
    history: Vec<(Seq, Operation, Option<i64>)>,
    waiting: Vec<Found>,
    jobs: Vec<Job>,
    building: Option<Built>,
    next_job: u128,
}

impl Program {
    async fn new(kind: TableKind) -> Self {
        let world = World::new(kind).await;
        Self {
            world,
            reference: BTreeMap::new(),
            history: vec![],
            waiting: vec![],
            jobs: vec![],
            building: None,
            next_job: 1,
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::LookUp(key) if self.waiting.len() < 3 => self.waiting.push(self.world.look_up(key)),
            Step::LookUp(_) => {}
            Step::CommitGroup(deletes) => self.commit_group(&deletes).await,
            Step::BeginFlush => self.begin_flush().await,
            Step::Flush => {
                self.begin_flush().await;
                self.put_commit();
                self.settle().await;
            }
            Step::BuildCompaction => self.build_compaction(),
            Step::StoreCompaction => self.store_compaction().await,
            Step::PutCommit => self.put_commit(),
            Step::Settle => self.settle().await,
            Step::DeleteFlushed(limit) => self.delete_flushed(limit).await,
            Step::Fence => self.fence().await,
            Step::Restart => self.restart().await,
        }
    }

    /// Puts increment what they read, so that a lost update shows.
    async fn commit_group(&mut self, deletes: &[bool]) {
        let waiting = std::mem::take(&mut self.waiting);
        let (mut answers, mut news) = (Vec::new(), Vec::new());
        let cold_version = self.tier().cold_version;
        for (found, delete) in waiting.iter().zip(deletes) {
            let old = value_of(found);
            let new = if *delete && old.is_some() { None } else { Some(old.unwrap_or(0) + 1) };
            let (committer, record) = (self.world.committer().clone(), self.world.record(found, new));
            // In the queue in this order, whether or not the committer finds them together.
            answers.push(Box::pin(async move { committer.rows(vec![record]).await }));
            news.push(new);
        }
        let answers = futures::future::join_all(answers).await;
        for ((found, new), answer) in waiting.iter().zip(news).zip(answers) {
            let (key, old) = (found.0, value_of(found));
            let current = self.reference.get(&key).copied();
            match answer {
                Ok(committed) => {
                    assert_eq!(old, current, "no_lost_update: key {key}");
                    let operation = match (old, new) {
                        (None, _) => Operation::Insert,
                        (Some(_), Some(_)) => Operation::Update,
                        (Some(_), None) => Operation::Delete,
                    };
                    self.history.push((committed.last_seq, operation, old));
                    match new {
                        Some(new) => self.reference.insert(key, new),
                        None => self.reference.remove(&key),
                    };
                }
                Err(EngineError::Stale) => {
                    let LookUp::Read { cold_version: read, .. } = found.1 else { panic!("the write has read") };
                    let touched = self.touched_since(found);
                    assert!(touched || read != cold_version, "stale without cause: key {key}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Whether the key has another version than the one that was found.
    fn touched_since(&self, found: &Found) -> bool {
        let seq = |found: &Found| match &found.1 {
            LookUp::Read { found, .. } => found.as_ref().map(|found| found.seq),
            LookUp::Generated => None,
        };
        seq(&self.world.look_up(found.0)) != seq(found)
    }

    async fn begin_flush(&mut self) {
        let (table, job) = (self.world.table().clone(), self.next_job());
        match self.world.committer().begin_flush(&table, Epoch(1), job).await {
            Ok(Begun { intent, snapshot }) => self.jobs.push(Job { intent, work: Work::Flush(snapshot) }),
            Err(EngineError::Invalid(reason)) => {
                let unsettled = !self.world.hot().snapshot().intents(table.id).unwrap().is_empty();
                assert!(unsettled || reason.contains("nothing to flush"), "{reason}");
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn fence(&mut self) {
        let (table, job) = (self.world.table().id, self.next_job());
        let intent = self.world.committer().store_fence(table, Epoch(1), job).await.unwrap();
        self.jobs.push(Job { intent, work: Work::Fence });
    }

    /// Deletion vectors are applied, masks are not.
    fn build_compaction(&mut self) {
        let base = self.tier().cold_version;
        let Some(version) = usize::try_from(base).ok().map(|base| &self.world.cold.log[base]) else { return };
        let inputs: Vec<_> = version.live.keys().cloned().collect();
        let mut rows: Vec<_> = self.world.cold.rows(base).into_iter().map(|(_, row)| row).collect();
        rows.sort();
        self.building = (!inputs.is_empty()).then_some(Built { base, inputs, rows });
    }

    async fn store_compaction(&mut self) {
        let Some(built) = self.building.take() else { return };
        let (table, job, tier) = (self.world.table().id, self.next_job(), self.tier());
        match self.world.committer().store_compaction(table, Epoch(1), job, built.base).await {
            Ok(intent) => {
                assert_eq!(tier.cold_version, built.base, "never rebased");
                self.jobs.push(Job { intent, work: Work::Compaction(built) });
            }
            Err(EngineError::Stale) => {
                let unsettled = !self.world.hot().snapshot().intents(table).unwrap().is_empty();
                assert!(unsettled || tier.cold_version != built.base, "given up without cause");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A conditional put of the oldest job: it takes its version, or another has.
    fn put_commit(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let Job { intent, work } = self.jobs.remove(0);
        let cold = &mut self.world.cold;
        if cold.log.len() as i64 != intent.version {
            return;
        }
        let mut live = cold.log.last().map(|version| version.live.clone()).unwrap_or_default();
        let file: Arc<str> = format!("{}.parquet", intent.job).into();
        let rows = match work {
            Work::Fence => None,
            Work::Flush(snapshot) => {
                let table = self.world.table().clone();
                for mask in snapshot.masks(&table).unwrap() {
                    live.get_mut(&mask.file).expect("masks name live files").insert(mask.row);
                }
                let rows = snapshot.rows(&table, None).map(Result::unwrap);
                Some(rows.filter_map(|hot| Some((hot.key, integer(&hot.row?[1]), hot.seq))).collect())
            }
            Work::Compaction(built) => {
                live.retain(|file, _| !built.inputs.contains(file));
                Some(built.rows)
            }
        };
        if let Some(rows) = rows {
            live.insert(file.clone(), BTreeSet::new());
            self.world.cold.files.insert(file, rows);
        }
        self.world.cold.log.push(ColdVersion { intent, live });
    }

    /// What has taken the next version ends a job of ours.
    async fn settle(&mut self) {
        let (table, version) = (self.world.table().id, self.tier().cold_version + 1);
        let Some(landed) = self.world.cold.log.get(version as usize).cloned() else { return };
        let committer = self.world.committer().clone();
        if landed.intent.kind == IntentKind::Fence {
            committer.end_fence(table, &landed.intent).await.unwrap();
            return;
        }
        let file: Arc<str> = format!("{}.parquet", landed.intent.job).into();
        let before = usize::try_from(version - 1).map(|version| self.world.cold.log[version].live.clone());
        let replaced: Vec<_> =
            before.unwrap_or_default().into_keys().filter(|file| !landed.live.contains_key(file)).collect();
        let mut places = HashMap::new();
        loop {
            let (intent, given) = (&landed.intent, places.clone());
            let ended = match intent.kind {
                IntentKind::Compaction => committer.end_compaction(table, intent, replaced.clone(), given).await,
                _ => committer.end_flush(table, intent, given).await,
            };
            // The committer sends back what it lacks: the first try knows no place at all.
            let Err(missing) = ended.unwrap() else { return };
            assert!(!missing.iter().any(|key| places.contains_key(key)), "a place that was given is not missing");
            for key in missing {
                let at = self.world.cold.files[&file].iter().position(|row| row.0 == key);
                places.insert(key, at.map(|at| Place { file: file.clone(), row: at as u64 }));
            }
        }
    }

    async fn delete_flushed(&mut self, limit: usize) {
        let (committer, table) = (self.world.committer().clone(), self.world.table().clone());
        let next = committer.delete_flushed(&table, None, limit).await.unwrap();
        if let Some(next) = next {
            committer.delete_flushed(&table, Some(next), limit).await.unwrap();
        }
    }

    async fn restart(&mut self) {
        // Snapshots hold the database open: what the job reads later it reads now.
        self.waiting.clear();
        self.building = None;
        let jobs = std::mem::take(&mut self.jobs);
        for job in jobs {
            match !matches!(job.work, Work::Fence) {
                // Its process died before the put, or the put lands now and its answer is lost.
                true if job.intent.job.as_u128() % 2 == 0 => {}
                _ => {
                    self.jobs.push(job);
                    self.put_commit();
                }
            }
        }
        self.world.restart().await;
    }

    fn next_job(&mut self) -> Uuid {
        self.next_job += 1;
        Uuid::from_u128(self.next_job)
    }

    fn tier(&self) -> crate::hot::TableTier {
        self.world.hot().snapshot().tier(self.world.table().id).unwrap()
    }

    fn check(&self) {
        let live = self.world.live_rows();
        let keys: BTreeSet<_> = live.iter().map(|(_, key, _)| key).collect();
        assert_eq!(keys.len(), live.len(), "one_live_place: {live:?}");
        let read: BTreeMap<_, _> = live.iter().map(|(_, key, value)| (key.clone(), *value)).collect();
        let expected = self.reference.iter().map(|(key, value)| (self.world.row_key(*key), *value)).collect();
        assert_eq!(read, expected, "reads_equal_acknowledged");
        self.masks_hide_for_a_newer_version();
        let logged = self.world.changes();
        let logged: Vec<_> =
            logged.iter().map(|change| (change.seq, change.operation, self.world.old_value(change))).collect();
        assert_eq!(logged, self.history, "change_log_complete");
        self.unflushed_is_exact();
    }

    fn masks_hide_for_a_newer_version(&self) {
        let tier = self.tier();
        let cold: HashMap<_, _> = self.world.cold.rows(tier.cold_version).into_iter().collect();
        let hot: HashMap<_, _> = self
            .world
            .hot()
            .snapshot()
            .rows(self.world.table(), None)
            .map(|row| row.map(|row| (row.key, row.seq)).unwrap())
            .collect();
        for mask in self.world.masks() {
            let (key, _, seq) = &cold[&Place { file: mask.file.clone(), row: mask.row }];
            let newest = hot[&mask.key];
            assert!(*key == mask.key && *seq < mask.seq && mask.seq <= newest, "{mask:?} hides {seq} for {newest}");
        }
    }

    /// What is counted in memory is what a pass over the volume counts.
    fn unflushed_is_exact(&self) {
        let shared = self.world.committer().shared();
        let counted = rebuild::rebuild(&shared.hot, &shared.catalog.load()).unwrap();
        let counted = &counted.unflushed[&self.world.table().id];
        let known = shared.unflushed.lock().get(&self.world.table().id).cloned().unwrap_or_default();
        assert_eq!((known.rows(), known.bytes()), (counted.rows(), counted.bytes()), "unflushed");
    }
}
