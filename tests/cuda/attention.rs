//! Attention on the device against f64, over caches that the CPU made: every shape, width, mask and view that llama.cpp can ask
//! for, and values that are hard on codes and halves. Tests named `small_*` are those that the GPU's checkers run.

mod case;
mod counts;
mod rounding;
mod sums;

use crate::common::*;
use crate::device::{self, Buffer, Device};
use crate::hard::{Operands, KINDS};
use case::*;
use half::f16;
use pmkvq::capi::types::OpAttn;
use pmkvq::geometry::{BlockEntry, Width, BLOCK};

/// As many seeds on the host's shim, and four times as many on a GPU.
fn seeds(n: u64) -> u64 {
    if Device::get().is_shim() {
        n
    } else {
        4 * n
    }
}

/// (D_k, its group, D_v, its group); group 0: the side stays at 16 bits.
const DIMS: [(usize, usize, usize, usize); 28] = [
    (64, 64, 64, 64),
    (64, 16, 64, 32),
    (80, 80, 80, 80),
    (80, 16, 80, 16),
    (96, 96, 96, 48),
    (96, 32, 96, 16),
    (112, 112, 112, 112),
    (112, 16, 112, 16),
    (128, 128, 128, 128),
    (128, 64, 128, 16),
    (128, 32, 128, 64),
    (128, 16, 128, 32),
    (192, 96, 192, 96),
    (192, 64, 192, 48),
    (192, 96, 128, 128),
    (192, 16, 128, 32),
    (256, 128, 256, 128),
    (256, 64, 256, 32),
    (272, 16, 144, 48),
    (320, 80, 320, 64),
    (512, 128, 512, 128),
    (576, 96, 512, 128),
    (576, 64, 512, 64),
    (64, 0, 64, 0),
    (80, 0, 80, 80),
    (128, 128, 128, 0),
    (192, 0, 128, 0),
    (576, 0, 512, 0),
];

#[test]
fn head_dimensions_and_groups() {
    property(seeds(1), |rng| {
        for (dk, gk, dv, gv) in DIMS {
            for n_token in [1, 3, 20] {
                let mut f = Form::new(dk, gk, 200 + n_token, n_token).v(dv, gv);
                (f.n_head_kv, f.ratio) = rng.pick(&[(2, 2), (1, 4), (2, 1)]);
                Case::new(rng, &f).check_in(&format!("D {dk}/{gk} and {dv}/{gv}, {n_token} tokens"), &[2]);
            }
        }
    });
}

#[test]
fn small_dimensions() {
    let rng = &mut Rng::new(1);
    for (d, g) in [(64, 64), (128, 64)] {
        for n_token in [1, 9, 17] {
            Case::new(rng, &Form::new(d, g, 160, n_token).heads(1, 2).wide()).check_in(&format!("D {d}"), &[2]);
        }
    }
}

#[test]
fn grouped_query_ratios() {
    property(seeds(1), |rng| {
        for ratio in [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 71] {
            for n_token in [1, 2, 11] {
                let f = Form::new(64, 64, 150 + n_token, n_token).heads(if ratio > 8 { 1 } else { 2 }, ratio);
                Case::new(rng, &f).check_in(&format!("ratio {ratio}, {n_token} tokens"), &[1, 2]);
            }
        }
    });
}

#[test]
fn token_counts() {
    let rng = &mut Rng::new(5);
    for n in (1..=8).chain([9, 15, 16, 17, 31, 33, 64]) {
        Case::new(rng, &Form::new(64, 64, 200 + n, n).wide()).check_in(&format!("{n} tokens"), &[1, 3]);
        Case::new(rng, &Form::new(128, 128, 150 + n, n).heads(1, 4)).check_in(&format!("{n} tokens, D 128"), &[2]);
    }
    for n in [130, 512] {
        let f = Form::new(64, 64, 190 + n, n).heads(1, 1);
        Case::new(rng, &f).check_in(&format!("{n} tokens"), &[1, 2]);
        Case::new(rng, &Form::new(64, 32, n, n).heads(1, 3)).check_in(&format!("{n} tokens and no history"), &[1]);
    }
}

#[test]
fn visible_cells() {
    let rng = &mut Rng::new(6);
    for n_kv in [1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 127, 128, 129, 255, 256, 257, 300, 999, 1000] {
        Case::new(rng, &Form::new(64, 32, n_kv, 1)).check(&format!("{n_kv} cells"));
    }
}

