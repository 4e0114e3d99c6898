//! Store on the device: the bytes of the reference.

use super::common::*;
use super::device::{self, rows_op, times, Buffer, Device, DeviceCache, End, INVALID_VALUE};
use super::transform::DeviceRows;
use super::transforms::Rows;
use pmkvq::capi::types::{OpMerge, OpStore};
use pmkvq::geometry::{BlockEntry, Side, Width};
use pmkvq::kernels::{store_at, Isa, RangeRule, RowsF32};

/// An operation with all of its memory.
struct Case {
    op: OpStore,
    on: DeviceCache,
    _x: Buffer,
    _cells: Buffer,
}

impl Case {
    /// Rows lie in `values` from index `first` on, heads and tokens so many values apart.
    fn strided(c: &Cache, values: &[f32], first: usize, head: usize, token: usize, cells: &[i64]) -> Case {
        let (on, x, cells_on) = (DeviceCache::of(c), Buffer::of(values), Buffer::of(cells));
        let op = rows_op!(OpStore, c, on, cells_on, cells.len(),
            x: x.ptr().cast::<f32>().wrapping_add(first),
            x_nb_head: 4 * head,
            x_nb_token: 4 * token,
            range: c.rule as u32
        );
        Case { op, on, _x: x, _cells: cells_on }
    }

    /// Rows `[token][head][d]`.
    fn new(c: &Cache, values: &[f32], cells: &[i64]) -> Case {
        Case::strided(c, values, 0, c.d, c.d * c.n_head, cells)
    }

    fn run(&self, c: &mut Cache) {
        assert_eq!(device::store(&self.op), 0);
        self.on.read_into(c);
    }
}

/// The device's bytes are those of the reference, from the same start.
fn compare(start: &Cache, values: &[f32], cells: &[i64], what: &str) {
    let (mut want, mut got) = (start.clone(), start.clone());
    let r = RowsF32::from_slice(values, start.d, start.n_head).unwrap();
    // bad cells are named in what it returns, and skipped
    let _ = store_at(Isa::Reference, &want.view(), &r, cells, 0, 1);
    Case::new(start, values, cells).run(&mut got);
    let Cache { side, d, group, n_head, rule, .. } = *start;
    got.same_bytes(&want, &format!("{what}: {side} {d}/{group}, {n_head} heads, {rule:?}"));
}

fn any_rule_and_garbage(rng: &mut Rng, c: &mut Cache) {
    c.rule = rng.pick(&RangeRule::ALL);
    garbage(rng, c.pool.bytes_mut());
    garbage(rng, c.params.bytes_mut());
}

#[test]
fn every_width_shape_and_batch() {
    property(times(20), |rng| {
        let (d, group) = rng.pick(&device::SHAPES);
        let n_head = rng.pick(&[1, 2, 3]);
        let side = rng.pick(&SIDES);
        let mut start = Cache::new(rng, side, d, group, n_head, 5);
        any_rule_and_garbage(rng, &mut start);
        for b in 0..5 {
            let w = rng.pick(&Width::ALL);
            start.open(b, w);
        }
        let cells = cells(rng, 5);
        let values = rows(rng, cells.len(), n_head, d);
        compare(&start, &values, &cells, "a batch");
    });
}

/// Each shape, side, width and rule for itself, with few tokens.
#[test]
fn small_all_shapes() {
    let mut rng = Rng::new(11);
    for (d, group) in device::SHAPES {
        for (side, width) in SIDES.into_iter().flat_map(|s| Width::ALL.map(|w| (s, w))) {
            for rule in RangeRule::ALL {
                if rule == RangeRule::Fit && width != Width::B2 {
                    continue;
                }
                let mut start = Cache::new(&mut rng, side, d, group, 2, 1);
                any_rule_and_garbage(&mut rng, &mut start);
                start.rule = rule;
                start.open(0, width);
                // both tokens of a byte of V at 4 bits, three of four at 2 bits, and others beside them
                let cells = [17, 21, 25, 40, 127];
                let values = rows(&mut rng, cells.len(), 2, d);
                compare(&start, &values, &cells, &format!("{width} bits"));
            }
        }
    }
}

