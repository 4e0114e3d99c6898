//! What a pass over a text shows while it runs: rows as soon as they are known, and how far it is, for people who wait.

use std::io::IsTerminal;

use crate::eval::{Interval, Watch};

/// Hands every interval to `row`, and says on stderr how far a pass is, if that is a terminal.
pub struct Progress<F> {
    name: String,
    total: usize,
    last: usize,
    terminal: bool,
    row: F,
}

impl<F: FnMut(&Interval) -> Result<(), String>> Progress<F> {
    pub fn new(name: &str, total: usize, row: F) -> Progress<F> {
        Progress {
            name: name.to_string(),
            total: total.max(1),
            last: 0,
            terminal: std::io::stderr().is_terminal(),
            row,
        }
    }

    fn wipe(&self) {
        say!("\r{:width$}\r", "", width = self.name.len() + 8);
    }
}

impl<F: FnMut(&Interval) -> Result<(), String>> Watch for Progress<F> {
    fn progress(&mut self, done: usize) {
        if self.terminal && (done - self.last >= self.total / 50 || done == self.total) {
            self.last = done;
            say!("\r{}: {:>3}%", self.name, 100 * done / self.total);
        }
    }

    fn interval(&mut self, interval: &Interval) -> Result<(), String> {
        if self.terminal {
            self.wipe();
        }
        (self.row)(interval)
    }
}
