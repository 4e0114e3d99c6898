//! Cells, storage and policy together: a stand-in for llama.cpp and the kernels that remembers what was stored where.

use std::collections::{HashMap, HashSet};

use pmkvq::geometry::{BlockEntry, Width, BLOCK, SUBTILE};
use pmkvq::policy::{BlockOp, CellView, Config, Initial, Policy, Rule, SeqSet};

use super::look::{self, Kind};

/// What a page holds: whose it is, and which stored token each of its slots has.
#[derive(Clone, Default)]
struct Page {
    owner: Option<(usize, usize)>,
    bits: usize,
    slots: Vec<u64>,
}

pub struct World {
    pub policy: Policy,
    pub pos: Vec<i32>,
    pub seq: Vec<SeqSet>,
    /// Which token a cell holds; 0 for none, or for one whose storing failed.
    token: Vec<u64>,
    last_token: u64,
    storage: Vec<Vec<Page>>,
    /// Whether the cell choice is compared with the slow one.
    pub check_place: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum End {
    Commit,
    Rollback,
    /// Every other operation ran, then the ubatch was given up.
    Partly,
    /// Planned twice, then committed.
    Twice,
}

impl World {
    pub fn new(config: Config) -> World {
        let n = config.n_blocks as usize * BLOCK;
        World {
            storage: config.pools.iter().map(|p| vec![Page::default(); p.n_pages as usize]).collect(),
            policy: Policy::new(config).unwrap(),
            pos: vec![-1; n],
            seq: vec![[0; 4]; n],
            token: vec![0; n],
            last_token: 0,
            check_place: true,
        }
    }

    pub fn view(&self) -> CellView<'_> {
        CellView { pos: &self.pos, seq: &self.seq }
    }

    pub fn used(&self) -> usize {
        self.pos.iter().filter(|p| **p >= 0).count()
    }

    /// Position of a sequence's next token.
    pub fn next_pos(&self, s: u32) -> i32 {
        look::cells_of(&self.pos, &self.seq, s).iter().map(|&c| self.pos[c] + 1).max().unwrap_or(0)
    }

    /// One ubatch; `None` if it has no place. Every promise about a ubatch is checked here.
    pub fn ubatch(&mut self, tokens: &[(i32, u32)], end: End) -> Option<()> {
        let fits = self.used() + tokens.len() <= self.policy.config().n_ctx as usize;
        let placed = self.policy.place(self.view(), tokens);
        assert_eq!(placed.is_some(), fits, "{} tokens on {}", tokens.len(), self.used());
        if self.check_place {
            assert_eq!(placed, look::place(&self.policy, &self.pos, &self.seq, tokens));
        }
        let cells = placed?;
        assert_eq!(cells.len(), tokens.len());
        for (&cell, &(pos, s)) in cells.iter().zip(tokens) {
            assert_eq!(self.pos[cell as usize], -1, "cell {cell} is in use or was given twice");
            self.pos[cell as usize] = pos;
            self.seq[cell as usize] = [0; 4];
            self.seq[cell as usize][s as usize / 64] |= 1 << (s % 64);
            self.token[cell as usize] = 0;
        }
        let before = self.tables();
        if end == End::Twice {
            let view = CellView { pos: &self.pos, seq: &self.seq };
            self.policy.plan_ubatch(view, &cells).unwrap();
        }
        let view = CellView { pos: &self.pos, seq: &self.seq };
        let ops = self.policy.plan_ubatch(view, &cells).expect("what fits at final widths never fails").clone();
        assert_eq!(self.tables(), before, "planning must not change the table");
        if end == End::Rollback {
            self.policy.rollback();
            self.policy.commit();
            assert_eq!(self.tables(), before, "a rollback must not change the table");
            cells.iter().for_each(|&c| self.clear_cell(c as usize));
            self.check_storage();
            return Some(());
        }
        if end == End::Partly {
            let done: Vec<bool> = (0..ops.ops.len()).map(|i| i % 2 == 0).collect();
            self.policy.commit_partly(&done);
            let after = self.tables();
            self.check_dirty(&before, &after);
            let ran: Vec<BlockOp> = ops.ops.into_iter().step_by(2).collect();
            self.run(&ran, &before, &after);
            cells.iter().for_each(|&c| self.clear_cell(c as usize));
            self.check_storage();
            return Some(());
        }
        self.policy.commit();
        let after = self.tables();
        self.check_dirty(&before, &after);
        self.run(&ops.ops, &before, &after);
        self.store(&cells, &before);
        self.check_storage();
        self.check_choice(&cells, &before, &after);
        Some(())
    }

