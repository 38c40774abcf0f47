//! A row set as bytes: one bincode record, in which the rows are an Arrow IPC stream.

use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use kalamdb_engine::codec;
use serde::{Deserialize, Serialize};

use crate::execute::{ResultColumn, RowSet};
use crate::{ErrorCode, SqlError};

/// Nothing of it outlives the process, but the codec wants one.
const FORMAT: u8 = 1;

/// The encoded rows; cheap to clone.
#[derive(Clone)]
pub(super) struct EncodedRows(Arc<[u8]>);

#[derive(Serialize, Deserialize)]
struct Record {
    columns: Vec<Column>,
    /// The IPC stream; empty where there is no batch.
    rows: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Column {
    name: String,
    /// The JSON text.
    data_type: String,
    flags: Vec<String>,
}

impl EncodedRows {
    pub(super) fn of(rows: &RowSet) -> Result<Self, SqlError> {
        let column = |column: &ResultColumn| Column {
            name: column.name.clone(),
            data_type: column.data_type.to_string(),
            flags: column.flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        let mut bytes = Vec::new();
        if let Some(first) = rows.batches.first() {
            let schema: &Schema = &first.schema();
            let mut writer = StreamWriter::try_new(&mut bytes, schema).map_err(failed)?;
            rows.batches.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
            writer.finish().map_err(failed)?;
        }
        let record = Record { columns: rows.columns.iter().map(column).collect(), rows: bytes };
        Ok(Self(codec::encode(FORMAT, &record).into()))
    }

    pub(super) fn decode(&self) -> Result<RowSet, SqlError> {
        let record: Record = codec::decode(FORMAT, &self.0, "a cached result")?;
        let column = |column: Column| {
            Ok(ResultColumn {
                name: column.name,
                data_type: serde_json::from_str(&column.data_type).map_err(failed)?,
                flags: column.flags.iter().filter_map(|flag| known(flag)).collect(),
            })
        };
        let columns = record.columns.into_iter().map(column).collect::<Result<_, SqlError>>()?;
        if record.rows.is_empty() {
            return Ok(RowSet { columns, batches: Vec::new() });
        }
        let reader = StreamReader::try_new(record.rows.as_slice(), None).map_err(failed)?;
        Ok(RowSet { columns, batches: reader.collect::<Result<_, _>>().map_err(failed)? })
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

fn known(flag: &str) -> Option<&'static str> {
    ["pk", "nn", "uq"].into_iter().find(|known| *known == flag)
}

fn failed(error: impl std::fmt::Display) -> SqlError {
    SqlError::new(ErrorCode::Internal, format!("failed to encode or decode a cached result: {error}"))
}
