//! What an interrupted profile leaves behind, and how the next one goes on with it.

use serde_json::{json, Value};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::Sums;

/// Results of finished passes in a file beside the output: a line that says what run they are of, then a line per pass.
pub struct Leftover {
    path: PathBuf,
    file: File,
    known: HashMap<(usize, usize), Vec<Sums>>,
}

impl Leftover {
    /// The file for an output.
    pub fn path_for(output: &Path) -> PathBuf {
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        output.with_file_name(name)
    }

    /// Opens or begins the leftovers of a run. With `restart`, what is there is thrown away.
    ///
    /// # Errors
    /// Leftovers of another run, of one that is not at its end, or a file that is none; what is there stays.
    pub fn open(output: &Path, identity: &Value, restart: bool) -> Result<Leftover, String> {
        let path = Leftover::path_for(output);
        let at = |e: std::io::Error| format!("{}: {e}", path.display());
        let head = json!({ "pmkvq_profile": 1, "run": identity });
        let mut known = HashMap::new();
        let mut whole = 0;
        let mut file =
            OpenOptions::new().create(true).read(true).write(true).truncate(false).open(&path).map_err(at)?;
        // two runs would cut off each other's lines; a file system without locks is no reason to measure nothing
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(format!(
                "{}: another run is writing it, for the same output; wait for its end, or name another output (-o)",
                path.display()
            ));
        }
        if !restart {
            let mut lines = BufReader::new(&file);
            let mut line = String::new();
            let mut first = true;
            while lines.read_line(&mut line).map_err(at)? > 0 {
                // the last line may be cut off where the run was
                let Some(text) = line.strip_suffix('\n') else { break };
                let value: Option<Value> = serde_json::from_str(text).ok();
                if first {
                    if value.as_ref().and_then(|v| v.get("pmkvq_profile")).is_none() {
                        return Err(format!("{}: not what a profile leaves behind; move it away", path.display()));
                    }
                    if value.as_ref() != Some(&head) {
                        return Err(format!(
                            "{}: left by a run with other arguments (another model, text, or settings); repeat those to go \
                             on with it, or remove the file ('pmkvq profile --restart' does)",
                            path.display()
                        ));
                    }
                    first = false;
                } else if let Some((key, sums)) = value.as_ref().and_then(read) {
                    known.insert(key, sums);
                } else {
                    return Err(format!(
                        "{}: a line that no profile wrote; remove the file ('pmkvq profile --restart' does)",
                        path.display()
                    ));
                }
                whole += line.len() as u64;
                line.clear();
            }
        }
        file.set_len(whole).map_err(at)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(at)?;
        if whole == 0 {
            writeln!(file, "{head}").map_err(at)?;
        }
        Ok(Leftover { path, file, known })
    }

    /// Passes that were done before.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn get(&self, batch: usize, pass: usize) -> Option<Vec<Sums>> {
        self.known.get(&(batch, pass)).cloned()
    }

    pub(super) fn put(&mut self, batch: usize, pass: usize, sums: &[Sums]) -> Result<(), String> {
        let list = |f: fn(&Sums) -> f64| sums.iter().map(f).collect::<Vec<_>>();
        let line =
            json!({ "batch": batch, "pass": pass, "kl": list(|s| s.kl), "nll": list(|s| s.nll), "n": list(|s| s.n) });
        writeln!(self.file, "{line}")
            .and_then(|()| self.file.flush())
            .map_err(|e| format!("{}: {e}", self.path.display()))
    }

    /// The result is written: nothing is left over.
    pub fn remove(self) {
        // it may be gone already; there is nobody to tell
        let _ = std::fs::remove_file(&self.path);
    }
}

type Entry = ((usize, usize), Vec<Sums>);

fn read(line: &Value) -> Option<Entry> {
    let number = |name: &str| line.get(name)?.as_u64().map(|n| n as usize);
    let list = |name: &str| line.get(name)?.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
    let (kl, nll, n) = (list("kl")?, list("nll")?, list("n")?);
    if kl.len() != nll.len() || kl.len() != n.len() {
        return None;
    }
    let sums = kl.into_iter().zip(nll).zip(n).map(|((kl, nll), n)| Sums { kl, nll, n }).collect();
    Some(((number("batch")?, number("pass")?), sums))
}
