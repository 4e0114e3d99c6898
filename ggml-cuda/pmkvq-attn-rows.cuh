// pmkvq-attn-rows.cuh - the running softmax of a warp's 16 query rows
//
// A lane has rows g and g+8 (0 and 1 below). Weights enter the matrix units as f16, so they are scaled by powers of two: the output
// is kept in units of 2^u, the same for all rows of the warp. For 16-bit values a weight p becomes p * 2^-u, for codes
// p * scale * 2^(24-u) (a code c is the half c * 2^-24). u is such that the largest is about 2^14: weights keep 11 bits down to
// 2^-28 of it, so a long flat tail beside a peak is not lost.

#pragma once

#include "pmkvq-attn-common.cuh"

template <int NV, bool HALF>
struct pmkvq_rows {
    static constexpr int N = HALF ? 1 : 2;

    float out[8*NV][4]; // in units of 2^u
    float m[2];         // largest score, in log2 units
    float l[2];         // this lane's part of the sum of weights
    float lo[2];        // this lane's part of the sum of weights times minima (one group)
    float f[2];         // what an item's new maximum makes of what was summed up before
    int   u;

    __device__ __forceinline__ pmkvq_rows() {
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
        for (int r = 0; r < N; ++r) {
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
        const float f1 = HALF ? 1.0f : f[1]*k;
        u = now;
        if (pmkvq_any(f0 != 1.0f || f1 != 1.0f)) {
#pragma unroll
            for (int i = 0; i < 8*NV; ++i) {
                out[i][0] *= f0;
                out[i][1] *= f0;
                if (!HALF) {
                    out[i][2] *= f1;
                    out[i][3] *= f1;
                }
            }
        }
    }
};

// operand A of step q of 16 cells, from weights and a factor for each of the lane's four cells (quad q of its subtile)
template <bool HALF>
static __device__ __forceinline__ void pmkvq_weights(uint32_t (&w)[4], const float (&s)[8][4], int q, const float (&k)[4]) {
    const int h   = 4*(q%2);
    const int par = q/2;
    // the order 0 2 1 3
    w[0] = pmkvq_pack_h2(s[h + 0][par]*k[0], s[h + 2][par]*k[2]);
    w[2] = pmkvq_pack_h2(s[h + 1][par]*k[1], s[h + 3][par]*k[3]);
    if (HALF) {
        w[1] = w[3] = 0;
    } else {
        w[1] = pmkvq_pack_h2(s[h + 0][2 + par]*k[0], s[h + 2][2 + par]*k[2]);
        w[3] = pmkvq_pack_h2(s[h + 1][2 + par]*k[1], s[h + 3][2 + par]*k[3]);
    }
}
