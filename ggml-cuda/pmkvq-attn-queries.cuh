// pmkvq-attn-queries.cuh - a tile of 8 or 16 query rows, as an operand of the matrix units
//
// Step (s, c) of 16 dimensions: lane 4g+t has dimensions 64s + 16t + 4c .. +3 of row g, and of row g+8 where there are 16 rows:
//   8 rows    (0 2) (1 3)               operand B
//  16 rows    (0 2) of g and g+8, then (1 3) of both: operand A, or two operands B
//
// A row is scaled by a power of two so that its largest value lies in [2^13, 2^14), and rounded to f16: nothing overflows, and what
// becomes subnormal is 2^-27 of the row's largest. The sums over groups are of the rounded values, so that
//   q.k = scale (q.c) + min sum(q)
// holds for the rounded q exactly.

#pragma once

#include "pmkvq-attn-common.cuh"

// a tile's queries in shared memory
struct pmkvq_queries {
    int     rows;
    uint32_t * frag; // [4*NS][32][rows/4]
    float * sum;   // [n_groups][16]
    float * inv;   // [16]: what takes a score's sum to log2 units; without the log2 where a cap comes first
    float * slope; // [16], times log2(e)
    int   * token; // [16], -1: no such row
    int   * head;  // [16], of all query heads

    static __host__ __device__ size_t bytes(int rows, int NS, int n_groups) {
        return (size_t) NS*32*rows*sizeof(uint32_t) + (n_groups + 4)*16*sizeof(float);
    }

    __device__ __forceinline__ pmkvq_queries(uint8_t * smem, int rows, int NS, int n_groups) : rows(rows) {
        frag  = (uint32_t *) smem;
        sum   = (float *) (frag + NS*32*rows);
        inv   = sum + n_groups*16;
        slope = inv + 16;
        token = (int *) (slope + 16);
        head  = token + 16;
    }

    // the power of two that takes a row's largest value to [2^13, 2^14)
    static __device__ __forceinline__ int scale_of(float amax) {
        return amax > 0.0f ? min(max(13 - pmkvq_exponent(amax), -100), 100) : 0;
    }

    __device__ __forceinline__ void describe(const pmkvq_op_attn & op, int r, int e, bool there, int tok, int hq) {
        const float log2e = 1.4426950408889634f;
        inv[r]   = op.scale*pmkvq_pow2(-e)*(op.softcap == 0.0f ? log2e : 1.0f);
        slope[r] = (there ? pmkvq_slope(op.max_bias, op.n_head, hq) : 0.0f)*log2e;
        token[r] = there ? tok : -1;
        head[r]  = hq;
    }

    // by n threads; before fill(), with a barrier between them
    __device__ __forceinline__ void clear(int NS, int thread, int n) {
        for (int i = thread; i < NS*8*rows; i += n) {
            ((uint4 *) frag)[i] = make_uint4(0, 0, 0, 0);
        }
    }

    // by n_warp warps; a barrier must follow. One group, head dimension 64 or 128: nothing has to be cleared before
    template <int D>
    __device__ __forceinline__ void fill_one(const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int head_kv, int warp, int n_warp) {
        const int lane = threadIdx.x%32;
        const int d    = 4*lane;
        for (int r = warp; r < rows; r += n_warp) {
            int tok, h;
            const bool there = tiling.row(tile, r, op.n_tokens, tok, h);
            const int  hq    = head_kv*tiling.ratio + h;

            float x[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
            if (there && d < D) {
                const float * p = (const float *) ((const char *) op.q + hq*op.q_nb_head + tok*op.q_nb_token) + d;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    x[i] = p[i];
                }
            }
            float amax = fmaxf(fmaxf(fabsf(x[0]), fabsf(x[1])), fmaxf(fabsf(x[2]), fabsf(x[3])));
#pragma unroll
            for (int i = 16; i > 0; i /= 2) {
                amax = fmaxf(amax, pmkvq_shfl_xor(amax, i));
            }
            const int   e  = scale_of(amax);
            const float up = pmkvq_pow2(e);
            const uint32_t w0 = pmkvq_pack_h2(x[0]*up, x[2]*up);
            const uint32_t w1 = pmkvq_pack_h2(x[1]*up, x[3]*up);
            const float2 y0 = pmkvq_unpack_h2(w0);
            const float2 y1 = pmkvq_unpack_h2(w1);
            float s = (y0.x + y0.y) + (y1.x + y1.y);
#pragma unroll
            for (int i = 16; i > 0; i /= 2) {
                s += pmkvq_shfl_xor(s, i);
            }
            if (d < D) {
                const int i = ((d/64*4 + lane%4)*32 + r%8*4 + d/16%4)*(rows/4) + r/8;
                frag[i]          = w0;
                frag[i + rows/8] = w1;
            }
            if (lane == 0) {
                sum[r] = s;
                describe(op, r, e, there, tok, hq);
            }
        }
    }

    // by n_warp warps; a barrier must follow
    __device__ __forceinline__ void fill(const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int head_kv, int n_groups, int warp, int n_warp) {
        const int lane  = threadIdx.x%32;
        const int D     = op.head_dim_k;
        const int group = D/n_groups;

        for (int r = warp; r < rows; r += n_warp) {
            int tok, h;
            const bool there = tiling.row(tile, r, op.n_tokens, tok, h);
            const int  hq    = head_kv*tiling.ratio + h;

            const float * x = (const float *) ((const char *) op.q + (there ? hq*op.q_nb_head + tok*op.q_nb_token : 0));

            float amax = 0.0f;
            for (int d = lane; d < D; d += 32) {
                amax = fmaxf(amax, there ? fabsf(x[d]) : 0.0f);
            }
#pragma unroll
            for (int i = 16; i > 0; i /= 2) {
                amax = fmaxf(amax, pmkvq_shfl_xor(amax, i));
            }
            const int e = scale_of(amax);

            for (int gi = 0; gi < n_groups; ++gi) {
                float s = 0.0f;
                for (int d = gi*group + lane; d < (gi + 1)*group; d += 32) {
                    const uint16_t v = there ? pmkvq_f2h(x[d]*pmkvq_pow2(e)) : 0;
                    s += pmkvq_h2f(v);
                    // dimension 64s + 16t + 4c + b; pairs (0, 2) and (1, 3)
                    const int b = d%4;
                    const int l = r%8*4 + d/16%4;
                    const int i = ((d/64*4 + d/4%4)*32 + l)*(rows/4) + r/8 + b%2*(rows/8);
                    ((uint16_t *) frag)[2*i + b/2] = v;
                }
#pragma unroll
                for (int i = 16; i > 0; i /= 2) {
                    s += pmkvq_shfl_xor(s, i);
                }
                if (lane == 0) {
                    sum[gi*16 + r] = s;
                }
            }
            if (lane == 0) {
                describe(op, r, e, there, tok, hq);
            }
        }
    }
};
