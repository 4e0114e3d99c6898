//! Dot products of raw codes with bytes, sixteen 32-bit lanes at a time.
//!
//! A lane's four codes are multiplied by the four values of a word that all lanes share: for K four values of a query, for V
//! four softmax weights (`docs/layout.md`, "Why quads"). Two precisions of those values:
//!
//! | | values | codes | sums |
//! | --- | --- | --- | --- |
//! | narrow | 8 bits: -127 to 127, or 0 to 255 | at most 15 | of any number of quads below 2^16 |
//! | wide | 16 bits: -[`WIDE_MAX`] to [`WIDE_MAX`] | at most 255 | of at most 128 products |
//!
//! As with [`Lanes`], methods must only be reached from functions that enable the level; loads may be unaligned.

use super::lanes::{Lanes, Plain, LANES};
use super::level::Level;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::NeonDots;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2Dots, Avx512Dots, AvxVnniDots, EvexVnniDots};

/// Largest magnitude of a wide value: as high and low bytes, both signed, `127 * 256 + 127`.
pub(crate) const WIDE_MAX: f32 = 32639.0;

/// Work on a tile, which [`Dots::apart`] may make a function of its own.
pub(crate) trait Tile {
    /// # Safety
    /// The CPU has the instructions of `I`, and the tile holds what it says.
    unsafe fn run<I: Dots>(&self);
}

pub(crate) trait Dots: Sized {
    type L: Level;
    /// Sixteen sums of narrow products.
    type Narrow: Copy;
    /// Sixteen sums of wide products.
    type Wide: Copy;
    /// Thirty-two vector registers of 16 lanes: larger tiles.
    const LARGE: bool;
    /// Wide sums that fit the registers at a time, where they are not large: 4 or 2.
    const WIDE_SUMS: usize;
    /// Several quads at a time gain nothing, and one takes fewer registers.
    const ONE_QUAD: bool;
    /// The wide sums are those of `code - WIDE_BIAS`.
    const WIDE_BIAS: f32;

    /// `(byte >> shift) & mask` of every byte, for fields that stay within their byte.
    unsafe fn part(bits: Bits<Self>, shift: u32, mask: u8) -> Bits<Self>;
    unsafe fn store_bits(bits: Bits<Self>, p: *mut u8);

    unsafe fn narrow_zero() -> Self::Narrow;
    /// Adds `N` quads; `x` is their `N` words of four values each, i8 if `SIGNED`, u8 if not.
    unsafe fn narrow<const N: usize, const SIGNED: bool>(
        acc: Self::Narrow,
        codes: &[Bits<Self>; N],
        x: *const u32,
    ) -> Self::Narrow;
    unsafe fn narrow_sum(acc: Self::Narrow) -> Self::L;

    unsafe fn wide_zero() -> Self::Wide;
    /// Adds a quad, whose words [`Dots::store_wide`] made: `x` and, `plane` words further, the second.
    unsafe fn wide(acc: Self::Wide, codes: Bits<Self>, x: *const u32, plane: usize) -> Self::Wide;
    unsafe fn wide_sum(acc: Self::Wide) -> Self::L;
    /// Sixteen wide values, integers already, as four words in each of two planes.
    unsafe fn store_wide(x: Self::L, p: *mut u32, plane: usize);
    /// Rounds (half to even) 64 wide values and stores them; what they add up to, over the lanes in any way.
    #[inline(always)]
    unsafe fn store_wide_sum(x: [Self::L; 4], p: *mut u32, plane: usize) -> Self::L {
        let x = [x[0].round(), x[1].round(), x[2].round(), x[3].round()];
        Self::store_wide(x[0], p, plane);
        Self::store_wide(x[1], p.add(4), plane);
        Self::store_wide(x[2], p.add(8), plane);
        Self::store_wide(x[3], p.add(12), plane);
        x[0].add(x[1]).add(x[2].add(x[3]))
    }

    /// Runs a tile, as a function of its own where that keeps its loops' addresses in registers: all that is inlined around them
    /// needs more than there are.
    #[inline(always)]
    unsafe fn apart<T: Tile>(tile: &T) {
        tile.run::<Self>()
    }

    /// Sixteen integers from -128 to 127 as bytes.
    unsafe fn store_i8(x: Self::L, p: *mut u8);
}

/// Sixty-four bytes of codes.
pub(crate) type Bits<I> = <<I as Dots>::L as Lanes>::Bits;

/// Plain Rust, in loops that compilers vectorise.
pub(crate) struct PlainDots;

#[inline(always)]
fn bytes(words: [u32; LANES], j: usize) -> [i32; LANES] {
    words.map(|w| (w >> (8 * j) & 0xff) as i32)
}

impl Dots for PlainDots {
    type L = Plain;
    type Narrow = [i32; LANES];
    type Wide = [i32; LANES];
    const LARGE: bool = false;
    const WIDE_SUMS: usize = 4;
    const ONE_QUAD: bool = false;
    const WIDE_BIAS: f32 = 0.0;

    #[inline(always)]
    unsafe fn part(bits: [u32; LANES], shift: u32, mask: u8) -> [u32; LANES] {
        bits.map(|w| w >> shift & u32::from_ne_bytes([mask; 4]))
    }
    #[inline(always)]
    unsafe fn store_bits(bits: [u32; LANES], p: *mut u8) {
        p.cast::<[u32; LANES]>().write_unaligned(bits)
    }
    #[inline(always)]
    unsafe fn narrow_zero() -> Self::Narrow {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn narrow<const N: usize, const SIGNED: bool>(
        mut acc: Self::Narrow,
        codes: &[[u32; LANES]; N],
        x: *const u32,
    ) -> Self::Narrow {
        for n in 0..N {
            let word = x.add(n).read_unaligned();
            for j in 0..4 {
                let byte = (word >> (8 * j)) as u8;
                let value = if SIGNED { i32::from(byte as i8) } else { i32::from(byte) };
                let c = bytes(codes[n], j);
                for i in 0..LANES {
                    acc[i] += c[i] * value;
                }
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn narrow_sum(acc: Self::Narrow) -> Plain {
        Plain(acc.map(|x| x as f32))
    }
    #[inline(always)]
    unsafe fn wide_zero() -> Self::Wide {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn wide(mut acc: Self::Wide, codes: [u32; LANES], x: *const u32, plane: usize) -> Self::Wide {
        for j in 0..4 {
            let word = x.add(j / 2 * plane).read_unaligned();
            let value = i32::from((word >> (16 * (j % 2))) as i16);
            let c = bytes(codes, j);
            for i in 0..LANES {
                acc[i] += c[i] * value;
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn wide_sum(acc: Self::Wide) -> Plain {
        Plain(acc.map(|x| x as f32))
    }
    #[inline(always)]
    unsafe fn store_wide(x: Plain, p: *mut u32, plane: usize) {
        // values 0 and 1 of a quad in the first plane, 2 and 3 in the second
        let half = |v: f32| v as i32 as u16 as u32;
        for quad in 0..LANES / 4 {
            let v = &x.0[4 * quad..];
            p.add(quad).write_unaligned(half(v[0]) | half(v[1]) << 16);
            p.add(plane + quad).write_unaligned(half(v[2]) | half(v[3]) << 16);
        }
    }
    #[inline(always)]
    unsafe fn store_i8(x: Plain, p: *mut u8) {
        for (i, v) in x.0.into_iter().enumerate() {
            p.add(i).write(v as i32 as u8);
        }
    }
}
