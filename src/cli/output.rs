//! Standard output.

use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::plan::write_beside;

/// Prints data, at once. A reader that has seen enough (`pmkvq show plan.json | head`) is no failure.
///
/// # Errors
/// What the system says of standard output.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {e}")),
        _ => Ok(()),
    }
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, text: &str) -> Result<(), String> {
    write_beside(path, text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))
}
