//! How the work is dealt out: chunks of blocks, tasks, threads.

use super::super::args::{MaskF16, SideView};
use super::super::{codes, KernelError};
use super::{AttentionArgs, Shape};
use crate::geometry::{BLOCK, SUBTILES};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who does which task.
#[derive(Clone, Copy, Debug)]
pub enum Schedule<'a> {
    /// Thread `ith` of `nth`: a run of tasks that follow one another in memory.
    Static { ith: usize, nth: usize },
    /// Tasks that nobody took: a thread that is held up takes fewer. The counter is shared by the `nth` threads of one
    /// operation, all of which must take part; it starts at 0, and the last thread to find nothing left sets it to 0 again.
    Counter { next: &'a AtomicU32, nth: usize },
}

/// Query rows (tokens x query heads of a KV head) that share an unpacked block.
const TILE_ROWS: usize = 64;

/// Tokens in a tile of queries: at most 64.
pub(crate) const fn tile_tokens(ratio: usize) -> usize {
    if ratio >= TILE_ROWS {
        1
    } else {
        TILE_ROWS / ratio
    }
}

/// The tasks of one thread, of `n` in all.
pub(crate) struct Tasks<'a> {
    /// `None` once it has nothing left for this thread.
    schedule: Option<Schedule<'a>>,
    n: usize,
    /// Taken, and not yet done.
    run: Range<usize>,
}

impl<'a> Tasks<'a> {
    pub fn new(schedule: Schedule<'a>, n: usize) -> Tasks<'a> {
        Tasks { schedule: Some(schedule), n, run: 0..0 }
    }

    /// Takes further tasks; none at the end.
    fn take(&mut self) -> Range<usize> {
        let n = self.n;
        match self.schedule {
            None => 0..0,
            Some(Schedule::Static { ith, nth }) => {
                self.schedule = None;
                n * ith / nth..n * (ith + 1) / nth
            }
            // Half of an equal share of what is left: a task's end asks for the memory of the task after it, so those that
            // follow one another are best done by the same thread, and towards the end single ones even out.
            Some(Schedule::Counter { next, nth }) => {
                let after = |first: usize| if first < n { first + (n - first).div_ceil(2 * nth) } else { first + 1 };
                let mut first = next.load(Ordering::Relaxed) as usize;
                while let Err(now) =
                    next.compare_exchange_weak(first as u32, after(first) as u32, Ordering::Relaxed, Ordering::Relaxed)
                {
                    first = now as usize;
                }
                if first < n {
                    return first..after(first);
                }
                self.schedule = None;
                if after(first) == n + nth {
                    next.store(0, Ordering::Relaxed);
                }
                0..0
            }
        }
    }
}

impl Iterator for Tasks<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.run.is_empty() {
            self.run = self.take();
        }
        self.run.next()
    }
}

/// What a block costs beside its bytes (softmax, masks), in bytes.
const BLOCK_COST: usize = 1024;

/// Where chunks of the visible blocks begin: chunk `c` is `starts[c] .. starts[c + 1]`. Chunks have about equal bytes of
/// keys and values; blocks that no query sees cost nothing. The same for every thread, however many there are. Entries that
/// make no sense count as empty: whoever reads such a block says so.
pub(crate) fn chunk_starts(a: &AttentionArgs, p: &Shape, starts: &mut [u32]) -> Result<(), KernelError> {
    starts.fill(p.n_blocks as u32);
    starts[0] = 0;
    if p.n_chunk == 1 {
        return Ok(());
    }
    let bytes = |side: &SideView, block| -> Result<usize, KernelError> {
        let width = side.width(block, &side.entry(block)?).unwrap_or(None);
        Ok(width.map_or(0, |w| SUBTILES * w.subtile_bytes(side.head_dim())))
    };
    let cost = |block: usize| -> Result<usize, KernelError> {
        let bytes = bytes(&a.k, block)? + bytes(&a.v, block)?;
        Ok(if seen(&a.mask, p.n_token, p.n_kv, block) { BLOCK_COST + bytes } else { 0 })
    };
    let mut total = 0;
    for block in 0..p.n_blocks {
        total += cost(block)?;
    }
    let (mut before, mut c) = (0, 1);
    for block in 0..p.n_blocks {
        // a block belongs to the chunk in which its middle lies
        let cost = cost(block)?;
        while c < p.n_chunk && (2 * before + cost) * p.n_chunk > 2 * total * c {
            starts[c] = block as u32;
            c += 1;
        }
        before += cost;
    }
    Ok(())
}

fn seen(mask: &MaskF16, n_token: usize, n_kv: usize, block: usize) -> bool {
    let columns = block * BLOCK..n_kv.min((block + 1) * BLOCK);
    (0..n_token).any(|t| mask.row(t)[columns.clone()].iter().any(|&m| m != codes::NEG_INFINITY))
}
