//! A cache of two layers in plain memory: the policy, the CPU's kernels, and what every cell should hold.

use pmkvq::geometry::{page_bytes, params_bytes, BlockEntry, Side, Width, BLOCK};
use pmkvq::kernels::{load, shrink, store, PartialsMut, RangeRule, RowsF32, ShrinkOp, SideView};
use pmkvq::policy::{CellView, Config, Initial, Placed, Policy, PoolConfig, Rule, SeqSet, SideConfig};
use pmkvq::state::{self, Head, Held, Place, SideShape, Storage, META_ROW};
use std::sync::atomic::AtomicU32;

use super::rng::Rng;

const N_HEAD: usize = 2;

#[derive(Clone)]
pub struct Setup {
    pub n_ctx: u32,
    pub shapes: Vec<[(usize, usize); 2]>,
    pub finals: Vec<Width>,
    pub range: RangeRule,
    pub sink: u32,
    pub window: u32,
    pub initial: Initial,
    pub rule: Rule,
    pub spare: u32,
}

/// What a cell of a side should hold: these values, quantized.
#[derive(Clone)]
struct Holds {
    values: Vec<f32>,
    /// It came by a width from which codes can't be told exactly.
    loose: bool,
}

pub struct Sim {
    pub policy: Policy,
    pub shapes: Vec<SideShape>,
    pub memory: Memory,
    pub salt: u64,
    pos: Vec<i32>,
    seq: Vec<SeqSet>,
    /// `[side][cell]`
    holds: Vec<Vec<Option<Holds>>>,
    seed: u64,
}

/// Pools and one meta buffer of parameters, in words so that kernels find them aligned.
pub struct Memory {
    pools: Vec<Vec<u32>>,
    page_bytes: Vec<usize>,
    meta: Vec<u32>,
    /// Bytes of blocks in hand at a time.
    in_hand: usize,
}

fn bytes(words: &mut [u32]) -> &mut [u8] {
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 4) }
}

impl Memory {
    /// The bytes of a place, and of a row there.
    fn place(&mut self, place: Place) -> (&mut [u8], usize) {
        match place {
            Place::Pool(i) => (bytes(&mut self.pools[i as usize]), self.page_bytes[i as usize]),
            Place::Meta(_) => (bytes(&mut self.meta), META_ROW),
        }
    }
}

impl Storage for Memory {
    fn get(&mut self, place: Place, rows: &[i32], dst: &mut [u8]) -> Result<(), String> {
        let (from, size) = self.place(place);
        assert_eq!(dst.len(), rows.len() * size);
        for (to, &row) in dst.chunks_exact_mut(size).zip(rows) {
            to.copy_from_slice(&from[row as usize * size..][..size]);
        }
        Ok(())
    }

    fn set(&mut self, place: Place, rows: &[i32], src: &[u8]) -> Result<(), String> {
        let (to, size) = self.place(place);
        assert_eq!(src.len(), rows.len() * size);
        for (from, &row) in src.chunks_exact(size).zip(rows) {
            to[row as usize * size..][..size].copy_from_slice(from);
        }
        Ok(())
    }

    fn in_hand(&self) -> usize {
        self.in_hand
    }
}

/// A saved state with what its cells should hold.
pub struct State {
    pub bytes: Vec<u8>,
    pub head: Head,
    /// (position, sequences) of each cell.
    cells: Vec<(i32, SeqSet)>,
    holds: Vec<Vec<Holds>>,
    whole: bool,
}

impl State {
    /// Blocks of sides by width.
    pub fn widths(&self) -> [usize; 4] {
        let mut n = [0; 4];
        self.head.blocks.iter().flat_map(|b| &b.widths).for_each(|w| n[w.index()] += 1);
        n
    }
}