/// Every number of tokens from every place in a subtile: the others keep what they have.
#[test]
fn parts_of_subtiles_keep_the_rest() {
    property(times(4), |rng| {
        let (d, group) = rng.pick(&[(16, 16), (64, 32), (96, 48)]);
        for (side, width) in SIDES.into_iter().flat_map(|s| PACKED.map(|w| (s, w))) {
            let mut start = Cache::new(rng, side, d, group, 1, 1);
            any_rule_and_garbage(rng, &mut start);
            start.open(0, width);
            let first = rng.below(16);
            for n in 1..=16 - first {
                let cells: Vec<i64> = (0..n as i64).map(|i| 48 + first as i64 + i).collect();
                let values = rows(rng, n, 1, d);
                compare(&start, &values, &cells, &format!("{width} bits, {n} from {first}"));
            }
        }
    });
}

/// A side that stays at 16 bits, for its head dimension is no multiple of 16.
#[test]
fn odd_head_dimensions_stay_halves() {
    property(times(6), |rng| {
        let d = rng.pick(&[1, 4, 7, 40, 72, 100, 136]);
        let mut start = Cache::new(rng, Side::K, d, 0, 2, 2);
        start.open(0, Width::B16);
        start.open(1, Width::B16);
        // widths that such a side can't have
        if rng.chance(30) {
            start.table[1].width = rng.pick(&[8, 4, 2]);
        }
        let cells = cells(rng, 2);
        let values = rows(rng, cells.len(), 2, d);
        compare(&start, &values, &cells, "halves");
    });
}

#[test]
fn strided_rows() {
    let mut rng = Rng::new(3);
    let (d, n_head, n) = (64, 2, 20);
    for (first, head, token) in [(3, 397, 1000), (4, 400, 1000), (0, 64, 130)] {
        for width in Width::ALL {
            let wide: Vec<f32> = (0..n * 1000).map(|_| rng.normal()).collect();
            let cells: Vec<i64> = (10..30).collect();
            let mut start = Cache::new(&mut rng, Side::V, d, 32, n_head, 1);
            start.open(0, width);
            let dense: Vec<f32> = (0..n)
                .flat_map(|t| [0, 1].map(|h| wide[first + t * token + h * head..][..d].to_vec()).concat())
                .collect();
            let (mut want, mut got) = (start.clone(), start.clone());
            let r = RowsF32::from_slice(&dense, d, n_head).unwrap();
            store_at(Isa::Reference, &want.view(), &r, &cells, 0, 1).unwrap();
            Case::strided(&start, &wide, first, head, token, &cells).run(&mut got);
            got.same_bytes(&want, "strided");
        }
    }
}

/// Cells, widths and pages that don't exist: those tokens are skipped, and nothing else is touched.
#[test]
fn hostile_tables_and_cells() {
    property(times(30), |rng| {
        let (d, group) = rng.pick(&[(16, 16), (64, 32), (80, 0)]);
        let side = rng.pick(&SIDES);
        let mut start = Cache::new(rng, side, d, group, 2, 4);
        any_rule_and_garbage(rng, &mut start);
        for b in 0..4 {
            let w = if group == 0 { Width::B16 } else { rng.pick(&Width::ALL) };
            start.open(b, w);
            let n_pages = start.n_pages as i32;
            let entry = &mut start.table[b];
            match rng.below(4) {
                0 => entry.width = rng.pick(&[0, 1, 3, 5, 7, 9, 15, 17, 32, -1, -8, -16, i32::MIN, i32::MAX]),
                1 => {
                    for p in &mut entry.pages {
                        if rng.chance(40) {
                            *p = rng.pick(&[-1, -2, n_pages, n_pages + 1, i32::MAX, i32::MIN]);
                        }
                    }
                }
                2 => *entry = BlockEntry::EMPTY,
                _ => {}
            }
        }
        let mut cells = cells(rng, 4);
        for cell in &mut cells {
            if rng.chance(10) {
                *cell = rng.pick(&[-1, -128, 512, 513, 1 << 31, 1 << 32, 1 << 40, i64::MIN, i64::MAX, i64::MAX - 127]);
            }
        }
        let values = rows(rng, cells.len(), 2, d);
        compare(&start, &values, &cells, "hostile");
    });
}

