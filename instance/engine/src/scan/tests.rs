//! The scan against a naive reader: hidden rows x filters x limits x TopK x split files x pushdown, over an altered table.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::util::pretty::pretty_format_batches;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use roaring::RoaringTreemap;

use super::cold::{self, Chosen, VisibleFile};
use super::columns::ScanColumns;
use crate::cold::file::{FilePlan, Layout, write_files};
use crate::cold::snapshot::ColdFile;
use crate::cold::{ColdTier, schema};
use crate::config::ObjectStoreConfig;
use crate::schema::testing::table;
use crate::schema::{Column, ColumnId, DefaultValue, FormerType, SchemaVersion, SqlType, Table, TableKind};
use crate::value::Value;

const FILES: i64 = 3;
const ROWS_PER_FILE: i64 = 640;
const LAYOUT: Layout = Layout { row_group_rows: 200, page_rows: 50 };

/// The table when its files were written, and after `c1` was widened, `c2` was renamed to `label` and `c4` was added.
fn tables() -> (Table, Table) {
    let old = table(TableKind::Shared, &[SqlType::Int, SqlType::Text, SqlType::BigInt], &[0]);
    let mut new = old.clone();
    new.columns[0].former.push(FormerType {
        until: SchemaVersion(2),
        sql_type: SqlType::Int,
        stored_type: SqlType::Int,
        physical_name: "c1".into(),
    });
    (new.columns[0].sql_type, new.columns[0].stored_type) = (SqlType::BigInt, SqlType::BigInt);
    new.columns[1].name = "label".into();
    new.columns.push(Column {
        default: Some(DefaultValue::Literal(Value::BigInt(8))),
        initial: Value::BigInt(7),
        since: SchemaVersion(2),
        ..Column::new(ColumnId(4), "c4", SqlType::BigInt)
    });
    (old, new)
}

/// The rows of one file, as the new table reads them. Files overlap in every column but `_seq`.
fn rows(file: i64, new: &Table) -> RecordBatch {
    let seqs = file * ROWS_PER_FILE..(file + 1) * ROWS_PER_FILE;
    let number = |seq: i64| (seq % ROWS_PER_FILE) * 2 + file;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(seqs.clone().map(number))),
        Arc::new(StringArray::from_iter_values(seqs.clone().map(|seq| format!("name {}", seq * 7919 % 97)))),
        Arc::new(Int64Array::from_iter(seqs.clone().map(|seq| (seq % 11 != 0).then_some(seq * 7919 % 1009)))),
        Arc::new(Int64Array::from_iter_values(seqs.clone().map(|_| 7))),
        Arc::new(Int64Array::from_iter_values(seqs.clone())),
        Arc::new(BooleanArray::from_iter(seqs.clone().map(|_| Some(false)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(seqs.map(|seq| seq * 1000)).with_timezone("UTC")),
    ];
    RecordBatch::try_new(new.sql_schema(), columns).unwrap()
}

/// The same rows in the shape of the files, which know neither `label` nor `c4`, and `c1` as INT.
fn file_rows(rows: &RecordBatch, old: &Table) -> RecordBatch {
    let places = [0, 1, 2, 4, 6, 5];
    let schema = schema::file_schema(old);
    let columns = places.iter().zip(schema.fields()).map(|(place, field)| cast(rows.column(*place), field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>().unwrap();
    RecordBatch::try_new(schema, columns).unwrap()
}

/// The cold half of a table's provider, over files whose hidden rows are given.
#[derive(Debug)]
struct ColdOnly {
    tier: Arc<ColdTier>,
    table: Table,
    files: Vec<(Arc<ColdFile>, RoaringTreemap)>,
}

#[async_trait]
impl TableProvider for ColdOnly {
    fn schema(&self) -> SchemaRef {
        self.table.sql_schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = ScanColumns::of(&self.table).unwrap();
        let files = cold::prune(state, &columns, filters, self.files.iter().map(|(file, _)| file.clone()).collect())?;
        let hidden = |file: &ColdFile| self.files.iter().find(|(known, _)| known.path == file.path).unwrap().1.clone();
        let files = files.into_iter().map(|file| VisibleFile { hidden: hidden(&file), file }).collect();
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema().fields().len()).collect());
        let limit = limit.filter(|_| filters.is_empty());
        let log = self.tier.log(self.table.uuid);
        let chosen = Chosen { files, considered: self.files.len() };
        cold::plan(state, self.tier.cache(), &log, &columns, chosen, projection, limit)
    }
}

