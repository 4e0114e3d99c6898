// pmkvq-prefill-output.cuh - what a warp has summed up becomes partial results

#pragma once

#include "pmkvq-prefill-rows.cuh"

// partial results of a warp's rows, by way of shared memory so that whole lines are written. at: 8 rows of 64 NV + 4 floats, this warp's
template <typename MEM, bool MULTI, int M, int NV, int NX>
static __device__ __forceinline__ void pmkvq_prefill_output(
        const pmkvq_prefill_rows<M, NV, NX> & rows, const pmkvq_op_attn & op, const uint4 * smem, int first_tile, float * at, int chunk, int v0, int lane) {
    constexpr int ROW = 64*NV + 4;
    const float back = 1.0f/(1 << PMKVQ_WEIGHT_EXP);
    const int g  = lane/4;
    const int t  = lane%4;
    const int Dv = op.head_dim_v;
#pragma unroll
    for (int m = 0; m < M; ++m) {
        const pmkvq_prefill_queries<MEM> q(smem, first_tile + m);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            // column 0 is the sum of weights, then come hi and lo of the groups' middles
            auto column = [&](int c) {
                float y = 0.0f;
#pragma unroll
                for (int x = 0; x < NX; ++x) {
                    const float y0 = pmkvq_shfl(rows.out[m][8*NV + x][2*r],     4*g + c%8/2);
                    const float y1 = pmkvq_shfl(rows.out[m][8*NV + x][2*r + 1], 4*g + c%8/2);
                    y = c/8 == x ? (c%2 ? y1 : y0) : y;
                }
                return y;
            };
            const float sum = column(0);
            float add = MULTI ? 0.0f : column(1) + column(2);
#pragma unroll
            for (int i = 0; i < 2*NV; ++i) {
                const int d = 32*i + 8*t;
                if constexpr (MULTI) {
                    const int group = v0 + d < Dv && op.group_v != 0 ? (v0 + d)/(int) op.group_v - v0/(int) op.group_v : 0;
                    add = column(1 + 2*group) + column(2 + 2*group);
                }
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    *(float4 *) (at + g*ROW + d + 4*e) = make_float4(
                        (rows.out[m][4*i + 0][2*r + e] + add)*back, (rows.out[m][4*i + 1][2*r + e] + add)*back,
                        (rows.out[m][4*i + 2][2*r + e] + add)*back, (rows.out[m][4*i + 3][2*r + e] + add)*back);
                }
            }
            pmkvq_syncwarp();
#pragma unroll 1
            for (int x = 0; x < 8; ++x) {
                const int token = q.token(x + 8*r);
                if (token < 0) {
                    continue;
                }
                float * dst = op.dst + (((size_t) chunk*op.n_tokens + token)*op.n_head + q.head(x + 8*r))*(Dv + 2);
#pragma unroll
                for (int i = 0; i < 2*NV; ++i) {
                    if (v0 + 32*i + lane < Dv) {
                        dst[v0 + 32*i + lane] = at[x*ROW + 32*i + lane];
                    }
                }
            }
            const int token = q.token(g + 8*r);
            if (token >= 0 && t == 0 && v0 == 0) {
                float * dst = op.dst + (((size_t) chunk*op.n_tokens + token)*op.n_head + q.head(g + 8*r))*(Dv + 2) + Dv;
                dst[0] = rows.largest[m][r]*0.6931471805599453f;
                dst[1] = sum*back;
            }
            pmkvq_syncwarp();
        }
    }
}
