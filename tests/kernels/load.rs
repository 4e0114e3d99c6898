//! Load against the reference, and against what was stored.

use super::common::*;
use pmkvq::geometry::{BlockEntry, Width};
use pmkvq::kernels::{load_at, Isa, KernelError, PartialsMut};

fn read(c: &mut Cache, isa: Isa, cells: &[i64], nth: usize) -> (Vec<f32>, Vec<Result<(), KernelError>>) {
    let mut out = vec![7.0; cells.len() * c.n_head * c.d];
    let rows = PartialsMut::from_slice(&mut out);
    let results = (0..nth).map(|ith| load_at(isa, &c.view(), cells, &rows, ith, nth)).collect();
    (out, results)
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()))
}

#[test]
fn every_shape_and_width() {
    property(2, |rng| {
        for (d, group) in SHAPES {
            for (side, width) in SIDES.into_iter().flat_map(|s| Width::ALL.map(|w| (s, w))) {
                let mut c = Cache::new(rng, side, d, group, 2, 2);
                c.open(0, width);
                c.open(1, width);
                let all: Vec<i64> = (0..256).collect();
                let values = rows(rng, all.len(), 2, d);
                c.put(&values, &all);
                let cells = cells(rng, 2);
                let (want, _) = read(&mut c, Isa::Reference, &cells, 1);
                for isa in levels() {
                    let (got, results) = read(&mut c, isa, &cells, 3);
                    assert!(results.iter().all(Result::is_ok));
                    assert!(same(&got, &want), "{side} {d}/{group} at {width} bits");
                }
                if width == Width::B16 {
                    let n = 2 * d;
                    for (row, &cell) in want.chunks(n).zip(&cells) {
                        let given = &c.given[cell as usize * n..][..n];
                        let near = |x: f32, y: f32| {
                            x.is_nan() == y.is_nan()
                                && (x.is_nan() || (x - y.clamp(-65504.0, 65504.0)).abs() <= y.abs() / 1024.0 + 1e-7)
                        };
                        assert!(row.iter().zip(given).all(|(x, y)| near(*x, *y)), "{side} {d}: not what was stored");
                    }
                }
            }
        }
    });
}

#[test]
fn what_is_not_there_is_nan_and_named() {
    let rng = &mut Rng::new(3);
    let mut c = Cache::new(rng, SIDES[0], 64, 64, 2, 3);
    c.open(0, Width::B8);
    c.open(1, Width::B16);
    let all: Vec<i64> = (0..256).collect();
    let values = vec![0.5; 256 * 128];
    c.put(&values, &all);
    c.table[1].pages[2] = -1;
    c.table[2] = BlockEntry::EMPTY;
    for (cell, error) in [
        (160, KernelError::MissingPage { block: 1, slot: 2 }),
        (300, KernelError::Width { block: 2, width: 0 }),
        (384, KernelError::CellRange { cell: 384 }),
        (-1, KernelError::CellRange { cell: -1 }),
    ] {
        for isa in levels().into_iter().chain([Isa::Reference]) {
            let (got, results) = read(&mut c, isa, &[0, cell, 130], 1);
            assert_eq!(results[0], Err(error));
            assert!(got[..128].iter().chain(&got[256..]).all(|x| *x == 0.5), "others are read");
            assert!(got[128..256].iter().all(|x| x.is_nan()));
        }
    }
    let mut short = vec![0.0; 127];
    let out = PartialsMut::from_slice(&mut short);
    assert!(matches!(load_at(Isa::best(), &c.view(), &[0], &out, 0, 1), Err(KernelError::Shape(_))));
}
