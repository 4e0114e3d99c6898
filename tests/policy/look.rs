//! Definitions read straight off the issue, slow and without cleverness: what a block is to its sequences, what a step
//! costs, where a token goes.

use pmkvq::geometry::{Width, BLOCK};
use pmkvq::policy::{Config, Policy, SeqSet};

pub fn has(set: &SeqSet, seq: u32) -> bool {
    set[seq as usize / 64] >> (seq % 64) & 1 == 1
}

pub fn cells_of(pos: &[i32], seq: &[SeqSet], s: u32) -> Vec<usize> {
    (0..pos.len()).filter(|&c| pos[c] >= 0 && has(&seq[c], s)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Empty,
    /// May be narrowed.
    Past,
    Window,
    Open,
    Sink,
}

/// What every block is.
pub fn kinds(config: &Config, pos: &[i32], seq: &[SeqSet], n_seq: u32) -> Vec<Kind> {
    let n = pos.len() / BLOCK;
    let mut kinds: Vec<Kind> = (0..n)
        .map(|b| match pos[b * BLOCK..(b + 1) * BLOCK].iter().all(|p| *p < 0) {
            true => Kind::Empty,
            false => Kind::Past,
        })
        .collect();
    for s in 0..n_seq {
        let mut cells = cells_of(pos, seq, s);
        cells.sort_by_key(|&c| -pos[c]);
        for &c in &cells {
            let newer = cells.iter().take_while(|&&d| pos[d] > pos[c]).count();
            let kind = &mut kinds[c / BLOCK];
            if newer == 0 {
                *kind = Kind::Open;
            } else if newer < config.window as usize && *kind != Kind::Open {
                *kind = Kind::Window;
            }
            if newer >= (config.window as usize).max(1) {
                break;
            }
        }
    }
    for kind in kinds.iter_mut().take(config.sink_blocks() as usize) {
        if *kind != Kind::Empty {
            *kind = Kind::Sink;
        }
    }
    kinds
}

/// Loss per byte of the cheapest way down from `from`, and where it leads.
pub fn price(config: &Config, side: usize, from: Width) -> Option<(f64, Width)> {
    let s = &config.sides[side];
    let bytes = config.pools[s.pool].bytes_per_page as f64;
    let mut best: Option<(f64, Width)> = None;
    for to in Width::ALL {
        if to < from && to >= s.floor() {
            let slope = (s.loss[to.index()] - s.loss[from.index()]) / ((from.pages() - to.pages()) as f64 * bytes);
            if best.is_none_or(|b| slope < b.0) {
                best = Some((slope, to));
            }
        }
    }
    best
}

/// Placement, token by token on a copy of the cells.
pub fn place(policy: &Policy, pos: &[i32], seq: &[SeqSet], tokens: &[(i32, u32)]) -> Option<Vec<u32>> {
    let config = policy.config();
    let (old, mut pos, mut seq) = (pos, pos.to_vec(), seq.to_vec());
    let sinks = config.sink_blocks() as usize;
    let n = pos.len() / BLOCK;
    let mut cells = Vec::new();
    if pos.iter().filter(|p| **p >= 0).count() + tokens.len() > config.n_ctx as usize {
        return None;
    }
    for &(p, s) in tokens {
        let free = |b: usize, from: usize| (b * BLOCK + from..(b + 1) * BLOCK).find(|&c| pos[c] < 0);
        let only = |b: usize| (b * BLOCK..(b + 1) * BLOCK).all(|c| pos[c] < 0 || has(&seq[c], s));
        let wide = |b: usize| {
            old[b * BLOCK..(b + 1) * BLOCK].iter().all(|p| *p < 0)
                || (0..config.sides.len()).all(|side| matches!(policy.table(side)[b].width, 0 | 16))
        };
        let mut cell = None;
        if (p as u32) < config.sink {
            cell = (0..sinks).find_map(|b| free(b, 0));
        }
        let newest = cells_of(&pos, &seq, s).into_iter().max_by_key(|&c| pos[c]);
        if let Some(newest) = newest {
            let b = newest / BLOCK;
            if b >= sinks && wide(b) && only(b) {
                cell = cell.or_else(|| free(b, newest % BLOCK + 1)).or_else(|| free(b, 0));
            }
        }
        let empty = |b: &usize| pos[b * BLOCK..(b + 1) * BLOCK].iter().all(|p| *p < 0);
        cell = cell.or_else(|| (sinks..n).find(empty).and_then(|b| free(b, 0)));
        cell = cell.or_else(|| (sinks..n).filter(|b| only(*b)).find_map(|b| free(b, 0)));
        cell = cell.or_else(|| (sinks..n).chain(0..sinks).find_map(|b| free(b, 0)));
        let cell = cell?;
        pos[cell] = p;
        seq[cell][s as usize / 64] |= 1 << (s % 64);
        cells.push(cell as u32);
    }
    Some(cells)
}
