//! Sixty-four bytes at a time, as sixteen u32: what packing, narrowing and fitting are written in, for each level of
//! instructions.
//!
//! A level without a type of its own uses [`PlainWords`], which the compiler vectorises with what the level enables. As with
//! `Lanes`, the methods are `inline(always)` and use intrinsics, so they must only be reached from functions that enable the
//! level; that is the safety contract of every one of them, beside the validity of its pointers. Loads and stores may be
//! unaligned.

/// Words in a vector.
pub(crate) const WORDS: usize = 16;

pub(crate) trait Words: Copy {
    unsafe fn load(p: *const u8) -> Self;
    unsafe fn store(self, p: *mut u8);
    unsafe fn splat(x: u32) -> Self;
    unsafe fn and(self, o: Self) -> Self;
    unsafe fn or(self, o: Self) -> Self;
    /// `self & !o`.
    unsafe fn without(self, o: Self) -> Self;
    unsafe fn shl<const N: u32>(self) -> Self;
    unsafe fn shr<const N: u32>(self) -> Self;
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn min(self, o: Self) -> Self;
    /// Bits of `a` where the mask has ones, of `b` where it has zeros.
    #[inline(always)]
    unsafe fn select(mask: Self, a: Self, b: Self) -> Self {
        a.and(mask).or(b.without(mask))
    }
    /// One step of comparing numbers whose bits lie in planes, from the lowest: `self > o`, or `before` where they are alike.
    #[inline(always)]
    unsafe fn at_least(self, o: Self, before: Self) -> Self {
        self.and(before).or(self.or(before).without(o))
    }
    /// All ones or zeros by word, as bit `N` is.
    unsafe fn spread_bit<const N: u32>(self) -> Self;
    /// The number of ones in each byte.
    unsafe fn count_bytes(self) -> Self;
    /// By word: `self` and the four products of the bytes of `a` (0 to 128) and `b` (0 to 127).
    unsafe fn dot4(self, a: Self, b: Self) -> Self;
    /// `round(c / 17)` of each byte: `codes::shift` from 8 to 4 bits.
    unsafe fn narrow8(self) -> Self;
    /// `round(c / 5)` of each byte, none above 15: `codes::shift` from 4 to 2 bits.
    unsafe fn narrow4(self) -> Self;
    /// Word `i` is byte `i` of each of four lines of 16.
    unsafe fn interleave4(lines: [*const u8; 4]) -> Self;
    /// Word `i` of the table for each `i` in `self`, all below 64.
    unsafe fn look_up(self, table: &[u32; 64]) -> Self;
    /// In each part of four words: byte `i` of word `j` becomes byte `j` of word `i`.
    unsafe fn transpose_bytes(self) -> Self;
    /// Part `i` (four words) of vector `j` becomes part `j` of vector `i`.
    unsafe fn transpose_parts(v: [Self; 4]) -> [Self; 4];
    /// 16 rows of 16 words, transposed.
    unsafe fn transpose(rows: &mut [Self; WORDS]);
    /// Two rows of `n` bytes at 8 bits to one at 4; `n` is a multiple of 64, and `out` apart from both.
    #[inline(always)]
    unsafe fn join8(low: *const u8, high: *const u8, out: *mut u8, n: usize) {
        for i in (0..n).step_by(4 * WORDS) {
            let (l, h) = (Self::load(low.add(i)).narrow8(), Self::load(high.add(i)).narrow8());
            l.or(h.shl::<4>()).store(out.add(i));
        }
    }
    /// As `join8`, from 4 to 2 bits.
    #[inline(always)]
    unsafe fn join4(low: *const u8, high: *const u8, out: *mut u8, n: usize) {
        let nibble = Self::splat(0x0f0f_0f0f);
        for i in (0..n).step_by(4 * WORDS) {
            let (l, h) = (Self::load(low.add(i)), Self::load(high.add(i)));
            let l = l.and(nibble).narrow4().or(l.shr::<4>().and(nibble).narrow4().shl::<2>());
            let h = h.and(nibble).narrow4().or(h.shr::<4>().and(nibble).narrow4().shl::<2>());
            l.or(h.shl::<4>()).store(out.add(i));
        }
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct PlainWords([u32; WORDS]);

macro_rules! each {
    (|$i:ident| $e:expr) => {{
        let mut out = [0u32; WORDS];
        for $i in 0..WORDS {
            out[$i] = $e;
        }
        PlainWords(out)
    }};
}

impl PlainWords {
    #[inline(always)]
    fn bytes(self) -> [u8; 64] {
        let mut out = [0; 64];
        for i in 0..WORDS {
            out[4 * i..4 * i + 4].copy_from_slice(&self.0[i].to_le_bytes());
        }
        out
    }
    #[inline(always)]
    fn from_bytes(b: [u8; 64]) -> Self {
        each!(|i| u32::from_le_bytes([b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]]))
    }
}

impl Words for PlainWords {
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self {
        PlainWords(p.cast::<[u32; WORDS]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8) {
        p.cast::<[u32; WORDS]>().write_unaligned(self.0)
    }
    #[inline(always)]
    unsafe fn splat(x: u32) -> Self {
        PlainWords([x; WORDS])
    }
    #[inline(always)]
    unsafe fn and(self, o: Self) -> Self {
        each!(|i| self.0[i] & o.0[i])
    }
    #[inline(always)]
    unsafe fn or(self, o: Self) -> Self {
        each!(|i| self.0[i] | o.0[i])
    }
    #[inline(always)]
    unsafe fn without(self, o: Self) -> Self {
        each!(|i| self.0[i] & !o.0[i])
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(self) -> Self {
        each!(|i| self.0[i] << N)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(self) -> Self {
        each!(|i| self.0[i] >> N)
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        each!(|i| self.0[i].wrapping_add(o.0[i]))
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        each!(|i| self.0[i].min(o.0[i]))
    }
    #[inline(always)]
    unsafe fn spread_bit<const N: u32>(self) -> Self {
        each!(|i| ((self.0[i] << (31 - N)) as i32 >> 31) as u32)
    }
    #[inline(always)]
    unsafe fn count_bytes(self) -> Self {
        let pairs = each!(|i| self.0[i] - (self.0[i] >> 1 & 0x5555_5555));
        let nibbles = each!(|i| (pairs.0[i] & 0x3333_3333) + (pairs.0[i] >> 2 & 0x3333_3333));
        each!(|i| (nibbles.0[i] + (nibbles.0[i] >> 4)) & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn dot4(self, a: Self, b: Self) -> Self {
        let byte = |x: u32, j: u32| x >> (8 * j) & 0xff;
        let products = |i: usize, j: u32| byte(a.0[i], j) * byte(b.0[i], j);
        each!(|i| self.0[i] + products(i, 0) + products(i, 1) + products(i, 2) + products(i, 3))
    }
    #[inline(always)]
    unsafe fn narrow8(self) -> Self {
        // (241 * c + 1928) >> 12, two bytes of a word at a time: 241 * 255 + 1928 is below 2^16
        let even = each!(|i| self.0[i] & 0x00ff_00ff);
        let odd = each!(|i| self.0[i] >> 8 & 0x00ff_00ff);
        let even = each!(|i| ((even.0[i] << 8) - (even.0[i] << 4) + even.0[i] + 1928 * 0x1_0001) >> 12 & 0x000f_000f);
        let odd = each!(|i| ((odd.0[i] << 8) - (odd.0[i] << 4) + odd.0[i] + 1928 * 0x1_0001) >> 4 & 0x0f00_0f00);
        even.or(odd)
    }
    #[inline(always)]
    unsafe fn narrow4(self) -> Self {
        // (13 * c + 26) >> 6; 15 * 13 + 26 is below 2^8
        each!(|i| ((self.0[i] << 3) + (self.0[i] << 2) + self.0[i] + 26 * 0x0101_0101) >> 6 & 0x0303_0303)
    }
    #[inline(always)]
    unsafe fn interleave4(lines: [*const u8; 4]) -> Self {
        let [a, b, c, d] = lines.map(|p| p.cast::<[u8; 16]>().read_unaligned());
        each!(|i| u32::from(a[i]) | u32::from(b[i]) << 8 | u32::from(c[i]) << 16 | u32::from(d[i]) << 24)
    }
    #[inline(always)]
    unsafe fn look_up(self, table: &[u32; 64]) -> Self {
        each!(|i| table[self.0[i] as usize % 64])
    }
    #[inline(always)]
    unsafe fn transpose_bytes(self) -> Self {
        let from = self.bytes();
        let mut to = [0; 64];
        for part in 0..4 {
            for i in 0..4 {
                for j in 0..4 {
                    to[16 * part + 4 * i + j] = from[16 * part + 4 * j + i];
                }
            }
        }
        Self::from_bytes(to)
    }
    #[inline(always)]
    unsafe fn transpose_parts(v: [Self; 4]) -> [Self; 4] {
        let mut out = v;
        for i in 0..4 {
            for j in 0..4 {
                out[i].0[4 * j..4 * j + 4].copy_from_slice(&v[j].0[4 * i..4 * i + 4]);
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; WORDS]) {
        for i in 0..WORDS {
            for j in 0..i {
                let t = rows[i].0[j];
                rows[i].0[j] = rows[j].0[i];
                rows[j].0[i] = t;
            }
        }
    }
    // loops over bytes: the compiler makes more of these than of words
    #[inline(always)]
    unsafe fn join8(low: *const u8, high: *const u8, out: *mut u8, n: usize) {
        let narrow = |c: u8| ((u16::from(c) * 241 + 1928) >> 12) as u8;
        let (low, high) = (std::slice::from_raw_parts(low, n), std::slice::from_raw_parts(high, n));
        for ((o, &l), &h) in std::slice::from_raw_parts_mut(out, n).iter_mut().zip(low).zip(high) {
            *o = narrow(l) | narrow(h) << 4;
        }
    }
    #[inline(always)]
    unsafe fn join4(low: *const u8, high: *const u8, out: *mut u8, n: usize) {
        let narrow = |c: u8| (c * 13 + 26) >> 6;
        let (low, high) = (std::slice::from_raw_parts(low, n), std::slice::from_raw_parts(high, n));
        for ((o, &l), &h) in std::slice::from_raw_parts_mut(out, n).iter_mut().zip(low).zip(high) {
            *o = narrow(l & 15) | narrow(l >> 4) << 2 | narrow(h & 15) << 4 | narrow(h >> 4) << 6;
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Words256, Words512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Words, WORDS};
    use std::arch::x86_64::*;

    /// AVX-512 F, BW, VNNI; with `BITALG` also that extension, which counts bits.
    #[derive(Clone, Copy)]
    pub(crate) struct Words512<const BITALG: bool>(__m512i);

    /// `i` of word `j` is the word `4 * (j % 4) + j / 4`: lines of 16 bytes, four words each, to words from each line.
    const LINES: [i32; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
    /// The low and the high half of two vectors, word by word in turn.
    const ZIP: [[i32; 16]; 2] = [
        [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23],
        [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31],
    ];

    /// For a shuffle of 16 bytes: byte `4 * i + j` from `4 * j + i`.
    #[inline(always)]
    unsafe fn across() -> __m128i {
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
    }
    /// Ones in a number of four bits.
    #[inline(always)]
    unsafe fn ones() -> __m128i {
        _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4)
    }
    /// `round(c / 5)`.
    #[inline(always)]
    unsafe fn fifths() -> __m128i {
        _mm_setr_epi8(0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3)
    }

    impl<const BITALG: bool> Words for Words512<BITALG> {
        #[inline(always)]
        unsafe fn load(p: *const u8) -> Self {
            Words512(_mm512_loadu_si512(p.cast()))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut u8) {
            _mm512_storeu_si512(p.cast(), self.0)
        }
        #[inline(always)]
        unsafe fn splat(x: u32) -> Self {
            Words512(_mm512_set1_epi32(x as i32))
        }
        #[inline(always)]
        unsafe fn and(self, o: Self) -> Self {
            Words512(_mm512_and_si512(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn or(self, o: Self) -> Self {
            Words512(_mm512_or_si512(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn without(self, o: Self) -> Self {
            Words512(_mm512_andnot_si512(o.0, self.0))
        }
        #[inline(always)]
        unsafe fn shl<const N: u32>(self) -> Self {
            Words512(_mm512_slli_epi32::<N>(self.0))
        }
        #[inline(always)]
        unsafe fn shr<const N: u32>(self) -> Self {
            Words512(_mm512_srli_epi32::<N>(self.0))
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            Words512(_mm512_add_epi32(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn min(self, o: Self) -> Self {
            Words512(_mm512_min_epu32(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn select(mask: Self, a: Self, b: Self) -> Self {
            Words512(_mm512_ternarylogic_epi32::<0xca>(mask.0, a.0, b.0))
        }
        #[inline(always)]
        unsafe fn at_least(self, o: Self, before: Self) -> Self {
            Words512(_mm512_ternarylogic_epi32::<0xb2>(self.0, o.0, before.0))
        }
        #[inline(always)]
        unsafe fn spread_bit<const N: u32>(self) -> Self {
            // the shift is a variable: `31 - N` can't be a constant argument
            let top = _mm512_sllv_epi32(self.0, _mm512_set1_epi32(31 - N as i32));
            Words512(_mm512_srai_epi32::<31>(top))
        }
        #[inline(always)]
        unsafe fn count_bytes(self) -> Self {
            if BITALG {
                return Words512(_mm512_popcnt_epi8(self.0));
            }
            let table = _mm512_broadcast_i32x4(ones());
            let low = _mm512_set1_epi8(15);
            let a = _mm512_shuffle_epi8(table, _mm512_and_si512(self.0, low));
            let b = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi32::<4>(self.0), low));
            Words512(_mm512_add_epi8(a, b))
        }
        #[inline(always)]
        unsafe fn dot4(self, a: Self, b: Self) -> Self {
            Words512(_mm512_dpbusd_epi32(self.0, a.0, b.0))
        }
        #[inline(always)]
        unsafe fn narrow8(self) -> Self {
            // c * 1928 / 2^15, rounded: off c / 17 by less than 0.004, and c / 17 is never within 0.029 of a half
            let k = _mm512_set1_epi16(1928);
            let even = _mm512_mulhrs_epi16(_mm512_and_si512(self.0, _mm512_set1_epi16(255)), k);
            let odd = _mm512_mulhrs_epi16(_mm512_srli_epi16::<8>(self.0), k);
            Words512(_mm512_or_si512(even, _mm512_slli_epi16::<8>(odd)))
        }
        #[inline(always)]
        unsafe fn narrow4(self) -> Self {
            Words512(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(fifths()), self.0))
        }
        #[inline(always)]
        unsafe fn interleave4(lines: [*const u8; 4]) -> Self {
            let [a, b, c, d] = lines.map(|p| _mm_loadu_si128(p.cast()));
            let x = _mm512_castsi128_si512(a);
            let x = _mm512_inserti32x4::<1>(x, b);
            let x = _mm512_inserti32x4::<2>(x, c);
            let x = _mm512_inserti32x4::<3>(x, d);
            let x = _mm512_permutexvar_epi32(_mm512_loadu_si512(LINES.as_ptr().cast()), x);
            Words512(x).transpose_bytes()
        }
        #[inline(always)]
        unsafe fn look_up(self, table: &[u32; 64]) -> Self {
            let part = |i: usize| _mm512_loadu_si512(table.as_ptr().add(16 * i).cast());
            let low = _mm512_permutex2var_epi32(part(0), self.0, part(1));
            let high = _mm512_permutex2var_epi32(part(2), self.0, part(3));
            let is_high = _mm512_test_epi32_mask(self.0, _mm512_set1_epi32(32));
            Words512(_mm512_mask_blend_epi32(is_high, low, high))
        }
        #[inline(always)]
        unsafe fn transpose_bytes(self) -> Self {
            Words512(_mm512_shuffle_epi8(self.0, _mm512_broadcast_i32x4(across())))
        }
        #[inline(always)]
        unsafe fn transpose_parts(v: [Self; 4]) -> [Self; 4] {
            let [a, b, c, d] = v.map(|x| x.0);
            let ab_low = _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b);
            let ab_high = _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b);
            let cd_low = _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d);
            let cd_high = _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d);
            [
                Words512(_mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low)),
                Words512(_mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low)),
                Words512(_mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high)),
                Words512(_mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high)),
            ]
        }
        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; WORDS]) {
            // four times the perfect shuffle
            let low = _mm512_loadu_si512(ZIP[0].as_ptr().cast());
            let high = _mm512_loadu_si512(ZIP[1].as_ptr().cast());
            for _ in 0..4 {
                let old = *rows;
                for i in 0..8 {
                    rows[2 * i] = Words512(_mm512_permutex2var_epi32(old[i].0, low, old[i + 8].0));
                    rows[2 * i + 1] = Words512(_mm512_permutex2var_epi32(old[i].0, high, old[i + 8].0));
                }
            }
        }
    }

    /// AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Words256(__m256i, __m256i);

    macro_rules! both {
        ($f:ident, $a:expr) => {
            Words256($f($a.0), $f($a.1))
        };
        ($f:ident, $a:expr, $b:expr) => {
            Words256($f($a.0, $b.0), $f($a.1, $b.1))
        };
    }

    impl Words for Words256 {
        #[inline(always)]
        unsafe fn load(p: *const u8) -> Self {
            Words256(_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast()))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut u8) {
            _mm256_storeu_si256(p.cast(), self.0);
            _mm256_storeu_si256(p.add(32).cast(), self.1)
        }
        #[inline(always)]
        unsafe fn splat(x: u32) -> Self {
            let x = _mm256_set1_epi32(x as i32);
            Words256(x, x)
        }
        #[inline(always)]
        unsafe fn and(self, o: Self) -> Self {
            both!(_mm256_and_si256, self, o)
        }
        #[inline(always)]
        unsafe fn or(self, o: Self) -> Self {
            both!(_mm256_or_si256, self, o)
        }
        #[inline(always)]
        unsafe fn without(self, o: Self) -> Self {
            both!(_mm256_andnot_si256, o, self)
        }
        #[inline(always)]
        unsafe fn shl<const N: u32>(self) -> Self {
            let n = Self::splat(N);
            both!(_mm256_sllv_epi32, self, n)
        }
        #[inline(always)]
        unsafe fn shr<const N: u32>(self) -> Self {
            let n = Self::splat(N);
            both!(_mm256_srlv_epi32, self, n)
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            both!(_mm256_add_epi32, self, o)
        }
        #[inline(always)]
        unsafe fn min(self, o: Self) -> Self {
            both!(_mm256_min_epu32, self, o)
        }
        #[inline(always)]
        unsafe fn spread_bit<const N: u32>(self) -> Self {
            let (n, zero) = (Self::splat(31 - N), Self::splat(0));
            let top = both!(_mm256_sllv_epi32, self, n);
            both!(_mm256_cmpgt_epi32, zero, top)
        }
        #[inline(always)]
        unsafe fn count_bytes(self) -> Self {
            let table = _mm256_broadcastsi128_si256(ones());
            let (low, table) = (Self::splat(0x0f0f_0f0f), Words256(table, table));
            let (a, b) = (self.and(low), self.shr::<4>().and(low));
            let (a, b) = (both!(_mm256_shuffle_epi8, table, a), both!(_mm256_shuffle_epi8, table, b));
            both!(_mm256_add_epi8, a, b)
        }
        #[inline(always)]
        unsafe fn dot4(self, a: Self, b: Self) -> Self {
            // no pair of products reaches 2^15
            let (pairs, ones) = (both!(_mm256_maddubs_epi16, a, b), Self::splat(0x1_0001));
            self.add(both!(_mm256_madd_epi16, pairs, ones))
        }
        #[inline(always)]
        unsafe fn narrow8(self) -> Self {
            // as in Words512
            let (k, low) = (Self::splat(1928 * 0x1_0001), Self::splat(0x00ff_00ff));
            let (even, odd) = (self.and(low), Self::without(self, low).shr::<8>());
            let (even, odd) = (both!(_mm256_mulhrs_epi16, even, k), both!(_mm256_mulhrs_epi16, odd, k));
            even.or(odd.shl::<8>())
        }
        #[inline(always)]
        unsafe fn narrow4(self) -> Self {
            let table = _mm256_broadcastsi128_si256(fifths());
            let table = Words256(table, table);
            both!(_mm256_shuffle_epi8, table, self)
        }
        #[inline(always)]
        unsafe fn interleave4(lines: [*const u8; 4]) -> Self {
            let [a, b, c, d] = lines.map(|p| _mm_loadu_si128(p.cast()));
            let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
            let first = _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd));
            let (ab, cd) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
            Words256(first, _mm256_set_m128i(_mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(ab, cd)))
        }
        #[inline(always)]
        unsafe fn look_up(self, table: &[u32; 64]) -> Self {
            let p = table.as_ptr().cast();
            Words256(_mm256_i32gather_epi32::<4>(p, self.0), _mm256_i32gather_epi32::<4>(p, self.1))
        }
        #[inline(always)]
        unsafe fn transpose_bytes(self) -> Self {
            let order = _mm256_broadcastsi128_si256(across());
            let order = Words256(order, order);
            both!(_mm256_shuffle_epi8, self, order)
        }
        #[inline(always)]
        unsafe fn transpose_parts(v: [Self; 4]) -> [Self; 4] {
            let low = |a, b| _mm256_permute2x128_si256::<0x20>(a, b);
            let high = |a, b| _mm256_permute2x128_si256::<0x31>(a, b);
            [
                Words256(low(v[0].0, v[1].0), low(v[2].0, v[3].0)),
                Words256(high(v[0].0, v[1].0), high(v[2].0, v[3].0)),
                Words256(low(v[0].1, v[1].1), low(v[2].1, v[3].1)),
                Words256(high(v[0].1, v[1].1), high(v[2].1, v[3].1)),
            ]
        }
        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; WORDS]) {
            // four 8x8 transposes; the off-diagonal ones change places
            for half in 0..2 {
                let r = &mut rows[8 * half..8 * half + 8];
                let a = transpose8([r[0].0, r[1].0, r[2].0, r[3].0, r[4].0, r[5].0, r[6].0, r[7].0]);
                let b = transpose8([r[0].1, r[1].1, r[2].1, r[3].1, r[4].1, r[5].1, r[6].1, r[7].1]);
                for i in 0..8 {
                    r[i] = Words256(a[i], b[i]);
                }
            }
            for i in 0..8 {
                let (a, b) = (rows[i], rows[i + 8]);
                rows[i] = Words256(a.0, b.0);
                rows[i + 8] = Words256(a.1, b.1);
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose8(r: [__m256i; 8]) -> [__m256i; 8] {
        let mut t = r;
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..2 {
            for j in 0..2 {
                let (a, b) = (t[4 * i + j], t[4 * i + j + 2]);
                u[4 * i + 2 * j] = _mm256_unpacklo_epi64(a, b);
                u[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a, b);
            }
        }
        for j in 0..4 {
            t[j] = _mm256_permute2x128_si256::<0x20>(u[j], u[j + 4]);
            t[j + 4] = _mm256_permute2x128_si256::<0x31>(u[j], u[j + 4]);
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every operation makes of 16 vectors of noise.
    #[inline(always)]
    unsafe fn all<V: Words>(noise: &[[u32; WORDS]; WORDS]) -> Vec<[u32; WORDS]> {
        let mut out = Vec::new();
        let mut keep = |x: V| {
            let mut words = [0; WORDS];
            x.store(words.as_mut_ptr().cast());
            out.push(words);
        };
        let mut rows = [V::splat(0); WORDS];
        for (row, noise) in rows.iter_mut().zip(noise) {
            *row = V::load(noise.as_ptr().cast());
        }
        let [a, b, c, d] = [rows[0], rows[1], rows[2], rows[3]];
        for x in [V::splat(7), a.and(b), a.or(b), a.without(b), a.add(b), a.min(b)] {
            keep(x);
        }
        for x in [a.shl::<1>(), a.shl::<24>(), a.shr::<2>(), a.shr::<8>(), a.spread_bit::<0>(), a.spread_bit::<11>()] {
            keep(x);
        }
        for x in [V::select(a, b, c), a.at_least(b, c), a.count_bytes(), a.narrow8(), a.transpose_bytes()] {
            keep(x);
        }
        // counts, and weights of at most 49: as they are used
        let weights = b.and(V::splat(0x1f1f_1f1f));
        keep(c.dot4(a.and(V::splat(0x7f7f_7f7f)), weights));
        keep(c.dot4(V::splat(128), weights));
        keep(a.and(V::splat(0x0f0f_0f0f)).narrow4());
        let mut table = [0; 64];
        table.iter_mut().zip(noise.as_flattened()).for_each(|(t, n)| *t = *n);
        keep(a.and(V::splat(63)).look_up(&table));
        keep(V::interleave4([0, 1, 2, 3].map(|i| noise[i].as_ptr().cast::<u8>().add(5))));
        V::transpose_parts([a, b, c, d]).into_iter().for_each(&mut keep);
        V::transpose(&mut rows);
        rows.into_iter().for_each(&mut keep);
        for join in [V::join8, V::join4] {
            let mut row = [0u32; 2 * WORDS];
            let [low, high] = [0, 2].map(|i| noise.as_flattened()[i * WORDS..].as_ptr().cast());
            join(low, high, row.as_mut_ptr().cast(), 8 * WORDS);
            keep(V::load(row.as_ptr().cast()));
            keep(V::load(row[WORDS..].as_ptr().cast()));
        }
        out
    }

    /// Each level does the same as plain code; AVX-512 with and without an instruction that counts bits.
    #[test]
    fn every_level_does_the_same() {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(noise: &[[u32; WORDS]; WORDS]) -> Vec<[u32; WORDS]> {
            all::<Words256>(noise)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        unsafe fn avx512(noise: &[[u32; WORDS]; WORDS]) -> Vec<[u32; WORDS]> {
            all::<Words512<false>>(noise)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bitalg")]
        unsafe fn bitalg(noise: &[[u32; WORDS]; WORDS]) -> Vec<[u32; WORDS]> {
            all::<Words512<true>>(noise)
        }
        let mut x = 1u32;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x
        };
        for _ in 0..200 {
            let noise: [[u32; WORDS]; WORDS] = std::array::from_fn(|_| std::array::from_fn(|_| next()));
            // SAFETY: plain code; below, what the CPU has
            let want = unsafe { all::<PlainWords>(&noise) };
            #[cfg(target_arch = "x86_64")]
            {
                use crate::kernels::Isa;
                if Isa::Avx2.available() {
                    assert_eq!(unsafe { avx2(&noise) }, want);
                }
                if Isa::Avx512.available() {
                    assert_eq!(unsafe { avx512(&noise) }, want);
                    if is_x86_feature_detected!("avx512bitalg") {
                        assert_eq!(unsafe { bitalg(&noise) }, want);
                    }
                }
            }
            assert!(!want.is_empty());
        }
    }
}
