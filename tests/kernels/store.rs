//! Store: exact bytes on every level, and those of storing at 16 bits and shrinking.

use super::common::*;
use pmkvq::geometry::{BlockEntry, Side, Width};
use pmkvq::kernels::reference::read_cell;
use pmkvq::kernels::{store_at, Isa, KernelError, RangeRule, RowsF32, ShrinkOp};

#[test]
fn every_level_writes_the_reference_bytes() {
    property(40, |rng| {
        let (d, group) = rng.pick(&SHAPES);
        let n_head = rng.pick(&[1, 2, 3]);
        let side = rng.pick(&SIDES);
        let mut want = Cache::new(rng, side, d, group, n_head, 5);
        want.rule = rng.pick(&RangeRule::ALL);
        for b in 0..5 {
            let w = rng.pick(&Width::ALL);
            want.open(b, w);
        }
        let clean = want.clone();
        let cells = cells(rng, 5);
        let values = rows(rng, cells.len(), n_head, d);
        let r = RowsF32::from_slice(&values, d, n_head).unwrap();
        store_at(Isa::Reference, &want.view(), &r, &cells, 0, 1).unwrap();
        for isa in levels() {
            let mut got = clean.clone();
            store_at(isa, &got.view(), &r, &cells, 0, 1).unwrap();
            got.same_bytes(&want, &format!("{side} {d}/{group} {isa:?}"));
        }
    });
}

/// A side that stays at 16 bits, for its head dimension is no multiple of 16.
#[test]
fn odd_head_dimensions_stay_halves() {
    property(20, |rng| {
        let d = rng.pick(&[4, 40, 72, 100, 136]);
        let mut want = Cache::new(rng, rng_side(0), d, 0, 2, 2);
        want.open(0, Width::B16);
        want.open(1, Width::B16);
        let clean = want.clone();
        let cells = cells(rng, 2);
        let values = rows(rng, cells.len(), 2, d);
        let r = RowsF32::from_slice(&values, d, 2).unwrap();
        store_at(Isa::Reference, &want.view(), &r, &cells, 0, 1).unwrap();
        for isa in levels() {
            let mut got = clean.clone();
            store_at(isa, &got.view(), &r, &cells, 0, 1).unwrap();
            got.same_bytes(&want, &format!("{d} {isa:?}"));
        }
    });
}

/// Every number of tokens from every place in a subtile, at every width.
#[test]
fn parts_of_subtiles_keep_the_rest() {
    property(6, |rng| {
        let (d, group) = rng.pick(&SHAPES);
        for (side, width, rule) in SIDES.into_iter().flat_map(|s| {
            let shift = Width::ALL.map(|w| (s, w, RangeRule::Shift));
            shift.into_iter().chain([(s, Width::B2, RangeRule::Fit)])
        }) {
            let mut start = Cache::new(rng, side, d, group, 1, 1);
            start.rule = rule;
            start.open(0, width);
            start.pool.bytes_mut().iter_mut().for_each(|b| *b = rng.next() as u8);
            let first = rng.below(16);
            for n in 1..=16 - first {
                let cells: Vec<i64> = (0..n as i64).map(|i| 48 + first as i64 + i).collect();
                let values = rows(rng, n, 1, d);
                let r = RowsF32::from_slice(&values, d, 1).unwrap();
                let mut want = start.clone();
                store_at(Isa::Reference, &want.view(), &r, &cells, 0, 1).unwrap();
                for isa in levels() {
                    let mut got = start.clone();
                    store_at(isa, &got.view(), &r, &cells, 0, 1).unwrap();
                    got.same_bytes(&want, &format!("{side} {width} {d}/{group} {n} from {first}, {isa:?}"));
                }
            }
        }
    });
}

#[test]
fn threads_write_the_same_bytes() {
    property(10, |rng| {
        let n_head = rng.pick(&[1, 2, 8]);
        let mut want = Cache::new(rng, rng_side(0), 64, 64, n_head, 6);
        want.rule = rng.pick(&RangeRule::ALL);
        for b in 0..6 {
            let w = rng.pick(&Width::ALL);
            want.open(b, w);
        }
        let clean = want.clone();
        let cells = cells(rng, 6);
        let values = rows(rng, cells.len(), n_head, 64);
        let r = RowsF32::from_slice(&values, 64, n_head).unwrap();
        store_at(Isa::Reference, &want.view(), &r, &cells, 0, 1).unwrap();
        for isa in [Isa::Reference, Isa::best()] {
            for nth in 1..=16 {
                let mut got = clean.clone();
                let view = got.view();
                std::thread::scope(|s| {
                    for ith in 0..nth {
                        let (view, r, cells) = (&view, &r, &cells);
                        s.spawn(move || store_at(isa, view, r, cells, ith, nth).unwrap());
                    }
                });
                got.same_bytes(&want, &format!("{isa:?}, {nth} threads"));
            }
        }
    });
}

fn rng_side(i: usize) -> Side {
    SIDES[i % 2]
}

