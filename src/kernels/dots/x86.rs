//! AVX-512 VNNI, AVX-VNNI, AVX2.

use super::super::lanes::{Avx2, Avx512};
use super::{Dots, Tile};
use std::arch::x86_64::*;

/// `vpdpbusd` on 64 bytes. Wide values are high and low bytes, each with sums of its own.
pub(crate) struct Avx512Dots;

impl Dots for Avx512Dots {
    type L = Avx512;
    type Narrow = __m512i;
    type Wide = (__m512i, __m512i);
    const LARGE: bool = true;
    const WIDE_SUMS: usize = 8;
    const ONE_QUAD: bool = false;
    const WIDE_BIAS: f32 = 0.0;

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn apart<T: Tile>(tile: &T) {
        tile.run::<Self>()
    }
    #[inline(always)]
    unsafe fn part(bits: __m512i, shift: u32, mask: u8) -> __m512i {
        let mask = _mm512_set1_epi8(mask as i8);
        if shift == 0 {
            return _mm512_and_si512(bits, mask);
        }
        _mm512_and_si512(_mm512_srl_epi32(bits, _mm_cvtsi32_si128(shift as i32)), mask)
    }
    #[inline(always)]
    unsafe fn store_bits(bits: __m512i, p: *mut u8) {
        _mm512_storeu_si512(p.cast(), bits)
    }
    #[inline(always)]
    unsafe fn narrow_zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn narrow<const N: usize, const SIGNED: bool>(
        mut acc: __m512i,
        codes: &[__m512i; N],
        x: *const u32,
    ) -> __m512i {
        for n in 0..N {
            let word = _mm512_set1_epi32(x.add(n).read_unaligned() as i32);
            // the first factor is unsigned, the second signed; codes are both
            acc = if SIGNED {
                _mm512_dpbusd_epi32(acc, codes[n], word)
            } else {
                _mm512_dpbusd_epi32(acc, word, codes[n])
            };
        }
        acc
    }
    #[inline(always)]
    unsafe fn narrow_sum(acc: __m512i) -> Avx512 {
        Avx512(_mm512_cvtepi32_ps(acc))
    }
    #[inline(always)]
    unsafe fn wide_zero() -> Self::Wide {
        (_mm512_setzero_si512(), _mm512_setzero_si512())
    }
    #[inline(always)]
    unsafe fn wide(acc: Self::Wide, codes: __m512i, x: *const u32, plane: usize) -> Self::Wide {
        let high = _mm512_set1_epi32(x.read_unaligned() as i32);
        let low = _mm512_set1_epi32(x.add(plane).read_unaligned() as i32);
        (_mm512_dpbusd_epi32(acc.0, codes, high), _mm512_dpbusd_epi32(acc.1, codes, low))
    }
    #[inline(always)]
    unsafe fn wide_sum(acc: Self::Wide) -> Avx512 {
        let (high, low) = (_mm512_cvtepi32_ps(acc.0), _mm512_cvtepi32_ps(acc.1));
        Avx512(_mm512_fmadd_ps(high, _mm512_set1_ps(256.0), low))
    }
    #[inline(always)]
    unsafe fn store_wide(x: Avx512, p: *mut u32, plane: usize) {
        let v = _mm512_cvtps_epi32(x.0);
        let high = _mm512_srai_epi32::<8>(_mm512_add_epi32(v, _mm512_set1_epi32(128)));
        let low = _mm512_sub_epi32(v, _mm512_slli_epi32::<8>(high));
        _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(high));
        _mm_storeu_si128(p.add(plane).cast(), _mm512_cvtepi32_epi8(low));
    }
    #[inline(always)]
    unsafe fn store_wide_sum(x: [Avx512; 4], p: *mut u32, plane: usize) -> Avx512 {
        let a = _mm512_packs_epi32(_mm512_cvtps_epi32(x[0].0), _mm512_cvtps_epi32(x[1].0));
        let b = _mm512_packs_epi32(_mm512_cvtps_epi32(x[2].0), _mm512_cvtps_epi32(x[3].0));
        // WIDE_MAX leaves room for this 128
        let (bias, ones) = (_mm512_set1_epi16(128), _mm512_set1_epi16(1));
        let (high_a, high_b) =
            (_mm512_srai_epi16::<8>(_mm512_add_epi16(a, bias)), _mm512_srai_epi16::<8>(_mm512_add_epi16(b, bias)));
        let low_a = _mm512_sub_epi16(a, _mm512_slli_epi16::<8>(high_a));
        let low_b = _mm512_sub_epi16(b, _mm512_slli_epi16::<8>(high_b));
        // packing takes the 128-bit quarters one by one: four words of each vector in turn
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let high = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(high_a, high_b));
        let low = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low_a, low_b));
        _mm512_storeu_si512(p.cast(), high);
        _mm512_storeu_si512(p.add(plane).cast(), low);
        let sums = _mm512_add_epi32(_mm512_madd_epi16(a, ones), _mm512_madd_epi16(b, ones));
        Avx512(_mm512_cvtepi32_ps(sums))
    }
    #[inline(always)]
    unsafe fn store_i8(x: Avx512, p: *mut u8) {
        _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.0)))
    }
}

type Halves = (__m256i, __m256i);

