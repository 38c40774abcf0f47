//! Folders whose names outlive a power cut.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the folder, and those above it that are missing. When it returns, a power cut can't take it away any more: a new folder is on disk
/// once the one above it was synced, and so is everything in it.
pub fn make(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Also where it was there: a start that made it may have been killed before it came to this.
    for above in folder.canonicalize()?.ancestors().skip(1) {
        match File::open(above) {
            Ok(above) => above.sync_all()?,
            // Whoever may not look into it has not made what is in it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
