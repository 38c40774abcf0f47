//! The moves of a program, carried out.

use std::sync::Arc;

use super::owner::{Owner, Volume};
use super::program::Move;
use super::reference::row_ids;
use super::scheduler::{self, Task};
use super::tasks::{self, Ended, HELD, Kind, Wish, Work};
use super::wire::Fate;
use super::world::{Saved, Violation, World, violated};
use crate::flush::JobKind;
use crate::schema::Table;

/// Processes that may live at once.
const OWNERS: usize = 3;
/// Writers of one process that may wait at once.
const WRITERS: usize = 4;
/// Turns in which all tasks must come to their end, once nothing new is begun.
const LAST_TURNS: usize = 2000;

pub(super) type Done = Result<(), Violation>;

impl World {
    /// Carries a program out. After every move the invariants hold; at its end every task has ended, and everything is read once more.
    pub async fn run(&mut self, moves: &[Move]) -> Done {
        for next in moves {
            let steps = self.trace.len();
            self.carry_out(next).await?;
            if self.trace.len() > steps {
                self.observe().await;
                self.check()?;
            }
        }
        self.finish().await
    }

    async fn carry_out(&mut self, next: &Move) -> Done {
        match next {
            Move::Write(owner, rows) => self.write(*owner, rows, false).await,
            Move::Transact(owner, rows) => self.write(*owner, rows, true).await,
            Move::Group(owner, writers) => self.commit_group(*owner, usize::from(*writers)).await,
            Move::Flush(owner, table) => self.job(JobKind::Flush, *owner, *table).await,
            Move::Compact(owner, table) => self.job(JobKind::Compact, *owner, *table).await,
            Move::Vacuum(owner, table) => self.vacuum(*owner, *table).await,
            Move::VacuumDropped(owner) => self.vacuum_dropped(*owner).await,
            Move::Read(owner) => self.read(*owner, false).await,
            Move::Hold(owner) => self.read(*owner, true).await,
            Move::Turn(task, fate) => self.turn(usize::from(*task), *fate).await,
            Move::Run(task, points) => self.run_on(usize::from(*task), *points).await,
            Move::Arrive(number) => {
                let late = self.bucket.sea.late.lock().len();
                if late > 0 {
                    self.trace.push("a late commit arrives".into());
                    self.bucket.sea.clone().arrive(usize::from(*number) % late).await;
                }
                Ok(())
            }
            Move::Restart(owner) => self.restart(usize::from(*owner) % self.owners.len()).await,
            Move::StartEmpty => self.start_empty().await,
            Move::Save(owner) => {
                if let Some(owner) = self.serving(*owner) {
                    let owner = &self.owners[owner];
                    self.trace.push(format!("the volume of owner {} is copied", owner.id));
                    self.saved = Some(Saved { volume: owner.volume(), tables: owner.tables.clone() });
                }
                Ok(())
            }
            Move::Restore => self.restore().await,
            Move::Leave(owner) => {
                if let Some(owner) = self.serving(*owner) {
                    self.trace.push(format!("a client of owner {} goes away", self.owners[owner].id));
                    self.leave(owner);
                }
                Ok(())
            }
            Move::Trim(owner, table) => self.trim(*owner, *table).await,
            Move::AddColumn(table) => self.add_column(*table).await,
            Move::DropColumn(table) => self.change_column(*table, false).await,
            Move::RenameColumn(table) => self.change_column(*table, true).await,
            Move::Modify(table, column, to) => self.modify(*table, *column, *to).await,
            Move::SetNullable(table, column, nullable) => self.set_nullable(*table, *column, *nullable).await,
            Move::Recreate(table) => self.recreate(*table).await,
            Move::Drop(table) => self.drop_table(*table).await,
            Move::Make(kind) => self.make_table(*kind).await,
            Move::MakeStream => self.make_stream().await,
            Move::DropStream => self.drop_stream().await,
            Move::DropExpired(owner) => self.drop_expired(*owner).await,
            Move::Wait(until) => self.wait(*until),
            Move::Age(span) => self.age(*span),
            Move::Sweep(span, table) => self.sweep(*span, *table).await,
        }
    }

    pub(super) fn serving(&self, number: u8) -> Option<usize> {
        let serving: Vec<_> = (0..self.owners.len()).filter(|at| self.owners[*at].serves).collect();
        (!serving.is_empty()).then(|| serving[usize::from(number) % serving.len()])
    }

