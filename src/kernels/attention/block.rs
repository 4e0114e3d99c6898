//! One block of 128 cells for the queries that see any of it: scores, softmax, weighted values, by the widths of K and V.

use super::super::args::{RowsF32, SideView};
use super::super::dots::Dots;
use super::super::lanes::Lanes;
use super::super::level::{keep_row, Level};
use super::super::softmax::{online_step, Row};
use super::super::{layout, KernelError};
use super::ahead::{lines, Place};
use super::half::{Halves, Runs};
use super::packed::{scales, spread_out, Keys, ScoreTile, Values};
use super::task::{Visible, Work};
use super::{AttentionArgs, Shape};
use crate::geometry::{Width, BLOCK, SUBTILE, SUBTILES};

/// Where a block comes from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// What its sides are made of, and where the next block lies, K and V.
    Cache { block: usize, widths: [Width; 2], here: &'a [Place; 2], next: &'a [Place; 2] },
    /// Tokens of the current batch from this one on.
    Current { first: usize },
}

/// Beyond this many rows a block's codes are first laid out one to a byte.
const SPREAD_ROWS: usize = 8;

/// # Safety
/// The CPU has the instructions of `I`, and `w` the buffers of the shape, filled for these queries and this block's mask.
#[inline(always)]
pub(super) unsafe fn step<I: Dots>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    head: usize,
    visible: Visible,
    source: Source,
) -> Result<(), KernelError> {
    let runs = Runs { queries: visible.queries, ratio: p.ratio };
    let live = live_subtiles(visible.cells);
    match source {
        Source::Cache { block, widths: [width, _], here: [here, _], next: [next, _] } => {
            let src = here.subtiles(&a.k, head, block, live)?;
            if width == Width::B16 {
                halves(&src, &next.subtiles, p.dk, visible.cells).score::<I>(w, &runs);
            } else {
                packed_scores::<I>(&a.k, w, &runs, width, live, src, here.params, next);
            }
        }
        Source::Current { first } => {
            if let Some((k, _)) = &a.current {
                current::<I::L>(k, head, first, visible.cells, w).score::<I>(w, &runs);
            }
        }
    }

    softmax::<I::L>(p, w, &runs, visible.whole);

    match source {
        Source::Cache { block, widths: [_, width], here: [_, here], next: [_, next] } => {
            let src = here.subtiles(&a.v, head, block, live)?;
            if width == Width::B16 {
                halves(&src, &next.subtiles, p.dv, visible.cells).weigh::<I>(w, &runs);
            } else {
                packed_values::<I>(&a.v, w, &runs, width, visible.cells, live, src, here.params, next);
            }
        }
        Source::Current { first } => {
            if let Some((_, v)) = &a.current {
                current::<I::L>(v, head, first, visible.cells, w).weigh::<I>(w, &runs);
            }
        }
    }
    Ok(())
}

/// Scores become weights, four rows at a time.
#[inline(always)]
unsafe fn softmax<L: Lanes>(p: &Shape, w: &Work, runs: &Runs, whole: u64) {
    for (mut row, end) in runs.ranges() {
        let (mut t, mut h) = (row / p.ratio, 0);
        macro_rules! rows {
            ($n:expr) => {
                while row + $n <= end {
                    let mut rows = [row_of(w, row, t, h, whole); $n];
                    for (r, of) in rows.iter_mut().enumerate() {
                        *of = row_of(w, row + r, t, h, whole);
                        h += 1;
                        if h == p.ratio {
                            (t, h) = (t + 1, 0);
                        }
                    }
                    online_step::<L, $n>(&rows, p.softcap);
                    row += $n;
                }
            };
        }
        rows!(4);
        rows!(1);
    }
}

/// The row of head `h` and query `t`.
#[inline(always)]
unsafe fn row_of(w: &Work, row: usize, t: usize, h: usize, whole: u64) -> Row {
    Row {
        scores: w.scores.add(row * BLOCK),
        mask: w.mask.add(t * BLOCK),
        whole: whole >> t & 1 != 0,
        slope: *w.slopes.add(h),
        max: w.max.add(row),
        sum: w.sum.add(row),
        factor: w.factors.add(row),
    }
}

