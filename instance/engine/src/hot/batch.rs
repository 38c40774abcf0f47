//! Stored rows into Arrow batches, column by column, straight from their bytes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, Float32Array, GenericByteArray, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    BinaryType, ByteArrayType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, Utf8Type,
};
use arrow::error::ArrowError;
use arrow_schema::{Field, Schema, SchemaRef};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::EngineError;
use crate::hot::row::{self, RowHeader, RowReader};
use crate::hot::stored::StoredRows;
use crate::schema::{SqlType, Table, USER_ID, embedding_item};

/// Makes batches of chosen columns of a table's stored rows.
#[derive(Debug)]
pub struct RowDecoder {
    schema: SchemaRef,
    reader: RowReader,
    outputs: Vec<Output>,
}

/// A column of a batch.
#[derive(Debug, Clone, Copy)]
enum Output {
    /// One of the table's own, by its number among those that the reader takes.
    Own(usize, SqlType),
    Seq,
    Deleted,
    Updated,
    User,
}

impl RowDecoder {
    /// Columns are places in [`Table::sql_schema`], none of them twice; `with_user` appends `_user_id`.
    pub fn new(table: &Table, projection: Option<&[usize]>, with_user: bool) -> Self {
        let all = table.sql_schema();
        let own = table.columns.len();
        let every: Vec<_> = (0..all.fields().len()).collect();
        let projection = projection.unwrap_or(&every);
        let mut fields: Vec<Field> = projection.iter().map(|at| all.field(*at).clone()).collect();
        let reader = RowReader::new(table, projection.iter().copied().filter(|at| *at < own));
        let output = |at: &usize| match at.checked_sub(own) {
            None => Output::Own(reader.number_of(*at), table.columns[*at].sql_type),
            Some(0) => Output::Seq,
            Some(1) => Output::Deleted,
            Some(_) => Output::Updated,
        };
        let mut outputs: Vec<_> = projection.iter().map(output).collect();
        if with_user {
            fields.push(Field::new(USER_ID, SqlType::Text.arrow(), false));
            outputs.push(Output::User);
        }
        Self { schema: Arc::new(Schema::new(fields)), reader, outputs }
    }

    /// The schema of its batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The rows as a batch.
    pub fn decode(&self, rows: StoredRows) -> Result<RecordBatch, EngineError> {
        let length = rows.len();
        let users: Option<StringArray> = self
            .outputs
            .iter()
            .any(|output| matches!(output, Output::User))
            .then(|| StringArray::from_iter_values(rows.users().collect::<Vec<_>>()));
        let located = Located::of(&self.reader, rows)?;
        let array = |output: &Output| -> Result<ArrayRef, EngineError> {
            Ok(match output {
                Output::Own(number, sql_type) => located.column(*number).array(*sql_type)?,
                Output::Seq => Arc::new(located.system::<Int64Type>(|header| header.seq.0)),
                Output::Updated => {
                    Arc::new(located.system::<TimestampMicrosecondType>(|header| header.updated).with_timezone("UTC"))
                }
                Output::Deleted => {
                    let deleted = |row: usize| located.headers[row].deleted;
                    Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(length, deleted), None))
                }
                Output::User => Arc::new(users.clone().expect("made where it is wanted")),
            })
        };
        let arrays = self.outputs.iter().map(array).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(misfit)
    }
}

/// Rows of which is known where each field lies.
struct Located {
    bytes: Vec<u8>,
    headers: Vec<RowHeader>,
    /// For each column that the reader takes, a field for each row.
    fields: Vec<Vec<row::Field>>,
}

impl Located {
    fn of(reader: &RowReader, rows: StoredRows) -> Result<Self, EngineError> {
        let (mut bytes, ends) = rows.into_parts();
        let mut headers = Vec::with_capacity(ends.len());
        let mut fields: Vec<_> = (0..reader.columns()).map(|_| Vec::with_capacity(ends.len())).collect();
        let mut from = 0;
        for end in ends {
            headers.push(reader.locate(&mut bytes, from..end, |number, field| fields[number].push(field))?);
            from = end;
        }
        Ok(Self { bytes, headers, fields })
    }

    fn column(&self, number: usize) -> Column<'_> {
        Column { bytes: &self.bytes, fields: &self.fields[number] }
    }

    fn system<T: ArrowPrimitiveType>(&self, value: impl Fn(&RowHeader) -> T::Native) -> PrimitiveArray<T> {
        PrimitiveArray::from_iter_values(self.headers.iter().map(value))
    }
}

/// The fields of one column.
struct Column<'a> {
    bytes: &'a [u8],
    fields: &'a [row::Field],
}

