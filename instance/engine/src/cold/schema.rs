//! A table's shape in the cold tier: the Arrow schema of its files and the protocol and metadata of its Delta log.
//!
//! Files name their columns by physical names; the Delta metadata maps them to the names of SQL (column mapping by name). An
//! integer that is widened keeps its physical name, and old files their narrower type, which readers cast: the table feature
//! `typeWidening` would say so, but delta-rs refuses every table that has it. System columns stand beside the table's own: `_user_id` first in per-user tables, then `_seq`, `_updated`
//! and `_deleted` at the end.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use serde_json::{Value as Json, json};

use crate::config::LONGEST_RETENTION;
use crate::schema::{DELETED, SEQ, SqlType, Table, UPDATED, USER_ID};

/// Column ids of the system columns, far above those that a table ever gives out.
const SYSTEM_COLUMN_IDS: [(&str, i32); 4] =
    [(USER_ID, 1_000_000_001), (SEQ, 1_000_000_002), (UPDATED, 1_000_000_003), (DELETED, 1_000_000_004)];
/// Commits between two checkpoints of a Delta log.
pub const CHECKPOINT_INTERVAL: i64 = 10;
/// Metadata key: the schema version that the Delta metadata describes.
pub const SCHEMA_VERSION_KEY: &str = "kalamdb.schemaVersion";

/// One column of a table's files.
#[derive(Debug, Clone, PartialEq)]
pub struct FileColumn {
    /// Its name in SQL.
    pub name: String,
    /// Its name in Parquet.
    pub physical_name: String,
    /// Its id, in the Delta metadata and as Parquet's field id.
    pub id: i32,
    /// Its type in files written now.
    pub sql_type: SqlType,
    /// Whether files may lack it or hold NULL.
    pub nullable: bool,
}

/// The columns of a table's files, in their order.
pub fn file_columns(table: &Table) -> Vec<FileColumn> {
    let user = table.kind.is_per_user().then(|| system_column(USER_ID, SqlType::Text));
    let own = table.columns.iter().map(|column| FileColumn {
        name: column.name.clone(),
        physical_name: column.physical_name.clone(),
        id: i32::try_from(column.id.0).expect("a table has fewer than a billion columns"),
        sql_type: column.stored_type,
        nullable: column.nullable || column.optional_in_files,
    });
    let system = [
        system_column(SEQ, SqlType::BigInt),
        system_column(UPDATED, SqlType::Timestamp),
        system_column(DELETED, SqlType::Boolean),
    ];
    user.into_iter().chain(own).chain(system).collect()
}

/// The Arrow schema of a table's files: physical names, with the field ids that Parquet carries.
pub fn file_schema(table: &Table) -> SchemaRef {
    let field = |column: FileColumn| {
        Field::new(&column.physical_name, column.sql_type.arrow(), column.nullable).with_metadata(HashMap::from([(
            parquet::arrow::PARQUET_FIELD_ID_META_KEY.to_owned(),
            column.id.to_string(),
        )]))
    };
    Arc::new(Schema::new(file_columns(table).into_iter().map(field).collect::<Vec<_>>()))
}

/// Physical names of the columns that look-ups ask for by equality: user and key, in key order.
pub fn looked_up_columns(table: &Table) -> Vec<String> {
    let user = table.kind.is_per_user().then(|| USER_ID.to_owned());
    let key = table.key_positions().into_iter().map(|place| table.columns[place].physical_name.clone());
    user.into_iter().chain(key).collect()
}

/// The `protocol` action: what a reader must understand to see the right rows.
pub fn protocol() -> Json {
    json!({
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["columnMapping", "deletionVectors"],
        "writerFeatures": ["columnMapping", "deletionVectors"],
    })
}

/// The `metaData` action of the table's present schema.
pub fn metadata(table: &Table) -> Json {
    let columns = file_columns(table);
    let highest = columns.iter().map(|column| column.id).max().unwrap_or_default();
    let schema = json!({ "type": "struct", "fields": columns.iter().map(delta_field).collect::<Vec<_>>() });
    json!({
        "id": table.uuid.to_string(),
        "name": table.name.to_string(),
        "format": { "provider": "parquet", "options": {} },
        "schemaString": schema.to_string(),
        "partitionColumns": [],
        "createdTime": table.created_at,
        "configuration": {
            "delta.columnMapping.mode": "name",
            "delta.columnMapping.maxColumnId": highest.to_string(),
            "delta.enableDeletionVectors": "true",
            "delta.checkpointInterval": CHECKPOINT_INTERVAL.to_string(),
            // Checkpoints keep tombstones for so long, and vacuum asks them.
            "delta.deletedFileRetentionDuration": format!("interval {} seconds", LONGEST_RETENTION.as_secs()),
            (SCHEMA_VERSION_KEY): table.version.0.to_string(),
        },
    })
}

fn delta_field(column: &FileColumn) -> Json {
    json!({
        "name": column.name,
        "type": delta_type(column.sql_type),
        "nullable": column.nullable,
        "metadata": {
            "delta.columnMapping.id": column.id,
            "delta.columnMapping.physicalName": column.physical_name,
        },
    })
}

fn delta_type(sql_type: SqlType) -> Json {
    let name = match sql_type {
        SqlType::Boolean => "boolean",
        SqlType::SmallInt => "short",
        SqlType::Int => "integer",
        SqlType::BigInt | SqlType::Time => "long",
        SqlType::Float => "float",
        SqlType::Double => "double",
        SqlType::Decimal { precision, scale } => return json!(format!("decimal({precision},{scale})")),
        SqlType::Text | SqlType::Json | SqlType::Uuid | SqlType::File => "string",
        SqlType::Bytes => "binary",
        SqlType::Timestamp | SqlType::DateTime => "timestamp",
        SqlType::Date => "date",
        SqlType::Embedding { .. } => return json!({"type": "array", "elementType": "float", "containsNull": true}),
    };
    json!(name)
}

fn system_column(name: &'static str, sql_type: SqlType) -> FileColumn {
    let id = SYSTEM_COLUMN_IDS.iter().find(|(known, _)| *known == name).expect("every system column has an id").1;
    FileColumn { name: name.into(), physical_name: name.into(), id, sql_type, nullable: false }
}
