//! What the functions of one statement have made and still hold, counted in the memory of that statement.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::ArrayData;
use arrow::array::{Array, ArrayRef, make_array};
use arrow::buffer::Buffer;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::common::config_err;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

/// Goes with the settings of the statement's session, which every function is called with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Account {
    pool: Arc<dyn MemoryPool>,
    is_planning: Arc<AtomicBool>,
    /// Held until the statement ends: whoever has a constant may copy it wherever it likes.
    constants: Arc<MemoryReservation>,
}

impl Account {
    /// Counts in that pool.
    pub fn new(pool: Arc<dyn MemoryPool>) -> Self {
        let constants = Arc::new(MemoryConsumer::new("constants").register(&pool));
        Self { pool, is_planning: Arc::default(), constants }
    }

    /// That of the statement with these settings.
    pub fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }

    /// What the statement may hold.
    pub fn pool(&self) -> &Arc<dyn MemoryPool> {
        &self.pool
    }

    /// From now on results go into the plan of the statement with these settings.
    pub fn begin_planning(options: &ConfigOptions) {
        Self::set_planning(options, true);
    }

    /// From now on that plan runs.
    pub fn begin_running(options: &ConfigOptions) {
        Self::set_planning(options, false);
    }

    fn set_planning(options: &ConfigOptions, is_planning: bool) {
        if let Some(account) = Self::of(options) {
            account.is_planning.store(is_planning, Ordering::Release);
        }
    }

    pub(super) fn is_planning(&self) -> bool {
        self.is_planning.load(Ordering::Acquire)
    }

    /// Takes so many bytes for a function, if they are there.
    pub(super) fn reserve(&self, function: &str, bytes: usize) -> Result<MemoryReservation> {
        let reserved = MemoryConsumer::new(function).register(&self.pool);
        reserved.try_grow(bytes)?;
        Ok(reserved)
    }

    /// Takes what a constant holds.
    pub(super) fn keep(&self, constant: &ScalarValue) -> Result<()> {
        self.constants.try_grow(constant.size())
    }

    /// The same array, which gives back what was reserved for it once nobody has it any more.
    pub(super) fn hold(&self, array: ArrayRef, reserved: MemoryReservation) -> Result<ArrayRef> {
        reserved.try_resize(array.get_array_memory_size())?;
        Ok(make_array(held(array.to_data(), &Arc::new(reserved))?))
    }
}

/// A buffer, and what is reserved for it.
struct Held {
    buffer: Buffer,
    _reserved: Arc<MemoryReservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

fn held(data: ArrayData, reserved: &Arc<MemoryReservation>) -> Result<ArrayData> {
    let hold = |buffer: &Buffer| {
        let (buffer, _reserved) = (buffer.clone(), Arc::clone(reserved));
        Buffer::from(Bytes::from_owner(Held { buffer, _reserved }))
    };
    let buffers = data.buffers().iter().map(hold).collect();
    let children = data.child_data().iter().map(|child| held(child.clone(), reserved)).collect::<Result<_>>()?;
    Ok(data.into_builder().buffers(buffers).child_data(children).build()?)
}

impl ConfigExtension for Account {
    const PREFIX: &'static str = "account";
}

impl ExtensionOptions for Account {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        config_err!("{key} is no setting")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}