#[test]
fn every_width_alone_and_mixed() {
    property(seeds(1), |rng| {
        for k in Width::ALL {
            for v in Width::ALL {
                for n_token in [1, 6, 18] {
                    let f = Form::new(128, 128, 260 + n_token, n_token).heads(1, 4).at(k, v);
                    Case::new(rng, &f).check_in(&format!("K {k} V {v}, {n_token} tokens"), &[1, 2]);
                }
            }
        }
        Case::new(rng, &Form::new(128, 128, 1500, 2)).check("all widths, block by block");
    });
}

#[test]
fn small_widths() {
    let rng = &mut Rng::new(2);
    for (k, v) in [(Width::B16, Width::B16), (Width::B8, Width::B4), (Width::B4, Width::B2), (Width::B2, Width::B8)] {
        for n_token in [1, 9, 17] {
            let f = Form::new(64, 32, 200, n_token).heads(1, 2).at(k, v);
            Case::new(rng, &f).check_in(&format!("K {k} V {v}, {n_token} tokens"), &[2]);
        }
    }
}

#[test]
fn chunks() {
    let rng = &mut Rng::new(7);
    for n_token in [1, 5, 20] {
        Case::new(rng, &Form::new(64, 64, 600, n_token).wide()).check_in(&format!("{n_token} tokens"), &[1, 2, 7, 33]);
        let mut c = Case::new(rng, &Form::new(64, 64, 600, n_token).wide());
        c.k.open(5, Width::B8);
        c.v.open(5, Width::B16);
        c.store_current();
        c.check_in(&format!("{n_token} tokens in the cache"), &[1, 2, 7, 33]);
    }
    // more chunks than blocks: somebody sees nothing
    let c = Case::new(rng, &Form::new(64, 64, 200, 1));
    let partial = c.upload().partials(33);
    let sums = || partial.chunks(66).map(|r| r[65]);
    assert!(sums().any(|s| s == 0.0) && sums().any(|s| s > 0.0));
    let n = Device::get().n_chunk(1, 200, 4, 2) as usize;
    assert!(n >= 1);
    c.upload().attend(n);
}

/// Rows in the middle of something, at any address that is a multiple of 4 (of 2 for the mask).
#[test]
fn views() {
    property(seeds(8), |rng| {
        let n_token = rng.pick(&[1, 2, 5, 9, 20]);
        let d = rng.pick(&[64, 128]);
        let n_kv = rng.range(n_token, 300);
        let mut c = Case::new(rng, &Form::new(d, 64, n_kv, n_token));
        for view in &mut c.views {
            // aligned to 16 bytes as llama.cpp's are, or not
            let unit = rng.pick(&[4, 4, 1]);
            let mut gap = |n| unit * rng.below(n);
            let (offset, gap_head, gap_token) = (gap(9), gap(9), gap(50));
            *view = View { head_first: rng.below(2) == 0, offset, gap_head, gap_token };
        }
        c.mask_view = MaskView { offset: rng.below(9), gap: rng.pick(&[0, 1, 7, 64 - n_kv % 64, 129]) };
        c.check_in(&format!("{n_kv} cells, {n_token} tokens"), &[2]);
    });
}

#[test]
fn small_views() {
    let rng = &mut Rng::new(3);
    for n_token in [1, 9, 17] {
        let mut c = Case::new(rng, &Form::new(64, 64, 147, n_token).heads(1, 2).wide());
        c.views = [
            View { head_first: true, offset: 4, gap_head: 4, gap_token: 8 },
            View { head_first: false, offset: 1, gap_head: 3, gap_token: 5 },
            View { head_first: true, offset: 3, gap_head: 0, gap_token: 1 },
        ];
        c.mask_view = MaskView { offset: 1, gap: 2 };
        c.check_in(&format!("{n_token} tokens"), &[2]);
    }
}

