// pmkvq-attn-values.cuh - weights times values of an item, straight from codes
//
// The output has NV spans of 64 dimensions, 8 tiles each. Parts of at most eight 16-byte loads a lane, as for keys:
//   width   2: spans 4 part .. +3; the subtile's one row, two loads each
//           4: spans 2 part, +1; two rows
//           8: span part; four rows
//          16: span part/2, quads with u/2 = part%2: 8 cells, 8 dimensions each

#pragma once

#include "pmkvq-attn-common.cuh"

template <int W> static constexpr __host__ __device__ int pmkvq_v_parts(int NV) {
    return W == 2 ? (NV + 3)/4 : W == 4 ? (NV + 1)/2 : W == 8 ? NV : 2*NV;
}

// half a part, four loads: HALF 0 or 1. data: of this lane's subtile (t). v0: first dimension of the output's spans
template <int W, int NV, int HALF, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_load(uint4 (&buf)[8], const uint8_t * data, int part, int D, int v0, int lane) {
    const int g = lane/4;
    // columns beyond D are not written at the end: any address serves
    if constexpr (W == 16) {
        const int d = v0 + 64*(part/2) + 8*g;
        const uint8_t * p = data + 2*(d < D ? d : 0);
#pragma unroll
        for (int x = 4*HALF; x < 4*HALF + 4; ++x) {
            buf[x] = pmkvq_load16<SHARED>(p + (8*(part%2) + x)*(2*D));
        }
    } else {
        constexpr int rows = W/2;
#pragma unroll
        for (int n = 2*HALF; n < 2*HALF + 2; ++n) {
            const int span = part*(4/rows) + n/rows;
            if (span >= NV) {
                break;
            }
            const int d = v0 + 64*span + 8*g;
            const uint8_t * p = data + 4*(d < D ? d : 0) + n%rows*(4*D);
            buf[2*n + 0] = pmkvq_load16<SHARED>(p);
            buf[2*n + 1] = pmkvq_load16<SHARED>(p + 16);
        }
    }
}

// w: weights of the four steps of 16 cells. all, keep: of 16-bit cells, those that somebody sees; the others' bytes may be NaN.
// Lanes whose dimensions lie outside d0 .. d1 add nothing
template <int W, int NV, int HALF>
static __device__ __forceinline__ void pmkvq_v_mul(
        float (&out)[8*NV][4], const uint4 (&buf)[8], const uint32_t (&w)[4][4], int part, int v0, int lane,
        bool all, uint32_t keep, int d0, int d1) {
    const int g = lane/4;
    if constexpr (W == 16) {
        const int span = part/2;
        const int u    = 2*(part%2) + HALF;
        uint4 r[4] = { buf[4*HALF], buf[4*HALF + 1], buf[4*HALF + 2], buf[4*HALF + 3] };
        if (!all) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (!(keep >> (4*u + i) & 1)) {
                    r[i] = make_uint4(0, 0, 0, 0);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const uint32_t s = j%2 ? 0x7632 : 0x5410;
            pmkvq_mma_f16(out[8*span + j], w[u],
                    pmkvq_perm(pmkvq_word(r[0], j/2), pmkvq_word(r[2], j/2), s),
                    pmkvq_perm(pmkvq_word(r[1], j/2), pmkvq_word(r[3], j/2), s));
        }
    } else {
        constexpr int rows = W/2;
        constexpr int per  = 8/W;
#pragma unroll
        for (int n = 2*HALF; n < 2*HALF + 2; ++n) {
            const int span = part*(4/rows) + n/rows;
            if (span >= NV) {
                break;
            }
            const int base = v0 + 64*span;
            if (base + 64 <= d0 || base >= d1) {
                continue;
            }
            const bool mine = base + 8*g >= d0 && base + 8*g < d1;
#pragma unroll
            for (int x = 0; x < per; ++x) {
                const int p = W*x;
                const uint32_t m    = W == 8 ? 0x00ff00ffu : W == 4 ? 0x000f000fu << p : 0x00030003u << p;
                const uint32_t mask = mine ? m : 0;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    const uint32_t y = pmkvq_word(buf[2*n + j/4], j%4);
                    pmkvq_mma_f16(out[8*span + j], w[n%rows*per + x], y & mask, y >> 8 & mask);
                }
            }
        }
    }
}

// all products of an item; its first part is in buf already
template <int W, int NV, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_item(
        float (&out)[8*NV][4], uint4 (&buf)[8], const uint8_t * data, const uint32_t (&w)[4][4], int D, int v0, int lane,
        bool all, uint32_t keep, int d0, int d1) {
    constexpr int parts = pmkvq_v_parts<W>(NV);
#pragma unroll
    for (int p = 0; p < parts; ++p) {
        pmkvq_v_mul<W, NV, 0>(out, buf, w, p, v0, lane, all, keep, d0, d1);
        if (p + 1 < parts) {
            pmkvq_v_load<W, NV, 0, SHARED>(buf, data, p + 1, D, v0, lane);
        }
        pmkvq_v_mul<W, NV, 1>(out, buf, w, p, v0, lane, all, keep, d0, d1);
        if (p + 1 < parts) {
            pmkvq_v_load<W, NV, 1, SHARED>(buf, data, p + 1, D, v0, lane);
        }
    }
}

template <int W, int NV, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_first(uint4 (&buf)[8], const uint8_t * data, int D, int v0, int lane) {
    pmkvq_v_load<W, NV, 0, SHARED>(buf, data, 0, D, v0, lane);
    pmkvq_v_load<W, NV, 1, SHARED>(buf, data, 0, D, v0, lane);
}
