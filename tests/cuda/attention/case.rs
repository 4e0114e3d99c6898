//! One attention with everything that it reads: made on the host, run on the device, held against f64.
//!
//! The rule is that of the CPU's kernels (tests/kernels/attention.rs): an error of at most twice that of the scalar f32
//! evaluation, plus a quarter of the cache's own; and where f16 meets f16, twice what rounding queries and weights to f16 costs.

use super::rounding;
use crate::common::*;
use crate::device::{self, Buffer, Device, DeviceCache, Listed, Within};
use half::f16;
use pmkvq::capi::types::{OpAttn, OpMerge, RowTransformC};
use pmkvq::geometry::{Side, Width, BLOCK};
use pmkvq::kernels::oracle::attention_f64;
use pmkvq::kernels::{
    attention_merge_at, attention_partial_at, AttentionArgs, Isa, MaskF16, MergeArgs, PartialsMut, RowTransform,
    RowsF32, Schedule,
};

pub struct Case {
    pub k: Cache,
    pub v: Cache,
    pub n_head: usize,
    pub n_kv: usize,
    pub q: Vec<f32>,
    pub k_cur: Vec<f32>,
    pub v_cur: Vec<f32>,
    /// The current batch is given; else it is read from the cache.
    pub current: bool,
    pub cells: Vec<i64>,
    pub mask: Vec<u16>,
    pub scale: f32,
    pub softcap: f32,
    pub max_bias: f32,
    pub sinks: Option<Vec<f32>>,
    /// What the operation is told; it may not matter for what comes out.
    pub one_seq: bool,
    /// How q, k_cur and v_cur lie in memory, and the mask.
    pub views: [View; 3],
    pub mask_view: MaskView,
}

/// Rows of a tensor as a view of something larger, in floats.
#[derive(Clone, Copy, Default)]
pub struct View {
    /// All tokens of a head, then the next head.
    pub head_first: bool,
    pub offset: usize,
    pub gap_head: usize,
    pub gap_token: usize,
}

/// Rows of the mask, in halves.
#[derive(Clone, Copy, Default)]
pub struct MaskView {
    pub offset: usize,
    pub gap: usize,
}

#[derive(Clone)]
pub struct Form {
    pub dk: usize,
    pub gk: usize,
    pub dv: usize,
    pub gv: usize,
    pub n_head_kv: usize,
    pub ratio: usize,
    pub n_kv: usize,
    pub n_token: usize,
    pub widths_k: Vec<Width>,
    pub widths_v: Vec<Width>,
}

impl Form {
    pub fn new(d: usize, g: usize, n_kv: usize, n_token: usize) -> Form {
        let all = Width::ALL.to_vec();
        let (n_head_kv, ratio, widths_k, widths_v) = (2, 2, all.clone(), all);
        Form { dk: d, gk: g, dv: d, gv: g, n_head_kv, ratio, n_kv, n_token, widths_k, widths_v }
    }

    /// One width for every block of K, and one for V.
    pub fn at(self, k: Width, v: Width) -> Form {
        Form { widths_k: vec![k], widths_v: vec![v], ..self }
    }

    /// 16 and 8 bits only, where little error is allowed.
    pub fn wide(self) -> Form {
        let widths = vec![Width::B16, Width::B8];
        Form { widths_k: widths.clone(), widths_v: widths, ..self }
    }

    pub fn heads(self, n_head_kv: usize, ratio: usize) -> Form {
        Form { n_head_kv, ratio, ..self }
    }

    pub fn v(self, dv: usize, gv: usize) -> Form {
        Form { dv, gv, ..self }
    }
}

