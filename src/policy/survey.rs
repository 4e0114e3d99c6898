//! A look at the cells of blocks: who uses them, how far behind their sequences' heads they are.

use super::cells::{ids, meets, CellView, SeqSet};
use super::config::MAX_SEQ;
use crate::geometry::{BLOCK, SUBTILE, SUBTILES};

/// What a block is to its sequences. The order is that in which blocks give pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// No used cell.
    Empty,
    /// Closed, and out of the window of every sequence that uses it: may be narrowed.
    Past,
    /// Closed, but a sequence has it among its latest `window` tokens.
    Window,
    /// Holds the newest cell of a sequence.
    Open,
    /// First tokens.
    Sink,
}

/// What was seen; indexed by block. Blocks that were not looked at have class `Empty` and must not be asked for.
pub struct Survey {
    pub class: Vec<Class>,
    /// Subtiles that hold a used cell.
    pub used: Vec<u8>,
    /// Largest position in the block.
    pub newest: Vec<i32>,
    /// No sequence of the block has a token in this ubatch.
    pub idle: Vec<bool>,
}

/// A sequence in a block, and its newest position there.
struct Share {
    seq: u32,
    block: u32,
    newest: i32,
}

/// What to look for.
pub struct Terms<'a> {
    pub sink_blocks: usize,
    pub window: usize,
    /// Sequences with a token in this ubatch.
    pub active: &'a SeqSet,
}

impl Survey {
    /// Looks at `blocks`, each named once. If they are not all blocks of the cache, a sequence's head and window are
    /// those among them, and a block that would be past may be found in the window: late, never early.
    pub fn new(cells: CellView, blocks: impl Iterator<Item = usize>, terms: &Terms) -> Survey {
        let n_blocks = cells.pos.len() / BLOCK;
        let mut survey = Survey {
            class: vec![Class::Empty; n_blocks],
            used: vec![0; n_blocks],
            newest: vec![-1; n_blocks],
            idle: vec![true; n_blocks],
        };
        let mut shares = Vec::new();
        for b in blocks {
            survey.look(cells, b, terms, &mut shares);
        }
        shares.sort_unstable_by(|a, b| a.seq.cmp(&b.seq).then(b.newest.cmp(&a.newest)));
        for of_seq in shares.chunk_by(|a, b| a.seq == b.seq) {
            let head = of_seq[0].newest;
            let start = window_start(cells, of_seq, terms.window);
            for share in of_seq {
                let class = if share.newest == head {
                    Class::Open
                } else if start.is_none_or(|start| share.newest >= start) {
                    Class::Window
                } else {
                    Class::Past
                };
                let b = share.block as usize;
                survey.class[b] = survey.class[b].max(class);
            }
        }
        survey
    }

    fn look(&mut self, cells: CellView, b: usize, terms: &Terms, shares: &mut Vec<Share>) {
        let (pos, seq) = (cells.block(b), &cells.seq[b * BLOCK..(b + 1) * BLOCK]);
        // by subtile, which compilers vectorise
        let newest: [i32; SUBTILES] =
            std::array::from_fn(|s| pos[s * SUBTILE..(s + 1) * SUBTILE].iter().fold(-1, |n, &p| n.max(p)));
        let used = (0..SUBTILES).fold(0, |used, s| used | u8::from(newest[s] >= 0) << s);
        if used == 0 {
            return;
        }
        self.used[b] = used;
        self.newest[b] = newest.into_iter().fold(-1, i32::max);
        let sets = sets(pos, seq, self.newest[b]);
        self.idle[b] = !sets.iter().any(|(set, _)| meets(set, terms.active));
        self.class[b] = if b < terms.sink_blocks { Class::Sink } else { Class::Past };
        let first = shares.len();
        for (set, newest) in &sets {
            for seq in ids(set) {
                match shares[first..].iter_mut().find(|s| s.seq == seq) {
                    Some(share) => share.newest = share.newest.max(*newest),
                    None => shares.push(Share { seq, block: b as u32, newest: *newest }),
                }
            }
        }
    }
}

