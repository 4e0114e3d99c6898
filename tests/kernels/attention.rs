//! Attention: the error against f64 is at most twice that of the scalar f32 evaluation; where codes are multiplied in integers,
//! plus a quarter of the cache's own error.

use super::common::*;
use super::hard::{Operands, KINDS};
use half::f16;
use pmkvq::geometry::{Side, Width, BLOCK};
use pmkvq::kernels::oracle::attention_f64;
use pmkvq::kernels::reference::{attention_weights, read_cell};
use pmkvq::kernels::{
    attention_merge_at, attention_partial_at, AttentionArgs, Isa, KernelError, MaskF16, MergeArgs, PartialsMut,
    RowTransform, RowsF32, Schedule,
};
use std::sync::atomic::AtomicU32;

/// One attention with everything that it reads.
struct Case {
    k: Cache,
    v: Cache,
    n_head: usize,
    n_kv: usize,
    q: Vec<f32>,
    k_cur: Vec<f32>,
    v_cur: Vec<f32>,
    /// The current batch is given; else it is read from the cache.
    current: bool,
    cells: Vec<i64>,
    mask: Vec<u16>,
    scale: f32,
    softcap: f32,
    max_bias: f32,
    sinks: Option<Vec<f32>>,
}

struct Form {
    dk: usize,
    gk: usize,
    dv: usize,
    gv: usize,
    n_head_kv: usize,
    ratio: usize,
    n_kv: usize,
    n_token: usize,
    widths: Vec<Width>,
}

impl Form {
    fn new(d: usize, g: usize, n_kv: usize, n_token: usize) -> Form {
        Form { dk: d, gk: g, dv: d, gv: g, n_head_kv: 2, ratio: 2, n_kv, n_token, widths: Width::ALL.to_vec() }
    }
}

impl Case {
    /// A full history whose last `n_token` cells are the current batch, causally masked.
    fn new(rng: &mut Rng, f: &Form) -> Case {
        let n_blocks = f.n_kv.div_ceil(BLOCK) + 1;
        let mut k = Cache::new(rng, Side::K, f.dk, f.gk, f.n_head_kv, n_blocks);
        let mut v = Cache::new(rng, Side::V, f.dv, f.gv, f.n_head_kv, n_blocks);
        for b in 0..n_blocks - 1 {
            let pick = |rng: &mut Rng, g| if g == 0 { Width::B16 } else { rng.pick(&f.widths) };
            let (wk, wv) = (pick(rng, f.gk), pick(rng, f.gv));
            k.open(b, wk);
            v.open(b, wv);
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
        }
    }

    fn n_token(&self) -> usize {
        self.q.len() / self.n_head / self.k.d
    }

    fn set_mask(&mut self, token: usize, cell: usize, m: f32) {
        self.mask[token * self.n_kv + cell] = f16::from_f32(m).to_bits();
    }

    /// The finished output, by `nth` threads, with the partial results' guards checked.
    fn run(&mut self, isa: Isa, n_chunk: usize, nth: usize, dynamic: bool) -> Result<Vec<f32>, KernelError> {
        let (n_token, n_head, dv) = (self.n_token(), self.n_head, self.v.d);
        let len = n_chunk * n_token * n_head * (dv + 2);
        let mut partial = vec![f32::NAN; len + 16];
        let next = AtomicU32::new(0);
        let args = self.args(n_chunk, PartialsMut::from_slice(&mut partial[8..len + 8]))?;
        let result: Result<(), KernelError> = std::thread::scope(|s| {
            let spawned: Vec<_> = (0..nth)
                .map(|ith| {
                    let next = &next;
                    let schedule =
                        if dynamic { Schedule::Counter { next, nth } } else { Schedule::Static { ith, nth } };
                    let args = &args;
                    s.spawn(move || attention_partial_at(isa, args, schedule))
                })
                .collect();
            spawned.into_iter().try_for_each(|h| h.join().unwrap())
        });
        result?;
        assert_eq!(next.into_inner(), 0, "the counter is not ready for the next operation");
        assert!(partial[..8].iter().chain(&partial[len + 8..]).all(|x| x.is_nan()), "wrote beyond the output");
        let mut out = vec![f32::NAN; n_token * n_head * dv];
        for ith in 0..nth {
            let args = MergeArgs {
                partial: &partial[8..len + 8],
                sinks: self.sinks.as_deref(),
                n_token,
                n_head,
                head_dim: dv,
                n_chunk,
                n_head_kv: 1,
                back: RowTransform::default(),
                out: PartialsMut::from_slice(&mut out),
            };
            attention_merge_at(isa, &args, ith, nth)?;
        }
        self.k.check();
        self.v.check();
        Ok(out)
    }