impl Case {
    /// A full history whose last `n_token` cells are the current batch, causally masked.
    pub fn new(rng: &mut Rng, f: &Form) -> Case {
        let n_blocks = f.n_kv.div_ceil(BLOCK) + 1;
        let mut k = Cache::new(rng, Side::K, f.dk, f.gk, f.n_head_kv, n_blocks);
        let mut v = Cache::new(rng, Side::V, f.dv, f.gv, f.n_head_kv, n_blocks);
        for b in 0..n_blocks - 1 {
            let pick = |rng: &mut Rng, g, from: &[Width]| if g == 0 { Width::B16 } else { rng.pick(from) };
            k.open(b, pick(rng, f.gk, &f.widths_k));
            v.open(b, pick(rng, f.gv, &f.widths_v));
        }
        let history: Vec<i64> = (0..(f.n_kv - f.n_token) as i64).collect();
        fill(rng, &mut k, &history, 1.0);
        fill(rng, &mut v, &history, 1.0);
        let n_head = f.n_head_kv * f.ratio;
        let cells: Vec<i64> = (f.n_kv - f.n_token..f.n_kv).map(|c| c as i64).collect();
        Case {
            k,
            v,
            n_head,
            n_kv: f.n_kv,
            q: normals(rng, f.n_token * n_head * f.dk),
            k_cur: normals(rng, f.n_token * f.n_head_kv * f.dk),
            v_cur: normals(rng, f.n_token * f.n_head_kv * f.dv),
            current: true,
            cells,
            mask: causal_mask(f.n_kv, f.n_token),
            scale: 1.0 / (f.dk as f32).sqrt(),
            softcap: 0.0,
            max_bias: 0.0,
            sinks: None,
            one_seq: rng.below(2) == 0,
            views: [View::default(); 3],
            mask_view: MaskView::default(),
        }
    }

    pub fn n_token(&self) -> usize {
        self.q.len() / self.n_head / self.k.d
    }

    pub fn set_mask(&mut self, token: usize, cell: usize, m: f32) {
        self.mask[token * self.n_kv + cell] = f16::from_f32(m).to_bits();
    }

    /// Pools and parameters as they are before anything was stored.
    pub fn forget(&mut self) {
        for side in [&mut self.k, &mut self.v] {
            side.pool.bytes_mut().fill(0xff);
            side.params.bytes_mut().fill(0xff);
        }
    }

    /// Read the current tokens from the cache, too: their blocks must be open.
    pub fn store_current(&mut self) {
        self.k.put(&self.k_cur, &self.cells);
        self.v.put(&self.v_cur, &self.cells);
        self.current = false;
    }

    fn args<'a>(&'a mut self, out: PartialsMut<'a>) -> AttentionArgs<'a> {
        let (dk, dv, n_head_kv) = (self.k.d, self.v.d, self.k.n_head);
        let rows = |x, d, n| RowsF32::from_slice(x, d, n).unwrap();
        AttentionArgs {
            q: rows(&self.q, dk, self.n_head),
            current: self.current.then(|| (rows(&self.k_cur, dk, n_head_kv), rows(&self.v_cur, dv, n_head_kv))),
            mask: MaskF16::from_slice(&self.mask, self.n_kv).unwrap(),
            cells: &self.cells,
            k: self.k.view(),
            v: self.v.view(),
            scale: self.scale,
            softcap: self.softcap,
            max_bias: self.max_bias,
            n_chunk: 1,
            out,
        }
    }

    fn oracle(&mut self) -> Vec<f64> {
        let sinks = self.sinks.clone();
        let mut nothing = vec![0.0; self.n_token() * self.n_head * (self.v.d + 2)];
        let args = self.args(PartialsMut::from_slice(&mut nothing));
        attention_f64(&args, sinks.as_deref()).unwrap()
    }

    /// The scalar f32 evaluation.
    fn plain(&mut self) -> Vec<f32> {
        let mut partial = vec![f32::NAN; self.n_token() * self.n_head * (self.v.d + 2)];
        let args = self.args(PartialsMut::from_slice(&mut partial));
        attention_partial_at(Isa::Reference, &args, Schedule::Static { ith: 0, nth: 1 }).unwrap();
        self.merged_on_host(&partial, 1)
    }

    fn merged_on_host(&self, partial: &[f32], n_chunk: usize) -> Vec<f32> {
        let (n_token, n_head, head_dim) = (self.n_token(), self.n_head, self.v.d);
        let mut out = vec![f32::NAN; n_token * n_head * head_dim];
        let to = PartialsMut::from_slice(&mut out);
        let (n_head_kv, back) = (1, RowTransform::default());
        let args = MergeArgs {
            partial,
            sinks: self.sinks.as_deref(),
            n_token,
            n_head,
            head_dim,
            n_chunk,
            n_head_kv,
            back,
            out: to,
        };
        attention_merge_at(Isa::Reference, &args, 0, 1).unwrap();
        out
    }

