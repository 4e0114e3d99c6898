// pmkvq-prefill-current.cuh - tokens of the current batch into a tile: read from the graph's own K and V, not from the cache

#pragma once

#include "pmkvq-prefill-unpack.cuh"

// 4 N floats; aligned: to 16 bytes
template <int N>
static __device__ __forceinline__ void pmkvq_load_floats(float4 (&x)[N], const float * p, bool aligned) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
        x[i] = aligned ? ((const float4 *) p)[i] : make_float4(p[4*i], p[4*i + 1], p[4*i + 2], p[4*i + 3]);
    }
}

// rounded as the cache rounds
static __device__ __forceinline__ uint32_t pmkvq_pack_sat(float a, float b) { return pmkvq_f2h_sat(a) | (uint32_t) pmkvq_f2h_sat(b) << 16; }

// n tokens from `first`, by all threads of a CTA
template <int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_put_current(const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_op_attn & op, int head, int first, int n, int v0) {
    const int Dk = op.head_dim_k;
    const int Dv = op.head_dim_v;
    const bool aligned_k = ((uintptr_t) op.k_cur | op.k_nb_head | op.k_nb_token)%16 == 0;
    const bool aligned_v = ((uintptr_t) op.v_cur | op.v_nb_head | op.v_nb_token)%16 == 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < PMKVQ_ITEM*(Dk/8); i += THREADS) {
        const int cell  = i/(Dk/8);
        const int piece = i%(Dk/8);
        const float * src = (const float *) ((const char *) op.k_cur + head*op.k_nb_head + (first + min(cell, n - 1))*op.k_nb_token) + 8*piece;
        float4 x[2];
        pmkvq_load_floats(x, src, aligned_k);
        tile.k_row(cell)[piece] = make_uint4(
            pmkvq_pack_sat(x[0].x, x[0].z), pmkvq_pack_sat(x[0].y, x[0].w), pmkvq_pack_sat(x[1].x, x[1].z), pmkvq_pack_sat(x[1].y, x[1].w));
    }
#pragma unroll 1
    for (int i = threadIdx.x; i < 128*NV; i += THREADS) {
        const int d     = i%(16*NV)*4;
        const int piece = i/(16*NV);
        if (v0 + d >= Dv) {
            continue;
        }
        uint32_t w[16];
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            const float * src = (const float *) ((const char *) op.v_cur + head*op.v_nb_head + (first + min(8*piece + c, n - 1))*op.v_nb_token) + v0 + d;
            float4 x[1];
            pmkvq_load_floats(x, src, aligned_v);
            w[2*c]     = pmkvq_pack_sat(x[0].x, x[0].y);
            w[2*c + 1] = pmkvq_pack_sat(x[0].z, x[0].w);
        }
        const uint4 y[4] = { make_uint4(w[0], w[1], w[2], w[3]), make_uint4(w[4], w[5], w[6], w[7]), make_uint4(w[8], w[9], w[10], w[11]),
            make_uint4(w[12], w[13], w[14], w[15]) };
        pmkvq_put_v16(tile, d, piece, y);
    }
}
