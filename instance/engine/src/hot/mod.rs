//! The hot tier: RocksDB, its column families, keys and rows.
//!
//! * [`key`], [`row`], [`changes`]: how keys, rows and change records are encoded; pure;
//! * [`store`]: the database itself, opened once, with the record that says whose volume it is ([`volume`]);
//! * [`stream`]: how rows of stream tables lie by time; pure;
//! * [`snapshot`], [`scan`]: consistent reads, row by row or many rows as they are [`stored`], of which [`batch`] makes Arrow batches, while the scan goes on
//!   ([`ahead`]); rows
//!   of a scan have numbers ([`ordinals`]);
//! * [`dropped`]: tables that are gone and whose folder is not;
//! * [`disk`]: free space, and the reserve that lets a flush end on a full disk.
//!
//! Nothing here changes a table's rows: that is the [committer's](crate::commit) alone.

pub mod ahead;
pub mod batch;
pub mod changes;
pub mod disk;
pub mod dropped;
pub mod key;
pub mod ordinals;
pub mod row;
pub mod scan;
pub mod snapshot;
pub mod store;
pub mod stored;
pub mod stream;
pub mod tier;
pub mod volume;

pub use dropped::DroppedTable;
pub use key::{Key, KeyBounds, RowKey};
pub use scan::HotScan;
pub use snapshot::{HotRow, HotSnapshot};
pub use store::Hot;
pub use tier::{Mask, TableTier};