/// Two sequences whose cells interleave, cells that nobody wrote, blocks that hold nothing, pages that are absent.
fn holes(rng: &mut Rng, n_token: usize, n_kv: usize) -> Case {
    let f = Form::new(64, 64, n_kv, n_token);
    let f = if rng.below(2) == 0 { f.wide() } else { f };
    let mut c = Case::new(rng, &f);
    c.forget();
    c.mask.fill(f16::NEG_INFINITY.to_bits());
    let last = (n_kv - 1) / BLOCK;
    let written = (0..n_kv - n_token).filter(|_| rng.below(3) > 0);
    // block 1 is empty, and a quarter of the last one never was
    let written: Vec<usize> = written.filter(|c| c / BLOCK != 1 && c / 32 != last * 4).collect();
    c.k.table[1] = BlockEntry::EMPTY;
    let cells: Vec<i64> = written.iter().map(|c| *c as i64).collect();
    fill(rng, &mut c.k, &cells, 1.0);
    fill(rng, &mut c.v, &cells, 1.0);
    for side in [&mut c.k, &mut c.v] {
        if side.table[last].width == 16 {
            side.table[last].pages[0] = -1;
            side.table[last].pages[1] = -1;
        }
    }
    for t in 0..n_token {
        for &cell in written.iter().filter(|c| *c % 2 == t % 2) {
            c.set_mask(t, cell, 0.0);
        }
        for j in (0..=t).filter(|j| j % 2 == t % 2) {
            c.set_mask(t, n_kv - n_token + j, 0.0);
        }
    }
    // block 1 holds nothing, whatever the mask says
    for cell in BLOCK..2 * BLOCK {
        c.set_mask(n_token - 1, cell, 0.0);
    }
    c
}

#[test]
fn holes_hold_garbage() {
    property(seeds(4), |rng| {
        for n_token in [1, 6, 19] {
            holes(rng, n_token, 600).check_in(&format!("{n_token} tokens"), &[1, 3]);
        }
    });
}

#[test]
fn small_holes() {
    let rng = &mut Rng::new(4);
    for n_token in [1, 9, 17] {
        holes(rng, n_token, 300).check_in(&format!("{n_token} tokens"), &[2]);
    }
}

/// Sequences have blocks of their own, so most blocks are hidden from most queries, and some from all.
#[test]
fn sequences() {
    property(seeds(3), |rng| {
        for n_seq in [2, 4, 11] {
            let mut c = Case::new(rng, &Form::new(64, 64, 1000 + n_seq, n_seq).wide());
            let n_kv = c.n_kv;
            c.mask.fill(f16::NEG_INFINITY.to_bits());
            for t in 0..n_seq {
                // sequence 1 has nothing but its own token
                for cell in (0..1000).filter(|cell| t != 1 && cell / BLOCK % (n_seq + 1) == t) {
                    c.set_mask(t, cell, 0.0);
                }
                c.set_mask(t, n_kv - n_seq + t, 0.0);
            }
            c.check_in(&format!("{n_seq} sequences"), &[1, 3]);
        }
    });
}

/// 16 sequences that share a prefix, have blocks of their own, or nothing but their own token, and one that sees nothing at all.
#[test]
fn lists_of_what_sequences_see() {
    property(seeds(2), |rng| {
        for (ratio, shared) in [(1, 3), (4, 0), (5, 2), (12, 1)] {
            let (n_seq, n_kv) = (16, 40 * BLOCK + rng.pick(&[0, 1, 8, 200]));
            let n_head_kv = if ratio < 5 { 2 } else { 1 };
            let mut c = Case::new(rng, &Form::new(64, 64, n_kv, n_seq).heads(n_head_kv, ratio).wide());
            c.mask.fill(f16::NEG_INFINITY.to_bits());
            for t in (0..n_seq).filter(|t| *t != 5) {
                let own = shared + 2 * t..shared + 2 * t + if t % 4 == 2 { 0 } else { rng.below(3) };
                // one sees much more than the others
                let more = if t == 9 { 24..38 } else { 0..0 };
                for block in (0..shared).chain(own).chain(more) {
                    // a cell here and there is enough for its block to be read
                    let every = rng.pick(&[1, 1, 63, 100]);
                    for cell in (block * BLOCK..(block + 1) * BLOCK).skip(rng.below(20)).step_by(every) {
                        c.set_mask(t, cell, 0.0);
                    }
                }
                c.set_mask(t, n_kv - n_seq + t, 0.0);
            }
            c.mask_view.gap = rng.pick(&[0, 1, 8]);
            c.check_in(&format!("ratio {ratio}, {shared} shared blocks"), &[1, 4, 11]);

            let on = c.upload();
            let partial = on.partials_by(3, Way::Lists(&on.lists(3).expect("lists")));
            let unseen = |r: usize| (0..3).all(|chunk| partial[((chunk * n_seq + 5) * c.n_head + r) * 66 + 65] == 0.0);
            assert!((0..c.n_head).all(unseen), "a sum of weights of nothing");
        }
    });
}

