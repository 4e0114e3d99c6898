//! Shrink on the device: the bytes of the reference, with garbage, absent pages and any choice of target pages.

use super::common::*;
use super::device::{self, times, Buffer, Shrink, INVALID_VALUE};
use pmkvq::capi::types::SideDesc;
use pmkvq::geometry::{page_bytes, table_bytes, Side, Width};
use pmkvq::kernels::{shrink_at, Isa, RangeRule, ShrinkOp};
use pmkvq::policy::BlockOp;

/// K and V of a layer in one pool, and operations on them.
struct Layer {
    /// Both pools have the same bytes.
    k: Cache,
    v: Cache,
    ops: Vec<BlockOp>,
}

fn block_op(side: Side, op: &ShrinkOp) -> BlockOp {
    // the second layer's
    let side = 2 + side.index() as u32;
    BlockOp { side, block: op.block, from: op.from, to: op.to, src: op.src, dst: op.dst }
}

impl Layer {
    /// No operations yet. Both sides may have all blocks; a page is taken from the free ones of `k` only.
    fn new(rng: &mut Rng, d: usize, group_k: usize, group_v: usize, n_head: usize, n_blocks: usize) -> Layer {
        let mut k = Cache::new(rng, Side::K, d, group_k, n_head, n_blocks);
        let mut v = Cache::new(rng, Side::V, d, group_v, n_head, n_blocks);
        garbage(rng, k.pool.bytes_mut());
        garbage(rng, k.params.bytes_mut());
        garbage(rng, v.params.bytes_mut());
        k.rule = rng.pick(&RangeRule::ALL);
        v.rule = rng.pick(&RangeRule::ALL);
        v.pool = k.pool.clone();
        v.free.clear();
        Layer { k, v, ops: Vec::new() }
    }

    /// A random operation on a block that no other has. Where a block does not fit in shared memory, its pages are those that the
    /// policy chooses: there is an order then (`large_heads_go_page_by_page`).
    fn add(&mut self, rng: &mut Rng, side: Side, block: usize, from: Width, to: Width) {
        let mut op = random_op(rng, &mut self.k, block, from, to);
        if to.pages() * page_bytes(self.k.d) > device::Device::get().shared_limit() {
            let ratio = from.bits() / to.bits();
            for (dst, sources) in op.dst.iter_mut().zip(op.src.chunks(ratio)) {
                let there: Vec<i32> = sources.iter().copied().filter(|&p| p != -1).collect();
                *dst = if there.is_empty() { -1 } else { rng.pick(&there) };
            }
        }
        self.ops.push(block_op(side, &op));
    }

    /// By the reference; how many heads were converted.
    fn reference(&mut self) -> Vec<u32> {
        let mut done = Vec::new();
        for op in &self.ops {
            let shrink = ShrinkOp { block: op.block, from: op.from, to: op.to, src: op.src, dst: op.dst };
            let counters = counters(&[shrink]);
            let c = match op.side {
                2 => Some(&mut self.k),
                3 => {
                    self.v.pool = self.k.pool.clone();
                    Some(&mut self.v)
                }
                _ => None,
            };
            if let Some(c) = c {
                let _ = shrink_at(Isa::Reference, &c.view(), &[shrink], &counters, 0, 1);
                if op.side == 3 {
                    self.k.pool = self.v.pool.clone();
                }
            }
            done.push(counters[0].load(std::sync::atomic::Ordering::Relaxed));
        }
        self.v.pool = self.k.pool.clone();
        done
    }

    /// By the device, all at once.
    fn device(&mut self, change: impl Fn(&mut Shrink)) -> (i32, Vec<u32>) {
        let (k, v) = (&mut self.k, &mut self.v);
        // the meta buffer: something else, K's table and parameters, those of V, something else
        let tables = table_bytes(k.n_blocks);
        let mut meta = vec![0x5au8; 192];
        let mut sides = vec![SideDesc { pool: 0, group: 16, range: 0, offset: 0 }; 2];
        for c in [&*k, &*v] {
            sides.push(SideDesc { pool: 0, group: c.group as u32, range: c.rule as u32, offset: meta.len() as u64 });
            meta.resize(meta.len() + tables, 0x5a);
            meta.extend_from_slice(c.params.bytes());
            meta.resize(meta.len().next_multiple_of(64) + 64, 0x5a);
        }
        let (ops, sides_on, meta_on) = (Buffer::of(&self.ops), Buffer::of(&sides), Buffer::of(&meta));
        let (pool, done) = (Buffer::of(k.pool.bytes()), Buffer::of(&vec![0u32; self.ops.len()]));
        let mut op = Shrink {
            ops: ops.ptr().cast(),
            sides: sides_on.ptr().cast(),
            n_ops: self.ops.len() as u32,
            n_sides: sides.len() as u32,
            n_head_kv: k.n_head as u32,
            head_dim: k.d as u32,
            n_pages: k.n_pages as u32,
            n_blocks: k.n_blocks as u32,
            pool: pool.ptr(),
            meta: meta_on.ptr(),
            table_bytes: tables as u64,
            done: done.ptr().cast(),
        };
        change(&mut op);
        let code = device::shrink(&op);
        k.pool.bytes_mut().copy_from_slice(&pool.read::<u8>());
        v.pool = k.pool.clone();
        let meta = meta_on.read::<u8>();
        let mut rest = meta.clone();
        for (c, side) in [k, v].into_iter().zip(&sides[2..]) {
            let at = side.offset as usize + tables;
            let n = c.params.bytes().len();
            c.params.bytes_mut().copy_from_slice(&meta[at..at + n]);
            rest[at..at + n].fill(0x5a);
        }
        assert!(rest.iter().all(|&b| b == 0x5a), "something beside the parameters was written");
        (code, done.read())
    }

