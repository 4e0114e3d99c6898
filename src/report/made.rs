//! What a report was made with: so that it can be made again, and nobody takes it for one of something else.

use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::build_info::{COMMIT, PATCHES, RELEASE};
use crate::kernels::Isa;
use crate::shape::ModelShape;

/// The pin of upstream, with the hashes of its archive and contents.
const PIN: &str = include_str!("../../vendor/llama.cpp.pin");

#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// The command line, fit for a shell.
    pub command: String,
    /// UTC.
    pub date: String,
    pub pmkvq: String,
    /// Release, commit and hashes of the upstream that this program was built from.
    pub llama_release: String,
    pub llama_commit: String,
    pub llama_archive_sha256: String,
    pub llama_contents_sha256: String,
    pub patches: usize,
    pub cpu: String,
    /// Level of the cache's kernels.
    pub kernels: String,
}

/// The model that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct ModelIdentity {
    pub file: String,
    pub bytes: u64,
    pub sha256: String,
    pub name: String,
    pub arch: String,
    /// Layers with a progressive cache.
    pub layers: usize,
}

impl Made {
    /// Of this process.
    pub fn now() -> Made {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Made {
            command: command(std::env::args()),
            date: date(seconds),
            pmkvq: env!("CARGO_PKG_VERSION").to_string(),
            llama_release: RELEASE.to_string(),
            llama_commit: COMMIT.to_string(),
            llama_archive_sha256: pinned(PIN, "sha256"),
            llama_contents_sha256: pinned(PIN, "contents"),
            patches: PATCHES.len(),
            cpu: cpu(),
            kernels: Isa::selected().map_or_else(|e| e.to_string(), |isa| format!("{isa:?}")),
        }
    }
}

impl ModelIdentity {
    /// # Errors
    /// A file that can't be read.
    pub fn of(path: &Path, shape: &ModelShape) -> Result<ModelIdentity, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mut hash = Sha256::new();
        let mut bytes = 0u64;
        let mut part = vec![0u8; 1 << 20];
        loop {
            match file.read(&mut part).map_err(failed)? {
                0 => break,
                n => {
                    hash.update(&part[..n]);
                    bytes += n as u64;
                }
            }
        }
        Ok(ModelIdentity {
            file: path.display().to_string(),
            bytes,
            sha256: hex(&hash.finalize()),
            name: shape.name.clone(),
            arch: shape.arch.clone(),
            layers: shape.layers.len(),
        })
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn pinned(pin: &str, name: &str) -> String {
    let of_line = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_string())
    };
    pin.lines().find_map(of_line).unwrap_or_default()
}

/// Arguments, quoted where a shell would read them otherwise.
fn command(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+%".contains(c);
    let quoted = |arg: String| {
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', "'\\''"))
        }
    };
    args.map(quoted).collect::<Vec<_>>().join(" ")
}

/// A time since 1970 as date and time, UTC (days to civil date: 400 years have 146,097 days, and years begin in March).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (h, m) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02} {h:02}:{m:02} UTC")
}

/// The CPU's own name where the system tells it.
fn cpu() -> String {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = about.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, n)| n.trim()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{}, {threads} threads", name.unwrap_or(std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(date(1_795_478_399), "2026-11-23 23:59 UTC");
        let args = ["pmkvq", "eval", "a b", "it's", "", "f16,static:2"].map(String::from);
        assert_eq!(command(args.into_iter()), "pmkvq eval 'a b' 'it'\\''s' '' f16,static:2");
        assert_eq!(pinned(PIN, "sha256").len(), 64);
        assert_eq!(pinned(PIN, "contents").len(), 64);
        assert_eq!(pinned(PIN, "nothing"), "");
    }
}
