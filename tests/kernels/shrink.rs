//! Shrink: exact bytes on every level, with garbage, absent pages and any choice of target pages.

use super::common::*;
use pmkvq::geometry::{BlockEntry, Side, Width};
use pmkvq::kernels::{shrink_at, Isa, KernelError, RangeRule, ShrinkOp};
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn every_level_writes_the_reference_bytes() {
    property(40, |rng| {
        let (d, group) = rng.pick(&SHAPES);
        let side = rng.pick(&SIDES);
        let n_head = rng.pick(&[1, 2, 5]);
        let mut want = Cache::new(rng, side, d, group, n_head, 6);
        want.rule = rng.pick(&RangeRule::ALL);
        garbage(rng, want.pool.bytes_mut());
        let ops: Vec<_> =
            STEPS.iter().enumerate().map(|(block, &(from, to))| random_op(rng, &mut want, block, from, to)).collect();
        let clean = want.clone();
        shrink_at(Isa::Reference, &want.view(), &ops, &counters(&ops), 0, 1).unwrap();
        for isa in levels() {
            let mut got = clean.clone();
            let done = counters(&ops);
            shrink_at(isa, &got.view(), &ops, &done, 0, 1).unwrap();
            assert!(done.iter().all(|d| d.load(Relaxed) == n_head as u32), "every head of every operation is counted");
            got.same_bytes(&want, &format!("{side} {d}/{group} {isa:?}"));
        }
        for nth in [2, 3, 7, 16] {
            let mut got = clean.clone();
            let view = got.view();
            let done = counters(&ops);
            std::thread::scope(|s| {
                for ith in 0..nth {
                    let (view, ops, done) = (&view, &ops, &done);
                    s.spawn(move || shrink_at(Isa::best(), view, ops, done, ith, nth).unwrap());
                }
            });
            got.same_bytes(&want, &format!("{nth} threads"));
            assert!(done.iter().all(|d| d.load(Relaxed) == n_head as u32), "{nth} threads");
        }
    });
}

/// 16 -> 4 and 16 -> 8 -> 4 are the same, as are all other ways down.
#[test]
fn every_way_down_ends_at_the_same_bytes() {
    property(12, |rng| {
        let (d, group) = rng.pick(&SHAPES);
        let side = rng.pick(&SIDES);
        let mut start = Cache::new(rng, side, d, group, 2, 1);
        start.rule = rng.pick(&RangeRule::ALL);
        garbage(rng, start.pool.bytes_mut());
        start.open(0, Width::B16);
        let down = |path: &[Width]| {
            let mut c = start.clone();
            for &to in path {
                super::store::merge_in_place(&mut c, 0, to, Isa::best());
            }
            let pages = c.table[0].pages;
            let page = |p: i32| c.pool.bytes()[p as usize * 32 * d..][..32 * d].to_vec();
            (c.params.bytes().to_vec(), pages.iter().take_while(|p| **p >= 0).map(|&p| page(p)).collect::<Vec<_>>())
        };
        use Width::{B2, B4, B8};
        assert!(down(&[B4]) == down(&[B8, B4]));
        let two = down(&[B2]);
        for path in [&[B8, B2][..], &[B4, B2], &[B8, B4, B2]] {
            assert!(down(path) == two);
        }
    });
}

#[test]
fn bad_operations_are_skipped_and_named() {
    for isa in [Isa::Reference, Isa::best()] {
        let mut rng = Rng::new(9);
        let mut c = Cache::new(&mut rng, Side::K, 64, 64, 2, 3);
        c.open(0, Width::B8);
        let good = ShrinkOp { block: 0, from: 8, to: 4, src: c.table[0].pages, dst: [c.table[0].pages[0]; 8] };
        let good = ShrinkOp {
            dst: {
                let mut d = good.dst;
                d[1] = c.table[0].pages[2];
                d
            },
            ..good
        };
        let before = c.clone();
        let mut run = |op: ShrinkOp| {
            let done = counters(&[op]);
            let e = shrink_at(isa, &c.view(), &[op], &done, 0, 1).unwrap_err();
            assert_eq!(done[0].load(Relaxed), 0, "a refused operation is not counted");
            c.same_bytes(&before, "refused");
            e
        };
        assert_eq!(run(ShrinkOp { block: 3, ..good }), KernelError::BlockRange { block: 3 });
        assert_eq!(run(ShrinkOp { from: 5, ..good }), KernelError::Width { block: 0, width: 5 });
        assert_eq!(run(ShrinkOp { from: -8, ..good }), KernelError::Width { block: 0, width: -8 });
        assert_eq!(run(ShrinkOp { to: 8, ..good }), KernelError::Width { block: 0, width: 8 });
        assert_eq!(run(ShrinkOp { to: 16, ..good }), KernelError::Width { block: 0, width: 16 });
        assert_eq!(run(ShrinkOp { dst: [-1; 8], ..good }), KernelError::MissingPage { block: 0, slot: 0 });
        assert_eq!(run(ShrinkOp { dst: [-2; 8], ..good }), KernelError::PageRange { block: 0, page: -2 });
        assert_eq!(run(ShrinkOp { src: [9999; 8], ..good }), KernelError::PageRange { block: 0, page: 9999 });
        // a side without groups can't be narrowed
        let mut whole = Cache::new(&mut rng, Side::K, 72, 0, 1, 1);
        whole.open(0, Width::B16);
        let op = ShrinkOp { block: 0, from: 16, to: 8, src: whole.table[0].pages, dst: whole.table[0].pages };
        let e = shrink_at(isa, &whole.view(), &[op], &counters(&[op]), 0, 1).unwrap_err();
        assert_eq!(e, KernelError::Width { block: 0, width: 8 });
        shrink_at(isa, &c.view(), &[good], &counters(&[good]), 0, 1).unwrap();
        c.table[0] = BlockEntry { width: 4, pages: good.dst };
    }
}
