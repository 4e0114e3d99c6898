// pmkvq-decode-rows.cuh - the running softmax of a warp's query rows while it decodes, and their weights for the matrix units
//
// A lane has rows NB t + b, b < NB, and of an item the scores of its 8 cells: cell i = 2q + x is cell 4q + 2(g%2) + x of subtile g/2.
//
// For codes a weight times its cell's scale is an integer of 16 bits, unit (256 hi + lo), where the unit is that of the row's largest in
// the item: so a long flat tail beside a peak is not lost. The pair of cells of a quad makes two halves of a register, high bytes and low
// bytes, which transposed are columns 2(g'/2) and the next of operand B, four cells of a quad in a word. For values of 16 bits weights
// are f16, scaled by 2^14.

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

    // zeros for cells that are not in the mask: what they have may be NaN
    __device__ __forceinline__ void keep(uint32_t cells) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            const uint32_t m = (cells >> (2*q) & 1 ? 0xffffu : 0) | (cells >> (2*q + 1) & 1 ? 0xffff0000u : 0);
            min[q] &= m;
            max[q] &= m;
        }
    }

    __device__ __forceinline__ float lo(int i)    const { return pmkvq_h2f((uint16_t) (i%2 ? min[i/2] >> 16 : min[i/2])); }
    __device__ __forceinline__ float hi(int i)    const { return pmkvq_h2f((uint16_t) (i%2 ? max[i/2] >> 16 : max[i/2])); }
    __device__ __forceinline__ float range(int i) const { return hi(i) - lo(i); }
};

template <int NV, int NB>
struct pmkvq_rows {
    float out[NB][4*NV][2]; // of dimensions 64 span + 8g + 2j and the next: [4 span + j]
    float m[NB];  // largest score, in log2 units
    float l[NB];  // this lane's part of the sum of weights
    float lo[NB]; // this lane's part of the sum of weights times minima (one group)

    __device__ __forceinline__ pmkvq_rows() {
#pragma unroll
        for (int b = 0; b < NB; ++b) {
#pragma unroll
            for (int i = 0; i < 4*NV; ++i) {
                out[b][i][0] = out[b][i][1] = 0.0f;
            }
            m[b]  = -PMKVQ_INF;
            l[b]  = 0.0f;
            lo[b] = 0.0f;
        }
    }

    // scores become weights, and what was summed up is made less where there is a new maximum. vis: bit i: the rows see cell i. full: everything
    // is seen
    __device__ __forceinline__ void softmax(float (&s)[NB][8], uint32_t vis, bool full) {
        if (!full) {
#pragma unroll
            for (int b = 0; b < NB; ++b) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    s[b][i] = vis >> i & 1 ? s[b][i] : -PMKVQ_INF;
                }
            }
        }
        float f[NB];
        bool  changed = false;
#pragma unroll
        for (int b = 0; b < NB; ++b) {
            float mx = s[b][0];
#pragma unroll
            for (int i = 1; i < 8; ++i) {
                mx = fmaxf(mx, s[b][i]);
            }
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 4));
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 8));
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 16));
            const float now  = fmaxf(m[b], mx);
            const float base = now == -PMKVQ_INF ? 0.0f : now;
            f[b] = pmkvq_exp2(m[b] - base);
            m[b] = now;
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                s[b][i] = pmkvq_exp2(s[b][i] - base);
            }
            changed = changed || f[b] != 1.0f;
        }
        // most items bring no new maximum
        if (pmkvq_any(changed)) {
#pragma unroll
            for (int b = 0; b < NB; ++b) {
                l[b]  *= f[b];
                lo[b] *= f[b];
#pragma unroll
                for (int i = 0; i < 4*NV; ++i) {
                    out[b][i][0] *= f[b];
                    out[b][i][1] *= f[b];
                }
            }
        }
    }
};

// weights of 16-bit cells as operand B of the four steps, times 2^14, and their sums
template <int NV, int NB>
static __device__ __forceinline__ void pmkvq_weights_halves(pmkvq_rows<NV, NB> & rows, uint32_t (&w)[4][2], const float (&s)[NB][8]) {
    const float up   = 16384.0f;
    const float down = 1.0f/16384.0f;
    float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const uint32_t x = pmkvq_pack_h2(s[0][i]*up, NB == 2 ? s[NB - 1][i]*up : 0.0f);
        // the weights as they are rounded: a large mean of the values would show otherwise
        const float2 y = pmkvq_unpack_h2(x);
        sum.x += y.x;
        sum.y += y.y;
        w[i/2][i%2] = pmkvq_movmatrix_trans(x);
    }
    rows.l[0] += sum.x*down;
    if (NB == 2) {
        rows.l[NB - 1] += sum.y*down;
    }
}

// weights times ranges of cells with codes of W bits as operand B: word u, cells of quad u. low: the lane's part of the rows' sums of weights
// times minima, unit: what a sum of products of codes counts
template <int W, int NB>
static __device__ __forceinline__ void pmkvq_weights_codes(
        uint32_t (&w)[NB][4], float (&low)[NB], float (&unit)[NB], const float (&s)[NB][8], const pmkvq_params8 & p) {
    float x[NB][8];
    float top[NB];
#pragma unroll
    for (int b = 0; b < NB; ++b) {
        low[b] = 0.0f;
        top[b] = 1e-30f; // less is as good as zero
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float lo = p.lo(i);
        const float k  = (p.hi(i) - lo)*(1.0f/(1 << pmkvq_quad_bit<W>(i/2)));
#pragma unroll
        for (int b = 0; b < NB; ++b) {
            low[b] += s[b][i]*lo;
            x[b][i] = s[b][i]*k;
            top[b]  = fmaxf(top[b], x[b][i]);
        }
    }
#pragma unroll
    for (int b = 0; b < NB; ++b) {
        top[b] = fmaxf(top[b], pmkvq_shfl_xor(top[b], 4));
        top[b] = fmaxf(top[b], pmkvq_shfl_xor(top[b], 8));
        top[b] = fmaxf(top[b], pmkvq_shfl_xor(top[b], 16));
        const float up = 65280.0f/top[b];
        unit[b] = top[b]*(1.0f/(65280.0f*((1 << W) - 1)));
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            // integers in the low bits, to the nearest
            const uint32_t y0 = pmkvq_float_bits(x[b][2*q]*up + 8388608.0f);     // 2^23
            const uint32_t y1 = pmkvq_float_bits(x[b][2*q + 1]*up + 8388608.0f);
            w[b][q] = pmkvq_movmatrix_trans(pmkvq_perm(y0, y1, 0x4051));
        }
    }
}
