//! Packed subtiles from 4 to 2 bits with new ranges ([`super::range`]), all sixteen tokens at once.
//!
//! Codes are never unpacked. Four rows of a subtile are turned into *planes*: plane `k` is bit `k` of their codes, so a
//! vector operation deals with 512 codes. The ones in the product of planes (or their complements) say how often a code
//! occurs; sixteen counts and tables of errors say which range is best, a token in each lane; and comparing planes with the
//! three borders of that range gives the two planes of the new codes.
//!
//! ```text
//! a byte of rows A and B at 4 bits (low, high half)   aaaa AAAA   bbbb BBBB       lowest bit first
//! a byte of plane k                                   a . A . b . B .             bit k of each; the dots are rows C and D
//! a byte of the row at 2 bits that A and B become     aa AA bb BB
//! ```
//!
//! For K the rows A, B, C, D are four rows of the subtile as they lie there, each word a token. For V a word holds four tokens
//! of one dimension, so A and B are the two rows of 16 dimensions and C and D those of the next 16. The planes are the same
//! thing, but a token's codes lie across all words, so V is counted after a change of places.

use super::level::Level;
use super::range::{self, HIGH, LOW, RANGES};
use super::words::{Words, WORDS};
use crate::geometry::{Side, Width, BLOCK, MAX_GROUP, SUBTILE};

/// Codes of a token in planes made of four rows.
const BATCH: usize = 32;
const MAX_BATCHES: usize = MAX_GROUP / BATCH;

/// For each range and code within it: the squared error in ninths of a squared step, four codes in a word.
static INSIDE: [[u32; 4]; RANGES] = {
    let mut all = [[0; 4]; RANGES];
    let mut i = 0;
    while i < RANGES {
        let (low, high) = range::ends(i);
        let mut c = low;
        while c <= high {
            let level = range::code2(c, low, high) as i32 * (high - low) as i32;
            let error = 3 * (c - low) as i32 - level;
            all[i][c as usize / 4] |= ((error * error) as u32) << (8 * (c % 4));
            c += 1;
        }
        i += 1;
    }
    all
};

/// Squared distances of codes 0 to 7 from an end above them; with the order turned around, of 15 to 8 from one below.
static BEYOND: [[u32; 2]; LOW] = {
    let mut all = [[0; 2]; LOW];
    let mut end = 0;
    while end < LOW {
        let mut c = 0;
        while c < end {
            all[end][c / 4] |= (((end - c) * (end - c)) as u32) << (8 * (c % 4));
            c += 1;
        }
        end += 1;
    }
    all
};

/// Of each range: the least codes that become 1, 2 and 3, and its ends, four bits each.
static SHAPES: [u32; 64] = {
    let mut all = [0; 64];
    let mut i = 0;
    while i < RANGES {
        let (low, high) = range::ends(i);
        let mut c = 15;
        while c > 0 {
            let code = range::code2(c, low, high);
            let mut j = 1;
            while j <= code {
                all[i] = all[i] & !(15 << (4 * (j - 1))) | (c as u32) << (4 * (j - 1));
                j += 1;
            }
            c -= 1;
        }
        all[i] |= (low as u32) << 12 | (high as u32) << 16;
        i += 1;
    }
    all
};

/// Of each range: all ones in word `4 * j + k` where the bit `k` of border `j` of its shape is one.
static BORDERS: [[u32; WORDS]; RANGES] = {
    let mut all = [[0; WORDS]; RANGES];
    let mut i = 0;
    while i < RANGES {
        let mut bit = 0;
        while bit < 12 {
            all[i][bit] = (SHAPES[i] >> bit & 1).wrapping_neg();
            bit += 1;
        }
        i += 1;
    }
    all
};

/// A packed subtile at 4 bits becomes one at 2 with new ranges: codes of all tokens, parameters of tokens `first` to
/// `first + n`.
///
/// # Safety
/// `src` holds the subtile, `dst` takes one at 2 bits, and they do not overlap; `params` is the minimum plane of group 0 at
/// the subtile's first token, with `2 * BLOCK` values for each group; `first + n` is at most 16.
#[inline(always)]
pub(crate) unsafe fn fit4<L: Level, V: Words>(
    side: Side,
    src: *const u8,
    head_dim: usize,
    group: usize,
    params: *mut u16,
    first: usize,
    n: usize,
    dst: *mut u8,
) {
    for g in 0..head_dim / group {
        let params = params.add(g * 2 * BLOCK);
        let n_batch = group.div_ceil(BATCH);
        let mut planes = [[V::splat(0); 4]; MAX_BATCHES];
        let mut counts = [V::splat(0); 16];
        for b in 0..n_batch {
            let rows = rows::<V>(side, src, head_dim, g * group, group, b);
            planes[b] = split(rows);
            match side {
                Side::K => count(planes[b], &mut counts),
                Side::V => count(split(by_token(rows)), &mut counts),
            }
        }
        let found = best::<V>(&counts, n_batch * BATCH - group);
        let shape = found.look_up(&SHAPES);
        new_params::<L, V>(shape, params, first, n);
        let borders = match side {
            Side::K => by_word(shape),
            Side::V => by_byte(found),
        };
        for b in 0..n_batch {
            let [ab, cd] = code(planes[b], &borders);
            let left = group - b * BATCH;
            match side {
                Side::K => {
                    let out = dst.add((g * group + b * BATCH) * SUBTILE / 4);
                    ab.store(out);
                    if left > 16 {
                        cd.store(out.add(4 * WORDS));
                    }
                }
                Side::V => {
                    let out = dst.add(4 * (g * group + b * BATCH));
                    ab.store(out);
                    if left > 16 {
                        cd.store(out.add(4 * WORDS));
                    }
                }
            }
        }
    }
}

