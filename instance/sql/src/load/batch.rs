//! One batch of a load: rows completed, judged one by one, and written as one commit.

use std::collections::HashMap;
use std::sync::Arc;

use kalamdb_engine::Engine;
use kalamdb_engine::engine::{LookUp, RowWrite};
use kalamdb_engine::hot::Key;
use kalamdb_engine::schema::Table;
use kalamdb_engine::value::Row;

use super::{Given, GivenRow, OnTaken, Rejected};
use crate::authorize::{self, Access};
use crate::database::Statements;
use crate::execute::insert::NewRow;
use crate::execute::{Scope, now, write};
use crate::relations::Relations;
use crate::{ErrorCode, SqlError};

/// What became of the rows of a batch.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) skipped: u64,
    pub(super) rejected: Vec<Rejected>,
}

/// A row that fits the table, before its key is looked up.
struct Candidate<'a> {
    line: u64,
    given: &'a GivenRow,
    key: Key,
    new: NewRow,
}

impl Statements {
    /// Writes the batch; over again where others were faster.
    pub(super) async fn load_batch(
        &self,
        table: &Arc<Table>,
        batch: &[Given],
        on_taken: OnTaken,
        scope: &Scope<'_>,
    ) -> Result<Ended, SqlError> {
        let once = || async move {
            let relations = self.relations(scope);
            check_table(table, &relations)?;
            let mut ended = Ended::default();
            let candidates = self.candidates(table, batch, &mut ended);
            let look_ups = look_up(&relations, table, &candidates).await?;
            let writes = writes(&relations, table, candidates.into_iter().zip(look_ups), on_taken, &mut ended);
            self.commit(writes, scope).await?;
            ended.rejected.sort_by_key(|rejected| rejected.line);
            Ok(ended)
        };
        self.starting_over("others changed the same rows", once).await
    }

    fn candidates<'a>(&self, table: &Table, batch: &'a [Given], ended: &mut Ended) -> Vec<Candidate<'a>> {
        let places: Vec<usize> = (0..table.columns.len()).collect();
        let begun = now();
        let mut candidates = Vec::with_capacity(batch.len());
        for Given { line, row } in batch {
            let candidate = row.as_ref().map_err(SqlError::clone).and_then(|given| {
                let new = self.complete(table, &places, given.clone(), begun)?;
                Ok(Candidate { line: *line, given, key: Engine::key(table, &new.row)?, new })
            });
            match candidate {
                Ok(candidate) => candidates.push(candidate),
                Err(error) => ended.rejected.push(Rejected { line: *line, error }),
            }
        }
        candidates
    }
}

/// The rows were read for this version of the table, by somebody who may write it.
fn check_table(table: &Table, relations: &Relations) -> Result<(), SqlError> {
    authorize::check_table(&relations.catalog, &table.name, &relations.identity, Access::Write)?;
    match relations.catalog.tables.get(&table.name) {
        Some(now) if now.id == table.id && now.version == table.version => Ok(()),
        _ => {
            let text = format!("table '{}' was altered or dropped while rows were loaded into it", table.name);
            Err(SqlError::new(ErrorCode::NotFound, text))
        }
    }
}

async fn look_up(
    relations: &Relations,
    table: &Arc<Table>,
    candidates: &[Candidate<'_>],
) -> Result<Vec<LookUp>, SqlError> {
    let is_asked = |candidate: &&Candidate<'_>| !candidate.new.has_generated_key;
    let asked: Vec<Key> = candidates.iter().filter(is_asked).map(|candidate| candidate.key.clone()).collect();
    let mut found = write::look_up(relations, table, &asked).await?.into_iter();
    let answer = |candidate: &Candidate<'_>| {
        if candidate.new.has_generated_key { LookUp::Generated } else { found.next().unwrap_or(LookUp::Generated) }
    };
    Ok(candidates.iter().map(answer).collect())
}

fn writes<'a>(
    relations: &Relations,
    table: &Arc<Table>,
    found: impl Iterator<Item = (Candidate<'a>, LookUp)>,
    on_taken: OnTaken,
    ended: &mut Ended,
) -> Vec<RowWrite> {
    let user = write::owner(table, relations);
    let mut writes: Vec<RowWrite> = Vec::new();
    let mut known: HashMap<Key, usize> = HashMap::new();
    for (candidate, look_up) in found {
        let Candidate { line, given, key, new } = candidate;
        let earlier = if table.primary_key.is_empty() { None } else { known.get(&key).copied() };
        let there =
            earlier.and_then(|at| writes[at].new.clone()).or_else(|| look_up.found().map(|found| found.row.clone()));
        let row = match (there, on_taken) {
            (None, _) => {
                ended.inserted += 1;
                new.row
            }
            (Some(_), OnTaken::Reject) => {
                ended.rejected.push(Rejected { line, error: write::duplicate_key(table, &new.row) });
                continue;
            }
            (Some(_), OnTaken::Skip) => {
                ended.skipped += 1;
                continue;
            }
            (Some(there), OnTaken::Update) => {
                ended.updated += 1;
                over(there, given)
            }
        };
        match earlier {
            Some(at) => writes[at].new = Some(row),
            None => {
                known.insert(key.clone(), writes.len());
                let table = Arc::clone(table);
                writes.push(RowWrite { table, user: user.clone(), key, look_up, new: Some(row) });
            }
        }
    }
    writes
}

/// The row with the columns that were given.
fn over(mut there: Row, given: &GivenRow) -> Row {
    for (cell, value) in there.iter_mut().zip(given) {
        if let Some(value) = value {
            cell.clone_from(value);
        }
    }
    there
}
