// pmkvq-prefill-rows.cuh - the running softmax of a warp's 16 query rows in prefill
//
// Queries and weights are operand A here, keys and values operand B. With g = lane/4 and t = lane%4:
//   scores   tile (h, j) of 8, h = 0, 1 and j = 0..3: column c stands for cell 8c + 4h + j of the item, so that lane t holds, in columns
//            2t and 2t+1 of all tiles, the 16 cells 16t .. 16t+15, for rows g and g+8
//   output   tile (i, j) of 8 dimensions: column c stands for dimension 64i + 8c + j
// Weights enter the matrix units as f16, so they are scaled by powers of two: the output is kept in units of 2^u, the same for all
// rows of the warp. For 16-bit values a weight p becomes p * 2^-u, for codes p * scale * 2^(24-u) (a code c is the half c * 2^-24).
// u is such that the largest is about 2^14: weights keep 11 bits down to 2^-28 of it, so a long flat tail beside a peak is not lost.

#pragma once

#include "pmkvq-attn-queries.cuh"

template <int NV>
struct pmkvq_tile_rows {
    float out[8*NV][4]; // in units of 2^u
    float m[2];         // largest score, in log2 units
    float l[2];         // this lane's part of the sum of weights
    float lo[2];        // this lane's part of the sum of weights times minima (one group)
    float f[2];         // what an item's new maximum makes of what was summed up before
    int   u;

    __device__ __forceinline__ pmkvq_tile_rows() {
#pragma unroll
        for (int i = 0; i < 8*NV; ++i) {
            out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0.0f;
        }
        m[0]  = m[1]  = -PMKVQ_INF;
        l[0]  = l[1]  = 0.0f;
        lo[0] = lo[1] = 0.0f;
        f[0]  = f[1]  = 1.0f;
        u = -1000;
    }

    // scores become weights. vis: cells that rows 0 (low half) and 1 see
    __device__ __forceinline__ void softmax(float (&s)[8][4], uint32_t vis) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float mx = -PMKVQ_INF;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                // cell i = 8 par + 4 h + j
                float & x = s[i%8][2*r + i/8];
                x  = vis >> (16*r + i) & 1 ? x : -PMKVQ_INF;
                mx = fmaxf(mx, x);
            }
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 1));
            mx = fmaxf(mx, pmkvq_shfl_xor(mx, 2));
            const float now  = fmaxf(m[r], mx);
            const float base = now == -PMKVQ_INF ? 0.0f : now;
            f[r] = pmkvq_exp2(m[r] - base);
            m[r] = now;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                float & x = s[i%8][2*r + i/8];
                x = pmkvq_exp2(x - base);
            }
            l[r]  *= f[r];
            lo[r] *= f[r];
        }
    }

    // the output in units that suit weights of up to 2^14 in units of 2^want
    __device__ __forceinline__ void rescale(int want) {
        int now = u;
        if (want > u || want < u - 6) {
            now = want;
        }
        const float k  = pmkvq_pow2(u - now);
        const float f0 = f[0]*k;
        const float f1 = f[1]*k;
        u = now;
        if (pmkvq_any(f0 != 1.0f || f1 != 1.0f)) {
#pragma unroll
            for (int i = 0; i < 8*NV; ++i) {
                out[i][0] *= f0;
                out[i][1] *= f0;
                out[i][2] *= f1;
                out[i][3] *= f1;
            }
        }
    }
};

// operand A of step q of 16 cells, from weights and a factor for each of the lane's four cells (quad q of its subtile)
static __device__ __forceinline__ void pmkvq_weights(uint32_t (&w)[4], const float (&s)[8][4], int q, const float (&k)[4]) {
    const int h   = 4*(q%2);
    const int par = q/2;
    // the order 0 2 1 3
    w[0] = pmkvq_pack_h2(s[h + 0][par]*k[0], s[h + 2][par]*k[2]);
    w[2] = pmkvq_pack_h2(s[h + 1][par]*k[1], s[h + 3][par]*k[3]);
    w[1] = pmkvq_pack_h2(s[h + 0][2 + par]*k[0], s[h + 2][2 + par]*k[2]);
    w[3] = pmkvq_pack_h2(s[h + 1][2 + par]*k[1], s[h + 3][2 + par]*k[3]);
}

// what is added to scores, and how masks are read
struct pmkvq_mask {
    const uint16_t * row[2];
    float            slope[2];
    bool             there[2];
    bool             aligned;
};

// the groups of a side: with MULTI as many as there are, else one
template <bool MULTI>
static __device__ __forceinline__ int pmkvq_groups(int D, int group) {
    return MULTI && group != 0 ? D/group : 1;
}

// sums of products with codes become scores: k takes a range times a sum to log2 units, sum are the rows' sums of queries
static __device__ __forceinline__ void pmkvq_scale_scores(float (&s)[8][4], const pmkvq_params & p, const float (&k)[2], const float (&sum)[2]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const float mn = pmkvq_half_of(p.min, i);
        const float sc = pmkvq_half_of(p.max, i) - mn;
        float (&x)[4] = s[i%8];
        x[i/8] = x[i/8]*(sc*k[0]) + mn*sum[0];
        x[2 + i/8] = x[2 + i/8]*(sc*k[1]) + mn*sum[1];
    }
}