impl Sim {
    pub fn new(setup: &Setup, seed: u64) -> Sim {
        let sink_cells = setup.sink * 3;
        let n_blocks = setup.n_ctx.div_ceil(BLOCK as u32) + sink_cells.div_ceil(BLOCK as u32) + 3;
        let dims: Vec<(usize, usize)> = setup.shapes.iter().flatten().copied().collect();
        let mut pool_dims: Vec<usize> = Vec::new();
        let mut pool_of = |d: usize| match pool_dims.iter().position(|x| *x == d) {
            Some(i) => i,
            None => {
                pool_dims.push(d);
                pool_dims.len() - 1
            }
        };
        let sides: Vec<SideConfig> = dims
            .iter()
            .zip(&setup.finals)
            .map(|(&(d, _), &final_width)| SideConfig {
                pool: pool_of(d),
                final_width,
                shrinkable: true,
                loss: [0.0, 1.0, 2.0, 3.0],
                quota: n_blocks * 3,
            })
            .collect();
        let mut config = Config {
            n_ctx: setup.n_ctx,
            n_blocks,
            n_seq_max: 3,
            sink: setup.sink,
            window: setup.window,
            initial: setup.initial,
            rule: setup.rule,
            sides,
            pools: vec![PoolConfig { n_pages: 1, bytes_per_page: 64 }; pool_dims.len()],
        };
        let least = config.least_pages();
        for (pool, least) in config.pools.iter_mut().zip(least) {
            pool.n_pages = (least as u32 * (100 + setup.spare)).div_ceil(100);
        }
        let mut meta = 0;
        let shapes: Vec<SideShape> = dims
            .iter()
            .enumerate()
            .map(|(i, &(head_dim, group))| {
                // a side that ends at 16 bits has no parameters
                let group = if setup.finals[i] == Width::B16 { 0 } else { group };
                let pool = config.sides[i].pool;
                let n_pages = config.pools[pool].n_pages as usize;
                let shape = SideShape {
                    side: Side::BOTH[i % 2],
                    n_head_kv: N_HEAD,
                    head_dim,
                    group,
                    range: setup.range,
                    pool: pool as u32,
                    n_pages,
                    device: 0,
                    params: meta,
                };
                meta += params_bytes(n_blocks as usize, N_HEAD, head_dim.checked_div(group).unwrap_or(0));
                shape
            })
            .collect();
        let pool_words = |(i, d): (usize, &usize)| N_HEAD * config.pools[i].n_pages as usize * page_bytes(*d) / 4;
        let n = n_blocks as usize * BLOCK;
        Sim {
            memory: Memory {
                page_bytes: pool_dims.iter().map(|d| page_bytes(*d)).collect(),
                pools: pool_dims.iter().enumerate().map(pool_words).map(|n| vec![u32::MAX; n]).collect(),
                meta: vec![u32::MAX; meta / 4 + 1],
                // a block, some, all of them
                in_hand: [1, 100_000, usize::MAX][seed as usize % 3],
            },
            policy: Policy::new(config).unwrap(),
            holds: vec![vec![None; n]; shapes.len()],
            shapes,
            salt: 0,
            pos: vec![-1; n],
            seq: vec![[0; 4]; n],
            seed,
        }
    }