/// A warp has more rounds than a lane keeps of its list.
#[test]
fn long_lists() {
    let rng = &mut Rng::new(32);
    let mut c = Case::new(rng, &Form::new(64, 64, 17_000, 2).heads(1, 2).wide());
    for item in (0..17_000 / 64).filter(|i| i % 7 == 3) {
        let n_kv = c.n_kv;
        for t in 0..2 {
            c.mask[t * n_kv + item * 64..][..64].fill(f16::NEG_INFINITY.to_bits());
        }
    }
    c.check_in("long lists", &[1, 2]);
}

/// Which items a list has, and how many chunks its tile, of masks whose rows lie anywhere.
#[test]
fn small_lists() {
    let rng = &mut Rng::new(31);
    for (n_token, ratio, one_seq, tokens, n_kv, view) in [
        (2, 4, false, 1, 2048 * 2 + 64, MaskView::default()),
        (3, 4, true, 2, 2048 * 2 + 64, MaskView::default()),
        (1, 4, true, 1, 2048 + 1, MaskView { offset: 3, gap: 0 }),
        (5, 2, false, 2, 4500, MaskView { offset: 8, gap: 4 }),
        (16, 1, true, 4, 33 * 64, MaskView { offset: 0, gap: 8 }),
    ] {
        let mut c = Case::new(rng, &Form::new(64, 64, n_kv, n_token).heads(1, ratio));
        (c.mask_view, c.one_seq) = (view, one_seq);
        c.mask.fill(f16::NEG_INFINITY.to_bits());
        for _ in 0..n_token * n_kv / 300 {
            let (t, cell) = (rng.below(n_token), rng.below(n_kv));
            c.set_mask(t, cell, rng.pick(&[0.0, -1.0]));
        }
        let words = c.upload().lists(6).expect("lists").read::<u32>();
        let n_items = n_kv.div_ceil(64);
        let n_lists = n_token.div_ceil(tokens);
        let counts = &words[n_token * n_items.div_ceil(32)..];
        let (starts, lists) = counts[n_lists..].split_at(n_lists + 1);
        for (i, rows) in c.mask.chunks(tokens * n_kv).enumerate() {
            let sees = |item: &usize| {
                rows.chunks(n_kv).any(|row| row[item * 64..].iter().take(64).any(|m| *m != f16::NEG_INFINITY.to_bits()))
            };
            let want: Vec<u32> = (0..n_items).filter(sees).map(|item| item as u32).collect();
            assert_eq!(counts[i] as usize, want.len());
            assert_eq!(lists[i * n_items..][..want.len()], want, "list {i} of {n_token} tokens");
        }
        // a tile that sees more has no fewer chunks, each has one, and none has more than there is room for
        let chunks: Vec<u32> = starts.windows(2).map(|s| s[1] - s[0]).collect();
        assert_eq!(starts[0], 0);
        assert!(chunks.iter().all(|n| (1..=6).contains(n)), "{chunks:?}");
        for (i, j) in (0..n_lists).flat_map(|i| (0..n_lists).map(move |j| (i, j))) {
            assert!(counts[i] < counts[j] || chunks[i] >= chunks[j], "{chunks:?} chunks of {:?}", &counts[..n_lists]);
        }
    }
}

/// Cells of the current batch anywhere, in any order, and garbage under them in the cache.
#[test]
fn current_cells_are_not_read_from_the_cache() {
    property(seeds(2), |rng| {
        for n_token in [1, 5, 8, 40, 200] {
            let mut c = Case::new(rng, &Form::new(64, 64, 500, n_token).heads(1, 2).wide());
            let mut all: Vec<i64> = (0..500).collect();
            rng.shuffle(&mut all);
            let rest = all.split_off(n_token);
            c.cells = all;
            c.forget();
            fill(rng, &mut c.k, &rest, 1.0);
            fill(rng, &mut c.v, &rest, 1.0);
            c.mask.fill(0);
            for t in 0..n_token {
                for j in t + 1..n_token {
                    let cell = c.cells[j] as usize;
                    c.set_mask(t, cell, f32::NEG_INFINITY);
                }
            }
            c.check_in(&format!("{n_token} scattered tokens"), &[1, 3]);
            // a layer that reads another layer's cache finds them there
            c.store_current();
            c.check_in(&format!("{n_token} tokens in the cache"), &[1, 3]);
        }
    });
}

