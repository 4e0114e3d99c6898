// pmkvq-prefill-queries.cuh - tiles of 16 query rows as operand A
//
// Step (s, c) of 16 dimensions: lane 4g+t has dimensions 64s + 16t + 4c .. +3 of rows g and g+8, pairs (0 2) of both, then (1 3). A row is
// scaled by a power of two so that its largest value lies in [2^2, 2^3), and rounded to f16: what becomes subnormal is 2^-17 of the
// row's largest, and what that loses 2^-27 of it. Sums over groups are of the rounded values, times 32 and as two halves (hi and lo).

#pragma once

#include "pmkvq-prefill-tile.cuh"

template <typename MEM>
struct pmkvq_prefill_queries {
    const uint4 * at;

    __device__ __forceinline__ pmkvq_prefill_queries(const uint4 * smem, int tile) : at(smem + MEM::QUERIES + tile*MEM::QUERY) {}

    __device__ __forceinline__ uint4 frag(int step, int lane) const { return at[MEM::FRAG + step*32 + lane]; }
    // with one group the lanes t > 0 have none
    __device__ __forceinline__ uint4 sums(int step, int lane) const {
        return MEM::BESIDE > 1 ? at[MEM::SUMS + step*MEM::SUMMED + lane] : lane%4 == 0 ? at[MEM::SUMS + lane/4] : make_uint4(0, 0, 0, 0);
    }
    __device__ __forceinline__ float inv  (int row) const { return ((const float *) (at + MEM::INV))[row]; }
    __device__ __forceinline__ float slope(int row) const { return ((const float *) (at + MEM::SLOPE))[row]; }
    __device__ __forceinline__ int   token(int row) const { return ((const int *) (at + MEM::TOKEN))[row]; }
    __device__ __forceinline__ int   head (int row) const { return ((const int *) (at + MEM::HEAD))[row]; }
};

// by one warp; the lanes must be in step before the tile is read
template <typename MEM, int NS>
static __device__ __forceinline__ void pmkvq_fill_queries(
        uint4 * smem, int slot, const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int head_kv, int n_groups) {
    constexpr float LOG2E = 1.4426950408889634f;
    constexpr int   ROWS  = 8; // at a time, so that their loads overlap

    uint4     * to    = smem + MEM::QUERIES + slot*MEM::QUERY;
    uint16_t  * frag  = (uint16_t *) (to + MEM::FRAG);
    uint32_t  * sums  = (uint32_t *) (to + MEM::SUMS);
    const int   lane  = threadIdx.x%32;
    const int   D     = op.head_dim_k;
    const int   group = D/n_groups;

    for (int i = lane; i < MEM::STEPS*MEM::SUMMED; i += 32) {
        to[MEM::SUMS + i] = make_uint4(0, 0, 0, 0);
    }
    if (lane < 16) {
        int token = 0, h = 0;
        const bool there = tile < tiling.tiles && tiling.row(tile, lane, op.n_tokens, token, h);
        const int  hq    = head_kv*tiling.ratio + h;
        ((float *) (to + MEM::SLOPE))[lane] = (there ? pmkvq_slope(op.max_bias, op.n_head, hq) : 0.0f)*LOG2E;
        ((int   *) (to + MEM::TOKEN))[lane] = there ? token : -1;
        ((int   *) (to + MEM::HEAD ))[lane] = hq;
    }
    pmkvq_syncwarp();
#pragma unroll 1
    for (int r0 = 0; r0 < 16; r0 += ROWS) {
        float x[ROWS][2*NS];
        float largest[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int  token = ((const int *) (to + MEM::TOKEN))[r0 + r];
            const int  hq    = ((const int *) (to + MEM::HEAD ))[r0 + r];
            const bool there = token >= 0;
            const float * p  = (const float *) ((const char *) op.q + (there ? hq*op.q_nb_head + token*op.q_nb_token : 0)) + lane;
#pragma unroll
            for (int k = 0; k < 2*NS; ++k) {
                x[r][k] = there && lane + 32*k < D ? p[32*k] : 0.0f;
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            largest[r] = 0.0f;
#pragma unroll
            for (int k = 0; k < 2*NS; ++k) {
                largest[r] = fmaxf(largest[r], fabsf(x[r][k]));
            }
        }
#pragma unroll
        for (int i = 16; i > 0; i /= 2) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                largest[r] = fmaxf(largest[r], pmkvq_shfl_xor(largest[r], i));
            }
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const int   e  = largest[r] > 0.0f ? min(max(2 - pmkvq_exponent(largest[r]), -100), 100) : 0;
            // the sign of the scale is the queries', so that larger sums are larger scores
            const float up = op.scale < 0.0f ? -pmkvq_pow2(e) : pmkvq_pow2(e);
#pragma unroll
            for (int k = 0; k < 2*NS; ++k) {
                // dimension 64s + 16t + 4c + b
                const int d = lane + 32*k;
                const int b = d%4;
                const int i = ((d/64*4 + d/4%4)*32 + r*4 + d/16%4)*4 + b%2*2 + r0/8;
                const uint16_t v = pmkvq_f2h(x[r][k]*up);
                frag[2*i + b/2] = v;
                x[r][k] = pmkvq_h2f(v);
            }
            if (lane == 0) {
                // never 0: it may be multiplied by -inf
                ((float *) (to + MEM::INV))[r0 + r] =
                    fmaxf(fabsf(op.scale)*pmkvq_pow2(-e)*(op.softcap == 0.0f ? LOG2E : 1.0f), 1e-37f);
            }
        }
        for (int g = 0; g < n_groups; ++g) {
            float sum[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                sum[r] = 0.0f;
#pragma unroll
                for (int k = 0; k < 2*NS; ++k) {
                    const int d = lane + 32*k;
                    sum[r] += d >= g*group && d < (g + 1)*group ? x[r][k] : 0.0f;
                }
            }
#pragma unroll
            for (int i = 16; i > 0; i /= 2) {
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    sum[r] += pmkvq_shfl_xor(sum[r], i);
                }
            }
            if (lane == 0) {
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const float    s  = sum[r]*32.0f;
                    const uint16_t hi = pmkvq_f2h(s);
                    const uint16_t lo = pmkvq_f2h(s - pmkvq_h2f(hi));
                    const int i = (g/4*MEM::SUMMED + r*MEM::BESIDE + g%4)*4 + r0/8;
                    sums[i]     = hi | (uint32_t) lo << 16;
                    sums[i + 2] = hi;
                }
            }
        }
    }
}