/// The files of the old table, once written.
struct World {
    _folder: tempfile::TempDir,
    tier: Arc<ColdTier>,
    new: Table,
    files: Vec<Arc<ColdFile>>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStoreConfig::Local { path: folder.path().into() };
        let tier = ColdTier::open(&store, 8 << 20).unwrap();
        let (old, new) = tables();
        let mut files = Vec::new();
        for file in 0..FILES {
            let plan = FilePlan {
                schema: schema::file_schema(&old),
                looked_up: schema::looked_up_columns(&old),
                name_prefix: format!("part-{file}"),
                target_bytes: 1 << 30,
                layout: LAYOUT,
            };
            let batch = file_rows(&rows(file, &new), &old);
            let written = write_files(tier.store(), &tier.log(new.uuid), plan, [Ok(batch)].into_iter()).await.unwrap();
            let [written] = &written[..] else { panic!("one file was asked for") };
            files.push(Arc::new(ColdFile {
                path: written.name.as_str().into(),
                size: written.size,
                modified: 0,
                stats: Arc::new(written.stats.clone()),
                vector: None,
            }));
        }
        Self { _folder: folder, tier, new, files }
    }

    fn session(&self, partitions: usize, pushdown: bool, hidden: &[RoaringTreemap]) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(partitions)
            .with_batch_size(64)
            .with_repartition_file_min_size(1);
        let mut rules = PhysicalOptimizer::new().rules;
        rules.retain(|rule| pushdown || !rule.name().starts_with("FilterPushdown"));
        let state =
            SessionStateBuilder::new().with_config(config).with_default_features().with_physical_optimizer_rules(rules);
        let session = SessionContext::new_with_state(state.build());
        let files = self.files.iter().cloned().zip(hidden.iter().cloned()).collect();
        let provider = ColdOnly { tier: self.tier.clone(), table: self.new.clone(), files };
        session.register_table("t", Arc::new(provider)).unwrap();
        session
    }

    /// All rows that are not hidden, in memory.
    fn naive(&self, hidden: &[RoaringTreemap]) -> SessionContext {
        let visible = |(file, hidden): (i64, &RoaringTreemap)| {
            let keep = (0..ROWS_PER_FILE as u64).map(|row| Some(!hidden.contains(row))).collect();
            filter_record_batch(&rows(file, &self.new), &keep).unwrap()
        };
        let batches: Vec<_> = (0..).zip(hidden).map(visible).collect();
        let session = SessionContext::new();
        let table = MemTable::try_new(self.new.sql_schema(), vec![batches]).unwrap();
        session.register_table("t", Arc::new(table)).unwrap();
        session
    }
}

fn hidden_sets() -> Vec<(&'static str, Vec<RoaringTreemap>)> {
    let each = |hides: fn(u64) -> bool| {
        vec![(0..ROWS_PER_FILE as u64).filter(|row| hides(*row)).collect::<RoaringTreemap>(); 3]
    };
    vec![
        ("none", each(|_| false)),
        ("sparse", each(|row| row * 2654435761 % 31 == 0)),
        ("dense", each(|row| row * 2654435761 % 10 < 7)),
        ("whole row groups", each(|row| (200..400).contains(&row) || row == 599)),
        (
            "a whole file",
            vec![(0..ROWS_PER_FILE as u64).collect(), RoaringTreemap::new(), [0, 639].into_iter().collect()],
        ),
    ]
}