    fn cells(&self) -> CellView<'_> {
        CellView { pos: &self.pos, seq: &self.seq }
    }

    fn has(&self, cell: usize, seq: u32) -> bool {
        self.pos[cell] >= 0 && self.seq[cell][0] >> seq & 1 == 1
    }

    pub fn next(&self, seq: u32) -> i32 {
        (0..self.pos.len()).filter(|&c| self.has(c, seq)).map(|c| self.pos[c] + 1).max().unwrap_or(0)
    }

    fn used(&self) -> usize {
        self.pos.iter().filter(|p| **p >= 0).count()
    }

    /// Tokens that still fit.
    pub fn room(&self) -> usize {
        self.policy.config().n_ctx as usize - self.used()
    }

    /// Whether any side has blocks of several widths.
    pub fn has_mixed_widths(&self) -> bool {
        (0..self.shapes.len()).any(|side| {
            let mut widths: Vec<i32> = self.policy.table(side).iter().map(|e| e.width).filter(|w| *w != 0).collect();
            widths.sort_unstable();
            widths.dedup();
            widths.len() > 1
        })
    }

    fn clear_cell(&mut self, cell: usize) {
        self.pos[cell] = -1;
        self.seq[cell] = [0; 4];
        self.holds.iter_mut().for_each(|h| h[cell] = None);
    }

    pub fn forget(&mut self, seq: u32, from: i32) {
        for c in 0..self.pos.len() {
            if self.has(c, seq) && self.pos[c] >= from {
                self.seq[c][0] &= !(1 << seq);
                if self.seq[c] == [0; 4] {
                    self.clear_cell(c);
                }
            }
        }
    }

    /// Forgets cells here and there, of `of_100`.
    pub fn punch(&mut self, rng: &mut Rng, of_100: usize) {
        for c in 0..self.pos.len() {
            if self.pos[c] >= 0 && rng.chance(of_100) {
                self.clear_cell(c);
            }
        }
    }

    /// `to` goes on from where `from` is.
    pub fn share(&mut self, from: u32, to: u32) {
        self.forget(to, 0);
        for c in 0..self.pos.len() {
            if self.has(c, from) {
                self.seq[c][0] |= 1 << to;
            }
        }
    }

    pub fn decode(&mut self, seq: u32, n: usize) {
        let n = n.min(self.policy.config().n_ctx as usize - self.used());
        let next = self.next(seq);
        for first in (0..n).step_by(64) {
            let tokens: Vec<(i32, u32)> = (first..n.min(first + 64)).map(|i| (next + i as i32, seq)).collect();
            let placed = self.policy.place(self.cells(), &tokens).expect("it fits");
            self.enter(&placed, &tokens);
        }
    }

    /// New tokens of `seq` in cells that are free beside others of its blocks, all that there are.
    pub fn fill_holes(&mut self, seq: u32) {
        let blocks: Vec<usize> =
            (0..self.pos.len() / BLOCK).filter(|b| (0..BLOCK).any(|i| self.pos[b * BLOCK + i] >= 0)).collect();
        let free: Vec<u32> = blocks
            .iter()
            .flat_map(|b| b * BLOCK..(b + 1) * BLOCK)
            .filter(|&c| self.pos[c] < 0)
            .map(|c| c as u32)
            .collect();
        let tokens: Vec<(i32, u32)> = (0..free.len() as i32).map(|p| (p, seq)).collect();
        self.enter(&free, &tokens);
    }

    fn enter(&mut self, placed: &[u32], tokens: &[(i32, u32)]) {
        for (&c, &(pos, seq)) in placed.iter().zip(tokens) {
            self.pos[c as usize] = pos;
            self.seq[c as usize] = [1 << seq, 0, 0, 0];
        }
        let cells = CellView { pos: &self.pos, seq: &self.seq };
        let ops = self.policy.plan_ubatch(cells, placed).unwrap().ops.clone();
        self.run(&ops);
        self.policy.commit();
        let cells: Vec<i64> = placed.iter().map(|c| i64::from(*c)).collect();
        for side in 0..self.shapes.len() {
            let d = self.shapes[side].head_dim;
            let mut values = Vec::new();
            for (&c, &(pos, seq)) in placed.iter().zip(tokens) {
                let mut rng =
                    Rng::new(self.seed ^ self.salt << 50 ^ (pos as u64) << 20 ^ u64::from(seq) << 8 ^ side as u64);
                let row: Vec<f32> = (0..N_HEAD * d).map(|_| rng.normal()).collect();
                self.holds[side][c as usize] = Some(Holds { values: row.clone(), loose: false });
                values.extend(row);
            }
            let rows = RowsF32::from_slice(&values, d, N_HEAD).unwrap();
            store(&self.view(side), &rows, &cells, 0, 1).unwrap();
        }
    }

    fn run(&mut self, ops: &[pmkvq::policy::BlockOp]) {
        for op in ops {
            let op_ = ShrinkOp { block: op.block, from: op.from, to: op.to, src: op.src, dst: op.dst };
            shrink(&self.view(op.side as usize), &[op_], &[AtomicU32::new(0)], 0, 1).unwrap();
        }
    }

    fn view(&mut self, side: usize) -> SideView<'_> {
        let shape = self.shapes[side];
        let table = self.policy.table(side);
        let (pool, params) = (self.memory.pools[shape.pool as usize].as_mut_ptr(), self.memory.meta.as_mut_ptr());
        unsafe {
            SideView::new(
                shape.side,
                pool.cast(),
                table.as_ptr(),
                params.cast::<u8>().add(shape.params).cast(),
                N_HEAD,
                shape.n_pages,
                table.len(),
                shape.head_dim,
                shape.group,
            )
            .unwrap()
            .with_range_rule(shape.range)
        }
    }

    /// What the cache has of a cell.
    fn stored(&mut self, side: usize, cell: usize) -> Vec<f32> {
        let mut row = vec![0.0; N_HEAD * self.shapes[side].head_dim];
        load(&self.view(side), &[cell as i64], &PartialsMut::from_slice(&mut row), 0, 1).unwrap();
        row
    }

    /// What it should have: the values, stored at the width that its block has.
    fn expected(&self, side: usize, cell: usize, holds: &Holds) -> Vec<f32> {
        let shape = self.shapes[side];
        let width = Width::from_bits(self.policy.table(side)[cell / BLOCK].width as u32).unwrap();
        quantized(shape, shape.group, width, &holds.values)
    }

    /// Every cell holds what it should.
    pub fn check(&mut self) {
        for side in 0..self.shapes.len() {
            for cell in 0..self.pos.len() {
                let Some(holds) = self.holds[side][cell].clone() else { continue };
                let (got, want) = (self.stored(side, cell), self.expected(side, cell, &holds));
                if holds.loose {
                    let width = self.policy.table(side)[cell / BLOCK].width;
                    let range = holds.values.iter().fold(0f32, |m, x| m.max(x.abs())) * 2.0;
                    // a code may be the next one
                    let most = range / ((1u64 << width) - 1) as f32 * 1.01 + 2e-3 * range;
                    let off = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off <= most, "side {side}, cell {cell} at {width} bits: off by {off}, {most} allowed");
                } else {
                    assert_eq!(got, want, "side {side}, cell {cell}");
                }
            }
        }
    }

    pub fn save(&mut self, seq: Option<u32>) -> State {
        let saved: Vec<usize> =
            (0..self.pos.len()).filter(|&c| self.pos[c] >= 0 && seq.is_none_or(|s| self.has(c, s))).collect();
        let mut masks = vec![0u128; self.pos.len() / BLOCK];
        saved.iter().for_each(|c| masks[c / BLOCK] |= 1 << (c % BLOCK));
        let sinks = self.policy.config().sink_blocks() as usize;
        let policy = &self.policy;
        let tables = |side: usize, block: usize| policy.table(side)[block];
        let head = Head::of(&self.shapes, 7, &masks, sinks, &tables).unwrap();
        let mut bytes = Vec::new();
        head.write(&mut bytes).unwrap();
        assert_eq!(bytes.len(), head.bytes());
        let n = bytes.len();
        state::save(&self.shapes, &masks, &tables, &mut self.memory, &mut bytes).unwrap();
        assert_eq!(bytes.len() - n, state::data_bytes(&head, &self.shapes));
        assert_eq!(head.n_cells(), saved.len());
        let holds = (0..self.shapes.len())
            .map(|side| {
                saved
                    .iter()
                    .map(|&c| {
                        let holds = self.holds[side][c].clone().unwrap();
                        // what is known of a loose cell is what it has
                        if holds.loose {
                            Holds { values: self.stored(side, c), loose: true }
                        } else {
                            holds
                        }
                    })
                    .collect()
            })
            .collect();
        let cells = saved.iter().map(|&c| (self.pos[c], self.seq[c])).collect();
        State { bytes, head, cells, holds, whole: seq.is_none() }
    }

    /// Whether it fitted. Replaces `seq`, or everything if the state is of all sequences.
    pub fn restore(&mut self, state: &State, seq: u32) -> bool {
        let mut from = &state.bytes[..];
        let head = match Head::read(&mut from, &self.shapes, 7, self.policy.config().n_ctx) {
            Ok(head) => head,
            Err(e) => {
                assert!(state.cells.len() > self.policy.config().n_ctx as usize, "{e}");
                return false;
            }
        };
        assert_eq!(head, state.head);
        if state.whole {
            (0..self.pos.len()).for_each(|c| self.clear_cell(c));
            self.policy.reset();
        } else {
            self.forget(seq, 0);
        }
        let fits = self.used() + state.cells.len() <= self.policy.config().n_ctx as usize;
        let placed = self.policy.place_blocks(self.cells(), &head.blocks);
        assert_eq!(placed.is_some(), fits);
        let Some(placed) = placed else { return false };
        assert_eq!(placed.cells.len(), state.cells.len());
        for (&c, &(pos, seqs)) in placed.cells.iter().zip(&state.cells) {
            assert_eq!(self.pos[c as usize], -1, "cell {c} is in use, or was given twice");
            self.pos[c as usize] = pos;
            self.seq[c as usize] = if state.whole { seqs } else { [1 << seq, 0, 0, 0] };
        }
        let cells = CellView { pos: &self.pos, seq: &self.seq };
        let ops = self.policy.plan_blocks(cells, &placed.cells, &placed.starts).unwrap().ops.clone();
        self.run(&ops);
        self.policy.commit();
        let fresh: Vec<u32> = placed.starts.iter().map(|s| s.0).collect();
        let policy = &self.policy;
        let tables = |side: usize, block: usize| -> BlockEntry { policy.table(side)[block] };
        state::restore(&head, &self.shapes, &placed.cells, &fresh, &tables, &mut self.memory, &mut from).unwrap();
        assert!(from.is_empty(), "bytes were left over");
        self.expect_restored(state, &placed.cells);
        true
    }

    /// Cells for a state as sequence 0, and room.
    pub fn place_and_plan(&mut self, head: &Head) -> Placed {
        let placed = self.policy.place_blocks(self.cells(), &head.blocks).unwrap();
        for (i, &c) in placed.cells.iter().enumerate() {
            self.pos[c as usize] = i as i32;
            self.seq[c as usize] = [1, 0, 0, 0];
        }
        let cells = CellView { pos: &self.pos, seq: &self.seq };
        let ops = self.policy.plan_blocks(cells, &placed.cells, &placed.starts).unwrap().ops.clone();
        self.run(&ops);
        self.policy.commit();
        placed
    }

    fn expect_restored(&mut self, state: &State, placed: &[u32]) {
        let mut widths = Vec::new();
        for block in &state.head.blocks {
            (0..block.cells.count_ones()).for_each(|_| widths.push(&block.widths));
        }
        for side in 0..self.shapes.len() {
            let shape = self.shapes[side];
            let group = state.head.sides[side].group as usize;
            for (i, &c) in placed.iter().enumerate() {
                let was = widths[i][side];
                let is = Width::from_bits(self.policy.table(side)[c as usize / BLOCK].width as u32).unwrap();
                let mut holds = state.holds[side][i].clone();
                if was != Width::B16 && (is > was || group != shape.group) {
                    holds = Holds { values: quantized(shape, group, was, &holds.values), loose: true };
                }
                self.holds[side][c as usize] = Some(holds);
            }
        }
    }
}

/// Values as a block of their own has them.
fn quantized(shape: SideShape, group: usize, width: Width, values: &[f32]) -> Vec<f32> {
    let mut held = Held::new(shape, if width == Width::B16 { 0 } else { group }, width);
    let view = held.view().unwrap();
    store(&view, &RowsF32::from_slice(values, shape.head_dim, N_HEAD).unwrap(), &[0], 0, 1).unwrap();
    let mut row = vec![0.0; values.len()];
    load(&view, &[0], &PartialsMut::from_slice(&mut row), 0, 1).unwrap();
    row
}
