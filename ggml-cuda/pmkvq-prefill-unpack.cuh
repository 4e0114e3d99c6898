// pmkvq-prefill-unpack.cuh - from the cache into a tile, by all threads of a CTA
//
// A task makes four pieces of a tile, at every width; there are 128 for each 64 dimensions. It runs twice: to ask for its bytes (PUT
// false), and an item later to unpack them.

#pragma once

#include "pmkvq-prefill-tile.cuh"

// -(1024 + mid), mid is the middle of the codes
template <int W>
static __device__ __forceinline__ constexpr uint32_t pmkvq_offset_1() { return W == 8 ? 0xe480e480u : W == 4 ? 0xe408e408u : 0xe402e402u; }

// times s, rounded
template <int W>
static __device__ __forceinline__ uint32_t pmkvq_offset(uint32_t s) { return pmkvq_mul_h2(s, pmkvq_offset_1<W>()); }

// four codes, one in each byte from bit W*quad, times their scales: those of bytes 0 and 2, and of 1 and 3. 1024 + code is the half of
// the bits 0x6400 | code, and b is about -(1024 + mid) s
template <int W>
static __device__ __forceinline__ uint2 pmkvq_codes(uint32_t w, int quad, uint32_t s0, uint32_t b0, uint32_t s1, uint32_t b1) {
    uint32_t even, odd;
    if (W == 8) {
        even = pmkvq_perm(w, 0x64646464u, 0x4240);
        odd  = pmkvq_perm(w, 0x64646464u, 0x4341);
    } else {
        const uint32_t mask = W == 4 ? 0x000f000fu : 0x00030003u;
        even = (w >> (W*quad)     & mask) | 0x64006400u;
        odd  = (w >> (W*quad + 8) & mask) | 0x64006400u;
    }
    return make_uint2(pmkvq_fma_h2(even, s0, b0), pmkvq_fma_h2(odd, s1, b1));
}

template <int W>
static __device__ __forceinline__ uint4 pmkvq_codes2(uint32_t w0, int quad0, uint32_t w1, int quad1, uint32_t s, uint32_t b) {
    const uint2 x = pmkvq_codes<W>(w0, quad0, s, b, s, b);
    const uint2 y = pmkvq_codes<W>(w1, quad1, s, b, s, b);
    return make_uint4(x.x, x.y, y.x, y.y);
}

// two quads of cells of one dimension
template <int W>
static __device__ __forceinline__ uint4 pmkvq_codes2(
        uint32_t w0, int quad0, uint32_t w1, int quad1, const uint32_t (&s)[4], const uint32_t (&b)[4]) {
    const uint2 x = pmkvq_codes<W>(w0, quad0, s[0], b[0], s[1], b[1]);
    const uint2 y = pmkvq_codes<W>(w1, quad1, s[2], b[2], s[3], b[3]);
    return make_uint4(x.x, x.y, y.x, y.y);
}

template <int W>
static __device__ __forceinline__ void pmkvq_scales_of(const uint4 & x, uint32_t (&s)[4], uint32_t (&b)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        s[i] = pmkvq_word(x, i);
        b[i] = pmkvq_offset<W>(s[i]);
    }
}