/// K and V in one launch are the bytes of two launches, whatever their shapes and widths; a merge beside them is what it is alone.
#[test]
fn both_sides_at_once() {
    property(times(12), |rng| {
        let cells = cells(rng, 3);
        let mut both = SIDES.map(|side| {
            let (d, group) = rng.pick(&device::SHAPES);
            let n_head = rng.pick(&[1, 2, 3]);
            let mut start = Cache::new(rng, side, d, group, n_head, 3);
            any_rule_and_garbage(rng, &mut start);
            (0..3).for_each(|b| start.open(b, rng.pick(&Width::ALL)));
            let values = rows(rng, cells.len(), n_head, d);
            (start, values)
        });
        let cases = [0, 1].map(|i| Case::new(&both[i].0, &both[i].1, &cells));
        // SAFETY: plain data
        let stores = [0, 1].map(|i: usize| unsafe { std::ptr::read(&cases[i].op) });

        let (n_rows, d, n_chunk) = (rng.range(1, 40), rng.pick(&[24, 64, 128, 200]), rng.pick(&[1, 2, 5, 33]));
        let partial: Vec<f32> = (0..n_chunk * n_rows * (d + 2)).map(|_| rng.unit()).collect();
        let (partial, out, alone) = (Buffer::of(&partial), Buffer::new(4 * n_rows * d), Buffer::new(4 * n_rows * d));
        let back = DeviceRows::of(&if rng.chance(60) { Rows::new(rng, 1, d) } else { Rows::default() });
        let merge = |out: &Buffer| OpMerge {
            partial: partial.ptr().cast(),
            sinks: std::ptr::null(),
            n_tokens: 1,
            n_head: n_rows as u32,
            head_dim_v: d as u32,
            n_chunk: n_chunk as u32,
            n_head_kv: 1,
            back: back.op(),
            dst: out.ptr().cast(),
        };
        if rng.chance(70) {
            assert_eq!(device::finish(&End { merge: merge(&out), stores }), 0);
            assert_eq!(device::merge(&merge(&alone)), 0);
            assert_eq!(out.read::<u32>(), alone.read::<u32>());
        } else {
            assert_eq!(device::stores(&stores), 0);
        }
        for ((start, values), case) in both.iter_mut().zip(&cases) {
            let mut want = start.clone();
            Case::new(start, values, &cells).run(&mut want);
            case.on.read_into(start);
            start.same_bytes(&want, "both sides at once");
        }
    });
}

/// Whatever order rows are stored in: tokens that share bytes are stored side by side.
#[test]
fn any_schedule() {
    let mut rng = Rng::new(5);
    let mut start = Cache::new(&mut rng, Side::V, 32, 16, 1, 1);
    for width in [Width::B4, Width::B2] {
        any_rule_and_garbage(&mut rng, &mut start);
        start.open(0, width);
        let cells: Vec<i64> = (0..32).collect();
        for seed in 0..4 {
            Device::get().seed(seed);
            let values = rows(&mut rng, cells.len(), 1, 32);
            compare(&start, &values, &cells, "scheduled");
        }
        start.table[0] = BlockEntry::EMPTY;
    }
}

#[test]
fn shapes_that_make_no_sense_are_refused() {
    let mut rng = Rng::new(6);
    let mut c = Cache::new(&mut rng, Side::K, 64, 32, 2, 1);
    c.open(0, Width::B8);
    let values = rows(&mut rng, 1, 2, 64);
    let before = c.clone();
    let mut run = |change: fn(&mut OpStore)| {
        let mut case = Case::new(&before, &values, &[3]);
        change(&mut case.op);
        let code = device::store(&case.op);
        case.on.read_into(&mut c);
        c.same_bytes(&before, "refused");
        code
    };
    let bad: [fn(&mut OpStore); 17] = [
        |o| o.x = std::ptr::null(),
        |o| o.cells = std::ptr::null(),
        |o| o.pool = std::ptr::null_mut(),
        |o| o.table = std::ptr::null(),
        |o| o.params = std::ptr::null_mut(),
        |o| o.n_head_kv = 0,
        |o| o.head_dim = 0,
        |o| o.head_dim = 4128,
        |o| o.n_pages = 0,
        |o| o.n_blocks = 0,
        |o| o.group = 24,
        |o| o.group = 48,
        |o| o.group = 256,
        |o| o.side = 2,
        |o| o.range = 2,
        |o| o.x_nb_token = 5,
        |o| o.pool = o.pool.wrapping_add(4),
    ];
    for change in bad {
        assert_eq!(run(change), INVALID_VALUE);
    }
    assert_eq!(run(|o| (o.n_tokens, o.n_head_kv) = (1 << 16, 1 << 16)), INVALID_VALUE);
    assert_eq!(run(|o| o.n_tokens = 0), 0);
    assert_eq!(run(|o| o.n_blocks = 0), INVALID_VALUE);
}