// the same for one of several groups, added to s
static __device__ __forceinline__ void pmkvq_add_scores(
        float (&s)[8][4], const float (&acc)[8][4], const pmkvq_params & p, const float (&k)[2], const float (&sum)[2]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const float mn = pmkvq_half_of(p.min, i);
        const float sc = pmkvq_half_of(p.max, i) - mn;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int e = 2*r + i/8;
            s[i%8][e] += acc[i%8][e]*(sc*k[r]) + mn*sum[r];
        }
    }
}

// cap, and what the mask adds
static __device__ __forceinline__ void pmkvq_bias(float (&s)[8][4], const pmkvq_op_attn & op, const pmkvq_mask & mask, uint32_t vis, bool values, int cell) {
    if (op.softcap != 0.0f) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                // tanh(x) = 1 - 2/(exp(2x) + 1)
                const float y = pmkvq_exp2(s[i][e]*(2.0f*1.4426950408889634f/op.softcap));
                s[i][e] = op.softcap*1.4426950408889634f*(1.0f - 2.0f/(y + 1.0f));
            }
        }
    }
    if (pmkvq_any(values)) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                if (vis >> (16*r + i) & 1) {
                    s[i%8][2*r + i/8] += mask.slope[r]*pmkvq_h2f(mask.row[r][cell + i]);
                }
            }
        }
    }
}

// weights of 16-bit cells, and their sums
template <int NV>
static __device__ __forceinline__ void pmkvq_weights_f16(pmkvq_tile_rows<NV> & rows, uint32_t (&w)[4][4], const float (&s)[8][4]) {
    rows.rescale(-14);
    const float e = pmkvq_pow2(-rows.u);
    const float k[4] = { e, e, e, e };
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        pmkvq_weights(w[q], s, q, k);
    }
    // the sum of the weights as they are rounded: a large mean of the values would show otherwise
    const float back = pmkvq_pow2(rows.u);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float sum = 0.0f;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            const float2 a = pmkvq_unpack_h2(w[q][r]);
            const float2 b = pmkvq_unpack_h2(w[q][r + 2]);
            sum += (a.x + a.y) + (b.x + b.y);
        }
        rows.l[r] += sum*back;
    }
}

// sums of the weights of cells with codes
template <int NV>
static __device__ __forceinline__ void pmkvq_sum_weights(pmkvq_tile_rows<NV> & rows, const float (&s)[8][4]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            sum += s[i][2*r] + s[i][2*r + 1];
        }
        rows.l[r] += sum;
    }
}

// the largest range among this lane's cells that one of its rows sees
static __device__ __forceinline__ float pmkvq_largest(const pmkvq_params & p, uint32_t mine) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        largest = fmaxf(largest, mine >> i & 1 ? pmkvq_half_of(p.max, i) - pmkvq_half_of(p.min, i) : 0.0f);
    }
    return largest;
}

// units in which the weights of codes fit; returns what takes a range to a factor of weights
template <int NV>
static __device__ __forceinline__ float pmkvq_rescale_codes(pmkvq_tile_rows<NV> & rows, float largest, float step) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        largest = fmaxf(largest, pmkvq_shfl_xor(largest, i));
    }
    rows.rescale(largest > 0.0f ? pmkvq_exponent(largest*step) + 11 : rows.u);
    return pmkvq_pow2(24 - rows.u)*step;
}

// weights of cells with codes of W bits (quads in one byte stand W bits apart), and the rows' sums of weights times minima
template <int W>
static __device__ __forceinline__ void pmkvq_weights_codes(
        uint32_t (&w)[4][4], float (&low)[2], const float (&s)[8][4], const pmkvq_params & p, uint32_t mine, float unit) {
    low[0] = low[1] = 0.0f;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const float unit_q = unit*(1.0f/(1 << (W == 16 ? 0 : W*(q%(W == 16 ? 1 : 8/W)))));
        float k[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            // parameters of cells that were never written may be NaN
            const int   i   = 4*q + j;
            const bool  see = mine >> i & 1;
            const float mn  = pmkvq_half_of(p.min, i);
            const float lo  = see ? mn : 0.0f;
            k[j] = see ? (pmkvq_half_of(p.max, i) - mn)*unit_q : 0.0f;
            low[0] += s[i%8][i/8]*lo;
            low[1] += s[i%8][2 + i/8]*lo;
        }
        pmkvq_weights(w[q], s, q, k);
    }
}

// sums of weights times minima, for the dimensions of a group
template <int NV>
static __device__ __forceinline__ void pmkvq_add_low(pmkvq_tile_rows<NV> & rows, float (&low)[2], int v0, int d0, int d1, int lane) {
    const int t = lane%4;
    const float back = pmkvq_pow2(-rows.u);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        low[r] += pmkvq_shfl_xor(low[r], 1);
        low[r] += pmkvq_shfl_xor(low[r], 2);
        low[r] *= back;
    }
#pragma unroll
    for (int i = 0; i < NV; ++i) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int d = v0 + 64*i + 16*t + 8*e;
            if (d >= d0 && d < d1) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    rows.out[8*i + j][e]     += low[0];
                    rows.out[8*i + j][e + 2] += low[1];
                }
            }
        }
    }
}

