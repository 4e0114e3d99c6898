// pmkvq-decode-keys.cuh - keys of an item times queries, straight from codes
//
// Keys are operand A: a tile of 16 cells, 16 dimensions a step; up to 8 query rows are operand B (two of them: 16). With g = lane/4
// and t = lane%4, lane g has 8 cells of subtile g/2: of each quad of cells, numbers 2(g%2) and 2(g%2)+1. Tile q: rows g and g+8
// are those two cells of quad q, so that the pairs of cells that values want come together when the weights are transposed.
// Step (s, c): lane t has dimensions 64s + 16t + 4c .. +3.
//
// Keys are read in steps of 8 registers, and R steps are under way: when a step is multiplied, a later one takes its place.
//   width  2, 4, 8: a step is a row of quads of 64 dimensions, W/2 of them: four loads of 8 bytes, for the quads of cells
//         16: a step is half of the 64 dimensions' share of a lane, 16 bytes, of the two cells of a quad

#pragma once

#include "pmkvq-attn-queries.cuh"

template <int W> static constexpr __host__ __device__ int pmkvq_k_steps(int NS) { return NS*W/2; }

// data: of this lane's subtile (g/2), at its first cell of quad 0
template <int W, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_load(uint32_t (&buf)[8], const uint8_t * data, int n, int D, int lane) {
    const int t = lane%4;
    if constexpr (W == 16) {
        // n = (s, quad of cells, half)
        const int d = 64*(n/8) + 16*t + 8*(n%2);
        const uint8_t * p = data + 4*(n%8/2)*(2*D) + 2*d;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            // beyond D lie other cells, which may hold NaN
            const uint4 y = d < D ? pmkvq_load16<SHARED>(p + i*(2*D)) : make_uint4(0, 0, 0, 0);
            buf[4*i + 0] = y.x;
            buf[4*i + 1] = y.y;
            buf[4*i + 2] = y.z;
            buf[4*i + 3] = y.w;
        }
    } else {
        // n = (s, row); rows of quads beyond D: row 0 serves, the queries are zero there
        constexpr int rows = W/2;
        const int row = (4*(n/rows) + t)*rows + n%rows;
        const uint8_t * p = data + (row < D*W/32 ? row : 0)*64;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            const uint2 y = pmkvq_ldg8((const uint2 *) (p + 16*q));
            buf[2*q + 0] = y.x;
            buf[2*q + 1] = y.y;
        }
    }
}

// operand B of step (s, c) for each 8 rows, times 2^-p; zero for lanes without a dimension of the group
template <int NT>
static __device__ __forceinline__ void pmkvq_k_queries(uint32_t (&b)[NT][2], const uint32_t * q, int step, int p, bool mine, int lane) {
    const uint32_t * f = q + (step*32 + lane)*2*NT;
    uint32_t x[2*NT];
    if (NT == 1) {
        const uint2 y = *(const uint2 *) f;
        x[0] = y.x;
        x[1] = y.y;
    } else {
        const uint4 y = *(const uint4 *) f;
        x[0] = y.x;
        x[1] = y.y;
        x[2*NT - 2] = y.z;
        x[2*NT - 1] = y.w;
    }
    const uint32_t m = (uint32_t) (15 - p) << 10;
#pragma unroll
    for (int n = 0; n < NT; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint32_t y = mine ? x[n + NT*i] : 0;
            b[n][i] = p > 0 ? pmkvq_mul_h2(y, m | m << 16) : y;
        }
    }
}

// products of a step, for the dimensions d0 .. d1 of a group. acc[i][q]: tile q of 16 cells, 8 rows i
template <int W, int NT>
static __device__ __forceinline__ void pmkvq_k_mul(
        float (&acc)[NT][4][4], const uint32_t (&buf)[8], const uint32_t * queries, int n, int lane, int d0, int d1) {
    const int t = lane%4;
    uint32_t b[NT][2];
    if constexpr (W == 16) {
        const int q = n%8/2;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            pmkvq_k_queries<NT>(b, queries, 4*(n/8) + 2*(n%2) + c, 0, true, lane);
            // two words of each cell, in the order 0 2 1 3
            const uint32_t x0 = buf[2*c],     x1 = buf[2*c + 1];
            const uint32_t y0 = buf[4 + 2*c], y1 = buf[4 + 2*c + 1];
            const uint32_t a[4] = {
                pmkvq_perm(x0, x1, 0x5410), pmkvq_perm(y0, y1, 0x5410), pmkvq_perm(x0, x1, 0x7632), pmkvq_perm(y0, y1, 0x7632),
            };
#pragma unroll
            for (int i = 0; i < NT; ++i) {
                pmkvq_mma_f16(acc[i][q], a, b[i][0], b[i][1]);
            }
        }
    } else {
        constexpr int rows = W/2;
        constexpr int per  = 8/W; // quads in a byte
        const int s = n/rows;
        if (64*s + 64 <= d0 || 64*s >= d1) {
            return;
        }
        const int  d    = 64*s + 16*t;
        const bool mine = d >= d0 && d < d1;
#pragma unroll
        for (int x = 0; x < per; ++x) {
            const int p = W*x; // lowest bit of the quad in its bytes
            const uint32_t mask = W == 8 ? 0x00ff00ffu : W == 4 ? 0x000f000fu << p : 0x00030003u << p;
            pmkvq_k_queries<NT>(b, queries, 4*s + n%rows*per + x, p, mine, lane);
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                const uint32_t w0 = buf[2*q];
                const uint32_t w1 = buf[2*q + 1];
                const uint32_t a[4] = { w0 & mask, w1 & mask, w0 >> 8 & mask, w1 >> 8 & mask };
#pragma unroll
                for (int i = 0; i < NT; ++i) {
                    pmkvq_mma_f16(acc[i][q], a, b[i][0], b[i][1]);
                }
            }
        }
    }
}

// the first R steps
template <int W, int NS, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_first(uint32_t (&buf)[R][8], const uint8_t * data, int D, int lane) {
#pragma unroll
    for (int n = 0; n < R && n < pmkvq_k_steps<W>(NS); ++n) {
        pmkvq_k_load<W, SHARED>(buf[n], data, n, D, lane);
    }
}

// all products of an item; the first steps are in buf already
template <int W, int NS, int NT, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_item(
        float (&acc)[NT][4][4], uint32_t (&buf)[R][8], const uint8_t * data, const uint32_t * queries, int D, int lane, int d0, int d1) {
#pragma unroll
    for (int i = 0; i < NT; ++i) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            acc[i][q][0] = acc[i][q][1] = acc[i][q][2] = acc[i][q][3] = 0.0f;
        }
    }
    constexpr int N = pmkvq_k_steps<W>(NS);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        pmkvq_k_mul<W, NT>(acc, buf[n%R], queries, n, lane, d0, d1);
        if (n + R < N) {
            pmkvq_k_load<W, SHARED>(buf[n%R], data, n + R, D, lane);
        }
    }
}
