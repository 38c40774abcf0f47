//! `system.manifest`: which cold files each table consists of.

use std::sync::Arc;

use kalamdb_engine::cold::{ColdFile, ColdSnapshot};
use kalamdb_engine::schema::{SqlType, Table};
use kalamdb_engine::value::Row;
use serde_json::{Value as Json, json};

use super::view::text;
use super::{Relations, View};
use crate::SqlError;

const TEXT: SqlType = SqlType::Text;

/// A row for each visible table that was flushed.
pub(crate) async fn manifest(relations: &Relations) -> Result<View, SqlError> {
    let mut rows: Vec<Row> = Vec::new();
    for table in relations.visible_tables() {
        if let Some(cold) = relations.snapshot.cold_version(table).await? {
            rows.push(row(relations, table, &cold));
        }
    }
    Ok(View::new(&[
        ("namespace_id", TEXT),
        ("table_name", TEXT),
        ("manifest_json", TEXT),
        ("etag", TEXT),
        ("sync_state", TEXT),
    ])
    .with(rows))
}

fn row(relations: &Relations, table: &Table, cold: &ColdSnapshot) -> Row {
    let has_unflushed = relations.engine.unflushed().iter().any(|unflushed| unflushed.table.id == table.id);
    vec![
        text(&table.name.namespace),
        text(&table.name.name),
        text(manifest_json(table, cold).to_string()),
        text(format!("{}-{}", table.uuid, cold.version)),
        text(if has_unflushed { "pending_write" } else { "in_sync" }),
    ]
}

/// Paths are those of the objects, below the configured prefix.
fn manifest_json(table: &Table, cold: &ColdSnapshot) -> Json {
    let segment = |file: &Arc<ColdFile>| {
        json!({
            "path": format!("tables/{}/{}", table.uuid, file.path),
            "size_bytes": file.size,
            "row_count": file.stats.rows,
            "deleted_rows": file.deleted_rows(),
            "created_at": file.modified,
        })
    };
    let segments: Vec<Json> = cold.files.iter().map(segment).collect();
    json!({"table_id": table.name.to_string(), "version": cold.version, "segments": segments})
}
