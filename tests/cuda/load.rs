//! Load on the device: the floats of the reference.

use super::common::*;
use super::device::{self, rows_op, times, Buffer, DeviceCache, INVALID_VALUE};
use pmkvq::capi::types::OpLoad;
use pmkvq::geometry::{BlockEntry, Width};
use pmkvq::kernels::{load_at, Isa, PartialsMut};

/// What the device reads is what the reference reads, NaN for what is not there.
fn compare(c: &mut Cache, cells: &[i64], what: &str) {
    let mut want = vec![0.0; cells.len() * c.n_head * c.d];
    // bad cells are named in what it returns
    let _ = load_at(Isa::Reference, &c.view(), cells, &PartialsMut::from_slice(&mut want), 0, 1);
    let (on, cells_on, dst) = (DeviceCache::of(c), Buffer::of(cells), Buffer::new(4 * want.len()));
    let op = op(c, &on, &cells_on, cells.len(), &dst);
    assert_eq!(device::load(&op), 0);
    let got = dst.read::<f32>();
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let same = g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan());
        let Cache { side, d, group, .. } = *c;
        assert!(same, "{what}: {side} {d}/{group}: {g} for {w} at {i}, cell {}", cells[i / (c.n_head * d)]);
    }
}

fn op(c: &Cache, on: &DeviceCache, cells: &Buffer, n: usize, dst: &Buffer) -> OpLoad {
    rows_op!(OpLoad, c, on, cells, n, dst: dst.ptr().cast())
}

#[test]
fn small_all_shapes_and_widths() {
    let mut rng = Rng::new(21);
    for (d, group) in device::SHAPES {
        for (side, width) in SIDES.into_iter().flat_map(|s| Width::ALL.map(|w| (s, w))) {
            let mut c = Cache::new(&mut rng, side, d, group, 2, 2);
            c.open(0, width);
            c.open(1, width);
            let all: Vec<i64> = (0..256).collect();
            let values = rows(&mut rng, all.len(), 2, d);
            c.put(&values, &all);
            let mut cells = vec![0, 1, 5, 17, 40, 127, 128, 255];
            rng.shuffle(&mut cells);
            compare(&mut c, &cells, &format!("{width} bits"));
        }
    }
}

#[test]
fn what_is_not_there_is_nan() {
    property(times(6), |rng| {
        let (d, group) = rng.pick(&[(64, 64), (96, 48), (16, 16)]);
        let side = rng.pick(&SIDES);
        let mut c = Cache::new(rng, side, d, group, 3, 4);
        garbage(rng, c.pool.bytes_mut());
        garbage(rng, c.params.bytes_mut());
        for b in 0..4 {
            let w = rng.pick(&Width::ALL);
            c.open(b, w);
        }
        c.table[1].pages[0] = rng.pick(&[-1, -7, c.n_pages as i32, i32::MAX]);
        c.table[2] = BlockEntry { width: rng.pick(&[0, 3, 32, -4]), ..c.table[2] };
        let cells: Vec<i64> = [0, 127, 128, 255, 256, 300, 400, 511, -1, 512, i64::MAX, i64::MIN].into();
        compare(&mut c, &cells, "holes");
    });
}

#[test]
fn wrong_shapes_are_refused() {
    let mut rng = Rng::new(1);
    let mut c = Cache::new(&mut rng, SIDES[0], 64, 64, 1, 1);
    c.open(0, Width::B8);
    let (on, cells, dst) = (DeviceCache::of(&c), Buffer::of(&[0i64]), Buffer::new(4 * 64));
    let good = || op(&c, &on, &cells, 1, &dst);
    for (what, bad) in [
        ("no cells", OpLoad { cells: std::ptr::null(), ..good() }),
        ("no output", OpLoad { dst: std::ptr::null_mut(), ..good() }),
        ("a third side", OpLoad { side: 2, ..good() }),
        ("groups that don't divide", OpLoad { group: 48, ..good() }),
        ("no heads", OpLoad { n_head_kv: 0, ..good() }),
        ("no parameters", OpLoad { params: std::ptr::null(), ..good() }),
    ] {
        assert_eq!(device::load(&bad), INVALID_VALUE, "{what}");
    }
    assert_eq!(device::load(&OpLoad { n_tokens: 0, ..good() }), 0);
}
