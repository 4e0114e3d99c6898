//! Attention over the cache's blocks and the current batch: partial results, to be merged by [`super::attention_merge`].
//!
//! A task is (KV head, tile of queries, chunk of blocks). Within it every block is read once for all query heads of the KV
//! head and all queries of the tile; the softmax goes on once per block of 128 cells.
//!
//! | file | what |
//! | --- | --- |
//! | `split.rs` | chunks of equal work, tasks to threads |
//! | `task.rs` | one task: the masks of its blocks, block after block, the record that comes out |
//! | `block.rs` | one block: scores, softmax, weighted values, by the widths of K and V |
//! | `packed.rs` | scores and weighted values straight from codes, in integers |
//! | `half.rs` | the same from f16: 16-bit blocks and the current batch |
//! | `ahead.rs` | where the next block lies, which is asked for meanwhile |

mod ahead;
mod block;
mod half;
mod packed;
mod split;
mod task;

use super::args::{blocks_of, Cells, MaskF16, PartialsMut, RowsF32, SideView};
use super::dots::PlainDots;
use super::scratch::{self, Scratch};
use super::{Isa, KernelError};
use crate::geometry::Side;
pub use split::Schedule;
pub(crate) use split::{chunk_starts, tile_tokens, Tasks};

/// One attention operation.
#[derive(Debug)]
pub struct AttentionArgs<'a> {
    /// `[n_token][n_head][D_k]`.
    pub q: RowsF32<'a>,
    /// K and V of the current batch, `[n_token][n_head_kv][D]`; `None` where a layer reads another layer's cache, and the
    /// current tokens are found there.
    pub current: Option<(RowsF32<'a>, RowsF32<'a>)>,
    /// Columns are cells; as many as are visible.
    pub mask: MaskF16<'a>,
    /// Cells of the current batch's tokens. With `current` they are left out of the blocks.
    pub cells: Cells<'a>,
    pub k: SideView<'a>,
    pub v: SideView<'a>,
    pub scale: f32,
    /// `cap * tanh(score / cap)`; 0: none.
    pub softcap: f32,
    /// ALiBi's largest bias; 0: the mask is added as it is.
    pub max_bias: f32,
    /// Parts that the visible blocks are split into; the last one also takes the current batch.
    pub n_chunk: usize,
    /// `[n_chunk][n_token][n_head][D_v + 2]`: unnormalised sum, largest score, sum of weights.
    pub out: PartialsMut<'a>,
}

/// What follows from the arguments, checked once per call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub n_head: usize,
    pub n_head_kv: usize,
    /// Query heads of a KV head.
    pub ratio: usize,
    pub n_token: usize,
    pub dk: usize,
    pub dv: usize,
    /// Visible cells.
    pub n_kv: usize,
    /// Visible blocks.
    pub n_blocks: usize,
    pub n_chunk: usize,
    /// What queries are multiplied by: already divided by the cap where there is one.
    pub scale: f32,
    /// 0: none.
    pub softcap: f32,
    pub max_bias: f32,
}