    fn copy(&self) -> Layer {
        Layer { k: self.k.clone(), v: self.v.clone(), ops: self.ops.clone() }
    }

    /// The device does what the reference does, from the same start.
    fn compare(&self, what: &str) -> Layer {
        let (mut want, mut got) = (self.copy(), self.copy());
        let done = want.reference();
        assert_eq!(got.device(|_| {}), (0, done), "{what}: heads converted");
        let Cache { d, group, rule, n_head, .. } = self.k;
        let what = format!("{what}: {d}/{group} {rule:?}, {}/{} {:?}, {n_head} heads", d, self.v.group, self.v.rule);
        got.k.same_bytes(&want.k, &format!("K {what}"));
        got.v.same_bytes(&want.v, &format!("V {what}"));
        got
    }
}

#[test]
fn every_step_at_once() {
    property(times(12), |rng| {
        let (d, group) = rng.pick(&device::SHAPES[..18]);
        let group_v = if rng.chance(50) { group } else { 16 };
        let n_head = rng.pick(&[1, 2, 3]);
        let mut layer = Layer::new(rng, d, group, group_v, n_head, 12);
        for (i, &(from, to)) in STEPS.iter().enumerate() {
            layer.add(rng, Side::K, i, from, to);
            layer.add(rng, Side::V, 6 + i, from, to);
        }
        rng.shuffle(&mut layer.ops);
        layer.compare("all steps");
    });
}

/// Each shape, step and rule for itself.
#[test]
fn small_all_shapes() {
    let mut rng = Rng::new(21);
    for (d, group) in device::SHAPES {
        for rule in RangeRule::ALL {
            let mut layer = Layer::new(&mut rng, d, group, group, 1, 12);
            (layer.k.rule, layer.v.rule) = (rule, rule);
            for (i, &(from, to)) in STEPS.iter().enumerate() {
                layer.add(&mut rng, Side::K, i, from, to);
                layer.add(&mut rng, Side::V, 6 + i, from, to);
            }
            layer.compare("each shape");
        }
    }
}

/// Head dimensions whose blocks don't fit in shared memory go page by page, in an order that the pages allow.
#[test]
fn large_heads_go_page_by_page() {
    let mut rng = Rng::new(31);
    // sources that are the destinations: of their own pages, as the policy chooses them; of the next, so that the last page has
    // to come first; in a circle, for which there is no order
    let own: fn(usize, usize, &mut Rng) -> usize = |i, ratio, rng| i * ratio + rng.below(ratio);
    let next: fn(usize, usize, &mut Rng) -> usize = |i, ratio, _| (i + 1) * ratio - usize::from(i == 8 / ratio - 1);
    let circle: fn(usize, usize, &mut Rng) -> usize = |i, ratio, _| (i + 1) * ratio % 8;
    for d in [640, 1024, 2048] {
        let mut layer = Layer::new(&mut rng, d, 128, 64, 1, 5);
        let steps = [
            (Width::B16, Width::B8, own),
            (Width::B16, Width::B4, own),
            (Width::B8, Width::B4, own),
            (Width::B16, Width::B8, next),
            (Width::B16, Width::B8, circle),
        ];
        for (block, (from, to, choice)) in steps.into_iter().enumerate() {
            layer.k.open(block, from);
            let src = layer.k.table[block].pages;
            let mut dst = [-1; 8];
            for i in 0..to.pages() {
                dst[i] = src[choice(i, from.bits() / to.bits(), &mut rng)];
            }
            let op = ShrinkOp { block: block as u32, from: from.bits() as i32, to: to.bits() as i32, src, dst };
            let side = rng.pick(&SIDES);
            layer.ops.push(block_op(side, &op));
        }
        let mut got = layer.copy();
        let (code, counted) = got.device(|_| {});
        if code != 0 {
            // more than a multiprocessor has: then nothing is touched
            assert!(d > 640, "a head dimension of {d} is refused");
            got.k.same_bytes(&layer.k, "refused");
            continue;
        }
        assert_eq!(counted[..4], [1; 4]);
        // the circle is left alone or done, as it is counted
        let mut want = layer.copy();
        want.ops.truncate(4 + counted[4] as usize);
        want.reference();
        got.k.same_bytes(&want.k, &format!("K {d}"));
        got.v.same_bytes(&want.v, &format!("V {d}"));
        assert!(d < 2048 || counted[4] == 0, "this was to go page by page");
    }
}