    pub fn clear_cell(&mut self, c: usize) {
        self.pos[c] = -1;
        self.seq[c] = [0; 4];
        self.token[c] = 0;
    }

    pub fn seq_rm(&mut self, s: u32, from: i32, to: i32) {
        for c in look::cells_of(&self.pos, &self.seq, s) {
            if self.pos[c] >= from && self.pos[c] < to {
                self.seq[c][s as usize / 64] &= !(1 << (s % 64));
                if self.seq[c] == [0; 4] {
                    self.clear_cell(c);
                }
            }
        }
    }

    pub fn seq_cp(&mut self, from: u32, to: u32) {
        self.seq_rm(to, 0, i32::MAX);
        for c in look::cells_of(&self.pos, &self.seq, from) {
            self.seq[c][to as usize / 64] |= 1 << (to % 64);
        }
    }

    pub fn seq_keep(&mut self, s: u32) {
        for c in 0..self.pos.len() {
            if self.pos[c] >= 0 && !look::has(&self.seq[c], s) {
                self.clear_cell(c);
            } else if self.pos[c] >= 0 {
                self.seq[c] = [0; 4];
                self.seq[c][s as usize / 64] |= 1 << (s % 64);
            }
        }
    }

    pub fn clear(&mut self, tell: bool) {
        (0..self.pos.len()).for_each(|c| self.clear_cell(c));
        if tell {
            self.policy.reset();
        }
    }

    pub fn tables(&self) -> Vec<Vec<BlockEntry>> {
        (0..self.policy.config().sides.len()).map(|s| self.policy.table(s).to_vec()).collect()
    }

    fn check_dirty(&self, before: &[Vec<BlockEntry>], after: &[Vec<BlockEntry>]) {
        let dirty: HashSet<_> = self.policy.dirty().iter().copied().collect();
        assert_eq!(dirty.len(), self.policy.dirty().len(), "an entry is named twice");
        for side in 0..before.len() {
            for b in 0..before[side].len() {
                if before[side][b] != after[side][b] {
                    assert!(dirty.contains(&(side as u32, b as u32)), "change of {side}/{b} is not named");
                }
            }
        }
    }

    /// Runs block operations on the storage as the kernels do, one target page at a time.
    fn run(&mut self, ops: &[BlockOp], before: &[Vec<BlockEntry>], after: &[Vec<BlockEntry>]) {
        let mut named = HashSet::new();
        for op in ops {
            let (side, b) = (op.side as usize, op.block as usize);
            let pool = self.policy.config().sides[side].pool;
            let (from, to) = (op.from as usize, op.to as usize);
            assert_eq!((before[side][b].width, after[side][b].width), (op.from, op.to));
            assert!(to < from && to >= self.policy.config().sides[side].floor().bits());
            assert!(op.src[from / 2..].iter().chain(&op.dst[to / 2..]).all(|p| *p == -1));
            let ratio = from / to;
            for (i, &page) in op.src.iter().enumerate() {
                assert!(page == -1 || page == before[side][b].pages[i], "a source is not the block's page");
                assert!(page == -1 || named.insert((pool, page)), "two operations name page {page}");
            }
            for t in 0..to / 2 {
                let sources = &op.src[t * ratio..(t + 1) * ratio];
                match op.dst[t] {
                    -1 => assert!(sources.iter().all(|p| *p == -1), "target page {t} is lost"),
                    page => assert!(sources.contains(&page), "target page {t} is none of its sources"),
                }
                let mut slots = Vec::new();
                for &source in sources {
                    match source {
                        -1 => slots.extend([0; SUBTILE * 8].iter().take(SUBTILE * 16 / from)),
                        source => {
                            let page = &mut self.storage[pool][source as usize];
                            assert_eq!((page.owner, page.bits), (Some((side, b)), from), "source of another block");
                            slots.append(&mut page.slots);
                            *page = Page::default();
                        }
                    }
                }
                if op.dst[t] >= 0 {
                    assert_eq!(after[side][b].pages[t], op.dst[t]);
                    let page = Page { owner: Some((side, b)), bits: to, slots };
                    self.storage[pool][op.dst[t] as usize] = page;
                }
            }
        }
        // A block can't change its width without an operation unless nothing is stored in it.
        let done: HashSet<_> = ops.iter().map(|op| (op.side as usize, op.block as usize)).collect();
        for (side, table) in after.iter().enumerate() {
            for b in 0..table.len() {
                if before[side][b].width != table[b].width && !done.contains(&(side, b)) {
                    let held = self.token[b * BLOCK..(b + 1) * BLOCK].iter().any(|t| *t != 0);
                    assert!(!held, "{side}/{b} changed its width by itself");
                }
            }
        }
    }