impl Shape {
    pub fn new(a: &AttentionArgs) -> Result<Shape, KernelError> {
        let shape = |ok: bool, what| if ok { Ok(()) } else { Err(KernelError::Shape(what)) };
        let (n_head, n_token) = (a.q.n_head(), a.q.n_token());
        let n_head_kv = a.k.n_head_kv();
        let (dk, dv) = (a.k.head_dim(), a.v.head_dim());
        shape(a.k.side() == Side::K && a.v.side() == Side::V, "the K and V sides are exchanged")?;
        shape(a.v.n_head_kv() == n_head_kv, "K and V differ in KV heads")?;
        shape(n_head.is_multiple_of(n_head_kv), "the query heads are not a multiple of the KV heads")?;
        shape(a.q.row_len() == dk, "the query's head dimension is not that of K")?;
        shape(a.mask.n_token() >= n_token, "the mask has fewer rows than there are queries")?;
        shape(a.n_chunk > 0, "attention needs at least one chunk")?;
        let n_kv = a.mask.n_kv();
        let n_blocks = blocks_of(n_kv);
        shape(n_blocks <= a.k.n_blocks() && n_blocks <= a.v.n_blocks(), "the mask has more cells than the cache")?;
        if let Some((k, v)) = &a.current {
            shape(k.row_len() == dk && v.row_len() == dv, "the current K or V has another head dimension")?;
            shape(k.n_head() == n_head_kv && v.n_head() == n_head_kv, "the current K or V has other KV heads")?;
            let n = a.cells.len();
            shape(k.n_token() == n && v.n_token() == n, "the current K or V has other tokens than cells")?;
            if let Some(&cell) = a.cells.iter().find(|&&c| usize::try_from(c).map_or(true, |c| c >= n_kv)) {
                return Err(KernelError::CellRange { cell });
            }
        }
        let records = a.n_chunk.checked_mul(n_token).and_then(|n| n.checked_mul(n_head * (dv + 2)));
        shape(records.is_some_and(|n| n <= a.out.len()), "the output is too small for the partial results")?;
        let scale = if a.softcap != 0.0 { a.scale / a.softcap } else { a.scale };
        Ok(Shape {
            n_head,
            n_head_kv,
            ratio: n_head / n_head_kv,
            n_token,
            dk,
            dv,
            n_kv,
            n_blocks,
            n_chunk: a.n_chunk,
            scale,
            softcap: a.softcap,
            max_bias: a.max_bias,
        })
    }

    /// ALiBi's slope of a query head (arXiv 2108.12409, section 3), with upstream's rule for head counts that are no power
    /// of two; 1 without ALiBi.
    pub fn slope(&self, head: usize) -> f32 {
        if self.max_bias <= 0.0 {
            return 1.0;
        }
        let low = 1usize << self.n_head.ilog2();
        let base = |bias: f32| (-bias / low as f32).exp2();
        if head < low {
            base(self.max_bias).powi(head as i32 + 1)
        } else {
            base(self.max_bias / 2.0).powi(2 * (head - low) as i32 + 1)
        }
    }
}

/// Attention by thread `ith` of `nth`.
///
/// # Errors
/// Arguments that disagree; a visible cell in a block whose entry is invalid (the other blocks are still done, but the
/// output must not be used).
pub fn attention_partial(args: &AttentionArgs, ith: usize, nth: usize) -> Result<(), KernelError> {
    attention_partial_at(Isa::selected()?, args, Schedule::Static { ith, nth })
}

/// [`attention_partial`] with given instructions and schedule.
pub fn attention_partial_at(isa: Isa, args: &AttentionArgs, schedule: Schedule) -> Result<(), KernelError> {
    if !isa.available() {
        return Err(KernelError::Isa);
    }
    let threads = match schedule {
        Schedule::Static { ith, nth } => ith < nth,
        Schedule::Counter { nth, .. } => nth > 0,
    };
    if !threads {
        return Err(KernelError::Thread);
    }
    let shape = Shape::new(args)?;
    if isa == Isa::Reference {
        return super::reference::attention_partial(args, schedule);
    }
    scratch::with(|s| match isa {
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::avx512(args, &shape, schedule, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => unsafe { x86::avxvnni(args, &shape, schedule, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2(args, &shape, schedule, s) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon(args, &shape, schedule, s) },
        _ => unsafe { task::run::<PlainDots>(args, &shape, schedule, s) },
    })
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
unsafe fn neon(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Result<(), KernelError> {
    task::run::<super::dots::NeonDots>(a, p, sched, s)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::dots::{Avx2Dots, Avx512Dots, AvxVnniDots, EvexVnniDots};
    use super::{task, AttentionArgs, KernelError, Schedule, Scratch, Shape};

    type Done = Result<(), KernelError>;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn avx512(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Done {
        task::run::<Avx512Dots>(a, p, sched, s)
    }

    pub unsafe fn avxvnni(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Done {
        if is_x86_feature_detected!("avxvnni") {
            vex(a, p, sched, s)
        } else {
            evex(a, p, sched, s)
        }
    }

    #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
    unsafe fn vex(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Done {
        task::run::<AvxVnniDots>(a, p, sched, s)
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn evex(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Done {
        task::run::<EvexVnniDots>(a, p, sched, s)
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn avx2(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Done {
        task::run::<Avx2Dots>(a, p, sched, s)
    }
}
