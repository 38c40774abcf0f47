//! The hot tier: RocksDB, its column families, keys and rows.

/// An encoded primary key: order-preserving bytes, without table and user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Box<[u8]>);
