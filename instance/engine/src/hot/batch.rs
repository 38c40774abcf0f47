//! Stored rows into Arrow batches, straight from their bytes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeListBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{Field, Schema, SchemaRef};

use crate::EngineError;
use crate::hot::row::{self, RowHeader, RowReader};
use crate::schema::{SqlType, Table, USER_ID, embedding_item};

/// Collects rows of one table into batches of chosen columns.
pub struct BatchBuilder {
    schema: SchemaRef,
    reader: RowReader,
    /// The table's own columns that are wanted, under their places in the table: `outputs[place]` indexes `columns`.
    outputs: Vec<Option<usize>>,
    columns: Vec<Output>,
    rows: usize,
    bytes: usize,
}

enum Output {
    Own(ColumnBuilder),
    Seq(Int64Builder),
    Deleted(BooleanBuilder),
    Updated(TimestampMicrosecondBuilder),
    User(StringBuilder),
}

impl BatchBuilder {
    /// Columns are places in [`Table::sql_schema`], none of them twice; `with_user` appends `_user_id`.
    pub fn new(table: &Table, projection: Option<&[usize]>, with_user: bool) -> Self {
        let all = table.sql_schema();
        let own = table.columns.len();
        let every: Vec<_> = (0..all.fields().len()).collect();
        let projection = projection.unwrap_or(&every);
        let mut fields: Vec<Field> = projection.iter().map(|at| all.field(*at).clone()).collect();
        let output = |at: &usize| match at.checked_sub(own) {
            None => Output::Own(ColumnBuilder::new(table.columns[*at].sql_type)),
            Some(0) => Output::Seq(Int64Builder::new()),
            Some(1) => Output::Deleted(BooleanBuilder::new()),
            Some(_) => Output::Updated(utc()),
        };
        let mut columns: Vec<_> = projection.iter().map(output).collect();
        let mut outputs = vec![None; own];
        for (output, at) in projection.iter().enumerate().filter(|(_, at)| **at < own) {
            outputs[*at] = Some(output);
        }
        if with_user {
            fields.push(Field::new(USER_ID, SqlType::Text.arrow(), false));
            columns.push(Output::User(StringBuilder::new()));
        }
        let reader = RowReader::new(table, projection.iter().copied().filter(|at| *at < own));
        Self { schema: Arc::new(Schema::new(fields)), reader, outputs, columns, rows: 0, bytes: 0 }
    }

    /// The schema of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Rows since the last batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Encoded bytes of the rows since the last batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row.
    pub fn append(&mut self, bytes: &[u8], header: &RowHeader, user: Option<&str>) -> Result<(), EngineError> {
        let (columns, outputs) = (&mut self.columns, &self.outputs);
        self.reader.visit(bytes, |place, field| match outputs[place].map(|output| &mut columns[output]) {
            Some(Output::Own(builder)) => builder.append(field),
            _ => Ok(()),
        })?;
        for column in &mut self.columns {
            match column {
                Output::Own(_) => {}
                Output::Seq(builder) => builder.append_value(header.seq.0),
                Output::Deleted(builder) => builder.append_value(header.deleted),
                Output::Updated(builder) => builder.append_value(header.updated),
                Output::User(builder) => builder.append_value(user.unwrap_or_default()),
            }
        }
        self.rows += 1;
        self.bytes += bytes.len();
        Ok(())
    }

    /// The rows since the last batch.
    pub fn finish(&mut self) -> Result<RecordBatch, EngineError> {
        let finish = |column: &mut Output| -> ArrayRef {
            match column {
                Output::Own(builder) => builder.finish(),
                Output::Seq(builder) => Arc::new(builder.finish()),
                Output::Deleted(builder) => Arc::new(builder.finish()),
                Output::Updated(builder) => Arc::new(builder.finish()),
                Output::User(builder) => Arc::new(builder.finish()),
            }
        };
        let arrays = self.columns.iter_mut().map(finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|error| EngineError::Corrupt {
            what: "hot rows".into(),
            reason: format!("they do not fit their table: {error}"),
        })
    }
}

