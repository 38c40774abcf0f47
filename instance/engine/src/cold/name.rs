//! What the name of an object in a table's folder tells: the job that wrote it, and the epoch of its process. No two jobs ever
//! write the same name, so that whether an object may go is decided by its name, never by its age.

use deltalake_core::kernel::{DeletionVectorDescriptor, StorageType};
use uuid::Uuid;

use crate::flush::{Epoch, Intent};

/// Length of a UUID in z85.
const ENCODED_UUID: usize = 20;
/// Digits of an epoch.
const EPOCH_DIGITS: usize = 10;

/// Who wrote an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobName {
    /// The epoch of the job's process.
    pub epoch: Epoch,
    /// The job.
    pub job: Uuid,
}

impl JobName {
    /// The writer of an intent's files.
    pub fn of(intent: &Intent) -> Self {
        Self { epoch: intent.epoch, job: intent.job }
    }

    /// What the names of its Parquet files begin with; a number and `.parquet` follow.
    pub fn file_prefix(&self) -> String {
        format!("part-{}-{}", self.epoch_digits(), self.job)
    }

    /// The name of the one file of its deletion vectors: Delta fixes its form, but for the folder.
    pub fn vector(&self) -> String {
        format!("{}/deletion_vector_{}.bin", self.epoch_digits(), self.job)
    }

    /// The same as it stands in a descriptor: the folder, then the UUID in z85.
    pub fn vector_id(&self) -> String {
        format!("{}{}", self.epoch_digits(), z85::encode(self.job.as_bytes()))
    }

    /// Who wrote the object of that name below the table's folder; none where the name is not one of these.
    pub fn parse(name: &str) -> Option<Self> {
        let (epoch, job) = match name.strip_prefix("part-") {
            Some(rest) => {
                let (epoch, rest) = rest.split_at_checked(EPOCH_DIGITS)?;
                let (job, number) = rest.strip_prefix('-')?.strip_suffix(".parquet")?.rsplit_once('-')?;
                number.parse::<u32>().ok()?;
                (epoch, job)
            }
            None => {
                let (epoch, file) = name.split_once('/')?;
                (epoch, file.strip_prefix("deletion_vector_")?.strip_suffix(".bin")?)
            }
        };
        let digits = epoch.len() == EPOCH_DIGITS && epoch.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { epoch: Epoch(epoch.parse().ok().filter(|_| digits)?), job: job.parse().ok()? })
    }

    fn epoch_digits(&self) -> String {
        format!("{:0width$}", self.epoch.0, width = EPOCH_DIGITS)
    }
}

/// The name below the table's folder of the file that a deletion vector lies in; none where it lies in no file of the table.
pub fn vector_file(descriptor: &DeletionVectorDescriptor) -> Option<String> {
    let in_table = descriptor.storage_type == StorageType::UuidRelativePath;
    in_table.then(|| relative_vector(&descriptor.path_or_inline_dv)).flatten()
}

/// The same from the text of a descriptor of storage type `u`.
pub fn relative_vector(text: &str) -> Option<String> {
    let (folder, id) = text.split_at_checked(text.len().checked_sub(ENCODED_UUID)?)?;
    let id = Uuid::from_slice(&z85::decode(id).ok()?).ok()?;
    let separator = if folder.is_empty() { "" } else { "/" };
    Some(format!("{folder}{separator}deletion_vector_{id}.bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_who_wrote_the_object() {
        let job = JobName { epoch: Epoch(12), job: Uuid::from_u128(77) };
        assert_eq!(JobName::parse(&format!("{}-00003.parquet", job.file_prefix())), Some(job));
        assert_eq!(JobName::parse(&job.vector()), Some(job));
        assert_eq!(relative_vector(&job.vector_id()), Some(job.vector()));
    }

    #[test]
    fn foreign_names_tell_nothing() {
        let id = Uuid::from_u128(77);
        for name in [
            "part-00000-1.parquet".to_owned(),
            format!("part-0000000001-{id}.parquet"),
            format!("part-0000000001-{id}-x.parquet"),
            format!("part-00000000é1-{id}-1.parquet"),
            format!("deletion_vector_{id}.bin"),
            format!("1/deletion_vector_{id}.bin"),
            "_delta_log/00000000000000000001.json".to_owned(),
        ] {
            assert_eq!(JobName::parse(&name), None, "{name}");
        }
        assert_eq!(relative_vector("short"), None);
    }
}
