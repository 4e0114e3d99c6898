//! A file or folder that goes with its owner.
#![allow(dead_code)] // no test program uses all of it

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Temporary(pub PathBuf);

impl Temporary {
    /// A name that nobody else has; no file yet.
    pub fn new(extension: &str) -> Temporary {
        static N: AtomicU32 = AtomicU32::new(0);
        let name = format!("pmkvq-test-{}-{}.{extension}", std::process::id(), N.fetch_add(1, Ordering::Relaxed));
        Temporary(std::env::temp_dir().join(name))
    }

    pub fn with(extension: &str, bytes: &[u8]) -> Temporary {
        let file = Temporary::new(extension);
        std::fs::write(&file.0, bytes).unwrap();
        file
    }

    /// A plan by `pmkvq plan`, for a model and a context.
    pub fn plan(model: &Path, n_ctx: u32, args: &[&str]) -> Temporary {
        let file = Temporary::new("json");
        let output = Command::new(env!("CARGO_BIN_EXE_pmkvq"))
            .args(["plan", "--ctx", &n_ctx.to_string(), "--model"])
            .arg(model)
            .args(args)
            .arg("-o")
            .arg(&file.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "pmkvq plan {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        file
    }

    pub fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // it may never have been made
        let _ = if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}