/// Rows A, B, C and D of batch `b` of a group; zeros where the group ends.
#[inline(always)]
unsafe fn rows<V: Words>(side: Side, src: *const u8, head_dim: usize, first: usize, group: usize, b: usize) -> [V; 4] {
    let whole = group - b * BATCH > 16;
    let at = first + b * BATCH;
    let zero = V::splat(0);
    match side {
        Side::K => {
            let p = src.add(at / 8 * 4 * SUBTILE);
            let (a, b) = (V::load(p), V::load(p.add(4 * WORDS)));
            if whole {
                [a, b, V::load(p.add(8 * WORDS)), V::load(p.add(12 * WORDS))]
            } else {
                [a, b, zero, zero]
            }
        }
        Side::V => {
            let (p, q) = (src.add(4 * at), src.add(4 * head_dim + 4 * at));
            let (a, b) = (V::load(p), V::load(q));
            if whole {
                [a, b, V::load(p.add(4 * WORDS)), V::load(q.add(4 * WORDS))]
            } else {
                [a, b, zero, zero]
            }
        }
    }
}

/// The planes of four rows.
#[inline(always)]
unsafe fn split<V: Words>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // aaaa bbbb and AAAA BBBB
    let ((ab, ab_high), (cd, cd_high)) = (swap::<V, 4>(a, b), swap::<V, 4>(c, d));
    // the lower and the higher two bits of a, A, b, B
    let ((ab01, ab23), (cd01, cd23)) = (swap::<V, 2>(ab, ab_high), swap::<V, 2>(cd, cd_high));
    let ((p0, p1), (p2, p3)) = (swap::<V, 1>(ab01, cd01), swap::<V, 1>(ab23, cd23));
    [p0, p1, p2, p3]
}

/// Of every `2 * N` bits, the lower halves of `a` and `b`, and the higher halves.
#[inline(always)]
unsafe fn swap<V: Words, const N: u32>(a: V, b: V) -> (V, V) {
    let low = V::splat(match N {
        4 => 0x0f0f_0f0f,
        2 => 0x3333_3333,
        _ => 0x5555_5555,
    });
    (V::select(low, a, b.shl::<N>()), V::select(low, a.shr::<N>(), b))
}

/// Rows of V, with all codes of a token in one word; which of its codes stands where does not matter.
#[inline(always)]
unsafe fn by_token<V: Words>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // in a part: a word for each of four tokens, whose bytes are four dimensions
    let [a, b, c, d] = [a.transpose_bytes(), b.transpose_bytes(), c.transpose_bytes(), d.transpose_bytes()];
    // tokens 0 .. 3, 4 .. 7, 8 .. 11, 12 .. 15
    let ((t0, t4), (t8, t12)) = (swap::<V, 4>(a, c), swap::<V, 4>(b, d));
    V::transpose_parts([t0, t4, t8, t12])
}

/// Adds, in each byte, how often each code occurs among its eight.
#[inline(always)]
unsafe fn count<V: Words>([p0, p1, p2, p3]: [V; 4], counts: &mut [V; 16]) {
    let (low, high) = (pairs(p0, p1), pairs(p2, p3));
    for c in 0..16 {
        counts[c] = counts[c].add(low[c % 4].and(high[c / 4]).count_bytes());
    }
}

/// Where two bits are 0, 1, 2 and 3.
#[inline(always)]
unsafe fn pairs<V: Words>(low: V, high: V) -> [V; 4] {
    [V::splat(!0).without(low.or(high)), low.without(high), high.without(low), low.and(high)]
}