/// 16 -> 2 is 16 -> 8 -> 4 -> 2, on the device, too.
#[test]
fn every_way_down_ends_at_the_same_bytes() {
    property(times(4), |rng| {
        let (d, group) = rng.pick(&device::SHAPES[..12]);
        let mut start = Layer::new(rng, d, group, group, 1, 1);
        start.k.open(0, Width::B16);
        let pages = start.k.table[0].pages;
        let side = rng.pick(&SIDES);
        let down = |path: &[Width]| {
            let mut layer = start.copy();
            let (mut from, mut src) = (Width::B16, pages);
            for &to in path {
                let mut dst = [-1; 8];
                for i in 0..to.pages() {
                    dst[i] = src[i * from.bits() / to.bits()];
                }
                let op = ShrinkOp { block: 0, from: from.bits() as i32, to: to.bits() as i32, src, dst };
                layer.ops = vec![block_op(side, &op)];
                assert_eq!(layer.device(|_| {}), (0, vec![1]));
                (from, src) = (to, dst);
            }
            let page = layer.k.pool.bytes()[src[0] as usize * 32 * d..][..32 * d].to_vec();
            (page, layer.k.params.bytes().to_vec(), layer.v.params.bytes().to_vec())
        };
        use Width::{B2, B4, B8};
        let two = down(&[B2]);
        for path in [&[B8, B2][..], &[B4, B2], &[B8, B4, B2]] {
            assert!(down(path) == two);
        }
    });
}

/// Operations that make no sense, beside good ones: they touch nothing and are not counted.
#[test]
fn hostile_operations() {
    property(times(20), |rng| {
        let (d, group) = rng.pick(&[(16, 16), (64, 32), (48, 48)]);
        let mut layer = Layer::new(rng, d, group, group, 2, 6);
        for block in 0..6 {
            let (from, to) = rng.pick(&STEPS);
            let side = rng.pick(&SIDES);
            layer.add(rng, side, block, from, to);
            let n_pages = layer.k.n_pages as i32;
            let page = [-2, -100, n_pages, n_pages + 7, i32::MAX, i32::MIN];
            let op = layer.ops.last_mut().unwrap();
            match rng.below(12) {
                0 => op.side = rng.pick(&[4, 5, u32::MAX, 1 << 31]),
                1 => op.block = rng.pick(&[6, 7, u32::MAX, 1 << 31]),
                2 => op.from = rng.pick(&[0, 1, 2, 3, 12, 17, 32, -8, -16, i32::MIN, i32::MAX]),
                3 => op.to = rng.pick(&[0, 1, 3, 7, 16, 32, -2, -4, i32::MIN, i32::MAX]),
                4 => op.src[rng.below(8)] = rng.pick(&page),
                5 => op.dst[rng.below(8)] = rng.pick(&page),
                6 => op.dst = [-1; 8],
                7 => op.src = [-1; 8],
                8 => op.to = op.from,
                _ => {}
            }
        }
        layer.compare("hostile");
    });
}

/// A side without groups can't be narrowed, and one whose description makes no sense is left alone.
#[test]
fn sides_that_stay() {
    let mut rng = Rng::new(41);
    let mut layer = Layer::new(&mut rng, 64, 0, 32, 1, 2);
    layer.add(&mut rng, Side::K, 0, Width::B16, Width::B8);
    layer.add(&mut rng, Side::V, 1, Width::B8, Width::B4);
    layer.compare("K has no groups");
    let before = layer.copy();
    layer.v.group = 48; // does not divide 64
    assert_eq!(layer.device(|_| {}), (0, vec![0, 0]));
    layer.k.same_bytes(&before.k, "no such group");
}

#[test]
fn shapes_that_make_no_sense_are_refused() {
    let mut rng = Rng::new(51);
    let mut layer = Layer::new(&mut rng, 64, 32, 32, 2, 1);
    layer.add(&mut rng, Side::K, 0, Width::B16, Width::B8);
    let before = layer.copy();
    let bad: [fn(&mut Shrink); 10] = [
        |o| o.ops = std::ptr::null(),
        |o| o.sides = std::ptr::null(),
        |o| o.pool = std::ptr::null_mut(),
        |o| o.meta = std::ptr::null_mut(),
        |o| o.n_head_kv = 0,
        |o| o.head_dim = 0,
        |o| o.head_dim = 5000,
        |o| o.n_pages = 0,
        |o| o.n_blocks = 0,
        |o| o.pool = o.pool.wrapping_add(8),
    ];
    for change in bad {
        assert_eq!(layer.device(change), (INVALID_VALUE, vec![0]));
        layer.k.same_bytes(&before.k, "refused");
    }
    assert_eq!(layer.device(|o| o.n_ops = 0), (0, vec![0]));
    layer.k.same_bytes(&before.k, "nothing to do");
    // nobody asks how many heads were converted
    let mut want = layer.copy();
    want.reference();
    assert_eq!(layer.device(|o| o.done = std::ptr::null_mut()), (0, vec![0]));
    layer.k.same_bytes(&want.k, "uncounted");
}