    /// What the cache's widths cost: the output's distance from that of the same values at 16 bits.
    fn own_error(&mut self, want: &[f64]) -> f64 {
        let (mut k, mut v) = (self.k.at_16_bits(), self.v.at_16_bits());
        std::mem::swap(&mut self.k, &mut k);
        std::mem::swap(&mut self.v, &mut v);
        let exact = self.oracle();
        (self.k, self.v) = (k, v);
        distance(&exact, want)
    }

    /// What the output may be off by, and what it must be.
    pub fn bound(&mut self, what: &str) -> Bound {
        let want = self.oracle();
        assert!(want.iter().all(|x| x.is_finite()), "{what}: the case itself is broken");
        let plain = error(&self.plain(), &want);
        let own = self.own_error(&want);
        let halves = distance(&rounding::with_halves(self), &want);
        // outputs that are a copy of one value, or all zeros, have no error to compare with: an f32's own rounding
        let bound = 2.0 * plain.max(6e-8 * size(&want)) + own / 4.0 + 2.0 * halves;
        Bound { want, plain, own, halves, bound }
    }

    /// Within the bound in every number of chunks, in every way that the operation can be done, and the same bits each time.
    pub fn check_in(&mut self, what: &str, chunks: &[usize]) {
        let b = self.bound(what);
        let on = self.upload();
        for (i, &n_chunk) in chunks.iter().enumerate() {
            let lists = on.lists(n_chunk);
            let smaller = if i == 0 && self.n_token() > FEW { Way::smaller_gpus() } else { vec![] };
            for way in [Way::Usual].into_iter().chain(lists.as_ref().map(Way::Lists)).chain(smaller) {
                let by = way.name();
                let partial = on.partials_by(n_chunk, way);
                let out = on.merged(&partial, n_chunk);
                let (e, by_host) = (error(&out, &b.want), error(&self.merged_on_host(&partial, n_chunk), &b.want));
                let Bound { plain, own, halves, bound, .. } = b;
                assert!(
                    e <= bound,
                    "{what}, {by}{n_chunk} chunks: error {e:.3e} is above {bound:.3e} (scalar f32's {plain:.3e}, the \
                     cache's {own:.3e}, f16's {halves:.3e}); merged by the host {by_host:.3e}"
                );
                if i == 0 {
                    let again = on.partials_by(n_chunk, way);
                    assert!(same_bits(&partial, &again), "{what}: {by}other bits the second time");
                }
            }
        }
    }

    pub fn check(&mut self, what: &str) {
        self.check_in(what, &[1, 2, 7]);
    }

    pub fn upload(&self) -> Uploaded {
        let (n_token, n_kv) = (self.n_token(), self.n_kv);
        // what lies between the mask's rows would be visible
        let stride = n_kv + self.mask_view.gap;
        let mut mask = vec![0u16; self.mask_view.offset + (n_token - 1) * stride + n_kv];
        for (t, row) in self.mask.chunks(n_kv).enumerate() {
            mask[self.mask_view.offset + t * stride..][..n_kv].copy_from_slice(row);
        }
        let [vq, vk, vv] = self.views;
        Uploaded {
            q: Rows::new(&self.q, self.n_head, self.k.d, n_token, vq),
            current: self.current.then(|| {
                let rows = |x, d, view| Rows::new(x, self.k.n_head, d, n_token, view);
                [rows(&self.k_cur, self.k.d, vk), rows(&self.v_cur, self.v.d, vv)]
            }),
            k: DeviceCache::of(&self.k),
            v: DeviceCache::of(&self.v),
            mask: Buffer::of(&mask),
            mask_offset: 2 * self.mask_view.offset,
            cells: Buffer::of(&self.cells),
            sinks: self.sinks.as_ref().map(|s| Buffer::of(s)),
            n_record: n_token * self.n_head,
            dv: self.v.d,
            op: OpAttn {
                mask_nb_token: 2 * stride,
                n_tokens: n_token as u32,
                n_kv: n_kv as u32,
                n_head: self.n_head as u32,
                n_head_kv: self.k.n_head as u32,
                head_dim_k: self.k.d as u32,
                head_dim_v: self.v.d as u32,
                group_k: self.k.group as u32,
                group_v: self.v.group as u32,
                n_blocks: self.k.n_blocks as u32,
                scale: self.scale,
                softcap: self.softcap,
                max_bias: self.max_bias,
                one_seq: self.one_seq as u32,
                n_pages_k: self.k.n_pages as u32,
                n_pages_v: self.v.n_pages as u32,
                // SAFETY: numbers and pointers; what is not set here is set where it is used
                ..unsafe { std::mem::zeroed() }
            },
        }
    }
}

