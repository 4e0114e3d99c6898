//! The bytes, pinned.

use super::common::*;
use pmkvq::geometry::{Side, Width};
use pmkvq::kernels::{layout, store_at, Isa, RowsF32};
use std::collections::HashSet;

#[test]
fn every_code_has_bits_of_its_own() {
    for side in SIDES {
        for width in PACKED {
            for d in [16, 64, 80, 576] {
                let mut seen = HashSet::new();
                for t in 0..16 {
                    for i in 0..d {
                        let (byte, bit) = layout::code_position(side, width, d, t, i);
                        assert!(byte < width.subtile_bytes(d));
                        assert!(seen.insert((byte, bit)));
                    }
                }
                assert_eq!(seen.len() * width.bits(), width.subtile_bytes(d) * 8);
            }
        }
    }
}

#[test]
fn positions_are_the_documented_ones() {
    let at = |side, width, t, i| layout::code_position(side, width, 32, t, i);
    // K: rows of 16 keys x 4 dimensions
    assert_eq!(at(Side::K, Width::B8, 0, 0), (0, 0));
    assert_eq!(at(Side::K, Width::B8, 1, 0), (4, 0));
    assert_eq!(at(Side::K, Width::B8, 2, 7), (64 + 8 + 3, 0));
    assert_eq!(at(Side::K, Width::B4, 2, 7), (8 + 3, 4));
    assert_eq!(at(Side::K, Width::B4, 2, 11), (64 + 8 + 3, 0));
    assert_eq!(at(Side::K, Width::B2, 2, 11), (8 + 3, 4));
    assert_eq!(at(Side::K, Width::B2, 15, 31), (64 + 63, 6));
    // V: rows of D dimensions x 4 tokens
    assert_eq!(at(Side::V, Width::B8, 1, 0), (1, 0));
    assert_eq!(at(Side::V, Width::B8, 0, 1), (4, 0));
    assert_eq!(at(Side::V, Width::B8, 6, 3), (128 + 12 + 2, 0));
    assert_eq!(at(Side::V, Width::B4, 6, 3), (12 + 2, 4));
    assert_eq!(at(Side::V, Width::B4, 9, 3), (128 + 12 + 1, 0));
    assert_eq!(at(Side::V, Width::B2, 9, 3), (12 + 1, 4));
    assert_eq!(at(Side::V, Width::B2, 15, 31), (127, 6));
}

/// One block of known values at every width, on every level; FNV-1a of its pages in order, and of its parameters. The hashes
/// are those of an independent script, `tests/golden/kernel_layout.py`.
#[test]
fn golden_bytes() {
    const GOLDEN: [(Side, Width, u64, u64); 8] = [
        (Side::K, Width::B16, 0x692312e1e4fde0bc, 0x89bfa3a928539725),
        (Side::K, Width::B8, 0x261e98d4d13bbaa0, 0x0374a6e826bfe667),
        (Side::K, Width::B4, 0x6fac33d3b2490350, 0x0374a6e826bfe667),
        (Side::K, Width::B2, 0x401b7d89d7a6e874, 0x0374a6e826bfe667),
        (Side::V, Width::B16, 0x692312e1e4fde0bc, 0x89bfa3a928539725),
        (Side::V, Width::B8, 0xdeafaf8d646bdf70, 0x0374a6e826bfe667),
        (Side::V, Width::B4, 0x1f5119747e9068e1, 0x0374a6e826bfe667),
        (Side::V, Width::B2, 0x954aca5a859d7c88, 0x0374a6e826bfe667),
    ];
    let (d, group) = (32, 16);
    let values: Vec<f32> =
        (0..128 * d).map(|i| ((i * 7919 + 13) % 1000) as f32 / 16.0 - 31.0 + (i / d) as f32).collect();
    let cells: Vec<i64> = (0..128).collect();
    for (side, width, pages, params) in GOLDEN {
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            let mut c = Cache::new(&mut Rng::new(1), side, d, group, 1, 1);
            c.open(0, width);
            let rows = RowsF32::from_slice(&values, d, 1).unwrap();
            store_at(isa, &c.view(), &rows, &cells, 0, 1).unwrap();
            let list = c.table[0].pages;
            let page = |p: &i32| &c.pool.bytes()[*p as usize * 32 * d..][..32 * d];
            let bytes: Vec<u8> = list[..width.pages()].iter().flat_map(|p| page(p).to_vec()).collect();
            assert_eq!((fnv(&bytes), fnv(c.params.bytes())), (pages, params), "{side} {width} {isa:?}");
        }
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}