    /// Stores the new cells at the width that their block has.
    fn store(&mut self, cells: &[u32], before: &[Vec<BlockEntry>]) {
        let config = self.policy.config();
        let owned: HashMap<(usize, i32), (usize, usize)> = before
            .iter()
            .enumerate()
            .flat_map(|(side, table)| table.iter().enumerate().map(move |(b, e)| (side, b, e)))
            .flat_map(|(side, b, e)| e.pages.iter().map(move |p| ((config.sides[side].pool, *p), (side, b))))
            .collect();
        for &cell in cells {
            let (b, c) = (cell as usize / BLOCK, cell as usize % BLOCK);
            self.last_token += 1;
            self.token[cell as usize] = self.last_token;
            for (side, of_side) in config.sides.iter().enumerate() {
                let entry = &self.policy.table(side)[b];
                let (pool, bits) = (of_side.pool, entry.width as usize);
                let page = entry.pages[c / SUBTILE * bits / 16];
                assert!(page >= 0, "cell {cell} has no page on side {side}");
                let page_of = &mut self.storage[pool][page as usize];
                if page_of.owner != Some((side, b)) || page_of.bits != bits {
                    // New to the block: it must not be one whose tokens are still wanted there.
                    let kept = owned.get(&(pool, page)) == Some(&(side, b)) && page_of.bits != bits;
                    assert!(!kept || before[side][b].width != entry.width, "page {page} changed its width");
                    *page_of = Page { owner: Some((side, b)), bits, slots: vec![0; SUBTILE * 16 / bits] };
                }
                page_of.slots[c / SUBTILE % (16 / bits) * SUBTILE + c % SUBTILE] = self.last_token;
            }
        }
    }

    /// No page owned twice, pools add up, and every stored token is where the table says.
    pub fn check_storage(&self) {
        let config = self.policy.config();
        let stats = self.policy.stats();
        let mut owners: Vec<HashSet<i32>> = vec![HashSet::new(); config.pools.len()];
        for (side, of_side) in config.sides.iter().enumerate() {
            let mut blocks = [0u32; 4];
            let mut pages = 0;
            for (b, entry) in self.policy.table(side).iter().enumerate() {
                if entry.width == 0 {
                    assert_eq!(*entry, BlockEntry::EMPTY);
                    continue;
                }
                let width = Width::from_bits(entry.width as u32).unwrap();
                assert!(width >= of_side.floor(), "{side}/{b} is at {width} bits");
                blocks[width.index()] += 1;
                assert!(entry.pages[width.pages()..].iter().all(|p| *p == -1));
                for &page in entry.pages.iter().filter(|p| **p >= 0) {
                    assert!((page as u32) < config.pools[of_side.pool].n_pages);
                    assert!(owners[of_side.pool].insert(page), "page {page} has two owners");
                    pages += 1;
                }
            }
            assert_eq!((stats.sides[side].blocks, stats.sides[side].pages), (blocks, pages));
        }
        for ((pool, owned), of_pool) in config.pools.iter().zip(&owners).zip(&stats.pools) {
            assert_eq!(of_pool.pages_used, owned.len() as u32);
            assert_eq!(of_pool.pages_used + of_pool.pages_free, pool.n_pages);
        }
        for (cell, &token) in self.token.iter().enumerate().filter(|t| *t.1 != 0) {
            let (b, c) = (cell / BLOCK, cell % BLOCK);
            for (side, of_side) in config.sides.iter().enumerate() {
                let entry = &self.policy.table(side)[b];
                let bits = entry.width as usize;
                assert!(bits > 0, "cell {cell} is in no block of side {side}");
                let page = entry.pages[c / SUBTILE * bits / 16];
                assert!(page >= 0, "cell {cell} has no page on side {side}");
                let page = &self.storage[of_side.pool][page as usize];
                assert_eq!((page.owner, page.bits), (Some((side, b)), bits));
                let slot = c / SUBTILE % (16 / bits) * SUBTILE + c % SUBTILE;
                assert_eq!(page.slots[slot], token, "cell {cell}, side {side}, {bits} bits");
            }
        }
    }