    fn args<'a>(&'a mut self, n_chunk: usize, out: PartialsMut<'a>) -> Result<AttentionArgs<'a>, KernelError> {
        let (dk, dv, n_head_kv) = (self.k.d, self.v.d, self.k.n_head);
        let current = if self.current {
            Some((RowsF32::from_slice(&self.k_cur, dk, n_head_kv)?, RowsF32::from_slice(&self.v_cur, dv, n_head_kv)?))
        } else {
            None
        };
        Ok(AttentionArgs {
            q: RowsF32::from_slice(&self.q, dk, self.n_head)?,
            current,
            mask: MaskF16::from_slice(&self.mask, self.n_kv)?,
            cells: &self.cells,
            k: self.k.view(),
            v: self.v.view(),
            scale: self.scale,
            softcap: self.softcap,
            max_bias: self.max_bias,
            n_chunk,
            out,
        })
    }

    /// What the cache's widths cost: the output's distance from that of the same values at 16 bits.
    fn own_error(&mut self, want: &[f64]) -> f64 {
        let (mut k, mut v) = (self.k.at_16_bits(), self.v.at_16_bits());
        std::mem::swap(&mut self.k, &mut k);
        std::mem::swap(&mut self.v, &mut v);
        let exact = self.oracle();
        self.k = k;
        self.v = v;
        let sum: f64 = exact.iter().zip(want).map(|(a, b)| (a - b).powi(2)).sum();
        (sum / want.len() as f64).sqrt()
    }

    fn oracle(&mut self) -> Vec<f64> {
        let sinks = self.sinks.clone();
        let mut nothing = vec![0.0; self.n_token() * self.n_head * (self.v.d + 2)];
        let args = self.args(1, PartialsMut::from_slice(&mut nothing)).unwrap();
        attention_f64(&args, sinks.as_deref()).unwrap()
    }

    /// Every level, several chunk and thread counts: within twice the scalar evaluation's error and a quarter of the cache's.
    fn check(&mut self, what: &str) {
        let want = self.oracle();
        assert!(want.iter().all(|x| x.is_finite()), "{what}: the case itself is broken");
        let plain = error(&self.run(Isa::Reference, 1, 1, false).unwrap(), &want);
        // outputs that are a copy of one value, or all zeros, have no error to compare with: an f32's own rounding
        let own = self.own_error(&want);
        let bound = 2.0 * plain.max(6e-8 * size(&want)) + own / 4.0;
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            for (n_chunk, nth, dynamic) in [(1, 1, false), (3, 2, false), (7, 5, true)] {
                let got = self.run(isa, n_chunk, nth, dynamic).unwrap();
                let e = error(&got, &want);
                assert!(
                    e <= bound,
                    "{what}, {isa:?}, {n_chunk} chunks: error {e:.3e}, scalar f32's {plain:.3e}, the cache's {own:.3e}"
                );
            }
        }
    }
}

/// Root mean square.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let bad = got.iter().filter(|x| !x.is_finite()).count();
    assert!(bad == 0, "{bad} of {} values are not finite", got.len());
    let sum: f64 = got.iter().zip(want).map(|(g, w)| (*g as f64 - w).powi(2)).sum();
    (sum / want.len() as f64).sqrt()
}

fn size(want: &[f64]) -> f64 {
    (want.iter().map(|x| x * x).sum::<f64>() / want.len() as f64).sqrt()
}

