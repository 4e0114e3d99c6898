//! Store a batch's K or V: f16 in 16-bit blocks, codes in narrower ones.

use super::fit::fit4;
use super::lanes::Plain;
use super::level::{keep_row, near_row, Level};
use super::prefetch::{lines, near};
use super::quantize::{quantize, subtile};
use super::range::{self, RangeRule};
use super::scratch::{self, Scratch};
use super::words::{PlainWords, Words};
use super::{pack, Cells, Isa, KernelError, RowsF32, SideView};
use crate::geometry::{Side, Width, BLOCK, SUBTILE};

/// Which (head, block) pairs a thread stores: heads are dealt out, and where there are fewer heads than threads, blocks too.
/// Cells of a block share bytes, so a block is never split.
#[derive(Clone, Copy)]
pub(crate) struct Split {
    ith: usize,
    nth: usize,
    parts: usize,
}

impl Split {
    pub fn new(n_head_kv: usize, ith: usize, nth: usize) -> Result<Split, KernelError> {
        if ith >= nth {
            return Err(KernelError::Thread);
        }
        Ok(Split { ith, nth, parts: nth.div_ceil(n_head_kv) })
    }

    pub fn mine(&self, head: usize, block: usize) -> bool {
        (head * self.parts + block % self.parts) % self.nth == self.ith
    }

    /// Those of `n_head` heads that are `mine`, without a division for each.
    fn heads(&self, block: usize, n_head: usize) -> impl Iterator<Item = usize> {
        let Split { ith, nth, parts } = *self;
        let mut at = block % parts % nth;
        (0..n_head).filter(move |_| {
            let mine = at == ith;
            // there are no more parts than threads
            at += parts;
            at -= if at >= nth { nth } else { 0 };
            mine
        })
    }
}

pub(crate) fn check(side: &SideView, rows: &RowsF32, cells: Cells) -> Result<(), KernelError> {
    if rows.row_len() != side.head_dim() || rows.n_head() != side.n_head_kv() {
        return Err(KernelError::Shape("the rows to store differ from the cache in heads or head dimension"));
    }
    if rows.n_token() != cells.len() {
        return Err(KernelError::Shape("there are not as many cells as tokens to store"));
    }
    Ok(())
}

/// The block and place of a cell.
pub(crate) fn place(side: &SideView, cell: i64) -> Result<(usize, usize), KernelError> {
    usize::try_from(cell)
        .ok()
        .map(|c| (c / BLOCK, c % BLOCK))
        .filter(|&(block, _)| block < side.n_blocks())
        .ok_or(KernelError::CellRange { cell })
}

/// Store row `t` of `rows` in `cells[t]`, by thread `ith` of `nth`. Cells must differ.
///
/// # Errors
/// Shapes that disagree: nothing is stored. A cell beyond the table, an empty or invalid entry, an absent page: that token is
/// skipped, the others are stored, and the first such error is returned.
pub fn store(side: &SideView, rows: &RowsF32, cells: Cells, ith: usize, nth: usize) -> Result<(), KernelError> {
    store_at(Isa::selected()?, side, rows, cells, ith, nth)
}