    /// Whether what shrank had to, and was the right thing to shrink.
    fn check_choice(&self, new: &[u32], before: &[Vec<BlockEntry>], after: &[Vec<BlockEntry>]) {
        let config = self.policy.config();
        let kinds = look::kinds(config, &self.pos, &self.seq, 256.min(config.n_seq_max));
        let n_blocks = config.n_blocks as usize;
        let masks: Vec<u8> = (0..n_blocks).map(|b| self.subtiles(b, |_| true)).collect();
        let new_set: HashSet<usize> = new.iter().map(|c| *c as usize).collect();
        let fresh: Vec<bool> =
            (0..n_blocks).map(|b| self.subtiles(b, |c| !new_set.contains(&c)) == 0 && masks[b] != 0).collect();
        // Width that a block has before anything is narrowed for this ubatch.
        let wide = |side: usize, b: usize| match fresh[b] {
            true => 16,
            false => before[side][b].width as usize,
        };
        // Pages of a block at some width: those with used cells, as far as they were ever stored.
        let pages = |b: usize, bits: usize| pages_of(masks[b], bits);
        let narrowed = |side: usize, b: usize| masks[b] != 0 && (after[side][b].width as usize) < wide(side, b);
        let any_narrowed = |pool: usize| {
            let sides = (0..config.sides.len()).filter(|s| config.sides[*s].pool == pool);
            let mut pairs = sides.flat_map(|s| (0..n_blocks).map(move |b| (s, b)));
            pairs.any(|(s, b)| narrowed(s, b))
        };
        for (pool, of_pool) in config.pools.iter().enumerate() {
            let sides: Vec<usize> = (0..config.sides.len()).filter(|s| config.sides[*s].pool == pool).collect();
            let total = |width: &dyn Fn(usize, usize) -> usize| -> usize {
                sides.iter().flat_map(|&s| (0..n_blocks).map(move |b| (s, b))).map(|(s, b)| pages(b, width(s, b))).sum()
            };
            let n_pages = of_pool.n_pages as usize;
            let progressive = config.initial == Initial::Bits(Width::B16) && config.rule == Rule::Block;
            let wanted = total(&wide);
            if progressive && any_narrowed(pool) {
                assert!(wanted > n_pages, "pool {pool}: narrowed although {wanted} of {n_pages} pages are enough");
                let now = total(&|s, b| after[s][b].width as usize);
                let undo = sides
                    .iter()
                    .flat_map(|&s| (0..n_blocks).map(move |b| (s, b)))
                    .filter(|&(s, b)| narrowed(s, b))
                    .map(|(s, b)| pages(b, wide(s, b)) - pages(b, after[s][b].width as usize))
                    .max();
                assert!(now + undo.unwrap() > n_pages, "pool {pool}: shrank more than was needed");
            }
            // Sinks, windows and open blocks stay as they are if the rest at final widths makes room enough.
            let spare = |s: usize, b: usize| match kinds[b] {
                Kind::Past => wide(s, b).min(config.sides[s].floor().bits()),
                _ => wide(s, b),
            };
            if total(&spare) <= n_pages {
                for (&s, b) in sides.iter().flat_map(|s| (0..n_blocks).map(move |b| (s, b))) {
                    assert!(kinds[b] == Kind::Past || !narrowed(s, b), "{s}/{b} ({:?}) was narrowed", kinds[b]);
                }
            }
            if progressive {
                self.check_prices(pool, &kinds, &masks, after, &wide, &narrowed);
            }
        }
        if config.initial != Initial::Bits(Width::B16) {
            self.check_caps(new, &kinds, after);
        }
    }