/// Subtiles with a visible cell.
#[inline(always)]
fn live_subtiles(cells: u128) -> u8 {
    if cells == u128::MAX {
        return u8::MAX;
    }
    let mut live = 0;
    for s in 0..SUBTILES {
        live |= (((cells >> (s * SUBTILE)) as u16 != 0) as u8) << s;
    }
    live
}

#[inline(always)]
fn halves(src: &[*const u8; SUBTILES], next: &[*const u8; SUBTILES], head_dim: usize, live: u128) -> Halves {
    Halves { src: src.map(|p| p.cast()), next: lines(next, src), head_dim, live }
}

/// Up to 128 rows of the current batch, rounded as the cache keeps them at 16 bits.
#[inline(always)]
unsafe fn current<L: Level>(rows: &RowsF32, head: usize, first: usize, live: u128, w: &Work) -> Halves {
    let d = rows.row_len();
    for t in first..rows.n_token().min(first + BLOCK) {
        if live >> (t - first) & 1 != 0 {
            keep_row::<L>(rows.row(t, head).as_ptr(), d, w.current.add((t - first) * d));
        }
    }
    let mut src = [w.current.cast_const(); SUBTILES];
    for (s, p) in src.iter_mut().enumerate() {
        *p = w.current.add(s * SUBTILE * d);
    }
    Halves { src, next: src.map(|p| p.cast()), head_dim: d, live }
}

/// A block as the products take it: the width of its layout, its subtiles, and those of the next block to be asked for. With
/// many rows codes are laid out one to a byte first, in the layout of 8 bits; the products then take so long that nothing
/// has to be asked for.
#[inline(always)]
unsafe fn laid_out<I: Dots>(
    side: &SideView,
    w: &Work,
    runs: &Runs,
    width: Width,
    live: u8,
    mut src: [*const u8; SUBTILES],
    next: [*const u8; SUBTILES],
) -> (Width, [*const u8; SUBTILES], [*const u8; SUBTILES]) {
    if width == Width::B8 || runs.rows() <= SPREAD_ROWS {
        return (width, src, next);
    }
    let d = side.head_dim();
    let row = layout::row_bytes(side.side(), d);
    let n_rows = width.subtile_bytes(d) / row;
    for s in 0..SUBTILES {
        let out = w.codes.add(s * SUBTILE * d);
        if live >> s & 1 != 0 {
            if width == Width::B4 {
                spread_out::<I, 4>(src[s], n_rows, row, out);
            } else {
                spread_out::<I, 2>(src[s], n_rows, row, out);
            }
        }
        src[s] = out;
    }
    (Width::B8, src, [std::ptr::null(); SUBTILES])
}

#[inline(always)]
unsafe fn packed_scores<I: Dots>(
    side: &SideView,
    w: &Work,
    runs: &Runs,
    width: Width,
    live: u8,
    src: [*const u8; SUBTILES],
    params: *const u16,
    next: &Place,
) {
    // what hidden tokens get does not matter, as long as nobody multiplies with it
    scales::<I::L>(params, next.params, side.n_groups(), width, u128::MAX, w.scales);
    let (stored, src, next) = laid_out::<I>(side, w, runs, width, live, src, next.subtiles);
    let keys = Keys {
        src,
        next,
        width,
        head_dim: side.head_dim(),
        group: side.group(),
        scales: w.scales,
        narrow: w.narrow,
        wide: w.wide,
        groups: w.groups,
        scores: w.scores,
    };
    match stored {
        Width::B8 => score_rows::<I, 8, 2>(&keys, runs, live),
        Width::B4 => score_rows::<I, 4, 2>(&keys, runs, live),
        _ => score_rows::<I, 2, 4>(&keys, runs, live),
    }
}

