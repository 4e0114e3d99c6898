//! Store a batch's K or V: f16 in 16-bit blocks, codes in narrower ones.

use super::lanes::{Lanes, Plain};
use super::scratch::{self, Scratch};
use super::{pack, tiles, Cells, Isa, KernelError, RowsF32, SideView};
use crate::geometry::{Width, BLOCK, SUBTILE};

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
    if !isa.available() {
        return Err(KernelError::Isa);
    }
    if isa == Isa::Reference {
        return super::reference::store(side, rows, cells, ith, nth);
    }
    check(side, rows, cells)?;
    let split = Split::new(side.n_head_kv(), ith, nth)?;
    scratch::with(|s| match isa {
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(side, rows, cells, split, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { run_avx2(side, rows, cells, split, s) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { run_neon(side, rows, cells, split, s) },
        _ => unsafe { run::<Plain>(side, rows, cells, split, s) },
    })
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
    run::<super::lanes::Avx512>(side, rows, cells, split, s)
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
    run::<super::lanes::Avx2>(side, rows, cells, split, s)
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
    run::<super::lanes::neon::Neon>(side, rows, cells, split, s)
}

#[inline(always)]
unsafe fn run<L: Lanes>(
    side: &SideView,
    rows: &RowsF32,
    cells: Cells,
    split: Split,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    let d = side.head_dim();
    let halves = s.current.take::<u16>(d).as_mut_ptr();
    let codes = s.pages.take::<u8>(SUBTILE * d).as_mut_ptr();
    let mut result = Ok(());
    for head in 0..side.n_head_kv() {
        let mut t = 0;
        while t < cells.len() {
            let n = run_length(&cells[t..]);
            match place(side, cells[t]) {
                Err(e) => result = result.and(Err(e)),
                Ok((block, at)) if split.mine(head, block) => {
                    let done = store_run::<L>(side, rows, head, t, n, block, at, halves, codes);
                    result = result.and(done);
                }
                Ok(_) => {}
            }
            t += n;
        }
    }
    result
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

/// `n` tokens from `t` on, into consecutive cells of one subtile from `at` on.
#[inline(always)]
unsafe fn store_run<L: Lanes>(
    side: &SideView,
    rows: &RowsF32,
    head: usize,
    t: usize,
    n: usize,
    block: usize,
    at: usize,
    halves: *mut u16,
    codes: *mut u8,
) -> Result<(), KernelError> {
    let d = side.head_dim();
    let entry = side.entry(block)?;
    let width = side.width(block, &entry)?.ok_or(KernelError::Width { block, width: 0 })?;
    let (subtile, token) = (at / SUBTILE, at % SUBTILE);
    let Some(dst) = side.subtile(head, block, &entry.pages, width, subtile)? else {
        return Err(KernelError::MissingPage { block, slot: super::layout::subtile_position(width, d, subtile).0 });
    };
    if width == Width::B16 {
        for i in 0..n {
            let row = rows.row(t + i, head);
            tiles::round_row::<L>(row.as_ptr(), d, dst.cast::<u16>().add((token + i) * d));
        }
        return Ok(());
    }
    let params = side.params(block, head, 0);
    for i in 0..n {
        let row = rows.row(t + i, head);
        tiles::round_row::<L>(row.as_ptr(), d, halves);
        let params = params.add(at + i);
        pack::quantize_row::<L>(halves, d, side.group(), width, side.range_rule(), params, codes.add(i * d));
    }
    match width {
        Width::B8 => place_codes::<8>(side, codes, d, token, n, dst),
        Width::B4 => place_codes::<4>(side, codes, d, token, n, dst),
        _ => place_codes::<2>(side, codes, d, token, n, dst),
    }
    Ok(())
}

#[inline(always)]
unsafe fn place_codes<const W: usize>(
    side: &SideView,
    codes: *const u8,
    d: usize,
    token: usize,
    n: usize,
    dst: *mut u8,
) {
    if n == SUBTILE {
        pack::pack::<W>(side.side(), codes, d, dst);
    } else {
        for i in 0..n {
            pack::pack_token::<W>(side.side(), codes.add(i * d), d, token + i, dst);
        }
    }
}