fn utc() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::new().with_timezone("UTC")
}

enum ColumnBuilder {
    Boolean(BooleanBuilder),
    SmallInt(Int16Builder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Uuid(StringBuilder),
    Embedding(FixedSizeListBuilder<Float32Builder>, u16),
}

impl ColumnBuilder {
    fn new(sql_type: SqlType) -> Self {
        match sql_type {
            SqlType::Boolean => Self::Boolean(BooleanBuilder::new()),
            SqlType::SmallInt => Self::SmallInt(Int16Builder::new()),
            SqlType::Int => Self::Int(Int32Builder::new()),
            SqlType::BigInt => Self::BigInt(Int64Builder::new()),
            SqlType::Float => Self::Float(Float32Builder::new()),
            SqlType::Double => Self::Double(Float64Builder::new()),
            SqlType::Decimal { .. } => Self::Decimal(Decimal128Builder::new().with_data_type(sql_type.arrow())),
            SqlType::Text | SqlType::Json | SqlType::File => Self::Text(StringBuilder::new()),
            SqlType::Bytes => Self::Bytes(BinaryBuilder::new()),
            SqlType::Timestamp | SqlType::DateTime => Self::Timestamp(utc()),
            SqlType::Date => Self::Date(Date32Builder::new()),
            SqlType::Time => Self::Time(Time64MicrosecondBuilder::new()),
            SqlType::Uuid => Self::Uuid(StringBuilder::new()),
            SqlType::Embedding { dimensions } => {
                let numbers = FixedSizeListBuilder::new(Float32Builder::new(), i32::from(dimensions));
                Self::Embedding(numbers.with_field(embedding_item()), dimensions)
            }
        }
    }

    fn append(&mut self, field: Option<&[u8]>) -> Result<(), EngineError> {
        match self {
            Self::Boolean(builder) => builder.append_option(field.map(row::boolean).transpose()?),
            Self::SmallInt(builder) => builder.append_option(field.map(row::integer).transpose()?),
            Self::Int(builder) => builder.append_option(field.map(row::integer).transpose()?),
            Self::BigInt(builder) => builder.append_option(field.map(row::integer).transpose()?),
            Self::Float(builder) => builder.append_option(field.map(row::float).transpose()?),
            Self::Double(builder) => builder.append_option(field.map(row::double).transpose()?),
            Self::Decimal(builder) => builder.append_option(field.map(row::decimal).transpose()?),
            Self::Text(builder) => builder.append_option(field.map(row::text).transpose()?),
            Self::Bytes(builder) => builder.append_option(field),
            Self::Timestamp(builder) => builder.append_option(field.map(row::integer).transpose()?),
            Self::Date(builder) => builder.append_option(field.map(row::integer).transpose()?),
            Self::Time(builder) => builder.append_option(field.map(row::integer).transpose()?),
            Self::Uuid(builder) => {
                let uuid = field.map(row::uuid).transpose()?;
                builder.append_option(uuid.map(|uuid| uuid.hyphenated().to_string()));
            }
            Self::Embedding(builder, dimensions) => append_embedding(builder, *dimensions, field)?,
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::SmallInt(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::BigInt(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Uuid(builder) => Arc::new(builder.finish()),
            Self::Embedding(builder, _) => Arc::new(builder.finish()),
        }
    }
}

/// A NULL takes as many numbers as any other: the list's length is fixed.
fn append_embedding(
    builder: &mut FixedSizeListBuilder<Float32Builder>,
    dimensions: u16,
    field: Option<&[u8]>,
) -> Result<(), EngineError> {
    match field {
        Some(field) => row::numbers(field, dimensions)?.for_each(|number| builder.values().append_value(number)),
        None => builder.values().append_value_n(0.0, usize::from(dimensions)),
    }
    builder.append(field.is_some());
    Ok(())
}