#[test]
fn rows_that_see_nothing_are_zero() {
    let rng = &mut Rng::new(8);
    for n_token in [3, 17] {
        let mut c = Case::new(rng, &Form::new(64, 64, 300, n_token));
        let n_kv = c.n_kv;
        c.mask[n_kv..2 * n_kv].fill(f16::NEG_INFINITY.to_bits());
        c.check("one row masked");
        let row = c.n_head * 64;
        assert!(c.upload().attend(2)[row..2 * row].iter().all(|&x| x == 0.0));
        c.mask.fill(f16::NEG_INFINITY.to_bits());
        c.check("all masked");
        let on = c.upload();
        assert!(on.partials(3).chunks(66).all(|r| r[65] == 0.0), "a sum of weights of nothing");
        assert!(on.attend(3).iter().all(|&x| x == 0.0));
        c.sinks = Some(vec![1.0; c.n_head]);
        c.check("all masked, with sinks");
        assert!(c.upload().attend(3).iter().all(|&x| x == 0.0));
    }
}

#[test]
fn softcap_alibi_sinks() {
    property(seeds(2), |rng| {
        for (softcap, max_bias) in [(50.0, 0.0), (30.0, 8.0), (0.0, 8.0), (1.0, 4.0), (0.0, 0.0)] {
            let (ratio, n) = (rng.pick(&[1, 3, 4, 5, 7]), rng.pick(&[1, 5, 12, 20]));
            let mut c = Case::new(rng, &Form::new(64, 64, 350, n).heads(2, ratio));
            (c.softcap, c.max_bias) = (softcap, max_bias);
            c.q.iter_mut().for_each(|x| *x *= 4.0);
            if max_bias > 0.0 {
                for t in 0..n {
                    for cell in 0..=350 - n + t {
                        c.set_mask(t, cell, -((350 - n + t - cell) as f32));
                    }
                }
            }
            c.sinks = Some((0..c.n_head).map(|_| 3.0 * rng.normal()).collect());
            c.check_in(&format!("cap {softcap}, bias {max_bias}, {} heads, {n} tokens", c.n_head), &[1, 3]);
        }
    });
}

#[test]
fn hostile_scores() {
    let rng = &mut Rng::new(10);
    for n in [1, 10, 20] {
        // equal scores
        let mut c = Case::new(rng, &Form::new(64, 64, 500, n));
        c.q.fill(0.0);
        c.check("equal scores");
        // one peak over a long flat tail
        for width in Width::ALL {
            let mut c = Case::new(rng, &Form::new(128, 128, 1500, n).heads(1, 2).at(width, width));
            let history: Vec<i64> = (0..1500 - n as i64).collect();
            fill(rng, &mut c.k, &history, 0.01);
            let peak: Vec<f32> = c.q[..128].iter().map(|x| x * 0.5).collect();
            c.k.put(&peak, &[777]);
            c.check_in(&format!("a peak at {width} bits, {n} tokens"), &[1, 3]);
        }
        // scores that overflow exp by far, in both directions
        let mut c = Case::new(rng, &Form::new(64, 64, 300, n));
        c.q.iter_mut().for_each(|x| *x *= 300.0);
        c.check("large scores");
        // keys and values at the limits of f16
        let mut c = Case::new(rng, &Form::new(64, 64, 300, n));
        let history: Vec<i64> = (0..300 - n as i64).collect();
        fill(rng, &mut c.k, &history, 20000.0);
        fill(rng, &mut c.v, &history, 20000.0);
        c.q.iter_mut().for_each(|x| *x *= 1e-4);
        c.check("limits of f16");
        // and its denormals
        let mut c = Case::new(rng, &Form::new(64, 64, 300, n));
        fill(rng, &mut c.k, &history, 1e-6);
        fill(rng, &mut c.v, &history, 1e-6);
        c.v_cur.iter_mut().for_each(|x| *x *= 1e-6);
        c.check("denormals of f16");
    }
}