#[test]
fn head_dimensions() {
    property(2, |rng| {
        for (d, g) in SHAPES {
            Case::new(rng, &Form::new(d, g, 300, 3)).check(&format!("D {d}/{g}"));
        }
        // sides that stay at 16 bits may have any dimension
        for d in [1, 7, 40, 72, 100] {
            Case::new(rng, &Form::new(d, 0, 200, 2)).check(&format!("D {d}"));
        }
        let mut mla = Form::new(576, 96, 260, 2);
        (mla.dv, mla.gv, mla.n_head_kv, mla.ratio) = (512, 128, 1, 16);
        Case::new(rng, &mla).check("576/512");
        let mut mixed = Form::new(192, 96, 260, 2);
        (mixed.dv, mixed.gv) = (72, 0);
        Case::new(rng, &mixed).check("192/72");
    });
}

#[test]
fn grouped_query_ratios() {
    property(2, |rng| {
        for ratio in [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 71] {
            let mut f = Form::new(64, 64, 150, 2);
            f.ratio = ratio;
            Case::new(rng, &f).check(&format!("ratio {ratio}"));
        }
    });
}

#[test]
fn token_counts() {
    let rng = &mut Rng::new(5);
    for n in [1, 2, 7, 8, 9, 64, 129] {
        Case::new(rng, &Form::new(64, 64, 200 + n, n)).check(&format!("{n} tokens"));
    }
    let mut f = Form::new(32, 32, 700, 513);
    f.n_head_kv = 1;
    Case::new(rng, &f).check("513 tokens");
}

#[test]
fn visible_cells() {
    let rng = &mut Rng::new(6);
    for n_kv in [1, 2, 15, 16, 17, 127, 128, 129, 255, 256, 257, 1000] {
        Case::new(rng, &Form::new(64, 32, n_kv, 1)).check(&format!("{n_kv} cells"));
    }
}

#[test]
fn every_width_alone_and_mixed() {
    let rng = &mut Rng::new(7);
    for wk in Width::ALL {
        for wv in Width::ALL {
            let mut case = Case::new(rng, &Form::new(128, 128, 400, 1));
            for b in 0..3 {
                case.k.table[b] = pmkvq::geometry::BlockEntry::EMPTY;
                case.v.table[b] = pmkvq::geometry::BlockEntry::EMPTY;
            }
            case.k.free = (0..case.k.n_pages as i32).collect();
            case.v.free = (0..case.v.n_pages as i32).collect();
            for b in 0..4 {
                case.k.open(b, wk);
                case.v.open(b, wv);
            }
            let history: Vec<i64> = (0..399).collect();
            fill(rng, &mut case.k, &history, 1.0);
            fill(rng, &mut case.v, &history, 1.0);
            case.check(&format!("K {wk} V {wv}"));
        }
    }
}

/// Two sequences whose cells interleave, cells that nobody wrote, blocks that hold nothing, pages that are absent.
#[test]
fn holes_hold_garbage() {
    property(8, |rng| {
        let n_token = 6;
        let mut c = Case::new(rng, &Form::new(64, 64, 900, n_token));
        let n_kv = c.n_kv;
        // fresh pools: only some cells of some blocks are written
        c.k.pool.bytes_mut().fill(0xff);
        c.v.pool.bytes_mut().fill(0xff);
        c.k.params.bytes_mut().fill(0xff);
        c.v.params.bytes_mut().fill(0xff);
        c.mask.fill(f16::NEG_INFINITY.to_bits());
        let written: Vec<i64> = (0..(n_kv - n_token) as i64).filter(|_| rng.below(3) > 0).collect();
        let written: Vec<i64> =
            written.into_iter().filter(|c| !(256..384).contains(c) && !(640..672).contains(c)).collect();
        c.k.table[2].width = 0;
        if c.v.table[5].width == 16 {
            c.v.table[5].pages[0] = -1;
            c.v.table[5].pages[1] = -1;
        }
        let stored: Vec<i64> = written.iter().copied().filter(|c| c / 128 != 2).collect();
        fill(rng, &mut c.k, &stored, 1.0);
        fill(rng, &mut c.v, &stored, 1.0);
        for t in 0..n_token {
            for &cell in &written {
                if cell as usize % 2 == t % 2 {
                    c.set_mask(t, cell as usize, 0.0);
                }
            }
            for j in (0..=t).filter(|j| j % 2 == t % 2) {
                c.set_mask(t, n_kv - n_token + j, 0.0);
            }
        }
        // block 2 holds nothing, whatever the mask says
        for cell in 256..384 {
            c.set_mask(3, cell, 0.0);
        }
        c.check("holes");
    });
}