// MULTI: scales are [group][64 cells], group the dimensions of one, 0 if there is one only. Else codes have no scale
template <int W, bool PUT, bool MULTI, int NS, int NV, int THREADS, int STAGED>
static __device__ __forceinline__ void pmkvq_task_k(
        const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_raw<STAGED, THREADS> & raw, const uint8_t * const * base, int D,
        const uint16_t * scales, int group, uint32_t thread) {
    constexpr int STRIDE = pmkvq_tile<NS, NV, THREADS>::K_STRIDE;
#pragma unroll
    for (int k = 0; k < (128*NS + THREADS - 1)/THREADS; ++k) {
        const uint32_t n = k*THREADS + thread;
        if ((128*NS)%THREADS != 0 && n >= 128*NS) {
            continue;
        }
        if constexpr (W == 16) {
            // the same cell of all subtiles, 8 dimensions
            const uint32_t cell  = n/(8*NS);
            const uint32_t piece = n%(8*NS);
            if (8*piece >= (uint32_t) D) {
                continue;
            }
#pragma unroll
            for (int s = 0; s < 4; ++s) {
                const uint8_t * p = base[s] + (cell*D + 8*piece)*2;
                if constexpr (!PUT) {
                    raw.template ask<W>(k, s, p);
                } else {
                    const uint4 x = raw.template get<W>(k, s, p);
                    tile.k_row(cell)[16*s*STRIDE + piece] = make_uint4(pmkvq_perm(x.x, x.y, 0x5410), pmkvq_perm(x.x, x.y, 0x7632),
                        pmkvq_perm(x.z, x.w, 0x5410), pmkvq_perm(x.z, x.w, 0x7632));
                }
            }
        } else if constexpr (W == 2) {
            // two cells, 16 dimensions
            const uint32_t pair = n%8;
            const uint32_t r    = n/8%(4*NS);
            const uint32_t sub  = n/(32*NS);
            if (16*r >= (uint32_t) D) {
                continue;
            }
            const uint8_t * p = base[sub] + r*64 + pair*8;
            if constexpr (!PUT) {
                raw.template ask_half<W>(k, 0, 0, p);
            } else {
                uint4 * const to = tile.k + (16*sub + pair)*STRIDE + 2*r; // k_row(16*sub + 2*pair)
                const uint2    x  = raw.template get_half<W>(k, p);
                const uint32_t sc = MULTI ? *(const uint32_t *) (scales + (group ? 16*r/group*PMKVQ_ITEM : 0) + 16*sub + 2*pair) : 0x3c003c00u;
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const uint32_t w = e ? x.y : x.x;
                    const uint32_t s = MULTI ? pmkvq_perm(sc, sc, e ? 0x3232 : 0x1010) : sc;
                    const uint32_t b = MULTI ? pmkvq_offset<W>(s) : pmkvq_offset_1<W>();
                    to[8*e*STRIDE]     = pmkvq_codes2<W>(w, 0, w, 1, s, b);
                    to[8*e*STRIDE + 1] = pmkvq_codes2<W>(w, 2, w, 3, s, b);
                }
            }
        } else {
            // four cells, 8 dimensions: two rows at 8 bits, one at 4
            const uint32_t four  = n%4;
            const uint32_t piece = n/4%(8*NS);
            const uint32_t sub   = n/(32*NS);
            if (8*piece >= (uint32_t) D) {
                continue;
            }
            const uint8_t * p = base[sub] + (W == 8 ? 2*piece : piece)*64 + four*16;
            if constexpr (!PUT) {
                raw.template ask<W>(k, 0, p);
                if (W == 8) {
                    raw.template ask<W>(k, 1, p + 64);
                }
            } else {
                uint4 * const to = tile.k + (16*sub + 2*four)*STRIDE + piece; // k_row(16*sub + 4*four)
                const uint4 x0 = raw.template get<W>(k, 0, p);
                const uint4 x1 = W == 8 ? raw.template get<W>(k, 1, p + 64) : x0;
                const uint2 one = make_uint2(0x3c003c00u, 0x3c003c00u);
                const uint2 sc  = MULTI ? *(const uint2 *) (scales + (group ? 8*piece/group*PMKVQ_ITEM : 0) + 16*sub + 4*four) : one;
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const uint32_t two = j/2 ? sc.y : sc.x;
                    const uint32_t s   = MULTI ? pmkvq_perm(two, two, j%2 ? 0x3232 : 0x1010) : two;
                    const uint32_t b   = MULTI ? pmkvq_offset<W>(s) : pmkvq_offset_1<W>();
                    to[(j%2*8 + j/2)*STRIDE] = pmkvq_codes2<W>(pmkvq_word(x0, j), 0, pmkvq_word(x1, j), W == 8 ? 0 : 1, s, b);
                }
            }
        }
    }
}

// of 8 cells and 4 dimensions: NaN and infinities, bytes of cells that nobody wrote, would spoil sums that leave them out by a weight of 0
static __device__ __forceinline__ void pmkvq_make_finite(uint4 (&y)[4]) {
    uint32_t nan = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        nan = pmkvq_fma_h2(pmkvq_word(y[i/4], i%4), 0, nan);
    }
    if (nan != 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            uint32_t w[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const uint32_t x = pmkvq_word(y[i], j);
                w[j] = x & (((x & 0x00007c00u) == 0x00007c00u ? 0 : 0x0000ffffu) | ((x & 0x7c000000u) == 0x7c000000u ? 0 : 0xffff0000u));
            }
            y[i] = make_uint4(w[0], w[1], w[2], w[3]);
        }
    }
}