/// Rows and subtiles at a time are as many as keep all sums in registers (and, on small register files, fewer kinds of them:
/// each is compiled for every width and level).
#[inline(always)]
unsafe fn score_rows<I: Dots, const W: usize, const N: usize>(keys: &Keys, runs: &Runs, live: u8) {
    let step = if I::LARGE { 4 } else { 2 };
    for subtile in (0..SUBTILES).step_by(step) {
        if live >> subtile & ((1 << step) - 1) == 0 {
            continue;
        }
        for (mut row, end) in runs.ranges() {
            while row < end {
                let mut n = match end - row {
                    n if n >= 8 && I::LARGE => 8,
                    n if n >= 4 => 4,
                    n if n >= 2 && I::LARGE => 2,
                    _ => 1,
                };
                let narrow = W == 2 || keys.narrow_rows(row, n);
                if !narrow && !I::LARGE {
                    n = n.min(I::WIDE_SUMS);
                }
                macro_rules! score {
                    ($r:expr, $s:expr, $wide:expr) => {
                        // codes of 2 bits are always multiplied by narrow integers: the other way is not compiled
                        if W != 2 || !$wide {
                            for s in (subtile..subtile + step).step_by($s) {
                                I::apart(&ScoreTile::<W, N, $r, $s, $wide> { keys, row, subtile: s });
                            }
                        }
                    };
                }
                match (I::LARGE, n, narrow) {
                    (true, 8, true) => score!(8, 2, false),
                    (true, 8, false) => score!(8, 1, true),
                    (true, 4, true) => score!(4, 4, false),
                    (true, 4, false) => score!(4, 2, true),
                    (true, 2, true) => score!(2, 4, false),
                    (true, 2, false) => score!(2, 4, true),
                    (true, _, true) => score!(1, 4, false),
                    (true, _, false) => score!(1, 4, true),
                    (false, 4, true) => score!(4, 1, false),
                    (false, 4, false) => score!(4, 1, true),
                    (false, 2, _) => score!(2, 1, true),
                    (false, _, true) => score!(1, 2, false),
                    (false, _, false) => score!(1, 2, true),
                }
                row += n;
            }
        }
    }
}

#[inline(always)]
unsafe fn packed_values<I: Dots>(
    side: &SideView,
    w: &Work,
    runs: &Runs,
    width: Width,
    cells: u128,
    live: u8,
    src: [*const u8; SUBTILES],
    params: *const u16,
    next: &Place,
) {
    scales::<I::L>(params, next.params, side.n_groups(), width, cells, w.scales);
    let (stored, src, next) = laid_out::<I>(side, w, runs, width, live, src, next.subtiles);
    let values = Values {
        src,
        next,
        live,
        n_live: cells.count_ones(),
        width,
        head_dim: side.head_dim(),
        group: side.group(),
        scales: w.scales,
        p: w.scores,
        factors: w.factors,
        acc: w.acc,
        stride: w.stride_v,
        words: w.words,
    };
    match stored {
        Width::B8 => weigh_rows::<I, 8, 2>(&values, runs),
        Width::B4 => weigh_rows::<I, 4, 2>(&values, runs),
        _ => weigh_rows::<I, 2, 4>(&values, runs),
    }
}

#[inline(always)]
unsafe fn weigh_rows<I: Dots, const W: usize, const N: usize>(values: &Values, runs: &Runs) {
    for (mut row, end) in runs.ranges() {
        while row < end {
            let n = end - row;
            row += match (I::LARGE, n) {
                (true, 4..) => {
                    values.weigh::<I, W, N, 4, 4, 2>(row);
                    4
                }
                (true, 2..) => {
                    values.weigh::<I, W, N, 2, 4, 4>(row);
                    2
                }
                (true, _) => {
                    values.weigh::<I, W, N, 1, 4, 4>(row);
                    1
                }
                (false, 4..) => {
                    values.weigh::<I, W, N, 4, 1, 1>(row);
                    4
                }
                (false, _) => {
                    values.weigh::<I, W, N, 1, 2, 2>(row);
                    1
                }
            };
        }
    }
}