    /// A process that may make Delta commits, and one of its tables.
    pub(super) fn committing(&self, owner: u8, table: u8) -> Option<(usize, Arc<Table>)> {
        let owner = self.serving(owner).filter(|at| self.owners[*at].epoch().is_some())?;
        let cold = self.owners[owner].served().filter(|history| history.ttl().is_none());
        let tables: Vec<_> = cold.map(|history| history.table.clone()).collect();
        (!tables.is_empty()).then(|| (owner, tables[usize::from(table) % tables.len()].clone()))
    }

    async fn write(&mut self, owner: u8, rows: &[(u8, u8, bool)], transaction: bool) -> Done {
        let Some(owner) = self.serving(owner).map(|at| &self.owners[at]) else { return Ok(()) };
        // Transactions are not for stream tables.
        let written = owner.served().filter(|history| !transaction || history.ttl().is_none());
        let tables: Vec<_> = written.map(|history| history.table.clone()).collect();
        if tables.is_empty() || self.writers(owner.id).len() >= WRITERS {
            return Ok(());
        }
        let mut wishes: Vec<Wish> = Vec::new();
        for (table, row, deletes) in rows {
            let table = tables[usize::from(*table) % tables.len()].clone();
            let all = row_ids(&table);
            let row = all[usize::from(*row) % all.len()];
            if !wishes.iter().any(|wish| wish.table.id == table.id && wish.row == row) {
                wishes.push(Wish { table, row, deletes: *deletes });
            }
        }
        let name =
            |wish: &Wish| format!("{} {:?}{}", wish.table.name, wish.row, if wish.deletes { " away" } else { "" });
        let about = wishes.iter().map(name).collect::<Vec<_>>().join(", ");
        let (id, engine) = (owner.id, owner.engine.clone());
        match transaction {
            true => self.begin(id, Work::Transaction, about, tasks::transact(engine, wishes)).await,
            false => self.begin(id, Work::Write, about, tasks::write(engine, wishes)).await,
        }
    }

    pub(super) async fn begin(
        &mut self,
        owner: u32,
        work: Work,
        about: String,
        future: impl Future<Output = Ended> + 'static,
    ) -> Done {
        let kind = Kind { owner, work, about, stale_since: None };
        let mut task = Task::new(kind, future);
        let ended = task.begin().await;
        let reached = if ended.is_some() { "ends" } else { task.waits_at() };
        self.trace.push(format!("owner {owner}: {work:?} {} begins, up to {reached}", task.kind.about));
        match ended {
            Some(ended) => self.learn_of(&task.kind, ended),
            None => {
                self.tasks.push(task);
                Ok(())
            }
        }
    }

    async fn commit_group(&mut self, owner: u8, most: usize) -> Done {
        let Some(owner) = self.serving(owner).map(|at| &self.owners[at]) else { return Ok(()) };
        let (id, committer) = (owner.id, owner.engine.committer().clone());
        let mut chosen = self.writers(id);
        chosen.truncate(most);
        let mut group: Vec<_> = chosen.into_iter().rev().map(|at| self.tasks.remove(at)).collect();
        group.reverse();
        let ended = scheduler::go_on_together(&committer, &mut group).await;
        let (mut acknowledged, mut told) = (Vec::new(), Vec::new());
        for (task, ended) in group.into_iter().zip(ended) {
            told.push(format!("{} {}", task.kind.about, ended.as_ref().map_or(task.waits_at().into(), outcome)));
            match ended {
                Some(ended) => acknowledged.push((task.kind, ended)),
                None => self.tasks.push(task),
            }
        }
        if !told.is_empty() {
            self.trace.push(format!("owner {id}: commits {}", told.join("; ")));
        }
        acknowledged.into_iter().try_for_each(|(kind, ended)| self.learn_of(&kind, ended))
    }

    async fn job(&mut self, kind: JobKind, owner: u8, table: u8) -> Done {
        let Some((owner, table)) = self.committing(owner, table) else { return Ok(()) };
        let (owner, name) = (&self.owners[owner], table.name.clone());
        let (id, engine) = (owner.id, owner.engine.clone());
        let work = if kind == JobKind::Flush { Work::Flush } else { Work::Compact };
        if self.is_busy(id, work, &name.to_string()) {
            return Ok(());
        }
        let job = format!("{}-{}", kind.as_str(), self.number());
        self.begin(id, work, name.to_string(), tasks::job(engine, kind, job, name)).await
    }

