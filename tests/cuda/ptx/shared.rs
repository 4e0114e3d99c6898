//! A CTA's shared memory, and whether each byte of it was written.

use crate::races::{Races, Who};
use crate::{code, fault, Done};

#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum State {
    Unwritten = 0,
    Written = 1,
    /// An asynchronous copy is under way to it.
    Copying = 2,
}

pub struct Shared {
    data: Vec<u128>,
    state: Vec<u8>,
    pub races: Races,
    len: usize,
    /// Reading what was never written is an error. Otherwise it gives what is no number, and may be read where it is not used.
    strict: bool,
}

impl Shared {
    pub fn new(len: usize, strict: bool) -> Shared {
        let n = len.next_multiple_of(16);
        Shared { data: vec![0; n / 16], state: vec![0; n], races: Races::new(n / 4), len, strict }
    }

    pub fn begin(&mut self) {
        self.state.fill(State::Unwritten as u8);
        self.data.fill(u128::MAX);
        self.races.pass_barrier();
    }

    pub fn ptr(&mut self, at: u64) -> *mut u8 {
        // SAFETY: only called with what was checked
        unsafe { self.data.as_mut_ptr().cast::<u8>().add(at as usize) }
    }

    fn bounds(&self, at: u64, n: usize) -> Done {
        if at.checked_add(n as u64).is_some_and(|end| end <= self.len as u64) {
            return Ok(());
        }
        fault(code::ILLEGAL_ADDRESS, format!("{n} bytes of shared memory at {at}: the CTA has {}", self.len))
    }

    pub fn check_read(&mut self, at: u64, n: usize, who: Who) -> Done {
        self.bounds(at, n)?;
        let at = at as usize;
        if self.state[at..at + n].iter().any(|s| *s != State::Written as u8) {
            if let Some(bad) = (at..at + n).find(|i| self.state[*i] == State::Copying as u8) {
                return fault(
                    code::LAUNCH_FAILURE,
                    format!("reads byte {bad} of shared memory before the copy to it was waited for"),
                );
            }
            if self.strict {
                let bad = (at..at + n).find(|i| self.state[*i] == State::Unwritten as u8).unwrap_or(at);
                return fault(
                    code::LAUNCH_FAILURE,
                    format!("reads byte {bad} of shared memory, which was never written"),
                );
            }
        }
        self.races.read(at / 4..(at + n).div_ceil(4), who).or_else(|e| fault(code::LAUNCH_FAILURE, e))
    }

    /// Whether another lane has touched it just now: then the same value must be there already.
    pub fn check_write(&mut self, at: u64, n: usize, who: Who) -> Result<bool, Box<crate::Fault>> {
        self.bounds(at, n)?;
        let at = at as usize;
        let state = &mut self.state[at..at + n];
        if state.contains(&(State::Copying as u8)) {
            return fault(
                code::LAUNCH_FAILURE,
                format!("writes byte {at} of shared memory while a copy to it is under way"),
            );
        }
        state.fill(State::Written as u8);
        // bytes of a word may be of several lanes
        Ok(n >= 4 && self.races.write(at / 4..(at + n) / 4, who))
    }

    /// Atomics of several warps need no barrier between them.
    pub fn check_atomic(&mut self, at: u64, n: usize) -> Done {
        self.bounds(at, n)?;
        if self.state[at as usize..at as usize + n].iter().any(|s| *s != State::Written as u8) {
            return fault(
                code::LAUNCH_FAILURE,
                format!("an atomic on byte {at} of shared memory, which was never written"),
            );
        }
        Ok(())
    }

    /// A copy to it begins.
    pub fn begin_copy(&mut self, at: u64, n: usize) {
        self.mark(at, n, State::Copying);
    }

    /// It has ended: as if the lane that waits for it had written.
    pub fn end_copy(&mut self, at: u64, n: usize, who: Who) {
        self.mark(at, n, State::Written);
        self.races.write(at as usize / 4..(at as usize + n) / 4, who);
    }

    fn mark(&mut self, at: u64, n: usize, state: State) {
        self.state[at as usize..at as usize + n].fill(state as u8);
    }
}