/// Wide values on 256 bits: 16-bit factors, codes of even and odd places by themselves.
macro_rules! common256 {
    ($madd:path) => {
        type L = Avx2;
        type Narrow = Halves;
        type Wide = Halves;
        const LARGE: bool = false;
        const WIDE_SUMS: usize = 4;
        const ONE_QUAD: bool = false;
        const WIDE_BIAS: f32 = 0.0;

        #[inline(always)]
        unsafe fn part(bits: Halves, shift: u32, mask: u8) -> Halves {
            let (mask, shift) = (_mm256_set1_epi8(mask as i8), _mm_cvtsi32_si128(shift as i32));
            (
                _mm256_and_si256(_mm256_srl_epi32(bits.0, shift), mask),
                _mm256_and_si256(_mm256_srl_epi32(bits.1, shift), mask),
            )
        }
        #[inline(always)]
        unsafe fn store_bits(bits: Halves, p: *mut u8) {
            _mm256_storeu_si256(p.cast(), bits.0);
            _mm256_storeu_si256(p.add(32).cast(), bits.1);
        }
        #[inline(always)]
        unsafe fn narrow_zero() -> Halves {
            (_mm256_setzero_si256(), _mm256_setzero_si256())
        }
        #[inline(always)]
        unsafe fn narrow_sum(acc: Halves) -> Avx2 {
            Avx2(_mm256_cvtepi32_ps(acc.0), _mm256_cvtepi32_ps(acc.1))
        }
        #[inline(always)]
        unsafe fn wide_zero() -> Halves {
            Self::narrow_zero()
        }
        #[inline(always)]
        unsafe fn wide(acc: Halves, codes: Halves, x: *const u32, plane: usize) -> Halves {
            let even = _mm256_set1_epi32(x.read_unaligned() as i32);
            let odd = _mm256_set1_epi32(x.add(plane).read_unaligned() as i32);
            let low = _mm256_set1_epi16(0xff);
            let a = $madd(acc.0, _mm256_and_si256(codes.0, low), even);
            let b = $madd(acc.1, _mm256_and_si256(codes.1, low), even);
            ($madd(a, _mm256_srli_epi16::<8>(codes.0), odd), $madd(b, _mm256_srli_epi16::<8>(codes.1), odd))
        }
        #[inline(always)]
        unsafe fn wide_sum(acc: Halves) -> Avx2 {
            Self::narrow_sum(acc)
        }
        #[inline(always)]
        unsafe fn store_wide(x: Avx2, p: *mut u32, plane: usize) {
            let v = _mm256_packs_epi32(_mm256_cvtps_epi32(x.0), _mm256_cvtps_epi32(x.1));
            // quads are 0, 2 | 1, 3 after packing; in each, values 0 and 2 go to the first plane, 1 and 3 to the second
            let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(v);
            let order = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14,
                15,
            );
            let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(v, order));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(v));
            _mm_storeu_si128(p.add(plane).cast(), _mm256_extracti128_si256::<1>(v));
        }
        #[inline(always)]
        unsafe fn store_i8(x: Avx2, p: *mut u8) {
            let w = _mm256_packs_epi32(_mm256_cvtps_epi32(x.0), _mm256_cvtps_epi32(x.1));
            let w = _mm256_permute4x64_epi64::<0b11_01_10_00>(w);
            let b = _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256::<1>(w));
            _mm_storeu_si128(p.cast(), b)
        }
    };
}

#[inline(always)]
unsafe fn madd(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
}

/// `vpmaddubsw`, whose 16-bit sums hold two quads of codes up to 15 and bytes up to 255, or more of fewer bits; then
/// `vpmaddwd`.
pub(crate) struct Avx2Dots;

impl Dots for Avx2Dots {
    common256!(madd);

    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn apart<T: Tile>(tile: &T) {
        tile.run::<Self>()
    }

    #[inline(always)]
    unsafe fn narrow<const N: usize, const SIGNED: bool>(acc: Halves, codes: &[Halves; N], x: *const u32) -> Halves {
        let ones = _mm256_set1_epi16(1);
        let mut sum = Self::narrow_zero();
        for n in 0..N {
            let word = _mm256_set1_epi32(x.add(n).read_unaligned() as i32);
            let (a, b) = if SIGNED {
                (_mm256_maddubs_epi16(codes[n].0, word), _mm256_maddubs_epi16(codes[n].1, word))
            } else {
                (_mm256_maddubs_epi16(word, codes[n].0), _mm256_maddubs_epi16(word, codes[n].1))
            };
            sum = (_mm256_add_epi16(sum.0, a), _mm256_add_epi16(sum.1, b));
        }
        (
            _mm256_add_epi32(acc.0, _mm256_madd_epi16(sum.0, ones)),
            _mm256_add_epi32(acc.1, _mm256_madd_epi16(sum.1, ones)),
        )
    }
}

/// `vpdpbusd` and `vpdpwssd` on 256 bits.
macro_rules! vnni256 {
    ($name:ident, $bytes:path, $words:path) => {
        impl Dots for $name {
            common256!($words);

            #[inline(always)]
            unsafe fn narrow<const N: usize, const SIGNED: bool>(
                mut acc: Halves,
                codes: &[Halves; N],
                x: *const u32,
            ) -> Halves {
                for n in 0..N {
                    let word = _mm256_set1_epi32(x.add(n).read_unaligned() as i32);
                    if SIGNED {
                        acc = ($bytes(acc.0, codes[n].0, word), $bytes(acc.1, codes[n].1, word));
                    } else {
                        acc = ($bytes(acc.0, word, codes[n].0), $bytes(acc.1, word, codes[n].1));
                    }
                }
                acc
            }
        }
    };
}

/// The VEX encoding, of CPUs that have AVX-VNNI.
pub(crate) struct AvxVnniDots;
vnni256!(AvxVnniDots, _mm256_dpbusd_avx_epi32, _mm256_dpwssd_avx_epi32);

/// The same in the EVEX encoding, of CPUs that have AVX-512 VNNI: so that the level is tested there too.
pub(crate) struct EvexVnniDots;
vnni256!(EvexVnniDots, _mm256_dpbusd_epi32, _mm256_dpwssd_epi32);