const FILTERS: [&str; 8] = [
    "",
    "WHERE c1 = 138",
    "WHERE c1 BETWEEN 300 AND 520",
    "WHERE c3 IS NULL AND c1 > 700",
    "WHERE c3 > 500 AND c1 < 400",
    "WHERE label = 'name 5'",
    "WHERE label LIKE 'name 1%' OR c1 < 50",
    "WHERE c4 = 7 AND _updated < TIMESTAMP '1970-01-01T00:00:00.7Z' AND NOT _deleted",
];

const SHAPES: [&str; 6] = [
    "SELECT * FROM t {} ORDER BY _seq",
    "SELECT label, c4, _seq FROM t {} ORDER BY c3 DESC NULLS LAST, _seq LIMIT 7",
    "SELECT c1, _updated FROM t {} ORDER BY c1, _seq LIMIT 40 OFFSET 5",
    "SELECT c1, c3 FROM t {} ORDER BY _seq DESC LIMIT 3",
    "SELECT count(*), count(c3), min(c1), max(c3), sum(c4), min(label) FROM t {}",
    "SELECT count(*) FROM (SELECT c3 FROM t {} LIMIT 130)",
];

async fn answer(session: &SessionContext, sql: &str) -> String {
    let frame = session.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pretty_format_batches(&[concat_batches(&schema, &batches).unwrap()]).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scan_answers_as_a_naive_reader_does() {
    let world = World::new().await;
    for (name, hidden) in hidden_sets() {
        let naive = world.naive(&hidden);
        let sessions = [(1, true), (1, false), (4, true), (4, false)]
            .map(|(partitions, pushdown)| ((partitions, pushdown), world.session(partitions, pushdown, &hidden)));
        for sql in SHAPES.iter().flat_map(|shape| FILTERS.map(|filter| shape.replace("{}", filter))) {
            let wanted = answer(&naive, &sql).await;
            for (how, session) in &sessions {
                assert_eq!(
                    answer(session, &sql).await,
                    wanted,
                    "{sql} with {name} hidden, partitions and pushdown {how:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_vector_that_is_off_by_one_is_caught() {
    let world = World::new().await;
    let (_, hidden) = hidden_sets().swap_remove(1);
    let shifted: Vec<RoaringTreemap> = hidden.iter().map(|rows| rows.iter().map(|row| row + 1).collect()).collect();
    let sql = "SELECT * FROM t ORDER BY _seq";
    assert_ne!(answer(&world.session(1, true, &shifted), sql).await, answer(&world.naive(&hidden), sql).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_reach_the_files_and_skip_what_they_can() {
    let world = World::new().await;
    let session = world.session(1, true, &vec![RoaringTreemap::new(); 3]);
    let plan = answer(
        &session,
        "EXPLAIN ANALYZE SELECT label FROM t WHERE c1 = 138 AND _updated < TIMESTAMP '1970-01-01T00:00:00.5Z'",
    )
    .await;
    assert!(plan.contains("pushdown_rows_pruned") && !plan.contains("FilterExec"), "{plan}");
    assert!(plan.contains("part-0") && !plan.contains("part-1"), "files that can't match are left out: {plan}");
    assert!(plan.contains("files_pruned_by_log=3 total → 1 matched"), "{plan}");
    for metric in
        ["row_groups_pruned_statistics", "row_groups_pruned_bloom_filter", "page_index_rows_pruned", "bytes_scanned"]
    {
        assert!(plan.contains(metric), "{metric}: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysed_plan_tells_of_files_that_were_not_even_opened() {
    let world = World::new().await;
    let (_, hidden) = hidden_sets().pop().unwrap();
    let whole = answer(&world.session(1, true, &hidden), "EXPLAIN ANALYZE SELECT label FROM t").await;
    for metric in
        ["files_pruned_by_log=3 total → 3 matched", "files_pruned_as_deleted=3 total → 2 matched", "rows_hidden=2"]
    {
        assert!(whole.contains(metric), "{metric}: {whole}");
    }
    let none = answer(&world.session(4, true, &hidden), "EXPLAIN ANALYZE SELECT label FROM t WHERE c1 > 100000").await;
    assert!(none.contains("files_pruned_by_log=3 total → 0 matched"), "{none}");
}
