// pmkvq-decode-result.cuh - what a CTA's warps have summed up becomes one partial result of each row

#pragma once

#include "pmkvq-decode-deal.cuh"
#include "pmkvq-decode-queries.cuh"
#include "pmkvq-decode-rows.cuh"

// floats of a warp's record: rows of the output, then largest scores and sums
template <int NV, int NB> static constexpr __host__ __device__ int pmkvq_record() {
    return 4*NB*(64*NV + 2);
}

// by each warp, into its record
template <int NV, int NB>
static __device__ __forceinline__ void pmkvq_put_record(float * mine, const pmkvq_rows<NV, NB> & rows, int lane) {
    constexpr int ROWS = 4*NB;
    const int g = lane/4;
    const int t = lane%4;
#pragma unroll
    for (int b = 0; b < NB; ++b) {
        float l  = rows.l[b];
        float lo = rows.lo[b];
#pragma unroll
        for (int x = 4; x < 32; x *= 2) {
            l  += pmkvq_shfl_xor(l,  x);
            lo += pmkvq_shfl_xor(lo, x);
        }
        const int row = NB*t + b;
#pragma unroll
        for (int i = 0; i < 4*NV; ++i) {
            const float (&o)[2] = rows.out[b][i];
            *(float2 *) (mine + row*(64*NV) + i/4*64 + 8*g + i%4*2) = make_float2(o[0] + lo, o[1] + lo);
        }
        if (g == 0) {
            mine[ROWS*(64*NV) + row]        = rows.m[b];
            mine[ROWS*(64*NV) + ROWS + row] = l;
        }
    }
}

// by all warps after a barrier: a warp writes every fourth row
template <int NV, int NB>
static __device__ __forceinline__ void pmkvq_write_partials(
        const float * records, const pmkvq_op_attn & op, const pmkvq_queries<NB> & q, const pmkvq_part & part, int Dv, int v0, int warp, int lane) {
    constexpr int ROWS    = 4*NB;
    constexpr int row_len = 64*NV;
    for (int row = warp; row < ROWS; row += PMKVQ_WARPS) {
        if (q.token[row] < 0) {
            continue;
        }
        float m = -PMKVQ_INF;
#pragma unroll
        for (int w = 0; w < PMKVQ_WARPS; ++w) {
            m = fmaxf(m, records[w*pmkvq_record<NV, NB>() + ROWS*row_len + row]);
        }
        float k[PMKVQ_WARPS];
        float l = 0.0f;
#pragma unroll
        for (int w = 0; w < PMKVQ_WARPS; ++w) {
            const float * rec = records + w*pmkvq_record<NV, NB>() + ROWS*row_len;
            k[w] = m == -PMKVQ_INF ? 0.0f : pmkvq_exp2(rec[row] - m);
            l += k[w]*rec[ROWS + row];
        }
        const size_t in_chunk = (size_t) op.n_tokens*op.n_head*(Dv + 2);
        float * dst = op.dst + ((size_t) q.token[row]*op.n_head + q.head[row])*(Dv + 2) + part.chunk*in_chunk;
#pragma unroll
        for (int i = 0; i < 2*NV; ++i) {
            const int d = 32*i + lane;
            float x = 0.0f;
#pragma unroll
            for (int w = 0; w < PMKVQ_WARPS; ++w) {
                x += k[w]*records[w*pmkvq_record<NV, NB>() + row*row_len + d];
            }
            if (v0 + d < Dv) {
                dst[v0 + d] = x;
            }
        }
        if (lane == 0 && v0 == 0) {
            dst[Dv]     = m*0.6931471805599453f;
            dst[Dv + 1] = l;
        }
        // chunks that the tile has not have seen nothing
        if (v0 == 0) {
            for (int c = part.used*(lane + 1); part.chunk + c < (int) op.n_chunk; c += 32*part.used) {
                dst[c*in_chunk + Dv]     = -PMKVQ_INF;
                dst[c*in_chunk + Dv + 1] = 0.0f;
            }
        }
    }
}
