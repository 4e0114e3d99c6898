//! Sixteen f32 lanes at a time: the few operations that the kernels are written in, for each level of instructions.
//!
//! The methods are `inline(always)` and use intrinsics, so they must only be reached from functions that enable the level
//! (`#[target_feature]`); that is the safety contract of every one of them, beside the validity of its pointers. Loads and
//! stores may be unaligned.

/// Lanes in a vector.
pub const LANES: usize = 16;

pub(crate) trait Lanes: Copy {
    /// Rows of queries that a score kernel holds in registers beside two vectors of keys.
    const SCORE_ROWS: usize;
    /// Rows of queries beside four keys, where sums go across lanes.
    const DOT_ROWS: usize;
    /// Rows and vectors of columns that a value kernel holds in registers.
    const VALUE_ROWS: usize;
    const VALUE_COLS: usize;
    /// Loading f16 is about as good as loading f32.
    const LOADS_F16: bool;
    /// Sixteen u32.
    type Bits: Copy;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Rounds half to even; NaN becomes some NaN.
    unsafe fn store_f16(self, p: *mut u16);
    unsafe fn load_bits(p: *const u8) -> Self::Bits;
    /// `(bits >> shift) & mask`, as numbers.
    unsafe fn field(bits: Self::Bits, shift: u32, mask: u32) -> Self;
    /// The integer values (0 to 255) of the lanes as bytes.
    unsafe fn store_u8(self, p: *mut u8);
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn sub(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    unsafe fn div(self, o: Self) -> Self;
    /// `self * a + b`, fused where the level can.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self * a - b`, fused where the level can.
    unsafe fn mul_sub(self, a: Self, b: Self) -> Self;
    /// The lesser of both, `o` where either is NaN.
    unsafe fn min(self, o: Self) -> Self;
    /// The greater of both, `o` where either is NaN.
    unsafe fn max(self, o: Self) -> Self;
    /// Half to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integer `n` from -150 to 127; 0 where that is below -126.
    unsafe fn scale2(self, n: Self) -> Self;
    /// `self < o ? a : b` by lane.
    unsafe fn select_lt(self, o: Self, a: Self, b: Self) -> Self;
    /// Bit i is set where lane i of `self` is less than that of `o`.
    unsafe fn lt_bits(self, o: Self) -> u16;
    unsafe fn sum(self) -> f32;
    unsafe fn largest(self) -> f32;
    /// The sums of four vectors, each over its lanes.
    unsafe fn sum4(x: &[Self; 4], out: *mut f32);
    /// The largest values of four vectors, each over its lanes.
    unsafe fn max4(x: &[Self; 4], out: *mut f32);
    /// 16 rows of 16 f32, transposed.
    unsafe fn transpose(rows: &mut [Self; LANES]);
    /// Rounds (half to even) values from 0 to 255 and stores them as bytes.
    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut u8) {
        self.round().store_u8(p)
    }
    /// [`Lanes::store_rounded`] of four vectors, one behind the other.
    #[inline(always)]
    unsafe fn store_rounded4(v: [Self; 4], p: *mut u8) {
        v[0].store_rounded(p);
        v[1].store_rounded(p.add(LANES));
        v[2].store_rounded(p.add(2 * LANES));
        v[3].store_rounded(p.add(3 * LANES));
    }
    /// [`Lanes::store_rounded4`], and what the bytes add up to, over the lanes in any way.
    #[inline(always)]
    unsafe fn store_rounded_sum(v: [Self; 4], p: *mut u8) -> Self {
        let v = [v[0].round(), v[1].round(), v[2].round(), v[3].round()];
        Self::store_rounded4(v, p);
        v[0].add(v[1]).add(v[2].add(v[3]))
    }
    /// [`Lanes::store_rounded`] of four vectors in turn: four lanes of each, then the next four.
    unsafe fn store_turns4(v: [Self; 4], p: *mut u8);
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Plain(pub [f32; LANES]);

macro_rules! each {
    (|$i:ident| $e:expr) => {{
        let mut out = [0.0f32; LANES];
        for $i in 0..LANES {
            out[$i] = $e;
        }
        Plain(out)
    }};
}

impl Lanes for Plain {
    const SCORE_ROWS: usize = 1;
    const DOT_ROWS: usize = 1;
    const VALUE_ROWS: usize = 1;
    const VALUE_COLS: usize = 2;
    const LOADS_F16: bool = false;
    type Bits = [u32; LANES];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Plain(p.cast::<[f32; LANES]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        p.cast::<[f32; LANES]>().write_unaligned(self.0)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        let h = p.cast::<[u16; LANES]>().read_unaligned();
        each!(|i| f16_bits_to_f32(h[i]))
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        for i in 0..LANES {
            p.add(i).write_unaligned(half::f16::from_f32(self.0[i]).to_bits());
        }
    }
    #[inline(always)]
    unsafe fn load_bits(p: *const u8) -> [u32; LANES] {
        p.cast::<[u32; LANES]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn field(bits: [u32; LANES], shift: u32, mask: u32) -> Self {
        each!(|i| ((bits[i] >> shift) & mask) as i32 as f32)
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8) {
        for i in 0..LANES {
            p.add(i).write(self.0[i] as i32 as u8);
        }
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        each!(|i| self.0[i] + o.0[i])
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        each!(|i| self.0[i] - o.0[i])
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        each!(|i| self.0[i] * o.0[i])
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        each!(|i| self.0[i] / o.0[i])
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        each!(|i| self.0[i] * a.0[i] + b.0[i])
    }
    #[inline(always)]
    unsafe fn mul_sub(self, a: Self, b: Self) -> Self {
        each!(|i| self.0[i] * a.0[i] - b.0[i])
    }
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        each!(|i| if self.0[i] < o.0[i] { self.0[i] } else { o.0[i] })
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        each!(|i| if self.0[i] > o.0[i] { self.0[i] } else { o.0[i] })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // adding and taking away 1.5 * 2^23 rounds |x| < 2^22 half to even; the kernels round nothing larger
        const MAGIC: f32 = 12582912.0;
        each!(|i| (self.0[i] + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn scale2(self, n: Self) -> Self {
        each!(|i| self.0[i] * f32::from_bits((((n.0[i] as i32).max(-127) + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn select_lt(self, o: Self, a: Self, b: Self) -> Self {
        each!(|i| if self.0[i] < o.0[i] { a.0[i] } else { b.0[i] })
    }
    #[inline(always)]
    unsafe fn lt_bits(self, o: Self) -> u16 {
        let mut bits = 0;
        for i in 0..LANES {
            bits |= ((self.0[i] < o.0[i]) as u16) << i;
        }
        bits
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut s = self.0;
        for n in [8, 4, 2, 1] {
            for i in 0..n {
                s[i] += s[i + n];
            }
        }
        s[0]
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut m = self.0[0];
        for &x in &self.0 {
            m = if x > m { x } else { m };
        }
        m
    }
    #[inline(always)]
    unsafe fn sum4(x: &[Self; 4], out: *mut f32) {
        for i in 0..4 {
            out.add(i).write_unaligned(x[i].sum());
        }
    }
    #[inline(always)]
    unsafe fn max4(x: &[Self; 4], out: *mut f32) {
        for i in 0..4 {
            out.add(i).write_unaligned(x[i].largest());
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; LANES]) {
        for i in 0..LANES {
            for j in 0..i {
                let t = rows[i].0[j];
                rows[i].0[j] = rows[j].0[i];
                rows[j].0[i] = t;
            }
        }
    }
    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut u8) {
        // the sum's lowest bits are the integer
        let x = each!(|i| self.0[i] + 12582912.0);
        p.cast::<[u8; LANES]>().write_unaligned(x.0.map(|x| x.to_bits() as u8))
    }
    #[inline(always)]
    unsafe fn store_turns4(v: [Self; 4], p: *mut u8) {
        for i in 0..LANES {
            for (j, v) in v.iter().enumerate() {
                p.add(i / 4 * 16 + j * 4 + i % 4).write((v.0[i] + 12582912.0).to_bits() as u8);
            }
        }
    }
}

/// Branch-free, so that it vectorises: the exponent is moved up by multiplying, which makes denormals right too.
#[inline(always)]
fn f16_bits_to_f32(h: u16) -> f32 {
    let h = h as u32;
    let magnitude = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits((254 - 15) << 23);
    let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (h & 0x8000) << 16)
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lanes, LANES};
    use std::arch::x86_64::*;

    /// AVX-512 F, BW, DQ, VL.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(pub __m512);

    const EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

    impl Lanes for Avx512 {
        const SCORE_ROWS: usize = 8;
        const DOT_ROWS: usize = 4;
        const VALUE_ROWS: usize = 4;
        const VALUE_COLS: usize = 4;
        const LOADS_F16: bool = true;
        type Bits = __m512i;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Avx512(_mm512_set1_ps(x))
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Avx512(_mm512_loadu_ps(p))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            _mm512_storeu_ps(p, self.0)
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> Self {
            Avx512(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())))
        }
        #[inline(always)]
        unsafe fn store_f16(self, p: *mut u16) {
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<EVEN>(self.0))
        }
        #[inline(always)]
        unsafe fn load_bits(p: *const u8) -> __m512i {
            _mm512_loadu_si512(p.cast())
        }
        #[inline(always)]
        unsafe fn field(bits: __m512i, shift: u32, mask: u32) -> Self {
            let x = _mm512_srlv_epi32(bits, _mm512_set1_epi32(shift as i32));
            Avx512(_mm512_cvtepi32_ps(_mm512_and_si512(x, _mm512_set1_epi32(mask as i32))))
        }
        #[inline(always)]
        unsafe fn store_u8(self, p: *mut u8) {
            _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0)))
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            Avx512(_mm512_add_ps(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn sub(self, o: Self) -> Self {
            Avx512(_mm512_sub_ps(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn mul(self, o: Self) -> Self {
            Avx512(_mm512_mul_ps(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn div(self, o: Self) -> Self {
            Avx512(_mm512_div_ps(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            Avx512(_mm512_fmadd_ps(self.0, a.0, b.0))
        }
        #[inline(always)]
        unsafe fn mul_sub(self, a: Self, b: Self) -> Self {
            Avx512(_mm512_fmsub_ps(self.0, a.0, b.0))
        }
        #[inline(always)]
        unsafe fn min(self, o: Self) -> Self {
            Avx512(_mm512_min_ps(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn max(self, o: Self) -> Self {
            Avx512(_mm512_max_ps(self.0, o.0))
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Avx512(_mm512_roundscale_ps::<EVEN>(self.0))
        }
        #[inline(always)]
        unsafe fn scale2(self, n: Self) -> Self {
            Avx512(_mm512_scalef_ps(self.0, n.0))
        }
        #[inline(always)]
        unsafe fn select_lt(self, o: Self, a: Self, b: Self) -> Self {
            Avx512(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0), b.0, a.0))
        }
        #[inline(always)]
        unsafe fn lt_bits(self, o: Self) -> u16 {
            _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, o.0)
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            _mm512_reduce_add_ps(self.0)
        }
        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            _mm512_reduce_max_ps(self.0)
        }
        #[inline(always)]
        unsafe fn sum4(x: &[Self; 4], out: *mut f32) {
            sum4([half_sum(x[0].0), half_sum(x[1].0), half_sum(x[2].0), half_sum(x[3].0)], out);
        }
        #[inline(always)]
        unsafe fn max4(x: &[Self; 4], out: *mut f32) {
            max4([half_max(x[0].0), half_max(x[1].0), half_max(x[2].0), half_max(x[3].0)], out);
        }
        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; LANES]) {
            // pairs, quads of lanes, then the 128-bit quarters
            let mut t = *rows;
            for i in 0..8 {
                let (a, b) = (rows[2 * i].0, rows[2 * i + 1].0);
                t[2 * i] = Avx512(_mm512_unpacklo_ps(a, b));
                t[2 * i + 1] = Avx512(_mm512_unpackhi_ps(a, b));
            }
            for i in 0..4 {
                for j in 0..2 {
                    let a = _mm512_castps_pd(t[4 * i + j].0);
                    let b = _mm512_castps_pd(t[4 * i + j + 2].0);
                    rows[4 * i + 2 * j] = Avx512(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)));
                    rows[4 * i + 2 * j + 1] = Avx512(_mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
                }
            }
            for j in 0..4 {
                let (a, b, c, d) = (rows[j].0, rows[4 + j].0, rows[8 + j].0, rows[12 + j].0);
                let ab0 = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                let ab1 = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
                let cd0 = _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d);
                let cd1 = _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d);
                t[j] = Avx512(_mm512_shuffle_f32x4::<0b10_00_10_00>(ab0, cd0));
                t[8 + j] = Avx512(_mm512_shuffle_f32x4::<0b11_01_11_01>(ab0, cd0));
                t[4 + j] = Avx512(_mm512_shuffle_f32x4::<0b10_00_10_00>(ab1, cd1));
                t[12 + j] = Avx512(_mm512_shuffle_f32x4::<0b11_01_11_01>(ab1, cd1));
            }
            *rows = t;
        }
        #[inline(always)]
        unsafe fn store_rounded(self, p: *mut u8) {
            // the conversion rounds; narrowing straight to memory is many times as slow as this on Zen 4
            let x = _mm512_cvtps_epi32(self.0);
            let w = _mm256_packus_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x));
            let w = _mm256_permute4x64_epi64::<0b11_01_10_00>(w);
            let b = _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256::<1>(w));
            _mm_storeu_si128(p.cast(), b)
        }
        #[inline(always)]
        unsafe fn store_rounded4(v: [Self; 4], p: *mut u8) {
            _mm512_storeu_si512(p.cast(), rounded4(v))
        }
        #[inline(always)]
        unsafe fn store_rounded_sum(v: [Self; 4], p: *mut u8) -> Self {
            let bytes = rounded4(v);
            _mm512_storeu_si512(p.cast(), bytes);
            // sums of eight bytes
            Avx512(_mm512_cvtepi32_ps(_mm512_sad_epu8(bytes, _mm512_setzero_si512())))
        }
        #[inline(always)]
        unsafe fn store_turns4(v: [Self; 4], p: *mut u8) {
            _mm512_storeu_si512(p.cast(), turns4(v))
        }
    }

    /// Packing takes the 128-bit quarters one by one: four words of each vector in turn.
    #[inline(always)]
    unsafe fn turns4(v: [Avx512; 4]) -> __m512i {
        let a = _mm512_packus_epi32(_mm512_cvtps_epi32(v[0].0), _mm512_cvtps_epi32(v[1].0));
        let b = _mm512_packus_epi32(_mm512_cvtps_epi32(v[2].0), _mm512_cvtps_epi32(v[3].0));
        _mm512_packus_epi16(a, b)
    }

    #[inline(always)]
    unsafe fn rounded4(v: [Avx512; 4]) -> __m512i {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, turns4(v))
    }