/// Storing at a width gives the bytes of storing at 16 bits and shrinking step by step, whatever the values are.
#[test]
fn direct_is_stepwise() {
    property(24, |rng| {
        let (d, group) = rng.pick(&SHAPES);
        for (side, target) in SIDES.into_iter().flat_map(|s| PACKED.map(|w| (s, w))) {
            let values = rows(rng, 128, 2, d);
            let cells: Vec<i64> = (0..128).collect();
            let r = RowsF32::from_slice(&values, d, 2).unwrap();
            for isa in levels() {
                let mut steps = Cache::new(rng, side, d, group, 2, 1);
                steps.rule = rng.pick(&RangeRule::ALL);
                steps.open(0, Width::B16);
                store_at(isa, &steps.view(), &r, &cells, 0, 1).unwrap();
                let mut width = Width::B16;
                while width != target {
                    let to = width.narrower().unwrap();
                    merge_in_place(&mut steps, 0, to, isa);
                    width = to;
                }
                // the same pages, stored directly
                let mut direct = steps.clone();
                let entry = steps.table[0];
                direct.pool.bytes_mut().fill(0xff);
                direct.params.bytes_mut().fill(0xff);
                store_at(isa, &direct.view(), &r, &cells, 0, 1).unwrap();
                assert_eq!(steps.params.bytes(), direct.params.bytes());
                for head in 0..2 {
                    for &p in &entry.pages[..target.pages()] {
                        let at = (head * steps.n_pages + p as usize) * 32 * d;
                        let page = |c: &Cache| c.pool.bytes()[at..at + 32 * d].to_vec();
                        assert_eq!(page(&steps), page(&direct), "{side} {target} {d}/{group} {isa:?}");
                    }
                }
            }
        }
    });
}

/// Narrow a block into the even ones of its own pages, as the policy does.
pub fn merge_in_place(c: &mut Cache, block: usize, to: Width, isa: Isa) {
    let old = c.table[block];
    let mut new = BlockEntry { width: to.bits() as i32, ..BlockEntry::EMPTY };
    let ratio = old.width as usize / to.bits();
    for i in 0..to.pages() {
        new.pages[i] = old.pages[i * ratio];
    }
    let op = ShrinkOp { block: block as u32, from: old.width, to: new.width, src: old.pages, dst: new.pages };
    pmkvq::kernels::shrink_at(isa, &c.view(), &[op], &counters(&[op]), 0, 1).unwrap();
    c.table[block] = new;
}

#[test]
fn strided_rows() {
    let mut rng = Rng::new(3);
    let (d, n_head, n) = (64, 2, 20);
    let wide: Vec<f32> = (0..n * 1000).map(|_| rng.normal()).collect();
    let cells: Vec<i64> = (10..30).collect();
    let mut want = Cache::new(&mut rng, Side::V, d, 64, n_head, 1);
    want.open(0, Width::B4);
    let mut got = want.clone();
    let dense: Vec<f32> = (0..n).flat_map(|t| [3, 400].map(|o| wide[t * 1000 + o..][..d].to_vec()).concat()).collect();
    let r = RowsF32::from_slice(&dense, d, n_head).unwrap();
    store_at(Isa::Reference, &want.view(), &r, &cells, 0, 1).unwrap();
    let r = unsafe { RowsF32::new(wide.as_ptr().add(3), d, n_head, n, 4 * 397, 4000).unwrap() };
    store_at(Isa::best(), &got.view(), &r, &cells, 0, 1).unwrap();
    got.same_bytes(&want, "strided");
}

#[test]
fn bad_cells_are_skipped_and_named() {
    for isa in [Isa::Reference, Isa::best()] {
        let mut rng = Rng::new(4);
        let mut c = Cache::new(&mut rng, Side::K, 64, 64, 1, 4);
        c.open(0, Width::B8);
        c.open(3, Width::B16);
        c.table[3].pages[1] = -1;
        c.table[2] = BlockEntry { width: 7, ..BlockEntry::EMPTY };
        let values = rows(&mut rng, 1, 1, 64);
        let r = RowsF32::from_slice(&values, 64, 1).unwrap();
        let before = c.clone();
        let mut put = |cell: i64| {
            let e = store_at(isa, &c.view(), &r, &[cell], 0, 1);
            c.same_bytes(&before, "refused");
            e.unwrap_err()
        };
        assert_eq!(put(-1), KernelError::CellRange { cell: -1 });
        assert_eq!(put(512), KernelError::CellRange { cell: 512 });
        assert_eq!(put(i64::MIN), KernelError::CellRange { cell: i64::MIN });
        assert_eq!(put(i64::MAX), KernelError::CellRange { cell: i64::MAX });
        assert_eq!(put(128), KernelError::Width { block: 1, width: 0 });
        assert_eq!(put(256), KernelError::Width { block: 2, width: 7 });
        assert_eq!(put(3 * 128 + 16), KernelError::MissingPage { block: 3, slot: 1 });
        c.table[3].pages[1] = c.n_pages as i32;
        let e = store_at(isa, &c.view(), &r, &[3 * 128 + 16], 0, 1).unwrap_err();
        assert_eq!(e, KernelError::PageRange { block: 3, page: before.n_pages as i32 });
        // a good token beside a bad one is stored
        let two = [values.clone(), values.clone()].concat();
        let r = RowsF32::from_slice(&two, 64, 1).unwrap();
        store_at(isa, &c.view(), &r, &[-5, 3], 0, 1).unwrap_err();
        assert!(read_cell(&c.view(), 0, 3).unwrap().unwrap().iter().any(|x| x.f32() != 0.0));
    }
}
