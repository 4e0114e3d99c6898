//! How the work is dealt out: chunks of blocks, tasks, threads.

use super::super::args::{MaskF16, SideView};
use super::super::{codes, KernelError};
use super::{AttentionArgs, Shape};
use crate::geometry::{BLOCK, SUBTILES};
use std::sync::atomic::{AtomicU32, Ordering};

/// Who does which task.
#[derive(Clone, Copy, Debug)]
pub enum Schedule<'a> {
    /// Thread `ith` of `nth`: a run of tasks that follow one another in memory.
    Static { ith: usize, nth: usize },
    /// The next one that nobody took: a thread that is held up takes fewer. The counter is shared by the `nth` threads of
    /// one operation, all of which must take part; it starts at 0, and the last thread to find nothing left sets it to 0 again.
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

/// The task after `last` of `n` tasks, for one thread; `None` at the end.
pub(crate) fn next_task(schedule: Schedule, n: usize, last: Option<usize>) -> Option<usize> {
    let (task, end) = match (schedule, last) {
        (Schedule::Static { ith, nth }, None) => (n * ith / nth, n * (ith + 1) / nth),
        (Schedule::Static { ith, nth }, Some(t)) => (t + 1, n * (ith + 1) / nth),
        (Schedule::Counter { next, nth }, _) => {
            let task = next.fetch_add(1, Ordering::Relaxed) as usize;
            if task + 1 == n + nth {
                next.store(0, Ordering::Relaxed);
            }
            (task, n)
        }
    };
    Some(task).filter(|&t| t < end)
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