/// The sets of a block's used cells, each with its newest position; `newest` is that of the block.
fn sets(pos: &[i32], seq: &[SeqSet], newest: i32) -> Vec<(SeqSet, i32)> {
    let first = pos.iter().zip(seq).find(|(p, _)| **p >= 0).map_or([0; 4], |(_, s)| *s);
    // nearly always all cells have the same set, and then sets need not be opened
    let differ = pos.iter().zip(seq).fold([0; 4], |mut differ: SeqSet, (&p, set)| {
        let used = !i64::from(p >> 31) as u64;
        for (d, (a, b)) in differ.iter_mut().zip(set.iter().zip(&first)) {
            *d |= (a ^ b) & used;
        }
        differ
    });
    if differ == [0; 4] {
        return vec![(first, newest)];
    }
    let mut sets: Vec<(SeqSet, i32)> = Vec::new();
    let mut at = 0;
    for (&pos, set) in pos.iter().zip(seq).filter(|(p, _)| **p >= 0) {
        if sets.get(at).is_none_or(|(s, _)| s != set) {
            at = sets.iter().position(|(s, _)| s == set).unwrap_or_else(|| {
                sets.push((*set, -1));
                sets.len() - 1
            });
        }
        sets[at].1 = sets[at].1.max(pos);
    }
    sets
}

/// The position of the `window`-th newest token of a sequence (its shares sorted newest first): tokens of smaller
/// position have at least `window` tokens before them. Tokens are counted, not positions, since images share positions.
/// `None` if the sequence has fewer tokens than that.
fn window_start(cells: CellView, shares: &[Share], window: usize) -> Option<i32> {
    if window == 0 {
        return Some(i32::MAX);
    }
    let mut latest: Vec<i32> = Vec::with_capacity(window + BLOCK);
    let mut start = None;
    for share in shares {
        if start.is_some_and(|start| share.newest <= start) {
            break;
        }
        let base = share.block as usize * BLOCK;
        for (i, &pos) in cells.block(share.block as usize).iter().enumerate() {
            if pos >= 0 && cells.has(base + i, share.seq) {
                latest.push(pos);
            }
        }
        if latest.len() >= window {
            let nth = latest.len() - window;
            start = Some(*latest.select_nth_unstable(nth).1);
        }
    }
    start
}

const _: () = assert!(MAX_SEQ as usize == std::mem::size_of::<SeqSet>() * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_counts_tokens() {
        // Sequence 0: block 1 holds positions 0..128, block 2 an image of 100 tokens that share position 128,
        // block 3 positions 129..139.
        let mut pos = vec![-1; 4 * BLOCK];
        let mut seq = vec![[0u64; 4]; 4 * BLOCK];
        for i in 0..128 {
            pos[BLOCK + i] = i as i32;
        }
        pos[2 * BLOCK..2 * BLOCK + 100].fill(128);
        for i in 0..11 {
            pos[3 * BLOCK + i] = 129 + i as i32;
        }
        for (s, p) in seq.iter_mut().zip(&pos) {
            s[0] = u64::from(*p >= 0);
        }
        let cells = CellView { pos: &pos, seq: &seq };
        let classes = |window| {
            let terms = Terms { sink_blocks: 0, window, active: &[0; 4] };
            Survey::new(cells, 0..4, &terms).class
        };
        use Class::*;
        assert_eq!(classes(0), [Empty, Past, Past, Open]);
        assert_eq!(classes(11), [Empty, Past, Past, Open]);
        assert_eq!(classes(12), [Empty, Past, Window, Open]);
        assert_eq!(classes(111), [Empty, Past, Window, Open]);
        assert_eq!(classes(112), [Empty, Window, Window, Open]);
        assert_eq!(classes(1000), [Empty, Window, Window, Open]);
    }

    #[test]
    fn every_sequence_of_a_block_has_a_say() {
        // Block 0 belongs to 0 and 70; 0 went on in blocks 1 and 2, 70 did not.
        let mut pos = vec![-1; 3 * BLOCK];
        let mut seq = vec![[0u64; 4]; 3 * BLOCK];
        for i in 0..3 * BLOCK - 5 {
            pos[i] = i as i32;
            seq[i] = if i < BLOCK { [1, 1 << 6, 0, 0] } else { [1, 0, 0, 0] };
        }
        let look = |seq: &[SeqSet]| {
            let cells = CellView { pos: &pos, seq };
            let terms = Terms { sink_blocks: 0, window: 100, active: &[0, 1 << 6, 0, 0] };
            let s = Survey::new(cells, 0..3, &terms);
            (s.class, s.idle)
        };
        use Class::*;
        assert_eq!(look(&seq), (vec![Open, Past, Open], vec![false, true, true]));
        seq.iter_mut().for_each(|s| s[1] = 0);
        assert_eq!(look(&seq).0, vec![Past, Past, Open]);
    }
}