/// [`store`] with given instructions.
pub fn store_at(
    isa: Isa,
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    ith: usize,
    nth: usize,
) -> Result<(), KernelError> {
    isa.check(ith, nth)?;
    if isa == Isa::Reference {
        return super::reference::store(side, rows, cells, ith, nth);
    }
    check(side, rows, cells)?;
    let split = Split::new(side.n_head_kv(), ith, nth)?;
    scratch::with(|s| match isa {
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512bitalg") => unsafe { run_bitalg(side, rows, cells, split, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(side, rows, cells, split, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { run_avx2(side, rows, cells, split, s) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { run_neon(side, rows, cells, split, s) },
        _ => unsafe { run::<Plain, PlainWords>(side, rows, cells, split, s) },
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bitalg,avx2,fma,f16c")]
unsafe fn run_bitalg(
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    split: Split,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::Avx512, super::words::Words512<true>>(side, rows, cells, split, s)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_avx512(
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    split: Split,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::Avx512, super::words::Words512<false>>(side, rows, cells, split, s)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2(
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    split: Split,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::Avx2, super::words::Words256>(side, rows, cells, split, s)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon(
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    split: Split,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::neon::Neon, PlainWords>(side, rows, cells, split, s)
}

#[inline(always)]
unsafe fn run<L: Level, V: Words>(
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    split: Split,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    let memory = Memory::new(side, s);
    let mut result = Ok(());
    let mut t = 0;
    while t < cells.len() {
        let n = run_length(&cells[t..]);
        match place(side, cells[t]) {
            Err(e) => result = result.and(Err(e)),
            Ok((block, at)) => {
                let run = Run { t, n, block, at };
                let done = run.store::<L, V>(side, rows, split, &memory);
                result = result.and(done);
            }
        }
        t += n;
    }
    result
}

/// Tokens from a row that is stored to the one that is asked for.
const AHEAD: usize = 2;

/// Asks for a row, if there is one.
#[inline(always)]
fn ask_row(rows: &RowsF32, token: usize, head: usize) {
    if token < rows.n_token() {
        let row = rows.row(token, head);
        lines(row.as_ptr().cast(), size_of_val(row));
    }
}

/// How many of the cells are consecutive and in one subtile.
fn run_length(cells: &[i64]) -> usize {
    let first = cells[0];
    let most = SUBTILE - first.rem_euclid(SUBTILE as i64) as usize;
    let mut n = 1;
    while n < most && n < cells.len() && cells[n] == first + n as i64 {
        n += 1;
    }
    n
}

/// Of as many tokens, ranges are fitted one by one.
const FEW: usize = 4;

/// Where a run is worked on.
struct Memory {
    /// f16 values of 16 tokens.
    halves: *mut u16,
    /// Their codes, [`pack::stride`] apart.
    codes: *mut u8,
    /// A subtile at 4 bits and one at 2.
    at4: *mut u8,
    at2: *mut u8,
}

impl Memory {
    fn new(side: &SideView, s: &mut Scratch) -> Memory {
        let d = side.head_dim();
        let halves = s.current.take::<u16>(SUBTILE * d).as_mut_ptr();
        let (codes, at4) = (SUBTILE * pack::stride(d), Width::B4.subtile_bytes(d));
        let bytes = s.pages.take::<u8>(codes + at4 + Width::B2.subtile_bytes(d));
        let (codes, rest) = bytes.split_at_mut(codes);
        let (at4, at2) = rest.split_at_mut(at4);
        Memory { halves, codes: codes.as_mut_ptr(), at4: at4.as_mut_ptr(), at2: at2.as_mut_ptr() }
    }
}

/// `n` tokens from `t` on, into consecutive cells of one subtile from `at` on.
struct Run {
    t: usize,
    n: usize,
    block: usize,
    at: usize,
}

impl Run {
    /// Those heads that are this thread's. Runs come before heads, so that rows are read about in the order in which they
    /// lie.
    #[inline(always)]
    unsafe fn store<L: Level, V: Words>(
        &self,
        side: &SideView,
        rows: &RowsF32,
        split: Split,
        memory: &Memory,
    ) -> Result<(), KernelError> {
        let heads = || split.heads(self.block, side.n_head_kv());
        if heads().next().is_none() {
            return Ok(());
        }
        let entry = side.entry(self.block)?;
        let width = side.width(self.block, &entry)?.ok_or(KernelError::Width { block: self.block, width: 0 })?;
        let (subtile, token) = (self.at / SUBTILE, self.at % SUBTILE);
        let place = |head: usize| side.subtile(head, self.block, &entry.pages, width, subtile);
        if width != Width::B16 {
            // parts of what is there are kept, so it has to come before it can be written: of all heads at once
            let (from, n) = match width {
                Width::B8 => pack::bytes_of::<8>(side.side(), side.head_dim(), token, self.n),
                Width::B4 => pack::bytes_of::<4>(side.side(), side.head_dim(), token, self.n),
                _ => pack::bytes_of::<2>(side.side(), side.head_dim(), token, self.n),
            };
            for head in heads() {
                if let Some(dst) = place(head)? {
                    near(dst.wrapping_add(from), n);
                    let params = side.params(self.block, head, 0).wrapping_add(self.at);
                    near(params.cast(), 1);
                    near(params.wrapping_add(BLOCK).cast(), 1);
                }
            }
        }
        let slot = super::layout::subtile_position(width, side.head_dim(), subtile).0;
        let missing = KernelError::MissingPage { block: self.block, slot };
        if width == Width::B16 {
            let d = side.head_dim();
            // rows in the order in which they lie
            for i in 0..self.n {
                for head in heads() {
                    let out = place(head)?.ok_or(missing)?.cast::<u16>().add((token + i) * d);
                    ask_row(rows, self.t + i + AHEAD, head);
                    keep_row::<L>(rows.row(self.t + i, head).as_ptr(), d, out);
                }
            }
            return Ok(());
        }
        let mut mine = heads().peekable();
        while let Some(head) = mine.next() {
            let dst = place(head)?.ok_or(missing)?;
            let ahead = match mine.peek() {
                Some(&next) => (self.t, next),
                None => (self.t + self.n, heads().next().unwrap_or(head)),
            };
            self.narrow::<L, V>(side, rows, head, ahead, width, dst, memory);
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn narrow<L: Level, V: Words>(
        &self,
        side: &SideView,
        rows: &RowsF32,
        head: usize,
        (t_ahead, head_ahead): (usize, usize),
        width: Width,
        dst: *mut u8,
        memory: &Memory,
    ) {
        let (d, token, n) = (side.head_dim(), self.at % SUBTILE, self.n);
        let params = side.params(self.block, head, 0).add(self.at);
        for i in 0..n {
            ask_row(rows, t_ahead + i, head_ahead);
            near_row::<L>(rows.row(self.t + i, head).as_ptr(), d, memory.halves.add(i * d));
        }
        if n == SUBTILE {
            let halves = memory.halves;
            return subtile::<L, V>(side, halves, params, width, memory.at4, dst, halves.cast());
        }
        quantize::<L>(memory.halves, n, d, side.group(), params, memory.codes, pack::stride(d));
        match (width, side.range_rule()) {
            (Width::B8, _) => self.place::<V, 8>(side.side(), memory, d, dst),
            (Width::B2, RangeRule::Shift) => self.place::<V, 2>(side.side(), memory, d, dst),
            (Width::B2, RangeRule::Fit) if n <= FEW => {
                for i in 0..n {
                    let codes = memory.codes.add(i * pack::stride(d));
                    pack::narrow_token::<V, 4>(codes, d);
                    for g in 0..side.n_groups() {
                        let group = std::slice::from_raw_parts_mut(codes.add(g * side.group()), side.group());
                        let min = params.add(g * 2 * BLOCK + i);
                        range::fit(group, &mut *min, &mut *min.add(BLOCK));
                    }
                    pack::pack_token::<2>(side.side(), codes, d, token + i, dst);
                }
            }
            (Width::B2, RangeRule::Fit) => {
                self.place::<V, 4>(side.side(), memory, d, memory.at4);
                let first = params.sub(token);
                fit4::<L, V>(side.side(), memory.at4, d, side.group(), first, token, n, memory.at2);
                pack::merge2::<V>(side.side(), memory.at2, d, token, n, dst);
            }
            _ => self.place::<V, 4>(side.side(), memory, d, dst),
        }
    }

    /// Codes of a part of a subtile.
    #[inline(always)]
    unsafe fn place<V: Words, const W: usize>(&self, side: Side, memory: &Memory, d: usize, dst: *mut u8) {
        for i in 0..self.n {
            let codes = memory.codes.add(i * pack::stride(d));
            pack::narrow_token::<V, W>(codes, d);
            pack::pack_token::<W>(side, codes, d, self.at % SUBTILE + i, dst);
        }
    }
}
