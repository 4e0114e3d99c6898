//! Few places for many registers: PTX has a register for each value, thousands of them, and a warp's should stay in the caches.
//!
//! A place is given again where the register that had it is not read any more. Each lane has its own part of a place, so that only what a
//! lane itself can come through counts.

use crate::decode::{Class, Decoder, Slots};
use crate::program::{Ins, Kind};

/// Where an instruction may be followed.
fn next(code: &[Ins], tables: &[Vec<u32>], pc: usize) -> Vec<usize> {
    let i = &code[pc];
    let mut out = Vec::new();
    match i.kind {
        Kind::Branch => out.push(i.imm as usize),
        Kind::Table => out.extend(tables[i.imm as usize].iter().map(|t| *t as usize)),
        _ => {}
    }
    let goes_on = match i.kind {
        Kind::Branch | Kind::Exit => i.guard != 0,
        Kind::Table => false,
        _ => true,
    };
    if goes_on {
        out.push(pc + 1);
    }
    out.retain(|pc| *pc < code.len());
    out
}

pub fn slots(d: &Decoder, code: &[Ins]) -> Slots {
    // words first, then longs
    let n = d.n32 + d.n64;
    let number = |(class, id): (Class, u32)| match class {
        Class::Word => Some(id as usize),
        Class::Long => Some(d.n32 + id as usize),
        Class::Pred => None,
    };
    // blocks begin where something jumps to, and behind jumps
    let mut begins = vec![false; code.len() + 1];
    begins[0] = true;
    let follow: Vec<Vec<usize>> = (0..code.len()).map(|pc| next(code, &d.tables, pc)).collect();
    for (pc, to) in follow.iter().enumerate() {
        if !(to.len() == 1 && to[0] == pc + 1) {
            to.iter().for_each(|t| begins[*t] = true);
            begins[pc + 1] = true;
        }
    }
    let starts: Vec<usize> = (0..code.len()).filter(|pc| begins[*pc]).collect();
    let mut block_of = vec![0; code.len()];
    for (b, s) in starts.iter().enumerate() {
        let end = starts.get(b + 1).copied().unwrap_or(code.len());
        block_of[*s..end].fill(b);
    }
    let words = n.div_ceil(64);
    let n_blocks = starts.len();
    let (mut gen, mut kill) = (vec![0u64; n_blocks * words], vec![0u64; n_blocks * words]);
    for pc in 0..code.len() {
        let row = block_of[pc] * words;
        for r in d.uses[pc].reads.iter().filter_map(|r| number(*r)) {
            if kill[row + r / 64] >> (r % 64) & 1 == 0 {
                gen[row + r / 64] |= 1 << (r % 64);
            }
        }
        for r in d.uses[pc].writes.iter().filter_map(|r| number(*r)) {
            if code[pc].guard == 0 {
                kill[row + r / 64] |= 1 << (r % 64);
            } else if kill[row + r / 64] >> (r % 64) & 1 == 0 {
                // where it is not written, it stays what it was
                gen[row + r / 64] |= 1 << (r % 64);
            }
        }
    }
    // what is read later, at the begin of each block
    let mut live = gen.clone();
    let mut changed = true;
    while changed {
        changed = false;
        for b in (0..n_blocks).rev() {
            let end = starts.get(b + 1).copied().unwrap_or(code.len());
            for to in &follow[end - 1] {
                let from = block_of[*to] * words;
                for w in 0..words {
                    let x = live[from + w] & !kill[b * words + w] & !live[b * words + w];
                    if x != 0 {
                        live[b * words + w] |= x;
                        changed = true;
                    }
                }
            }
        }
    }
    // first and last half step of each register
    let (mut first, mut last) = (vec![usize::MAX; n], vec![0usize; n]);
    let mut touch = |r: usize, at: usize| {
        first[r] = first[r].min(at);
        last[r] = last[r].max(at);
    };
    for b in 0..n_blocks {
        let end = starts.get(b + 1).copied().unwrap_or(code.len());
        let each = |row: &[u64], f: &mut dyn FnMut(usize)| {
            for (w, x) in row.iter().enumerate() {
                let mut x = *x;
                while x != 0 {
                    f(64 * w + x.trailing_zeros() as usize);
                    x &= x - 1;
                }
            }
        };
        each(&live[b * words..(b + 1) * words], &mut |r| touch(r, 2 * starts[b]));
        for to in &follow[end - 1] {
            let from = block_of[*to] * words;
            each(&live[from..from + words], &mut |r| touch(r, 2 * end - 1));
        }
        for pc in starts[b]..end {
            d.uses[pc].reads.iter().filter_map(|r| number(*r)).for_each(|r| touch(r, 2 * pc));
            d.uses[pc].writes.iter().filter_map(|r| number(*r)).for_each(|r| touch(r, 2 * pc + 1));
        }
    }
    let (words, n_words) = deal(&first[..d.n32], &last[..d.n32]);
    let (longs, n_longs) = deal(&first[d.n32..], &last[d.n32..]);
    Slots { words, longs, n_words, n_longs }
}

/// A place for each interval; those that overlap have different ones.
fn deal(first: &[usize], last: &[usize]) -> (Vec<u32>, usize) {
    let mut order: Vec<usize> = (0..first.len()).filter(|r| first[*r] != usize::MAX).collect();
    order.sort_by_key(|r| first[*r]);
    let mut taken: std::collections::BinaryHeap<std::cmp::Reverse<(usize, u32)>> = Default::default();
    let (mut free, mut n, mut places) = (Vec::new(), 0u32, vec![0; first.len()]);
    for r in order {
        while let Some(std::cmp::Reverse((end, slot))) = taken.peek().copied() {
            if end >= first[r] {
                break;
            }
            taken.pop();
            free.push(slot);
        }
        let slot = free.pop().unwrap_or_else(|| {
            n += 1;
            n - 1
        });
        places[r] = slot;
        taken.push(std::cmp::Reverse((last[r], slot)));
    }
    (places, n as usize)
}
