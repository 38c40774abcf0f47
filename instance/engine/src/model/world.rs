//! All processes over one object store, what they do, and what they must hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::bucket::{Bucket, Meant};
use super::invariants::INVARIANTS;
use super::owner::{Owner, Ticks, Volume};
use super::reference::{Alteration, At, RowId, TableHistory, misfits, values};
use super::scheduler::Task;
use super::tasks::{Ended, Kind, Stamps, Work, Written};
use crate::EngineError;
use crate::engine::Readiness;
use crate::flush::IntentKind;
use crate::hot::RowKey;
use crate::hot::volume::Life;
use crate::schema::{Table, TableName};
use crate::seq::Seq;

/// What does not hold, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The predicate's name.
    pub invariant: &'static str,
    /// What was found.
    pub fault: String,
}

/// A client that went away.
pub struct Client {
    /// The life in which it was told what it knows.
    pub life: Life,
    /// The last sequence that it has seen.
    pub seq: Seq,
    /// What it has of each table.
    pub tables: BTreeMap<TableName, (Uuid, BTreeMap<RowId, i64>)>,
}

/// A copy of a volume, and the history that it holds.
pub struct Saved {
    pub(super) volume: Volume,
    pub(super) tables: BTreeMap<TableName, TableHistory>,
}

/// A change of a table that is on its way.
pub(super) struct Altering {
    pub(super) owner: u32,
    pub(super) table: Uuid,
    pub(super) alteration: Alteration,
    pub(super) was_broken: bool,
}