/// Cells of the current batch anywhere, in any order, and garbage under them in the cache.
#[test]
fn current_cells_are_not_read_from_the_cache() {
    property(6, |rng| {
        let n_token = rng.pick(&[1, 5, 40, 200]);
        let mut c = Case::new(rng, &Form::new(64, 64, 600, n_token));
        let n_kv = c.n_kv;
        let mut all: Vec<i64> = (0..n_kv as i64).collect();
        rng.shuffle(&mut all);
        c.cells = all[..n_token].to_vec();
        let rest: Vec<i64> = all[n_token..].to_vec();
        for side in [&mut c.k, &mut c.v] {
            side.pool.bytes_mut().fill(0xff);
            side.params.bytes_mut().fill(0xff);
            fill(rng, side, &rest, 1.0);
        }
        c.mask.fill(0);
        for t in 0..n_token {
            for j in t + 1..n_token {
                let cell = c.cells[j] as usize;
                c.set_mask(t, cell, f32::NEG_INFINITY);
            }
        }
        c.check(&format!("{n_token} scattered tokens"));
        // a layer that reads another layer's cache finds them there
        let cells = c.cells.clone();
        fill(rng, &mut c.k, &cells, 1.0);
        fill(rng, &mut c.v, &cells, 1.0);
        c.current = false;
        c.check(&format!("{n_token} tokens in the cache"));
    });
}

#[test]
fn rows_that_see_nothing_are_zero() {
    let rng = &mut Rng::new(8);
    let mut c = Case::new(rng, &Form::new(64, 64, 300, 3));
    let n_kv = c.n_kv;
    c.mask[n_kv..2 * n_kv].fill(f16::NEG_INFINITY.to_bits());
    c.check("one row masked");
    let out = c.run(Isa::best(), 2, 1, false).unwrap();
    let row = c.n_head * 64;
    assert!(out[row..2 * row].iter().all(|&x| x == 0.0));
    c.mask.fill(f16::NEG_INFINITY.to_bits());
    c.check("all masked");
    c.sinks = Some(vec![1.0; c.n_head]);
    c.check("all masked, with sinks");
}

#[test]
fn softcap_alibi_sinks() {
    property(3, |rng| {
        let (softcap, max_bias) = rng.pick(&[(50.0, 0.0), (30.0, 8.0), (0.0, 8.0), (1.0, 4.0)]);
        let mut f = Form::new(64, 64, 400, 5);
        f.ratio = rng.pick(&[1, 3, 4]);
        let mut c = Case::new(rng, &f);
        (c.softcap, c.max_bias) = (softcap, max_bias);
        c.q.iter_mut().for_each(|x| *x *= 4.0);
        if max_bias > 0.0 {
            for t in 0..5 {
                for cell in 0..=395 + t {
                    c.set_mask(t, cell, -((395 + t - cell) as f32));
                }
            }
        }
        c.sinks = Some(normals(rng, c.n_head));
        c.check(&format!("cap {softcap}, bias {max_bias}, {} heads", c.n_head));
    });
}

