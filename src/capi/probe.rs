//! A look at the attention of one decode, for reports: which cells the batch went to, and how chosen queries spread their
//! weight over the cells, by the scalar reference.
//!
//! Off unless [`Probe::watch`] runs, and then on for its own thread only: llama.cpp computes part 0 of every operation on the
//! thread that called `llama_decode`, so decodes of other threads are neither seen nor slowed. Switched off, it costs a look
//! at a thread's flag for each attention.

use std::cell::{Cell, RefCell};

use crate::kernels::{reference, AttentionArgs, KernelError};

/// Attention weights of one query: `[query head]`, each a list of (cell, weight).
pub type Weights = Vec<Vec<(i64, f64)>>;

/// What was seen of one decode.
#[derive(Debug, Default)]
pub struct Seen {
    /// Cells of the batch's tokens, in their order (of the last ubatch).
    pub cells: Vec<i64>,
    /// `[call of the attention][asked-for token]`. Calls are in the order of the graph: one for each layer with a
    /// progressive cache, or with access to another layer's.
    pub calls: Vec<Vec<Weights>>,
}

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Tokens of the batch whose weights are computed. None: cells only, which is cheap.
    pub tokens: Vec<usize>,
}

struct State {
    probe: Probe,
    seen: Seen,
    failed: Option<KernelError>,
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Takes the state away when a watched decode ends, also by a panic.
struct Off;

impl Drop for Off {
    fn drop(&mut self) {
        ON.set(false);
        STATE.with_borrow_mut(|state| *state = None);
    }
}

impl Probe {
    /// Runs `decode`, which should decode one ubatch on this thread, and returns what was seen with its result.
    ///
    /// # Errors
    /// [`KernelError`] where an operation's arguments are such that the kernel would refuse them too.
    pub fn watch<T>(&self, decode: impl FnOnce() -> T) -> (T, Result<Seen, KernelError>) {
        let off = Off;
        STATE.with_borrow_mut(|state| {
            *state = Some(State { probe: self.clone(), seen: Seen::default(), failed: None });
        });
        ON.set(true);
        let result = decode();
        let state = STATE.with_borrow_mut(Option::take);
        drop(off);
        let seen = match state {
            Some(State { failed: Some(e), .. }) => Err(e),
            Some(State { seen, .. }) => Ok(seen),
            None => Ok(Seen::default()),
        };
        (result, seen)
    }
}

/// Called by the first thread of every attention.
pub(super) fn see(args: &AttentionArgs) {
    if ON.get() {
        look(args);
    }
}

#[cold]
fn look(args: &AttentionArgs) {
    STATE.with_borrow_mut(|state| {
        let Some(state) = state else { return };
        state.seen.cells = args.cells.to_vec();
        let tokens = &state.probe.tokens;
        if tokens.is_empty() || state.failed.is_some() {
            return;
        }
        let weights: Result<Vec<Weights>, _> =
            tokens.iter().map(|&token| reference::attention_weights(args, token)).collect();
        match weights {
            Ok(weights) => state.seen.calls.push(weights),
            Err(e) => state.failed = Some(e),
        }
    });
}