/// What was done, step by step. It outlives a panic.
#[derive(Clone, Default)]
pub struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    /// One more step.
    pub fn push(&self, step: String) {
        self.0.borrow_mut().push(step);
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// All of them.
    pub fn steps(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

/// Everything.
pub struct World {
    /// The object store.
    pub bucket: Bucket,
    /// Processes that have a volume.
    pub owners: Vec<Owner>,
    /// Processes that have lost theirs to another, and whose commit may still be on its way.
    pub stale: Vec<Owner>,
    /// A client that may come back.
    pub client: Option<Client>,
    /// A volume that was set aside.
    pub saved: Option<Saved>,
    /// Lines of volumes beside the first that were ever begun.
    pub other_lines: usize,
    /// What was done, step by step.
    pub trace: Trace,
    /// How each table was altered, version by version.
    pub alterations: HashMap<Uuid, Vec<Alteration>>,
    /// Changes of tables that look through the rows, and whether a row did not hold to them since they began.
    pub(super) altering: Vec<Altering>,
    pub(super) tasks: Vec<Task<Kind, Ended>>,
    /// What was found where no predicate looks.
    found: Option<Violation>,
    pub(super) clock: Arc<Ticks>,
    pub(super) numbers: u32,
}

impl World {
    /// No process yet.
    pub fn new(bucket: Bucket, clock: Ticks) -> Self {
        Self {
            bucket,
            owners: Vec::new(),
            stale: Vec::new(),
            client: None,
            saved: None,
            other_lines: 0,
            trace: Trace::default(),
            alterations: HashMap::new(),
            altering: Vec::new(),
            tasks: Vec::new(),
            found: None,
            clock: Arc::new(clock),
            numbers: 0,
        }
    }

    /// A number that was not given out before.
    pub fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    /// How a task ended is remembered, and judged where it must hold at once.
    pub fn learn_of(&mut self, kind: &Kind, ended: Ended) -> Result<(), Violation> {
        match ended {
            Ended::Started => Ok(()),
            Ended::Wrote(rows, Ok(stamps)) => self.acknowledge(kind, rows, stamps),
            Ended::Wrote(_, Err(error)) => self.refused(kind, &error),
            // A table stops at a commit of another line of volumes only.
            Ended::Job(job) => match job.message.filter(|message| {
                message.contains("corrupt") || self.other_lines == 0 && message.contains("is stopped")
            }) {
                None => Ok(()),
                Some(message) => Err(violated("jobs_fail_only_with_cause", format!("{}: {message}", kind.about))),
            },
            Ended::Vacuumed(Ok(_) | Err(EngineError::Unavailable(_) | EngineError::TableStopped { .. })) => Ok(()),
            Ended::Vacuumed(Err(error)) => Err(violated("jobs_fail_only_with_cause", format!("a vacuum: {error}"))),
            Ended::VacuumedDropped(Ok(gone)) => {
                self.bucket.gone.extend(gone);
                Ok(())
            }
            Ended::VacuumedDropped(Err(error)) if self.other_lines > 0 => {
                // A later owner has come in between, whose mirror is not to be replaced.
                self.trace.push(format!(
                    "owner {} leaves dropped tables: {}",
                    kind.owner,
                    super::moves::without_ids(&error.to_string())
                ));
                Ok(())
            }
            Ended::VacuumedDropped(Err(error)) => {
                Err(violated("jobs_fail_only_with_cause", format!("a vacuum of dropped tables: {error}")))
            }
            Ended::Altered(table, alteration, altered) => self.altered_by(kind, &table, alteration, altered),
            Ended::Read(faults) if faults.is_empty() => Ok(()),
            Ended::Read(faults) => Err(violated("snapshots_stay_true", faults.join("; "))),
        }
    }

    fn refused(&self, kind: &Kind, error: &EngineError) -> Result<(), Violation> {
        match error {
            EngineError::Stale
            | EngineError::Conflict { .. }
            | EngineError::Unavailable(_)
            | EngineError::TableStopped { .. }
            | EngineError::NotFound { .. } => Ok(()),
            error => Err(violated("writes_fail_only_with_cause", format!("{}: {error}", kind.about))),
        }
    }

    fn acknowledge(&mut self, kind: &Kind, rows: Vec<Written>, stamps: Option<Stamps>) -> Result<(), Violation> {
        let Some(owner) = self.owners.iter_mut().find(|owner| owner.id == kind.owner) else { return Ok(()) };
        let mut acknowledged = Vec::new();
        for (at, written) in rows.into_iter().enumerate() {
            let history = owner.tables.get(&written.table).ok_or_else(|| {
                violated("reads_equal_acknowledged", format!("{} took a row and is not there", written.table))
            })?;
            let seq = match &stamps {
                Some(stamps) => stamps.seqs[at],
                None => logged_seq(owner, &history.table, written.row, history.now.seq)
                    .ok_or_else(|| violated("change_log_complete", format!("it lacks {written:?}")))?,
            };
            acknowledged.push((seq, written));
        }
        acknowledged.sort_by_key(|(seq, _)| *seq);
        // Transactions, which do not tell, write no stream tables.
        let updated = stamps.map_or(0, |stamps| stamps.updated);
        for (seq, Written { table, row, old, new }) in acknowledged {
            let history = owner.tables.get_mut(&table).expect("it was there a moment ago");
            let before = history.value_before(row, updated, old);
            if before != old {
                let fault = format!("owner {}: {table} {row:?} was read as {old:?}, and was {before:?}", kind.owner);
                return Err(violated("no_lost_update", fault));
            }
            history.acknowledge(seq, updated, row, old, new);
        }
        Ok(())
    }

    /// After each step: what intents mean, what was committed to the store, and which volumes are recovered.
    pub async fn observe(&mut self) {
        for owner in &self.owners {
            if let Some(epoch) = owner.epoch() {
                self.bucket.lines.insert(epoch, owner.line);
            }
            let hot = owner.engine.hot().snapshot();
            for history in owner.tables.values() {
                let Ok(intents) = hot.intents(history.table.id) else { continue };
                for intent in intents.into_iter().filter(|intent| intent.kind == IntentKind::Flush) {
                    let meant = || Meant { truth: history.now.clone(), schema: history.table.version.0 };
                    self.bucket.meant.entry(intent.job).or_insert_with(meant);
                }
            }
        }
        let mut tables: BTreeSet<_> = self.bucket.versions.keys().copied().collect();
        tables.extend(self.owners.iter().flat_map(|owner| {
            let catalog = owner.engine.catalog();
            catalog.tables.values().map(|table| table.uuid).collect::<Vec<_>>()
        }));
        self.bucket.learn(tables).await;
        self.learn_checkpoints().await;
        for altering in &mut self.altering {
            let owner = self.owners.iter().find(|owner| owner.id == altering.owner);
            let histories = owner.into_iter().flat_map(|owner| owner.tables.values());
            let mut meant = histories.filter(|history| history.table.uuid == altering.table);
            altering.was_broken |= meant.any(|history| altering.alteration.is_broken_by(&history.now.state));
        }
        self.adopt_recovered().await;
    }

    /// Each new checkpoint tells what the commits tell.
    async fn learn_checkpoints(&mut self) {
        let tables: BTreeMap<Uuid, Arc<Table>> = self
            .owners
            .iter()
            .flat_map(|owner| owner.tables.values())
            .map(|history| (history.table.uuid, history.table.clone()))
            .collect();
        for table in tables.into_values() {
            let Some((version, told)) = self.bucket.learn_checkpoint(&table).await else { continue };
            self.trace.push(format!("{} has a checkpoint of version {version}", table.name));
            if let Err(fault) = told {
                self.found.get_or_insert(violated("checkpoints_tell_what_commits_tell", fault));
            }
        }
    }

    /// A volume that was recovered serves what was flushed.
    async fn adopt_recovered(&mut self) {
        for owner in self.owners.iter_mut().filter(|owner| !owner.serves) {
            if owner.epoch().is_none() || owner.engine.readiness() != Readiness::Ready {
                continue;
            }
            let hot = owner.engine.hot().snapshot();
            for table in owner.engine.catalog().tables.values() {
                if self.bucket.gone.contains(&table.uuid) {
                    let fault = format!("owner {} has {}, whose folder was deleted", owner.id, table.name);
                    self.found.get_or_insert(violated("dropped_tables_stay_gone", fault));
                }
                let version =
                    hot.tier(table.id).ok().and_then(|tier| self.bucket.version(table.uuid, tier.cold_version));
                let (mut at, schema) = version.map_or_else(
                    || (At { seq: Seq::ZERO, state: Arc::default() }, table.version.0),
                    |version| (version.truth.clone(), version.schema),
                );
                let alterations = self.alterations.entry(table.uuid).or_default();
                while alterations.len() + 1 < table.version.0 as usize {
                    alterations.push(Alteration::AsFlushed);
                }
                let since = alterations.iter().take(table.version.0 as usize - 1).skip(schema as usize - 1);
                at.state = Arc::new(since.fold((*at.state).clone(), |state, change| change.apply(&state)));
                let misfits = misfits(table, &at.state);
                if !misfits.is_empty() {
                    let fault =
                        format!("owner {} recovered {}, whose rows {misfits:?} do not fit it", owner.id, table.name);
                    self.found.get_or_insert(violated("rows_hold_to_their_schema", fault));
                }
                let history = TableHistory::begin(table.clone(), at.seq, at.state);
                owner.tables.insert(table.name.clone(), history);
            }
            owner.serves = true;
            self.trace.push(format!("owner {} is recovered", owner.id));
            // Beside the first owner alone, whose mirrors know of every folder.
            if self.other_lines == 1
                && let Err(fault) = self.bucket.no_folder_is_forgotten(&owner.engine).await
            {
                self.found.get_or_insert(violated("dropped_folders_go", fault));
            }
        }
    }

    /// The invariants, in their order.
    pub fn check(&self) -> Result<(), Violation> {
        if let Some(found) = &self.found {
            return Err(found.clone());
        }
        for (name, holds) in INVARIANTS {
            holds(self).map_err(|fault| violated(name, fault))?;
        }
        Ok(())
    }

    /// What a client has that goes away now.
    pub fn leave(&mut self, owner: usize) {
        let owner = &self.owners[owner];
        let (life, seq) = (owner.life(), owner.engine.hot().snapshot().last_seq().expect("a volume can be read"));
        let of = |history: &TableHistory| (history.table.uuid, values(&history.now.state));
        let tables = owner.tables.iter().map(|(name, history)| (name.clone(), of(history))).collect();
        self.client = Some(Client { life, seq, tables });
    }

    /// Whether nobody else has another history than that process.
    pub fn is_alone(&self, owner: usize) -> bool {
        self.owners.len() == 1 && self.owners[owner].serves
    }

    /// Tasks that a turn may go to: writers go together, when the program says so.
    pub fn waiting(&self) -> Vec<usize> {
        let is_free = |task: &Task<Kind, Ended>| task.waits_at() != "write.looked";
        (0..self.tasks.len()).filter(|at| is_free(&self.tasks[*at])).collect()
    }

    /// Writers of a process that wait for their commit.
    pub fn writers(&self, owner: u32) -> Vec<usize> {
        let waits = |task: &Task<Kind, Ended>| task.kind.owner == owner && task.waits_at() == "write.looked";
        (0..self.tasks.len()).filter(|at| waits(&self.tasks[*at])).collect()
    }

    /// Whether a task of that kind runs already.
    pub fn is_busy(&self, owner: u32, work: Work, about: &str) -> bool {
        self.tasks.iter().any(|task| task.kind.owner == owner && task.kind.work == work && task.kind.about == about)
    }
}

/// A violation.
pub fn violated(invariant: &'static str, fault: String) -> Violation {
    Violation { invariant, fault }
}

/// The sequence of the newest change of a row after `after`, as the change log tells it.
fn logged_seq(owner: &Owner, table: &Arc<Table>, row: RowId, after: Seq) -> Option<Seq> {
    let user = super::reference::user_of(row);
    let changes = owner.engine.hot().snapshot().changes(table, user.as_ref(), after, usize::MAX).ok()?;
    let is_of =
        |key: &[u8]| RowKey::from_bytes(table.kind, key).is_ok_and(|key| super::owner::row_id(table, &key) == row);
    changes.iter().rev().find(|change| is_of(&change.key)).map(|change| change.seq)
}
