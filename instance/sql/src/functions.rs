//! KalamDB's own SQL functions: generated ids, and who is asking.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use kalamdb_engine::Engine;
use kalamdb_engine::catalog::Role;
use uuid::Uuid;

use crate::Identity;

/// A new UUID of version 7, as text.
pub fn uuid_v7() -> String {
    Uuid::now_v7().to_string()
}

/// A new ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32.
pub fn ulid() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    // Version 7 begins with the same 48 bits; what it fixes below them is replaced by random bits.
    let moment = Uuid::now_v7().as_u128() >> 80;
    let random = (Uuid::new_v4().as_u128() << 64) ^ Uuid::new_v4().as_u128().rotate_left(19);
    let bits = (moment << 80) | (random >> 48);
    let digit = |at: u32| char::from(ALPHABET[((bits >> (5 * at)) & 31) as usize]);
    (0..26).rev().map(digit).collect()
}

/// The role's name in SQL and replies.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Service => "service",
        Role::Dba => "dba",
        Role::System => "system",
    }
}

/// Functions that generate: a new value for each row.
pub fn generators(engine: &Engine) -> Vec<ScalarUDF> {
    let engine = engine.clone();
    let make = |name, result, cells: Cells| {
        ScalarUDF::from(Generator { name, result, cells, signature: Signature::nullary(Volatility::Volatile) })
    };
    let ids = move |rows| Arc::new(Int64Array::from_iter_values((0..rows).map(|_| engine.snowflake_id()))) as ArrayRef;
    let texts = |one: fn() -> String| -> Cells {
        Cells(Arc::new(move |rows| Arc::new(StringArray::from_iter_values((0..rows).map(|_| one()))) as ArrayRef))
    };
    vec![
        make("snowflake_id", DataType::Int64, Cells(Arc::new(ids))),
        make("uuid_v7", DataType::Utf8, texts(uuid_v7)),
        make("ulid", DataType::Utf8, texts(ulid)),
    ]
}

/// `CURRENT_USER()` and `CURRENT_ROLE()` of one statement.
pub fn of_identity(identity: &Identity) -> Vec<ScalarUDF> {
    let make = |name, value: &str| {
        ScalarUDF::from(Fixed { name, value: value.to_owned(), signature: Signature::nullary(Volatility::Stable) })
    };
    vec![make("current_user", identity.user.as_str()), make("current_role", role_name(identity.role))]
}

/// Makes so many cells. Two of them are equal when they are the same function.
#[derive(Clone)]
struct Cells(Arc<dyn Fn(usize) -> ArrayRef + Send + Sync>);

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cells")
    }
}

#[derive(Debug)]
struct Generator {
    name: &'static str,
    result: DataType,
    cells: Cells,
    signature: Signature,
}

impl PartialEq for Generator {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Generator {}

impl std::hash::Hash for Generator {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Generator {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.result.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Array((self.cells.0)(args.number_rows)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Fixed {
    name: &'static str,
    value: String,
    signature: Signature,
}

impl ScalarUDFImpl for Fixed {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(self.value.clone()))))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ulids_have_their_form_and_begin_with_the_time() {
        let (first, second) = (super::ulid(), super::ulid());
        assert_eq!(first.len(), 26);
        assert!(first.as_str() < "7ZZZZZZZZZ" && first[..6] == second[..6] && first != second, "{first} {second}");
    }
}