#[test]
fn hostile_scores() {
    let rng = &mut Rng::new(10);
    // equal scores
    let mut c = Case::new(rng, &Form::new(64, 64, 500, 2));
    c.q.fill(0.0);
    c.check("equal scores");
    // one peak over a long flat tail
    for width in Width::ALL {
        let mut f = Form::new(128, 128, 2000, 1);
        f.widths = vec![width];
        let mut c = Case::new(rng, &f);
        let history: Vec<i64> = (0..1999).collect();
        fill(rng, &mut c.k, &history, 0.01);
        let peak: Vec<f32> = c.q[..128].iter().map(|x| x * 0.5).collect();
        let both = [peak.clone(), peak].concat();
        c.k.put(&both, &[777]);
        c.check(&format!("a peak at {width} bits"));
    }
    // scores that overflow exp by far, in both directions
    let mut c = Case::new(rng, &Form::new(64, 64, 300, 2));
    c.q.iter_mut().for_each(|x| *x *= 300.0);
    c.check("large scores");
    // keys and values at the limits of f16
    let mut c = Case::new(rng, &Form::new(64, 64, 300, 1));
    let history: Vec<i64> = (0..299).collect();
    fill(rng, &mut c.k, &history, 20000.0);
    fill(rng, &mut c.v, &history, 20000.0);
    c.q.iter_mut().for_each(|x| *x *= 1e-4);
    c.check("limits of f16");
}

#[test]
fn every_thread_count_gives_the_same() {
    let rng = &mut Rng::new(11);
    let mut c = Case::new(rng, &Form::new(64, 64, 500, 9));
    let want = c.run(Isa::best(), 4, 1, false).unwrap();
    for nth in 1..=16 {
        for dynamic in [false, true] {
            assert_eq!(c.run(Isa::best(), 4, nth, dynamic).unwrap(), want, "{nth} threads");
        }
    }
}

#[test]
fn bad_arguments_are_named() {
    let rng = &mut Rng::new(12);
    for isa in [Isa::Reference, Isa::best()] {
        let mut c = Case::new(rng, &Form::new(64, 64, 300, 2));
        let cells = c.cells.clone();
        c.cells[1] = 300;
        assert_eq!(c.run(isa, 1, 1, false).unwrap_err(), KernelError::CellRange { cell: 300 });
        c.cells[1] = -1;
        assert_eq!(c.run(isa, 1, 1, false).unwrap_err(), KernelError::CellRange { cell: -1 });
        c.cells = cells;
        let table = c.k.table.clone();
        c.k.table[1].width = 3;
        assert_eq!(c.run(isa, 1, 1, false).unwrap_err(), KernelError::Width { block: 1, width: 3 });
        c.k.table = table.clone();
        c.k.table[1].pages = [-1; 8];
        assert_eq!(c.run(isa, 1, 1, false).unwrap_err(), KernelError::MissingPage { block: 1, slot: 0 });
        c.k.table[1].pages = [i32::MAX; 8];
        let e = c.run(isa, 1, 1, false).unwrap_err();
        assert_eq!(e, KernelError::PageRange { block: 1, page: i32::MAX });
        c.k.table = table;
        c.run(isa, 1, 1, false).unwrap();
        assert!(matches!(c.run(isa, 0, 1, false), Err(KernelError::Shape(_))));
        let mut small = vec![0.0; 10];
        let args = c.args(1, PartialsMut::from_slice(&mut small)).unwrap();
        let e = attention_partial_at(isa, &args, Schedule::Static { ith: 0, nth: 1 });
        assert!(matches!(e, Err(KernelError::Shape(_))));
        for nobody in [Schedule::Static { ith: 1, nth: 1 }, Schedule::Counter { next: &AtomicU32::new(0), nth: 0 }] {
            assert_eq!(attention_partial_at(isa, &args, nobody), Err(KernelError::Thread));
        }
    }
}