// 8 cells of 4 dimensions, two cells in each of y, become pieces
template <int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_put_v16(const pmkvq_tile<NS, NV, THREADS> & tile, uint32_t d, uint32_t piece, const uint4 (&y)[4]) {
    uint4 * const to = tile.v_row(d) + piece;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const int sel = j%2 ? 0x7632 : 0x5410;
        const int a = j/2;
        const int b = j/2 + 2;
        to[8*j*pmkvq_tile<NS, NV, THREADS>::V_STRIDE] = make_uint4(
            pmkvq_perm(pmkvq_word(y[0], a), pmkvq_word(y[1], a), sel), pmkvq_perm(pmkvq_word(y[0], b), pmkvq_word(y[1], b), sel),
            pmkvq_perm(pmkvq_word(y[2], a), pmkvq_word(y[3], a), sel), pmkvq_perm(pmkvq_word(y[2], b), pmkvq_word(y[3], b), sel));
    }
}

// dimensions v0 .. v0 + 64 NV; scales: [group of the slice][64 cells in the tile's order]
template <int W, bool PUT, int NS, int NV, int THREADS, int STAGED>
static __device__ __forceinline__ void pmkvq_task_v(
        const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_raw<STAGED, THREADS> & raw, const uint8_t * const * base, int D, int v0,
        const uint16_t * scales, int group, uint32_t thread) {
    constexpr int STRIDE = pmkvq_tile<NS, NV, THREADS>::V_STRIDE;
    // scales of dimension d
    auto of = [&](uint32_t d) { return scales + (group ? ((v0 + d)/group - v0/group)*PMKVQ_ITEM : 0); };
#pragma unroll
    for (int k = 0; k < (128*NV + THREADS - 1)/THREADS; ++k) {
        const uint32_t n = k*THREADS + thread;
        if ((128*NV)%THREADS != 0 && n >= 128*NV) {
            continue;
        }
        if constexpr (W == 2) {
            // all cells of a subtile, two dimensions: of eight lanes beside one another, multiples of 4
            const uint32_t l   = n%32;
            const uint32_t d   = n%(32*NV)/32*64 + l%16*4 + l/16*2;
            const uint32_t sub = n/(32*NV);
            if (v0 + d >= (uint32_t) D) {
                continue;
            }
            const uint8_t * p = base[sub] + (v0 + d)*4;
            if constexpr (!PUT) {
                raw.template ask_half<W>(k, 0, 0, p);
            } else {
                uint4 * const to = tile.v_row(d) + 2*sub;
                const uint2   x = raw.template get_half<W>(k, p);
                const uint4 * z = (const uint4 *) of(d) + 2*sub;
#pragma unroll
                for (int y = 0; y < 2; ++y) {
                    uint32_t s[4], b[4];
                    pmkvq_scales_of<W>(z[y], s, b);
                    to[y]            = pmkvq_codes2<W>(x.x, 2*y, x.x, 2*y + 1, s, b);
                    to[8*STRIDE + y] = pmkvq_codes2<W>(x.y, 2*y, x.y, 2*y + 1, s, b);
                }
            }
        } else {
            // 8 cells, four dimensions
            const uint32_t d     = n%(16*NV)*4;
            const uint32_t piece = n/(16*NV);
            if (v0 + d >= (uint32_t) D) {
                continue;
            }
            if constexpr (W == 16) {
                const uint8_t * p = base[piece/2] + (piece%2*8*D + v0 + d)*2;
                if constexpr (!PUT) {
#pragma unroll
                    for (int c = 0; c < 8; ++c) {
                        raw.template ask_half<W>(k, c/2, c%2, p + c*2*D);
                    }
                } else {
                    uint4 y[4];
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        y[c] = raw.template get_halves<W>(k, c, p + 2*c*2*D, p + (2*c + 1)*2*D);
                    }
                    pmkvq_make_finite(y);
                    pmkvq_put_v16(tile, d, piece, y);
                }
            } else {
                // two rows at 8 bits, one at 4
                const uint8_t * p = base[piece/2] + ((W == 8 ? 2 : 1)*(piece%2)*D + v0 + d)*4;
                if constexpr (!PUT) {
                    raw.template ask<W>(k, 0, p);
                    if (W == 8) {
                        raw.template ask<W>(k, 1, p + 4*D);
                    }
                } else {
                    uint4 * const to = tile.v_row(d) + piece;
                    const uint4 x0 = raw.template get<W>(k, 0, p);
                    const uint4 x1 = W == 8 ? raw.template get<W>(k, 1, p + 4*D) : x0;
                    uint32_t s[4], b[4];
                    pmkvq_scales_of<W>(((const uint4 *) of(d))[piece], s, b);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        to[8*j*STRIDE] = pmkvq_codes2<W>(pmkvq_word(x0, j), 0, pmkvq_word(x1, j), W == 8 ? 0 : 1, s, b);
                    }
                }
            }
        }
    }
}