/// Rows that a cache must bear, among normal ones: constant groups, outliers, large offsets with small ranges.
#[test]
fn hostile_rows() {
    property(seeds(3), |rng| {
        for n in [1, 9, 20] {
            let mut c = Case::new(rng, &Form::new(128, 64, 400, n).heads(1, 4));
            for side in [&mut c.k, &mut c.v] {
                for cell in (0..400 - n as i64).filter(|_| rng.below(3) == 0).collect::<Vec<_>>() {
                    let kind = rng.pick(&[3, 4, 6, 7, 10, 12, 13]);
                    let mut values = row(rng, 128, if kind < 12 { kind } else { 0 });
                    let offset = rng.normal() * 10.0;
                    match kind {
                        3 => values.iter_mut().for_each(|x| *x *= 0.02), // of the outlier, too
                        12 => values.iter_mut().for_each(|x| *x = offset + *x * 0.5),
                        13 => values.iter_mut().enumerate().for_each(|(i, x)| *x += if i < 64 { offset } else { 0.0 }),
                        _ => {}
                    }
                    side.put(&values, &[cell]);
                }
            }
            c.check_in(&format!("{n} tokens"), &[1, 3]);
        }
    });
}

/// A table that makes no sense: visible cells in blocks of no known width, pages that don't exist. What comes out does not matter,
/// but something does, nothing is touched beyond the buffers, and a good table works again.
#[test]
fn small_garbage_entries() {
    let rng = &mut Rng::new(12);
    for n_token in [1, 9, 17] {
        let mut c = Case::new(rng, &Form::new(64, 64, 300, n_token));
        let (k, v) = (c.k.table.clone(), c.v.table.clone());
        for width in [3, 1, -1, 7, 12, 32, 16 << 8, i32::MIN, i32::MAX] {
            c.k.table[1].width = width;
            any_output(&c);
            (c.k.table, c.v.table[0].width) = (k.clone(), width);
            any_output(&c);
            c.v.table = v.clone();
        }
        for pages in [[-1; 8], [-2; 8], [i32::MIN; 8], [i32::MAX; 8], [c.k.n_pages as i32; 8], [1 << 24; 8]] {
            for block in 0..2 {
                for width in [16, 8, 4, 2] {
                    c.k.table[block] = BlockEntry { width, pages };
                    c.v.table[1 - block] = BlockEntry { width, pages };
                    any_output(&c);
                }
            }
            (c.k.table, c.v.table) = (k.clone(), v.clone());
        }
        c.check_in("a good table again", &[2]);
    }
}

fn any_output(c: &Case) {
    let on = c.upload();
    let dst = Buffer::new(4 * 2 * c.n_token() * c.n_head * (c.v.d + 2));
    assert_eq!(device::attn(&on.op(2, dst.ptr().cast())), 0);
    assert!(dst.read::<u32>().iter().all(|w| *w != u32::MAX), "a value was not written");
}

/// Shapes that make no sense, or that there are no kernels for, are refused.
#[test]
fn bad_shapes_are_refused() {
    let rng = &mut Rng::new(13);
    let c = Case::new(rng, &Form::new(64, 64, 300, 2));
    let on = c.upload();
    let dst = Buffer::new(4 * 2 * 4 * 66);
    let mut count = 0;
    let mut refused = |what: &str, change: fn(&mut OpAttn)| {
        let mut op = on.op(1, dst.ptr().cast());
        change(&mut op);
        assert_ne!(device::attn(&op), 0, "{what}");
        count += 1;
    };
    refused("heads that don't divide", |op| op.n_head = 5);
    refused("no KV heads", |op| op.n_head_kv = 0);
    refused("no chunks", |op| op.n_chunk = 0);
    refused("a group that does not divide", |op| op.group_k = 48);
    refused("a group that is no multiple of 16", |op| op.group_v = 8);
    refused("an odd head dimension", |op| op.head_dim_k = 63);
    // places are counted in 8 bytes: a pool of 2 heads of 64 may have 2^23 pages, less one
    refused("K beyond 32 GiB", |op| op.n_pages_k = 1 << 23);
    refused("V beyond 32 GiB", |op| op.n_pages_v = 1 << 23);
    refused("more cells than blocks", |op| op.n_kv = op.n_blocks * 128 + 1);
    assert!(dst.read::<u32>().iter().all(|w| *w == u32::MAX), "{count} were refused, and one wrote");
    let device = Device::get();
    for (dk, gk, dv, gv) in DIMS {
        assert!(device.supports(8, 2, dk as u32, dv as u32, gk as u32, gv as u32), "D {dk}/{gk} and {dv}/{gv}");
    }
    assert!(!device.supports(8, 3, 128, 128, 128, 128) && !device.supports(8, 2, 128, 128, 100, 128));
    // KV heads, and parts of wide ones, are a dimension of a grid
    assert!(device.supports(65535, 65535, 64, 64, 0, 0) && !device.supports(65535, 65535, 64, 72, 0, 0));
    assert!(!device.supports(65536, 65536, 64, 64, 0, 0));
}

