//! Gigabytes of cache that look like one: filled once, with tables of any layers and widths over them.

use crate::device::Buffer;
use crate::rng::Rng;
use pmkvq::geometry::{page_bytes, BlockEntry, Width, BLOCK};

pub const D: usize = 128;
/// One group for each head and token.
pub const GROUP: usize = 128;

pub struct Memory {
    pub pool: Buffer,
    pub params: Buffer,
}

impl Memory {
    /// Halves within +-2 in the pool, which as codes are anything; ranges of about -1 .. 1.
    pub fn new(pool_bytes: usize, params_bytes: usize) -> Memory {
        let rng = &mut Rng::new(1);
        let mut half = |and: u16, or: u16| rng.next() as u16 & and | or;
        let values: Vec<u16> = (0..1 << 23).map(|_| half(0xbfff, 0)).collect();
        // [min | max][128 tokens]
        let sign = |i: usize| if (i / BLOCK).is_multiple_of(2) { 0x8000 } else { 0 };
        let ranges: Vec<u16> = (0..1 << 20).map(|i| half(0x03ff, 0x3c00 | sign(i))).collect();
        Memory { pool: tiled(pool_bytes, &values), params: tiled(params_bytes, &ranges) }
    }
}

fn tiled(bytes: usize, tile: &[u16]) -> Buffer {
    let buffer = Buffer::new(bytes);
    for at in (0..bytes).step_by(2 * tile.len()) {
        buffer.write_at(at, &tile[..tile.len().min((bytes - at) / 2)]);
    }
    buffer
}

/// Hands out a pool's pages in an order that is far from sequential.
pub struct Pages {
    next: usize,
    n: usize,
    step: usize,
}

impl Pages {
    pub fn of(pool: &Buffer, n_head_kv: usize) -> Pages {
        let n = pool.len() / (n_head_kv * page_bytes(D));
        // a step that meets every page: no divisor in common with n
        let step = (n * 382 / 1000..).find(|s| *s > 0 && gcd(*s, n) == 1).unwrap_or(1);
        Pages { next: 0, n, step }
    }

    pub fn n(&self) -> usize {
        self.n
    }

    pub fn block(&mut self, width: Width) -> BlockEntry {
        let mut e = BlockEntry { width: width.bits() as i32, ..BlockEntry::EMPTY };
        for page in &mut e.pages[..width.pages()] {
            assert!(self.next < self.n, "the pool is too small");
            *page = (self.next * self.step % self.n) as i32;
            self.next += 1;
        }
        e
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

/// Bytes of a block of one side: codes or halves, and parameters.
pub fn block_bytes(width: Width, n_head_kv: usize) -> usize {
    let params = if width == Width::B16 { 0 } else { (D / GROUP) * 4 * BLOCK };
    n_head_kv * (width.pages() * page_bytes(D) + params)
}
