//! Reading with a limit, and writing so that nobody ever sees half a file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use super::PlanError;

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// [`PlanError::Io`] (missing, a folder, not readable), [`PlanError::TooLarge`].
pub fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>, PlanError> {
    let io = |e: std::io::Error| PlanError::Io { message: e.to_string() };
    let file = File::open(path).map_err(io)?;
    let about = file.metadata().map_err(io)?;
    if about.is_dir() {
        return Err(PlanError::Io { message: "is a folder, not a file".to_string() });
    }
    if about.len() > most {
        return Err(PlanError::TooLarge { bytes: about.len(), most });
    }
    let mut bytes = Vec::new();
    // the size of a pipe is not known before it was read
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(PlanError::TooLarge { bytes: bytes.len() as u64, most });
    }
    Ok(bytes)
}

/// Writes beside the file and renames, so that a failure leaves what was there before. A link is followed; what is not a
/// file (`/dev/stdout`, a pipe) is written to, never replaced.
///
/// # Errors
/// What the system says; the file beside is removed.
pub fn write_beside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return File::options().write(true).open(path).and_then(|mut file| file.write_all(bytes));
    }
    // fails where there is no file yet
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = path.file_name().ok_or_else(|| std::io::Error::other("is not the name of a file"))?;
    let mut beside = name.to_os_string();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // it may not exist; the first error is the one to report
        let _ = std::fs::remove_file(&beside);
    }
    written
}