/// Anything at once.
#[test]
fn any_form() {
    property(seeds(20), |rng| {
        let (dk, gk, dv, gv) = rng.pick(&DIMS[..18]);
        let n_token = rng.pick(&[1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 30, 40]);
        let mut f = Form::new(dk, gk, n_token + rng.below(500), n_token).v(dv, gv);
        (f.n_head_kv, f.ratio) = (rng.range(1, 3), rng.pick(&[1, 2, 3, 4, 5, 6, 7, 8]));
        let widths = |rng: &mut Rng| -> Vec<Width> { (0..3).map(|_| rng.pick(&Width::ALL)).collect() };
        (f.widths_k, f.widths_v) = (widths(rng), widths(rng));
        let mut c = Case::new(rng, &f);
        if rng.chance(30) {
            c.softcap = 20.0;
        }
        if rng.chance(30) {
            c.max_bias = 8.0;
        }
        if rng.chance(30) {
            c.sinks = Some(normals(rng, c.n_head));
        }
        // some cells hidden from some queries, some from all
        for t in 0..n_token {
            for cell in 0..f.n_kv {
                if rng.chance(10) || cell / 32 % 5 == 4 {
                    c.set_mask(t, cell, f32::NEG_INFINITY);
                }
            }
        }
        c.mask_view.gap = rng.below(20);
        let n_chunk = rng.pick(&[1, 2, 3, 5, 16]);
        c.check_in(&format!("D {dk}/{gk} and {dv}/{gv}, {n_token} tokens, {} cells", f.n_kv), &[n_chunk]);
    });
}

/// Long caches, on a GPU only, in as many chunks as the runtime would choose. Each is a test of its own: f64 takes its time.
fn long(n_kv: usize, n_token: usize, n_head_kv: usize, ratio: usize) {
    let device = Device::get();
    if device.is_shim() {
        return;
    }
    let rng = &mut Rng::new(30);
    for widths in [vec![Width::B16], vec![Width::B8], vec![Width::B4], vec![Width::B2], Width::ALL.to_vec()] {
        let mut f = Form::new(128, 128, n_kv - 3, n_token).heads(n_head_kv, ratio);
        (f.widths_k, f.widths_v) = (widths.clone(), widths.clone());
        let n = device.n_chunk(n_token as u32, n_kv as u32, (n_head_kv * ratio) as u32, n_head_kv as u32);
        Case::new(rng, &f).check_in(&format!("{n_kv} cells, {n_token} tokens, {widths:?}"), &[n as usize, 3]);
    }
}

#[test]
fn long_8192() {
    long(8192, 1, 4, 4);
}

#[test]
fn long_8192_many_tokens() {
    long(8192, 9, 1, 7);
}

#[test]
fn long_32768() {
    long(32768, 1, 1, 8);
}

#[test]
fn long_32768_few_tokens() {
    long(32768, 2, 1, 5);
}

/// The table of what the device's arithmetic adds to the error, in shares of the cache's own; printed with `--nocapture`, and at
/// most a quarter. One token takes other code than a few, and these than many.
#[test]
fn arithmetic_adds_at_most_a_quarter() {
    println!("| data | width | tokens | the cache's error | plain f32 | device |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for (what, change) in KINDS {
        for width in PACKED {
            for n_token in [1, 12, 20] {
                let rng = &mut Rng::new(21);
                let f = Form::new(128, 128, 1200, n_token).heads(1, 4).at(width, width);
                let mut c = Case::new(rng, &f);
                // the current tokens' own keys would be all that is seen
                c.store_current();
                change(rng, &mut Operands { q: &mut c.q, k: &mut c.k, v: &mut c.v, d: 128 });
                let last: Vec<f32> = normals(rng, 128 * n_token);
                c.k.put(&last, &c.cells.clone());
                c.v.put(&last, &c.cells.clone());
                let Bound { want, plain, own, .. } = c.bound(what);
                let e = error(&c.upload().attend(2), &want);
                println!("| {what} | {width} | {n_token} | {own:.1e} | {:.4} | {:.3} |", plain / own, e / own);
                if e > own / 4.0 + 2.0 * plain {
                    failed.push(format!("{what}, {width} bits, {n_token} tokens: {e:.2e}, the cache's {own:.2e}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