impl<'a> Column<'a> {
    fn array(&self, sql_type: SqlType) -> Result<ArrayRef, EngineError> {
        Ok(match sql_type {
            SqlType::Boolean => self.booleans()?,
            SqlType::SmallInt => self.numbers::<Int16Type>(row::integer)?,
            SqlType::Int => self.numbers::<Int32Type>(row::integer)?,
            SqlType::BigInt => self.numbers::<Int64Type>(row::integer)?,
            SqlType::Float => self.numbers::<Float32Type>(row::float)?,
            SqlType::Double => self.numbers::<Float64Type>(row::double)?,
            SqlType::Decimal { .. } => {
                Arc::new(self.primitive::<Decimal128Type>(row::decimal)?.with_data_type(sql_type.arrow()))
            }
            SqlType::Text | SqlType::Json | SqlType::File => self.byte_strings::<Utf8Type>()?,
            SqlType::Bytes => self.byte_strings::<BinaryType>()?,
            SqlType::Timestamp | SqlType::DateTime => {
                Arc::new(self.primitive::<TimestampMicrosecondType>(row::integer)?.with_timezone("UTC"))
            }
            SqlType::Date => self.numbers::<Date32Type>(row::integer)?,
            SqlType::Time => self.numbers::<Time64MicrosecondType>(row::integer)?,
            SqlType::Uuid => self.uuids()?,
            SqlType::Embedding { dimensions } => self.embeddings(dimensions)?,
        })
    }

    fn fields(&self) -> impl ExactSizeIterator<Item = Option<&'a [u8]>> {
        let bytes = self.bytes;
        self.fields.iter().map(|field| field.of(bytes))
    }

    fn nulls(&self) -> Option<NullBuffer> {
        let valid = BooleanBuffer::collect_bool(self.fields.len(), |row| !self.fields[row].is_null());
        Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        decode: impl Fn(&[u8]) -> Result<T::Native, EngineError>,
    ) -> Result<ArrayRef, EngineError> {
        Ok(Arc::new(self.primitive::<T>(decode)?))
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        decode: impl Fn(&[u8]) -> Result<T::Native, EngineError>,
    ) -> Result<PrimitiveArray<T>, EngineError> {
        let mut values = Vec::with_capacity(self.fields.len());
        for field in self.fields() {
            values.push(field.map_or(Ok(T::Native::default()), &decode)?);
        }
        Ok(PrimitiveArray::new(values.into(), self.nulls()))
    }

    fn booleans(&self) -> Result<ArrayRef, EngineError> {
        let values = self.fields().map(|field| field.map_or(Ok(false), row::boolean));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(BooleanArray::new(values.into(), self.nulls())))
    }

    /// Texts are looked through once for all rows.
    fn byte_strings<T: ByteArrayType<Offset = i32>>(&self) -> Result<ArrayRef, EngineError> {
        let length: usize = self.fields.iter().map(row::Field::len).sum();
        let mut bytes = Vec::with_capacity(length);
        let mut offsets = Vec::with_capacity(self.fields.len() + 1);
        offsets.push(0);
        for field in self.fields() {
            bytes.extend_from_slice(field.unwrap_or_default());
            offsets.push(i32::try_from(bytes.len()).map_err(|_| corrupt("a column of a batch is above 2 GiB".into()))?);
        }
        let offsets = OffsetBuffer::new(offsets.into());
        let array = GenericByteArray::<T>::try_new(offsets, Buffer::from_vec(bytes), self.nulls());
        Ok(Arc::new(array.map_err(misfit)?))
    }

    fn uuids(&self) -> Result<ArrayRef, EngineError> {
        let mut bytes = Vec::with_capacity(self.fields.len() * Hyphenated::LENGTH);
        let mut lengths = Vec::with_capacity(self.fields.len());
        for field in self.fields() {
            let before = bytes.len();
            if let Some(field) = field {
                let uuid = row::uuid(field)?.hyphenated();
                bytes.extend_from_slice(uuid.encode_lower(&mut Uuid::encode_buffer()).as_bytes());
            }
            lengths.push(bytes.len() - before);
        }
        let array = StringArray::try_new(OffsetBuffer::from_lengths(lengths), Buffer::from_vec(bytes), self.nulls());
        Ok(Arc::new(array.map_err(misfit)?))
    }

    /// A NULL takes as many numbers as any other: the list's length is fixed.
    fn embeddings(&self, dimensions: u16) -> Result<ArrayRef, EngineError> {
        let mut numbers = Vec::with_capacity(self.fields.len() * usize::from(dimensions));
        for field in self.fields() {
            match field {
                Some(field) => numbers.extend(row::numbers(field, dimensions)?),
                None => numbers.resize(numbers.len() + usize::from(dimensions), 0.0),
            }
        }
        let numbers = Arc::new(Float32Array::from(numbers));
        let lists = FixedSizeListArray::try_new(embedding_item(), i32::from(dimensions), numbers, self.nulls());
        Ok(Arc::new(lists.map_err(misfit)?))
    }
}

fn misfit(error: ArrowError) -> EngineError {
    corrupt(format!("they do not fit their table: {error}"))
}

fn corrupt(reason: String) -> EngineError {
    EngineError::Corrupt { what: "hot rows".into(), reason }
}
