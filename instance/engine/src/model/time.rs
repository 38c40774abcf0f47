//! Moves of time: rows of stream tables expire, and what was removed may go once enough time has passed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::moves::Done;
use super::program::{Span, Until};
use super::tables::fresh;
use super::tasks::{HELD, Work};
use super::wire::Fate;
use super::world::{World, violated};
use crate::schema::{TableKind, TableName};

/// What was removed stays for an hour here.
const WEEK: Duration = Duration::from_secs(8 * 24 * 3600);
/// Entries of a log that a checkpoint has replaced stay for 30 days.
const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);
/// The only stream table there is at a time.
const STREAM: &str = "z";
/// How long rows of the stream table are seen.
const TTL_SECONDS: u32 = 1;
/// How long before a row expires "just before" is: readings of the clock take a millisecond each.
const JUST_BEFORE: i64 = 8_000;

impl World {
    /// A stream table is made, unless there is one.
    pub async fn make_stream(&mut self) -> Done {
        let Some(engine) = self.alone() else { return Ok(()) };
        let mut table = fresh(TableName::new("default", STREAM), TableKind::Stream);
        table.ttl_seconds = Some(TTL_SECONDS);
        if engine.catalog().tables.contains_key(&table.name) {
            return Ok(());
        }
        self.trace.push("a stream table is made".into());
        self.make(&engine, table).await
    }

    /// The stream table goes, with whatever is on its way to it.
    pub async fn drop_stream(&mut self) -> Done {
        let Some(engine) = self.alone() else { return Ok(()) };
        let Some(table) = engine.catalog().tables.get(&TableName::new("default", STREAM)).cloned() else {
            return Ok(());
        };
        self.trace.push("the stream table is dropped".into());
        self.drop_it(&engine, &table).await
    }

    /// Time goes by: up to where the next row expires.
    pub fn wait(&mut self, until: Until) -> Done {
        let now = self.clock.next();
        let histories = self.owners.iter().flat_map(|owner| owner.tables.values());
        let expiries = histories.flat_map(|history| history.expiries().map(|(_, expires)| expires).collect::<Vec<_>>());
        let Some(next) = expiries.filter(|expires| *expires > now).min() else { return Ok(()) };
        let micros = match until {
            Until::JustBefore => (next - now - JUST_BEFORE).max(0),
            Until::Expiry => next - now,
            Until::Half => (next - now) / 2,
        };
        self.trace.push(format!("time goes by: {until:?}"));
        self.clock.advance(micros);
        Ok(())
    }

    /// What has expired is dropped from the stream tables of a process: nothing stays that is older than their TTL and a bucket.
    pub async fn drop_expired(&mut self, owner: u8) -> Done {
        let Some(owner) = self.serving(owner).map(|at| &self.owners[at]) else { return Ok(()) };
        for history in owner.served() {
            let Some(ttl) = history.ttl() else { continue };
            let (committer, table) = (owner.engine.committer().clone(), history.table.clone());
            let before = owner.now().moment().now;
            let dropped = tokio::task::spawn_blocking(move || committer.drop_expired(&table)).await;
            let dropped = dropped.expect("it does not panic");
            dropped.map_err(|error| violated("jobs_fail_only_with_cause", error.to_string()))?;
            let stored = owner.stream_versions(&owner.now(), &history.table);
            let stored = stored.map_err(|fault| violated("expired_rows_go", fault))?;
            if let Some((row, updated)) = stored.iter().find(|(_, updated)| before - updated > ttl + ttl / 8) {
                let fault = format!("{row:?} of {updated} is still there at {before}");
                return Err(violated("expired_rows_go", fault));
            }
            self.trace.push(format!("owner {} drops what has expired; {} rows stay", owner.id, stored.len()));
        }
        Ok(())
    }

    /// A week or a month passes for the only process, whose jobs stall for so long. Another that does is dead, and so is who reads and holds
    /// nothing; for a month nobody reads.
    pub fn age(&mut self, span: Span) -> Done {
        let Some(engine) = self.alone() else { return Ok(()) };
        self.trace.push(format!("time passes: a {span:?}"));
        let passed = if span == Span::Week { WEEK } else { MONTH };
        self.clock.advance(i64::try_from(passed.as_micros()).expect("a month is short"));
        let micros = u64::try_from(passed.as_micros()).expect("a month is short");
        self.bucket.sea.passed.fetch_add(micros, Ordering::SeqCst);
        let owner = self.owners[0].id;
        self.tasks.retain(|task| {
            let kind = &task.kind;
            kind.owner == owner && (kind.work != Work::Read || span == Span::Week && kind.about == HELD)
        });
        self.stale.clear();
        self.saved = None;
        self.bucket.sea.late.lock().clear();
        let served: BTreeSet<_> = engine.catalog().tables.values().map(|table| table.uuid).collect();
        self.bucket.age(&served);
        Ok(())
    }

    /// Time passes, and then the only process vacuums a table and what was dropped, with nobody between.
    pub async fn sweep(&mut self, span: Span, table: u8) -> Done {
        self.age(span)?;
        if self.alone().is_none() {
            return Ok(());
        }
        let before = self.tasks.len();
        self.vacuum(0, table).await?;
        self.vacuum_dropped(0).await?;
        while self.tasks.len() > before && self.tasks[before].waits_at() != "lock" {
            self.let_go(before, Fate::Lands).await?;
            self.observe().await;
            self.check()?;
        }
        Ok(())
    }
}