/// The number of each token's best range; `extra` of the codes 0 that were counted are not there.
#[inline(always)]
unsafe fn best<V: Words>(counts: &[V; 16], extra: usize) -> V {
    let zero = V::splat(0);
    let extra = V::splat((extra as u32).wrapping_neg());
    let n = [quad(counts, 0, extra), quad(counts, 4, zero), quad(counts, 8, zero), quad(counts, 12, zero)];
    let mut below = [zero; LOW];
    let mut above = [zero; HIGH];
    for end in 1..LOW {
        let [near, far] = BEYOND[end];
        let b = zero.dot4(n[0], V::splat(near)).dot4(n[1], V::splat(far));
        let a = zero.dot4(n[3], V::splat(near.swap_bytes())).dot4(n[2], V::splat(far.swap_bytes()));
        // nine ninths of a squared step
        below[end] = b.add(b.shl::<3>());
        above[end] = a.add(a.shl::<3>());
    }
    let mut least = V::splat(!0);
    for low in 0..LOW {
        for high in 0..HIGH {
            let i = low * HIGH + high;
            let mut error = below[low].add(above[high]);
            for (n, inside) in n.iter().zip(INSIDE[i]) {
                if inside != 0 {
                    error = error.dot4(*n, V::splat(inside));
                }
            }
            // the error and behind it the range, so that of equal ones the first is the least
            least = least.min(error.shl::<6>().or(V::splat(i as u32)));
        }
    }
    least.and(V::splat(63))
}

/// A token's counts of codes `c` to `c + 3` in the bytes of its word.
#[inline(always)]
unsafe fn quad<V: Words>(counts: &[V; 16], c: usize, extra: V) -> V {
    let (zero, ones) = (V::splat(0), V::splat(0x0101_0101));
    let (a, b) = (zero.dot4(counts[c], ones), zero.dot4(counts[c + 1], ones));
    let (c, d) = (zero.dot4(counts[c + 2], ones), zero.dot4(counts[c + 3], ones));
    a.add(extra).or(b.shl::<8>()).or(c.shl::<16>().or(d.shl::<24>()))
}

/// [`range::params`] of each token.
#[inline(always)]
unsafe fn new_params<L: Level, V: Words>(shape: V, params: *mut u16, first: usize, n: usize) {
    let mut words = [0u32; WORDS];
    shape.store(words.as_mut_ptr().cast());
    let bits = L::load_bits(words.as_ptr().cast());
    let (min, max) = (L::load_f16(params), L::load_f16(params.add(BLOCK)));
    let steps = ((1u32 << Width::B4.bits()) - 1) as f32;
    let scale = max.sub(min).div(L::splat(steps));
    for (shift, plane) in [(12, params), (16, params.add(BLOCK))] {
        let mut new = [0u16; SUBTILE];
        // two roundings, as in codes::dequantize
        min.add(L::field(bits, shift, 15).mul(scale)).store_kept(new.as_mut_ptr());
        for t in first..first + n {
            plane.add(t).write(new[t]);
        }
    }
}

/// Bit `k` of the borders `1`, `2`, `3` of a token, in every bit that stands for one of its codes: a word for each token.
#[inline(always)]
unsafe fn by_word<V: Words>(shape: V) -> [[V; 4]; 3] {
    [
        [shape.spread_bit::<0>(), shape.spread_bit::<1>(), shape.spread_bit::<2>(), shape.spread_bit::<3>()],
        [shape.spread_bit::<4>(), shape.spread_bit::<5>(), shape.spread_bit::<6>(), shape.spread_bit::<7>()],
        [shape.spread_bit::<8>(), shape.spread_bit::<9>(), shape.spread_bit::<10>(), shape.spread_bit::<11>()],
    ]
}

/// As [`by_word`] for the best ranges of the tokens, where byte `j` of every word holds four tokens, `j`, `4 + j`, `8 + j` and `12 + j`, two bits each.
#[inline(always)]
unsafe fn by_byte<V: Words>(found: V) -> [[V; 4]; 3] {
    let (mut ranges, mut words) = ([0u32; SUBTILE], [0u32; WORDS]);
    found.store(ranges.as_mut_ptr().cast());
    let mut all = V::splat(0);
    for (t, &i) in ranges.iter().enumerate() {
        let place = V::splat(3 << (t % 4 * 8 + t / 4 * 2));
        all = all.or(V::load(BORDERS[i as usize].as_ptr().cast()).and(place));
    }
    all.store(words.as_mut_ptr().cast());
    let mut borders = [[V::splat(0); 4]; 3];
    for (border, words) in borders.as_flattened_mut().iter_mut().zip(words) {
        *border = V::splat(words);
    }
    borders
}

/// Two rows at 2 bits: a code is the number of borders that it reaches.
#[inline(always)]
unsafe fn code<V: Words>(planes: [V; 4], borders: &[[V; 4]; 3]) -> [V; 2] {
    let (one, two) = (reached(planes, &borders[0]), reached(planes, &borders[1]));
    let three = reached(planes, &borders[2]);
    let (low, high) = (one.without(two).or(three), two);
    let (ab, cd) = swap::<V, 1>(low, high);
    [ab, cd]
}

/// Where codes are not below a border.
#[inline(always)]
unsafe fn reached<V: Words>(planes: [V; 4], border: &[V; 4]) -> V {
    let mut yes = V::splat(!0);
    for (plane, border) in planes.iter().zip(border) {
        yes = plane.at_least(*border, yes);
    }
    yes
}