/// The most query tokens of a decode (`PMKVQ_FEW`).
const FEW: usize = 16;

/// How the operation is done.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    Usual,
    /// By lists of what is seen.
    Lists(&'a Buffer),
    /// With so many bytes of shared memory for a CTA.
    Within(usize),
}

impl Way<'_> {
    /// What an A100, GPUs of compute capability 8.6, 8.9 and 12.0, and a Turing have, as far as it is less than what there is.
    fn smaller_gpus() -> Vec<Way<'static>> {
        let limit = Device::get().shared_limit();
        [163, 99, 64].map(|kib| kib << 10).into_iter().filter(|n| *n < limit).map(Way::Within).collect()
    }

    fn name(&self) -> String {
        match self {
            Way::Usual => String::new(),
            Way::Lists(_) => "by lists, ".into(),
            Way::Within(bytes) => format!("within {} KiB, ", bytes >> 10),
        }
    }
}

pub struct Bound {
    pub want: Vec<f64>,
    pub plain: f64,
    pub own: f64,
    pub halves: f64,
    pub bound: f64,
}

/// A tensor of rows on the device, NaN between them.
struct Rows {
    buffer: Buffer,
    offset: usize,
    nb_head: usize,
    nb_token: usize,
}

impl Rows {
    fn new(values: &[f32], n_head: usize, d: usize, n_token: usize, view: View) -> Rows {
        let (head, token) = if view.head_first {
            let token = d + view.gap_token;
            (token * n_token + view.gap_head, token)
        } else {
            let head = d + view.gap_head;
            (head, head * n_head + view.gap_token)
        };
        let at = |t: usize, h: usize| view.offset + t * token + h * head;
        let mut laid = vec![f32::NAN; at(n_token - 1, n_head - 1) + d];
        for (i, row) in values.chunks(d).enumerate() {
            laid[at(i / n_head, i % n_head)..][..d].copy_from_slice(row);
        }
        Rows { buffer: Buffer::of(&laid), offset: 4 * view.offset, nb_head: 4 * head, nb_token: 4 * token }
    }

    fn ptr(&self) -> *const f32 {
        self.buffer.ptr().wrapping_add(self.offset).cast()
    }
}

/// A case on the device.
pub struct Uploaded {
    q: Rows,
    current: Option<[Rows; 2]>,
    pub k: DeviceCache,
    pub v: DeviceCache,
    mask: Buffer,
    mask_offset: usize,
    cells: Buffer,
    sinks: Option<Buffer>,
    n_record: usize,
    dv: usize,
    op: OpAttn,
}

impl Uploaded {
    /// The operation, with its output at `dst`.
    pub fn op(&self, n_chunk: usize, dst: *mut f32) -> OpAttn {
        let mut op = OpAttn {
            q: self.q.ptr(),
            q_nb_head: self.q.nb_head,
            q_nb_token: self.q.nb_token,
            mask: self.mask.ptr().wrapping_add(self.mask_offset).cast(),
            cells: self.cells.ptr().cast(),
            n_chunk: n_chunk as u32,
            pool_k: self.k.pool.ptr(),
            pool_v: self.v.pool.ptr(),
            table_k: self.k.table.ptr().cast(),
            table_v: self.v.table.ptr().cast(),
            params_k: self.k.params.ptr().cast(),
            params_v: self.v.params.ptr().cast(),
            dst,
            next_task: std::ptr::null(),
            // SAFETY: plain data
            ..unsafe { std::ptr::read(&self.op) }
        };
        if let Some([k, v]) = &self.current {
            (op.k_cur, op.k_nb_head, op.k_nb_token) = (k.ptr(), k.nb_head, k.nb_token);
            (op.v_cur, op.v_nb_head, op.v_nb_token) = (v.ptr(), v.nb_head, v.nb_token);
        }
        op
    }