/// The weights that reports look at are those of the operation: they add up to 1, and the values they weigh to its output.
#[test]
fn weights_make_the_output() {
    property(3, |rng| {
        for (current, softcap, max_bias) in [(true, 0.0, 0.0), (false, 3.0, 0.0), (true, 0.0, 8.0)] {
            let mut c = Case::new(rng, &Form::new(64, 32, 300, 3));
            if !current {
                // what the current tokens are must then be in the cache
                let cells = c.cells.clone();
                c.k.open(2, Width::B4);
                c.v.open(2, Width::B16);
                fill(rng, &mut c.k, &(256..300).collect::<Vec<_>>(), 1.0);
                fill(rng, &mut c.v, &(256..300).collect::<Vec<_>>(), 1.0);
                c.cells = cells;
            }
            (c.current, c.softcap, c.max_bias) = (current, softcap, max_bias);
            // ALiBi's mask is a distance; and one cell is hidden from one query
            for t in 0..3 {
                for cell in 0..=297 + t {
                    c.set_mask(t, cell, if max_bias > 0.0 { -((297 + t - cell) as f32) } else { 0.0 });
                }
            }
            c.set_mask(1, 7, f32::NEG_INFINITY);
            let want = c.oracle();
            let (n_head, dv, cells, v_cur) = (c.n_head, c.v.d, c.cells.clone(), c.v_cur.clone());
            let mut nothing = vec![0.0; 3 * n_head * (dv + 2)];
            let args = c.args(1, PartialsMut::from_slice(&mut nothing)).unwrap();
            for t in 0..3 {
                let weights = attention_weights(&args, t).unwrap();
                assert_eq!(weights.len(), n_head);
                for (h, of_head) in weights.iter().enumerate() {
                    assert_eq!(of_head.len(), 298 + t - usize::from(t == 1), "every visible cell once");
                    assert!((of_head.iter().map(|w| w.1).sum::<f64>() - 1.0).abs() < 1e-12);
                    let mut sum = vec![0.0; dv];
                    for &(cell, weight) in of_head {
                        let at = cells.iter().position(|c| *c == cell).filter(|_| current);
                        let row: Vec<f64> = match at {
                            Some(i) => {
                                let row = &v_cur[(i * 2 + h / 2) * dv..][..dv];
                                row.iter().map(|x| f16::from_f32(*x).to_f64()).collect()
                            }
                            None => {
                                let row = read_cell(&args.v, h / 2, cell as usize).unwrap().unwrap();
                                row.into_iter().map(|x| x.f64()).collect()
                            }
                        };
                        sum.iter_mut().zip(row).for_each(|(s, x)| *s += weight * x);
                    }
                    let want = &want[(t * n_head + h) * dv..][..dv];
                    let far = sum.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(far < 1e-5, "query {t}, head {h}: {far}");
                }
            }
            assert!(matches!(attention_weights(&args, 3), Err(KernelError::Shape(_))));
        }
    });
}

/// The table of what integer queries and weights add to the error, in shares of the cache's own, on every level; printed with
/// `--nocapture`, and at most a quarter.
#[test]
fn integers_add_at_most_a_quarter() {
    let levels: Vec<Isa> = levels();
    let names: Vec<String> = levels.iter().map(|i| format!(" {} |", i.name())).collect();
    println!("| data | width | the cache's error | plain f32 |{}", names.concat());
    println!("| --- | --- | --- | --- |{}", " --- |".repeat(levels.len()));
    for (what, change) in KINDS {
        for width in PACKED {
            let rng = &mut Rng::new(21);
            let mut f = Form::new(128, 128, 2000, 1);
            (f.ratio, f.widths) = (4, vec![width]);
            let mut c = Case::new(rng, &f);
            // the current token's own key would be all that is seen
            c.current = false;
            change(rng, &mut Operands { q: &mut c.q, k: &mut c.k, v: &mut c.v, d: 128 });
            let last: Vec<f32> = normals(rng, 2 * 128);
            c.k.put(&last, &[1999]);
            c.v.put(&last, &[1999]);
            let want = c.oracle();
            let own = c.own_error(&want);
            let plain = error(&c.run(Isa::Reference, 1, 1, false).unwrap(), &want);
            let mut line = format!("| {what} | {} | {own:.1e} | {:.4} |", width.bits(), plain / own);
            for &isa in &levels {
                let e = error(&c.run(isa, 2, 1, false).unwrap(), &want);
                line += &format!(" {:.3} |", e / own);
                assert!(e <= own / 4.0 + 2.0 * plain, "{what}, {width} bits, {isa:?}: {e:.2e}, the cache's {own:.2e}");
            }
            println!("{line}");
        }
    }
}
