//! Some rows as they are stored, back to back: what a thread that steps through RocksDB hands to one that decodes them.

use crate::schema::UserId;

/// Rows of one table, undecoded.
#[derive(Debug, Default)]
pub struct StoredRows {
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<usize>,
    /// Whose the rows are up to each of these numbers, where somebody asks: many rows of one user follow one another.
    users: Vec<(usize, UserId)>,
}

impl StoredRows {
    /// Room for so many rows of about so many bytes together.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(rows), users: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len());
    }

    /// Adds a row of that user.
    pub fn push_of(&mut self, user: &UserId, row: &[u8]) {
        self.push(row);
        match self.users.last_mut().filter(|(_, before)| before == user) {
            Some((until, _)) => *until = self.ends.len(),
            None => self.users.push((self.ends.len(), user.clone())),
        }
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all rows.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of all rows, and where each ends.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<usize>) {
        (self.bytes, self.ends)
    }

    /// The user of each row.
    pub(super) fn users(&self) -> impl Iterator<Item = &str> {
        let mut from = 0;
        self.users.iter().flat_map(move |(until, user)| {
            let rows = until - std::mem::replace(&mut from, *until);
            std::iter::repeat_n(user.as_str(), rows)
        })
    }
}
