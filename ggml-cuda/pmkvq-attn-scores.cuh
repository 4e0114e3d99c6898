// pmkvq-attn-scores.cuh - queries times keys of an item, straight from codes
//
// Keys are read in parts of at most eight 16-byte loads a lane, in two halves: when a half is multiplied, the next part's takes its
// place, so that loads are always under way:
//   width   2: steps s = 4 part .. +3, one load each for h = 0, 1     (16 cells x 16 dimensions a load and row of quads)
//           4: steps s = 2 part, +1, two rows each
//           8: step s = part, four rows
//          16: step s = part/2, cells with h = part%2: 4 of them, 32 bytes each

#pragma once

#include "pmkvq-attn-common.cuh"

template <int W> static constexpr __host__ __device__ int pmkvq_k_parts(int NS) {
    return W == 2 ? (NS + 3)/4 : W == 4 ? (NS + 1)/2 : W == 8 ? NS : 2*NS;
}

// half a part, four loads: HALF 0 or 1. data: of this lane's subtile (g/2)
template <int W, int NS, int HALF, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_load(uint4 (&buf)[8], const uint8_t * data, int part, int D, int lane) {
    const int g = lane/4;
    const int t = lane%4;
    if constexpr (W == 16) {
        const int s = part/2;
        const int h = part%2;
#pragma unroll
        for (int j = 2*HALF; j < 2*HALF + 2; ++j) {
            const uint8_t * row = data + (8*(g%2) + 4*h + j)*(2*D);
#pragma unroll
            for (int x = 0; x < 2; ++x) {
                // beyond D lie other cells, which may hold NaN
                const int d = 64*s + 16*t + 8*x;
                buf[2*j + x] = d < D ? pmkvq_load16<SHARED>(row + 2*d) : make_uint4(0, 0, 0, 0);
            }
        }
    } else {
        // rows of quads beyond D: row 0 serves, the queries are zero there
        constexpr int per  = 8/W;   // quads of a byte
        constexpr int rows = 4/per; // rows of a step and lane
        const int n_row = D/4/per;
#pragma unroll
        for (int n = 2*HALF; n < 2*HALF + 2; ++n) {
            const int s = part*(4/rows) + n/rows;
            if (s >= NS) {
                break;
            }
            const int row = (4*s + t)*rows + n%rows;
            const uint8_t * p = data + (row < n_row ? row : 0)*64 + 32*(g%2);
            buf[2*n + 0] = pmkvq_load16<SHARED>(p);
            buf[2*n + 1] = pmkvq_load16<SHARED>(p + 16);
        }
    }
}

// operand A of step (s, c), times 2^-p; zero for lanes without a dimension of the group
static __device__ __forceinline__ void pmkvq_k_queries(uint32_t (&a)[4], const uint4 * q, int step, int p, bool mine, int lane) {
    const uint4 f = q[step*32 + lane];
    a[0] = mine ? f.x : 0;
    a[1] = mine ? f.y : 0;
    a[2] = mine ? f.z : 0;
    a[3] = mine ? f.w : 0;
    if (p > 0) {
        const uint32_t m = (uint32_t) (15 - p) << 10;
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            a[x] = pmkvq_mul_h2(a[x], m | m << 16);
        }
    }
}

// the products of half a part, for the dimensions d0 .. d1 of a group. q: fragments in shared memory
template <int W, int NS, int HALF>
static __device__ __forceinline__ void pmkvq_k_mul(
        float (&acc)[8][4], const uint4 (&buf)[8], const uint4 * q, int part, int lane, int d0, int d1) {
    const int t = lane%4;
    uint32_t a[4];
    if constexpr (W == 16) {
        const int s = part/2;
        const int h = part%2;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            pmkvq_k_queries(a, q, 4*s + c, 0, true, lane);
#pragma unroll
            for (int j = 2*HALF; j < 2*HALF + 2; ++j) {
                const uint4 & x = buf[2*j + c/2];
                const uint32_t lo = c%2 ? x.z : x.x;
                const uint32_t hi = c%2 ? x.w : x.y;
                // the order 0 2 1 3
                pmkvq_mma_f16(acc[4*h + j], a, pmkvq_perm(lo, hi, 0x5410), pmkvq_perm(lo, hi, 0x7632));
            }
        }
    } else {
        constexpr int per  = 8/W;
        constexpr int rows = 4/per;
#pragma unroll
        for (int n = 2*HALF; n < 2*HALF + 2; ++n) {
            const int s = part*(4/rows) + n/rows;
            if (s >= NS) {
                break;
            }
            if (64*s + 64 <= d0 || 64*s >= d1) {
                continue;
            }
            const int  d    = 64*s + 16*t;
            const bool mine = d >= d0 && d < d1;
#pragma unroll
            for (int x = 0; x < per; ++x) {
                const int p = W*x; // lowest bit of the quad in its bytes
                const uint32_t mask = W == 8 ? 0x00ff00ffu : W == 4 ? 0x000f000fu << p : 0x00030003u << p;
                pmkvq_k_queries(a, q, 4*s + n%rows*per + x, p, mine, lane);
#pragma unroll
                for (int h = 0; h < 2; ++h) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const uint32_t w = pmkvq_word(buf[2*n + h], j);
                        pmkvq_mma_f16(acc[4*h + j], a, w & mask, w >> 8 & mask);
                    }
                }
            }
        }
    }
}

// all products of an item; its first part is in buf already
template <int W, int NS, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_item(
        float (&acc)[8][4], uint4 (&buf)[8], const uint8_t * data, const uint4 * q, int D, int lane, int d0, int d1) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.0f;
    }
    constexpr int parts = pmkvq_k_parts<W>(NS);
#pragma unroll
    for (int p = 0; p < parts; ++p) {
        pmkvq_k_mul<W, NS, 0>(acc, buf, q, p, lane, d0, d1);
        if (p + 1 < parts) {
            pmkvq_k_load<W, NS, 0, SHARED>(buf, data, p + 1, D, lane);
        }
        pmkvq_k_mul<W, NS, 1>(acc, buf, q, p, lane, d0, d1);
        if (p + 1 < parts) {
            pmkvq_k_load<W, NS, 1, SHARED>(buf, data, p + 1, D, lane);
        }
    }
}

template <int W, int NS, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_first(uint4 (&buf)[8], const uint8_t * data, int D, int lane) {
    pmkvq_k_load<W, NS, 0, SHARED>(buf, data, 0, D, lane);
    pmkvq_k_load<W, NS, 1, SHARED>(buf, data, 0, D, lane);
}