    pub(super) async fn vacuum(&mut self, owner: u8, table: u8) -> Done {
        let Some((owner, table)) = self.committing(owner, table) else { return Ok(()) };
        let (id, engine, about) = (self.owners[owner].id, self.owners[owner].engine.clone(), table.name.to_string());
        self.begin(id, Work::Vacuum, about, tasks::vacuum(engine, table)).await
    }

    pub(super) async fn vacuum_dropped(&mut self, owner: u8) -> Done {
        let Some(owner) = self.serving(owner).map(|at| &self.owners[at]) else { return Ok(()) };
        let (id, engine) = (owner.id, owner.engine.clone());
        if owner.epoch().is_none() {
            return Ok(());
        }
        let retention = engine.config().vacuum.retention;
        self.begin(id, Work::Vacuum, "of dropped tables".into(), tasks::vacuum_dropped(engine, retention)).await
    }

    async fn read(&mut self, owner: u8, holds: bool) -> Done {
        let Some(owner) = self.serving(owner).map(|at| &self.owners[at]) else { return Ok(()) };
        let (_, snapshot) = owner.engine.read();
        let expected = owner.expected(&snapshot);
        match holds {
            true => self.begin(owner.id, Work::Read, HELD.into(), tasks::hold(snapshot, expected)).await,
            false => self.begin(owner.id, Work::Read, "of everything".into(), tasks::read(snapshot, expected)).await,
        }
    }

