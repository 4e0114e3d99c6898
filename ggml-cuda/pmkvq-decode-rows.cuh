// pmkvq-decode-rows.cuh - the running softmax of a warp's query rows while it decodes
//
// A lane has rows 2t and 2t+1 of each 8 (number 2n and 2n+1 below), and of an item the scores of its 8 cells: cell i = 2q + b is cell
// 4q + 2(g%2) + b of subtile g/2. Weights go to the matrix units as f16, scaled by a power of two so that the largest is about
// 2^14: they keep 11 bits down to 2^-28 of it, so that a long flat tail beside a peak is not lost.

#pragma once

#include "pmkvq-attn-common.cuh"

// (min, max) of a lane's 8 cells in one group: pairs of halves
struct pmkvq_params8 {
    uint32_t min[4];
    uint32_t max[4];

    // cell: of the block, the lane's first
    static __device__ __forceinline__ pmkvq_params8 load(
            const uint16_t * params, int block, int cell, int head, int n_head, int group, int n_groups) {
        const uint16_t * p = params + ((((size_t) block*n_head + head)*n_groups + group)*2)*PMKVQ_BLOCK + cell;
        pmkvq_params8 r;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            r.min[q] = pmkvq_ldg4((const uint32_t *) (p + 4*q));
            r.max[q] = pmkvq_ldg4((const uint32_t *) (p + 4*q + PMKVQ_BLOCK));
        }
        return r;
    }

    __device__ __forceinline__ float lo(int i)    const { return pmkvq_h2f((uint16_t) (i%2 ? min[i/2] >> 16 : min[i/2])); }
    __device__ __forceinline__ float hi(int i)    const { return pmkvq_h2f((uint16_t) (i%2 ? max[i/2] >> 16 : max[i/2])); }
    __device__ __forceinline__ float range(int i) const { return hi(i) - lo(i); }
};

// score or weight of row r (of 2 NT) and cell i of 8
#define PMKVQ_AT(s, r, i) (s)[(r)/2][(i)/2][(i)%2*2 + (r)%2]

template <int NV, int NT>
struct pmkvq_rows {
    static constexpr int N = 2*NT;

    float out[NT][4*NV][4];
    float m[N];  // largest score, in log2 units
    float l[N];  // this lane's part of the sum of weights
    float lo[N]; // this lane's part of the sum of weights times minima (one group)
    float f[N];  // what an item's new maximum makes of what was summed up before

    __device__ __forceinline__ pmkvq_rows() {
#pragma unroll
        for (int n = 0; n < NT; ++n) {
#pragma unroll
            for (int i = 0; i < 4*NV; ++i) {
                out[n][i][0] = out[n][i][1] = out[n][i][2] = out[n][i][3] = 0.0f;
            }
        }
#pragma unroll
        for (int r = 0; r < N; ++r) {
            m[r]  = -PMKVQ_INF;
            l[r]  = 0.0f;
            lo[r] = 0.0f;
            f[r]  = 1.0f;
        }
    }

    // scores become weights. vis: bit 8r + i: row r sees cell i
    __device__ __forceinline__ void softmax(float (&s)[NT][4][4], uint32_t vis) {
#pragma unroll
        for (int r = 0; r < N; ++r) {
            float mx = -PMKVQ_INF;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float & x = PMKVQ_AT(s, r, i);
                x  = vis >> (8*r + i) & 1 ? x : -PMKVQ_INF;
                mx = fmaxf(mx, x);
            }
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 4));
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 8));
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 16));
            const float now  = fmaxf(m[r], mx);
            const float base = now == -PMKVQ_INF ? 0.0f : now;
            f[r] = pmkvq_exp2(m[r] - base);
            m[r] = now;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float & x = PMKVQ_AT(s, r, i);
                x = pmkvq_exp2(x - base);
            }
            l[r]  *= f[r];
            lo[r] *= f[r];
        }
    }
};

// weights times a factor for each cell, as operand B of the four steps: halves, transposed
template <int NT>
static __device__ __forceinline__ void pmkvq_transpose(uint32_t (&w)[NT][4][2], const uint32_t (&x)[NT][8]) {
#pragma unroll
    for (int n = 0; n < NT; ++n) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            w[n][i/2][i%2] = pmkvq_movmatrix_trans(x[n][i]);
        }
    }
}

// weights of 16-bit cells, times 2^14, and their sums
template <int NV, int NT>
static __device__ __forceinline__ void pmkvq_weights_f16(pmkvq_rows<NV, NT> & rows, uint32_t (&w)[NT][4][2], const float (&s)[NT][4][4]) {
    const float up   = 16384.0f;
    const float down = 1.0f/16384.0f;
    uint32_t x[NT][8];
#pragma unroll
    for (int n = 0; n < NT; ++n) {
        float sum0 = 0.0f;
        float sum1 = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            x[n][i] = pmkvq_pack_h2(s[n][i/2][i%2*2]*up, s[n][i/2][i%2*2 + 1]*up);
            // the weights as they are rounded: a large mean of the values would show otherwise
            const float2 y = pmkvq_unpack_h2(x[n][i]);
            sum0 += y.x;
            sum1 += y.y;
        }
        rows.l[2*n]     += sum0*down;
        rows.l[2*n + 1] += sum1*down;
    }
    pmkvq_transpose<NT>(w, x);
}

// weights of cells with codes of W bits (quads in one byte stand W bits apart) times their scales and 2^e, and the rows' sums of weights
// times minima. mine: cells that one of the lane's rows sees; what others have for parameters may be NaN. unit: 2^e by the steps of a range
template <int W, int NT>
static __device__ __forceinline__ void pmkvq_weights_codes(
        uint32_t (&w)[NT][4][2], float (&low)[2*NT], const float (&s)[NT][4][4], const pmkvq_params8 & p, uint32_t mine, float unit) {
    uint32_t x[NT][8];
#pragma unroll
    for (int r = 0; r < 2*NT; ++r) {
        low[r] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const bool  see = mine >> i & 1;
        const int   bit = W*(i/2%(8/W));
        const float lo  = see ? p.lo(i) : 0.0f;
        const float k   = see ? p.range(i)*(unit*(1.0f/(1 << bit))) : 0.0f;
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            const float a = s[n][i/2][i%2*2];
            const float b = s[n][i/2][i%2*2 + 1];
            low[2*n]     += a*lo;
            low[2*n + 1] += b*lo;
            x[n][i] = pmkvq_pack_h2(a*k, b*k);
        }
    }
    pmkvq_transpose<NT>(w, x);
}