    /// No block gave pages at a higher price than one that could have given some for less.
    fn check_prices(
        &self,
        pool: usize,
        kinds: &[Kind],
        masks: &[u8],
        after: &[Vec<BlockEntry>],
        wide: &dyn Fn(usize, usize) -> usize,
        narrowed: &dyn Fn(usize, usize) -> bool,
    ) {
        let config = self.policy.config();
        let pairs: Vec<(usize, usize)> = (0..config.sides.len())
            .filter(|s| config.sides[*s].pool == pool)
            .flat_map(|s| (0..masks.len()).map(move |b| (s, b)))
            .filter(|&(_, b)| kinds[b] == Kind::Past)
            .collect();
        let mut paid = f64::MIN;
        for &(s, b) in pairs.iter().filter(|&&(s, b)| narrowed(s, b) && masks[b] == 0xff) {
            let mut at = Width::from_bits(wide(s, b) as u32).unwrap();
            while at.bits() > after[s][b].width as usize {
                let (price, to) = look::price(config, s, at).unwrap();
                paid = paid.max(price);
                at = to;
            }
            assert_eq!(at.bits(), after[s][b].width as usize, "{s}/{b} stopped between two corners of its hull");
        }
        for &(s, b) in &pairs {
            let at = Width::from_bits(after[s][b].width as u32).unwrap();
            if let Some((price, to)) = look::price(config, s, at) {
                let gain = pages_of(masks[b], at.bits()) > pages_of(masks[b], to.bits());
                assert!(!gain || price >= paid, "{s}/{b} would have cost {price}, paid was {paid}");
            }
        }
    }

    /// Static plans: of the blocks of this ubatch's sequences, what may be narrowed is.
    fn check_caps(&self, new: &[u32], kinds: &[Kind], after: &[Vec<BlockEntry>]) {
        let config = self.policy.config();
        for b in new.iter().map(|c| *c as usize / BLOCK).filter(|b| kinds[*b] == Kind::Past) {
            for (s, side) in config.sides.iter().enumerate() {
                let cap = match config.initial {
                    Initial::Bits(w) => w.max(side.floor()),
                    Initial::Final => side.floor(),
                };
                // A window may reach into blocks narrowed before; then the block is found at the next ubatch or so.
                let late = after[s][b].width as usize > cap.bits();
                assert!(!late || self.reaches_back(b, after), "{s}/{b} is past its window and above its cap");
            }
        }
    }

    /// Whether one of a block's sequences has newer cells in blocks that are narrow already.
    fn reaches_back(&self, b: usize, after: &[Vec<BlockEntry>]) -> bool {
        (0..self.pos.len()).filter(|c| self.pos[*c] >= 0 && c / BLOCK != b).any(|c| {
            let newer = (b * BLOCK..(b + 1) * BLOCK).any(|d| {
                let shared = self.seq[c].iter().zip(&self.seq[d]).any(|(x, y)| x & y != 0);
                self.pos[d] >= 0 && self.pos[c] >= self.pos[d] && shared
            });
            newer
                && after
                    .iter()
                    .any(|t| t[c / BLOCK].width < 16 || c / BLOCK < self.policy.config().sink_blocks() as usize)
        })
    }

    fn subtiles(&self, b: usize, wanted: impl Fn(usize) -> bool) -> u8 {
        (0..BLOCK)
            .filter(|c| self.pos[b * BLOCK + c] >= 0 && wanted(b * BLOCK + c))
            .fold(0, |m, c| m | 1 << (c / SUBTILE))
    }
}

fn pages_of(mask: u8, bits: usize) -> usize {
    let per_page = 16usize.checked_div(bits).unwrap_or(0);
    (0..bits / 2).filter(|p| (0..per_page).any(|i| mask >> (p * per_page + i) & 1 == 1)).count()
}
