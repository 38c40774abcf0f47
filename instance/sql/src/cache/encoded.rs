//! A row set as bytes: its columns as a bincode record, and behind it the rows as an Arrow IPC stream, which is read where it lies.

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use kalamdb_engine::codec;
use serde::{Deserialize, Serialize};

use crate::execute::{ResultColumn, RowSet};
use crate::{ErrorCode, SqlError};

/// Nothing of it outlives the process, but the codec wants one.
const FORMAT: u8 = 1;

/// The encoded rows; cheap to clone.
#[derive(Clone)]
pub(super) struct EncodedRows(Buffer);

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
        let columns: Vec<Column> = rows.columns.iter().map(column).collect();
        let mut bytes = codec::encode(FORMAT, &columns);
        if let Some(first) = rows.batches.first() {
            let schema: &Schema = &first.schema();
            let mut writer = StreamWriter::try_new(&mut bytes, schema).map_err(failed)?;
            rows.batches.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
            writer.finish().map_err(failed)?;
        }
        Ok(Self(bytes.into()))
    }

    pub(super) fn decode(&self) -> Result<RowSet, SqlError> {
        let (columns, rows) = codec::decode_front::<Vec<Column>>(FORMAT, &self.0, "a cached result")?;
        let column = |column: Column| {
            Ok(ResultColumn {
                name: column.name,
                data_type: serde_json::from_str(&column.data_type).map_err(failed)?,
                flags: column.flags.iter().filter_map(|flag| known(flag)).collect(),
            })
        };
        let columns = columns.into_iter().map(column).collect::<Result<_, SqlError>>()?;
        let (mut rows, mut decoder) = (self.0.slice(self.0.len() - rows.len()), StreamDecoder::new());
        let mut batches = Vec::new();
        while !rows.is_empty() {
            batches.extend(decoder.decode(&mut rows).map_err(failed)?);
        }
        decoder.finish().map_err(failed)?;
        Ok(RowSet { columns, batches })
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