    async fn turn(&mut self, number: usize, fate: Fate) -> Done {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return Ok(());
        }
        self.let_go(waiting[number % waiting.len()], fate).await
    }

    async fn run_on(&mut self, number: usize, points: u8) -> Done {
        let (waiting, tasks) = (self.waiting(), self.tasks.len());
        let Some(at) = number.checked_rem(waiting.len()).map(|number| waiting[number]) else { return Ok(()) };
        for _ in 0..points {
            self.let_go(at, Fate::Lands).await?;
            self.observe().await;
            self.check()?;
            if self.tasks.len() < tasks || self.tasks[at].waits_at() == "lock" {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn let_go(&mut self, at: usize, fate: Fate) -> Done {
        let mut task = self.tasks.remove(at);
        let from = task.waits_at();
        let all = || self.owners.iter().chain(&self.stale);
        let sent = all().find(|owner| owner.id == task.kind.owner).map(|owner| owner.sent.clone());
        if let Some(owner) = all().find(|owner| owner.id == task.kind.owner && from == "put") {
            *owner.fate.lock() = fate;
        }
        let ended = task.go_on().await;
        let to = ended.as_ref().map_or(task.waits_at().into(), outcome);
        let fate = if from == "put" { format!(" ({fate:?})") } else { String::new() };
        let Kind { owner, work, about, stale_since } = task.kind.clone();
        self.trace.push(format!("owner {owner}: {work:?} {about} goes on from {from}{fate} to {to}"));
        let sent = sent.map(|sent| sent.load(std::sync::atomic::Ordering::SeqCst));
        if stale_since.is_some_and(|before| sent.is_none_or(|sent| sent > before)) {
            // Its commit is away; of what it does after that its volume knows nothing any more.
            self.bury();
            return Ok(());
        }
        match ended {
            Some(ended) => self.learn_of(&task.kind, ended)?,
            None => self.tasks.insert(at, task),
        }
        self.bury();
        Ok(())
    }

    /// Processes without volume and without anything on its way are gone.
    fn bury(&mut self) {
        let tasks = &self.tasks;
        self.stale.retain(|owner| tasks.iter().any(|task| task.kind.owner == owner.id));
    }

    async fn restart(&mut self, at: usize) -> Done {
        let old = self.owners.remove(at);
        let (volume, sent) = (old.volume(), old.sent.load(std::sync::atomic::Ordering::SeqCst));
        let is_stored = ["flush.begun", "flush.written", "compaction.begun", "fence.stored", "put"];
        self.tasks.retain_mut(|task| {
            if task.kind.owner != old.id {
                return true;
            }
            match task.kind.work {
                Work::Read => true,
                Work::Vacuum => ["vacuum.judged", "vacuum.dropped_judged"].contains(&task.waits_at()),
                _ => {
                    task.kind.stale_since = Some(sent);
                    is_stored.contains(&task.waits_at())
                }
            }
        });
        let id = self.number();
        self.trace.push(format!("owner {} is killed or stalls; owner {id} has its volume", old.id));
        let mut new = Owner::open(id, old.line, volume, self.bucket.sea.clone(), self.clock.clone()).await;
        (new.tables, new.serves) = (old.tables.clone(), old.serves);
        self.stale.push(old);
        self.bury();
        self.started(new).await
    }

    async fn started(&mut self, owner: Owner) -> Done {
        let (id, engine) = (owner.id, owner.engine.clone());
        self.owners.push(owner);
        self.begin(id, Work::Start, "of a process".into(), tasks::start(engine)).await
    }

    async fn start_empty(&mut self) -> Done {
        if self.owners.len() >= OWNERS {
            return Ok(());
        }
        self.other_lines += 1;
        let (id, line) = (self.number(), self.number());
        self.trace.push(format!("owner {id} starts with an empty volume"));
        let owner = Owner::open(id, line, Volume::empty(), self.bucket.sea.clone(), self.clock.clone()).await;
        self.started(owner).await
    }

    async fn restore(&mut self) -> Done {
        if self.owners.len() >= OWNERS {
            return Ok(());
        }
        let Some(Saved { volume, tables }) = self.saved.take() else { return Ok(()) };
        self.other_lines += 1;
        let (id, line) = (self.number(), self.number());
        self.trace.push(format!("owner {id} starts with the copied volume"));
        let mut owner = Owner::open(id, line, volume, self.bucket.sea.clone(), self.clock.clone()).await;
        (owner.tables, owner.serves) = (tables, true);
        self.started(owner).await
    }

    async fn trim(&mut self, owner: u8, table: u8) -> Done {
        let Some((owner, table)) = self.committing(owner, table) else { return Ok(()) };
        let history = &self.owners[owner].tables[&table.name];
        let Some(floor) = history.changes.get(history.changes.len() / 2).map(|change| change.seq) else {
            return Ok(());
        };
        self.trace
            .push(format!("owner {}: the older half of the changes of {} goes", self.owners[owner].id, table.name));
        let committer = self.owners[owner].engine.committer().clone();
        let trimmed = tokio::task::spawn_blocking(move || committer.trim(table.id, floor)).await;
        trimmed.expect("it does not panic").map_err(|error| violated("jobs_fail_only_with_cause", error.to_string()))
    }

    /// Every task comes to its end, and everything is read.
    async fn finish(&mut self) -> Done {
        for turn in 0.. {
            if self.tasks.is_empty() {
                break;
            }
            if turn == LAST_TURNS {
                let stuck: Vec<_> =
                    self.tasks.iter().map(|task| format!("{:?} at {}", task.kind, task.waits_at())).collect();
                return Err(violated("tasks_end", stuck.join("; ")));
            }
            // In turns, for one may wait for the lock of another.
            self.let_go(turn % self.tasks.len(), Fate::Lands).await?;
            self.observe().await;
            self.check()?;
        }
        for owner in self.owners.iter().filter(|owner| owner.serves) {
            let (_, snapshot) = owner.engine.read();
            let faults = tasks::faults_of(&snapshot, &owner.expected(&snapshot)).await;
            if !faults.is_empty() {
                return Err(violated("reads_equal_acknowledged", format!("owner {}: {}", owner.id, faults.join("; "))));
            }
        }
        self.leave_no_folder().await
    }
}

fn outcome(ended: &Ended) -> String {
    match ended {
        Ended::Started | Ended::Read(_) | Ended::Wrote(_, Ok(_)) | Ended::Altered(_, _, Ok(())) => "its end".into(),
        Ended::Altered(_, _, Err(error)) => format!("its end: {}", without_ids(&error.to_string())),
        Ended::VacuumedDropped(Ok(gone)) => format!("its end: {} folders are gone", gone.len()),
        Ended::VacuumedDropped(Err(error)) => format!("its end: {}", without_ids(&error.to_string())),
        Ended::Wrote(_, Err(error)) => format!("its end: {}", without_ids(&error.to_string())),
        Ended::Vacuumed(vacuumed) => format!("its end: {}", without_ids(&format!("{vacuumed:?}"))),
        Ended::Job(job) => {
            format!("its end: {:?} {}", job.state, without_ids(job.message.as_deref().unwrap_or_default()))
        }
    }
}

/// Ids are drawn at random: without them the same program tells the same.
pub(super) fn without_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && uuid::Uuid::parse_str(word).is_ok();
    let mut told = String::new();
    for word in text.split_inclusive(|letter: char| !letter.is_ascii_hexdigit() && letter != '-') {
        let end = word.len().min(36);
        match word.is_char_boundary(end) && is_id(&word[..end]) {
            true => told.extend(["…", &word[end..]]),
            false => told.push_str(word),
        }
    }
    told
}