    /// AVX2, FMA, F16C: two halves of eight.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(pub __m256, pub __m256);

    macro_rules! both {
        ($f:ident, $a:expr, $b:expr) => {
            Avx2($f($a.0, $b.0), $f($a.1, $b.1))
        };
    }

    impl Lanes for Avx2 {
        const SCORE_ROWS: usize = 2;
        const DOT_ROWS: usize = 1;
        const VALUE_ROWS: usize = 2;
        const VALUE_COLS: usize = 2;
        const LOADS_F16: bool = false;
        type Bits = (__m256i, __m256i);

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x))
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Avx2(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8)))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1)
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> Self {
            Avx2(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())))
        }
        #[inline(always)]
        unsafe fn store_f16(self, p: *mut u16) {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            _mm_storeu_si128(p.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1))
        }
        #[inline(always)]
        unsafe fn load_bits(p: *const u8) -> Self::Bits {
            (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast()))
        }
        #[inline(always)]
        unsafe fn field(bits: Self::Bits, shift: u32, mask: u32) -> Self {
            let (s, m) = (_mm256_set1_epi32(shift as i32), _mm256_set1_epi32(mask as i32));
            let a = _mm256_and_si256(_mm256_srlv_epi32(bits.0, s), m);
            let b = _mm256_and_si256(_mm256_srlv_epi32(bits.1, s), m);
            Avx2(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
        }
        #[inline(always)]
        unsafe fn store_u8(self, p: *mut u8) {
            let w = _mm256_packus_epi32(_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1));
            let w = _mm256_permute4x64_epi64::<0b11_01_10_00>(w);
            let b = _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256::<1>(w));
            _mm_storeu_si128(p.cast(), b)
        }
        #[inline(always)]
        unsafe fn add(self, o: Self) -> Self {
            both!(_mm256_add_ps, self, o)
        }
        #[inline(always)]
        unsafe fn sub(self, o: Self) -> Self {
            both!(_mm256_sub_ps, self, o)
        }
        #[inline(always)]
        unsafe fn mul(self, o: Self) -> Self {
            both!(_mm256_mul_ps, self, o)
        }
        #[inline(always)]
        unsafe fn div(self, o: Self) -> Self {
            both!(_mm256_div_ps, self, o)
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            Avx2(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1))
        }
        #[inline(always)]
        unsafe fn mul_sub(self, a: Self, b: Self) -> Self {
            Avx2(_mm256_fmsub_ps(self.0, a.0, b.0), _mm256_fmsub_ps(self.1, a.1, b.1))
        }
        #[inline(always)]
        unsafe fn min(self, o: Self) -> Self {
            both!(_mm256_min_ps, self, o)
        }
        #[inline(always)]
        unsafe fn max(self, o: Self) -> Self {
            both!(_mm256_max_ps, self, o)
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Avx2(_mm256_round_ps::<EVEN>(self.0), _mm256_round_ps::<EVEN>(self.1))
        }
        #[inline(always)]
        unsafe fn scale2(self, n: Self) -> Self {
            Avx2(_mm256_mul_ps(self.0, power(n.0)), _mm256_mul_ps(self.1, power(n.1)))
        }
        #[inline(always)]
        unsafe fn select_lt(self, o: Self, a: Self, b: Self) -> Self {
            let m = both!(lt, self, o);
            Avx2(_mm256_blendv_ps(b.0, a.0, m.0), _mm256_blendv_ps(b.1, a.1, m.1))
        }
        #[inline(always)]
        unsafe fn lt_bits(self, o: Self) -> u16 {
            let m = both!(lt, self, o);
            (_mm256_movemask_ps(m.0) | _mm256_movemask_ps(m.1) << 8) as u16
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            let s = _mm256_add_ps(self.0, self.1);
            let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
        }
        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            let s = _mm256_max_ps(self.0, self.1);
            let s = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)))
        }
        #[inline(always)]
        unsafe fn sum4(x: &[Self; 4], out: *mut f32) {
            sum4(both_halves(x), out);
        }
        #[inline(always)]
        unsafe fn max4(x: &[Self; 4], out: *mut f32) {
            let x = [
                _mm256_max_ps(x[0].0, x[0].1),
                _mm256_max_ps(x[1].0, x[1].1),
                _mm256_max_ps(x[2].0, x[2].1),
                _mm256_max_ps(x[3].0, x[3].1),
            ];
            max4(x, out);
        }
        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; LANES]) {
            // four 8x8 transposes; the off-diagonal ones change places
            let mut m = [[_mm256_setzero_ps(); 8]; 4];
            for i in 0..8 {
                m[0][i] = rows[i].0;
                m[1][i] = rows[i].1;
                m[2][i] = rows[i + 8].0;
                m[3][i] = rows[i + 8].1;
            }
            for part in &mut m {
                transpose8(part);
            }
            for i in 0..8 {
                rows[i] = Avx2(m[0][i], m[2][i]);
                rows[i + 8] = Avx2(m[1][i], m[3][i]);
            }
        }
        #[inline(always)]
        unsafe fn store_rounded(self, p: *mut u8) {
            // the conversion rounds
            self.store_u8(p)
        }
        #[inline(always)]
        unsafe fn store_rounded4(v: [Self; 4], p: *mut u8) {
            // packing takes the 128-bit halves one by one: four words of each vector in turn
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            for i in 0..2 {
                let (x, y) = (v[2 * i], v[2 * i + 1]);
                let x = _mm256_packus_epi32(_mm256_cvtps_epi32(x.0), _mm256_cvtps_epi32(x.1));
                let y = _mm256_packus_epi32(_mm256_cvtps_epi32(y.0), _mm256_cvtps_epi32(y.1));
                let b = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(x, y), order);
                _mm256_storeu_si256(p.add(32 * i).cast(), b)
            }
        }
        #[inline(always)]
        unsafe fn store_turns4(v: [Self; 4], p: *mut u8) {
            let a = _mm256_packus_epi32(_mm256_cvtps_epi32(v[0].0), _mm256_cvtps_epi32(v[1].0));
            let b = _mm256_packus_epi32(_mm256_cvtps_epi32(v[2].0), _mm256_cvtps_epi32(v[3].0));
            _mm256_storeu_si256(p.cast(), _mm256_packus_epi16(a, b));
            let a = _mm256_packus_epi32(_mm256_cvtps_epi32(v[0].1), _mm256_cvtps_epi32(v[1].1));
            let b = _mm256_packus_epi32(_mm256_cvtps_epi32(v[2].1), _mm256_cvtps_epi32(v[3].1));
            _mm256_storeu_si256(p.add(32).cast(), _mm256_packus_epi16(a, b))
        }
    }

    // no closures on vectors: they would be functions of their own, without the caller's instructions

    #[inline(always)]
    unsafe fn half_sum(x: __m512) -> __m256 {
        let high = _mm512_extractf32x8_ps::<1>(x);
        _mm256_add_ps(_mm512_castps512_ps256(x), high)
    }

    #[inline(always)]
    unsafe fn half_max(x: __m512) -> __m256 {
        let high = _mm512_extractf32x8_ps::<1>(x);
        _mm256_max_ps(_mm512_castps512_ps256(x), high)
    }

    #[inline(always)]
    unsafe fn both_halves(x: &[Avx2; 4]) -> [__m256; 4] {
        [
            _mm256_add_ps(x[0].0, x[0].1),
            _mm256_add_ps(x[1].0, x[1].1),
            _mm256_add_ps(x[2].0, x[2].1),
            _mm256_add_ps(x[3].0, x[3].1),
        ]
    }

    /// 2^n; 0 below -126.
    #[inline(always)]
    unsafe fn power(n: __m256) -> __m256 {
        let n = _mm256_max_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(-127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
    }

    /// Sums of four vectors of eight.
    #[inline(always)]
    unsafe fn sum4(x: [__m256; 4], out: *mut f32) {
        let pairs = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs)));
    }

    /// Largest of four vectors of eight.
    #[inline(always)]
    unsafe fn max4(x: [__m256; 4], out: *mut f32) {
        let a = _mm256_max_ps(_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
        let b = _mm256_max_ps(_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
        // a: x0 x1 x0 x1, b: x2 x3 x2 x3, in each half
        let c = _mm256_max_ps(_mm256_shuffle_ps::<0b01_00_01_00>(a, b), _mm256_shuffle_ps::<0b11_10_11_10>(a, b));
        _mm_storeu_ps(out, _mm_max_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps::<1>(c)));
    }

    #[inline(always)]
    unsafe fn lt(a: __m256, b: __m256) -> __m256 {
        _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)
    }

    #[inline(always)]
    unsafe fn transpose8(r: &mut [__m256; 8]) {
        let mut t = *r;
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..2 {
            for j in 0..2 {
                let (a, b) = (t[4 * i + j], t[4 * i + j + 2]);
                u[4 * i + 2 * j] = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                u[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, b);
            }
        }
        for j in 0..4 {
            r[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[j + 4]);
            r[j + 4] = _mm256_permute2f128_ps::<0x31>(u[j], u[j + 4]);
        }
    }
}