    /// Lists of what is seen; a prefill has none.
    pub fn lists(&self, n_chunk: usize) -> Option<Buffer> {
        let op = self.op(n_chunk, std::ptr::null_mut());
        let bytes = device::seen_bytes(&op);
        (bytes > 0).then(|| {
            let lists = Buffer::new(bytes);
            assert_eq!(device::seen(&Listed { op, seen: lists.ptr() }), 0, "lists were refused");
            lists
        })
    }

    /// The partial results: all written but for what a record of nothing holds, and nothing beyond them.
    pub fn partials(&self, n_chunk: usize) -> Vec<f32> {
        self.partials_by(n_chunk, Way::Usual)
    }

    pub fn partials_by(&self, n_chunk: usize, way: Way) -> Vec<f32> {
        let n = self.dv + 2;
        let out = Buffer::new(4 * n_chunk * self.n_record * n);
        let op = self.op(n_chunk, out.ptr().cast());
        let code = match way {
            Way::Usual => device::attn(&op),
            Way::Lists(seen) => device::attn_seen(&Listed { op, seen: seen.ptr() }),
            Way::Within(shared) => device::attn_within(&Within { op, shared }),
        };
        assert_eq!(code, 0, "the operation was refused");
        let partial: Vec<f32> = out.read();
        for (i, record) in partial.chunks(n).enumerate() {
            let unwritten = |x: &f32| x.to_bits() == u32::MAX;
            let nothing = record[n - 1] == 0.0;
            assert!(nothing || !record.iter().any(unwritten), "values of record {i} were not written");
        }
        for (i, record) in partial.chunks(n).enumerate() {
            let sum = record[n - 1];
            assert!(sum.is_nan() || sum >= 0.0, "record {i} has a sum of weights of {sum}");
        }
        partial
    }

    pub fn merged(&self, partial: &[f32], n_chunk: usize) -> Vec<f32> {
        let partial = Buffer::of(partial);
        let op = |dst| OpMerge {
            partial: partial.ptr().cast(),
            sinks: self.sinks.as_ref().map_or(std::ptr::null(), |s| s.ptr().cast()),
            n_tokens: self.op.n_tokens,
            n_head: self.op.n_head,
            head_dim_v: self.op.head_dim_v,
            n_chunk: n_chunk as u32,
            n_head_kv: 1,
            back: RowTransformC::NONE,
            dst,
        };
        written(self.n_record * self.dv, |dst| device::merge(&op(dst)))
    }

    pub fn attend(&self, n_chunk: usize) -> Vec<f32> {
        self.merged(&self.partials(n_chunk), n_chunk)
    }
}

/// `n` floats that an operation writes, all of them; the buffer's guards say if there were more.
fn written(n: usize, op: impl Fn(*mut f32) -> i32) -> Vec<f32> {
    let out = Buffer::new(4 * n);
    assert_eq!(op(out.ptr().cast()), 0, "the operation was refused");
    let words = out.read::<u32>();
    let unwritten = words.iter().filter(|w| **w == u32::MAX).count();
    assert!(unwritten == 0, "{unwritten} of {n} values were not written");
    words.into_iter().map(f32::from_bits).collect()
}

pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Root mean square.
pub fn error(got: &[f32], want: &[f64]) -> f64 {
    let bad = got.iter().filter(|x| !x.is_finite()).count();
    assert!(bad == 0, "{bad} of {} values are not finite", got.len());
    distance(&got.iter().map(|x| *x as f64).collect::<Vec<_>>(), want)
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    size(&a.iter().zip(b).map(|(x, y)| x - y).collect::<Vec<_>>())
}

fn size(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64).sqrt()
}
