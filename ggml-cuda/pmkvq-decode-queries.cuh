// pmkvq-decode-queries.cuh - a tile of 4 or 8 query rows, as operand B of the matrix units
//
// NB: a lane has row NB t + b in block b < NB of 4 rows. Columns 2t and 2t+1 of a block's operand are the high and the low part of one row's
// integers, so that both parts of a score come out in one lane:
//
//   q = unit (256 hi + lo)      16 bits of the row's largest value, hi and lo signed bytes
//
// For codes that stand p bits up in their byte the integers are of q 2^-p: a set of integers for each width. Keys of 16 bits take f16,
// scaled by a power of two so that the largest value lies in [2^13, 2^14): there the columns are 8 rows, or 4 with zeros between them.
//
// Pair (s, h) of two quads, 32 dimensions of a step: lane 4g+t has dimensions 64s + 16t + 8h .. +7 of row NB (g/2) + b, part g%2.
// Step (s, c) of 16 dimensions for f16: dimensions 64s + 16t + 4c .. +3, (0 2) and (1 3).

#pragma once

#include "pmkvq-attn-common.cuh"

// bits by which quad c of a step's four stands above the lowest of its byte
template <int W> static constexpr __host__ __device__ int pmkvq_quad_bit(int c) { return c%(8/W)*W; }

// a tile's queries in shared memory
template <int NB>
struct pmkvq_queries {
    static constexpr int ROWS = 4*NB;

    int     NS;    // of 64 dimensions
    uint2 * half;  // [4*NS][ROWS][4]
    uint2 * code;  // [3][2*NS][NB][32]: for 8, 4 and 2 bits
    float * unit;  // [ROWS]: what takes sums of integer products there; without the log2 where a cap comes first
    float * inv;   // [ROWS]: the same for f16
    float * slope; // [ROWS], times log2(e)
    int   * token; // [ROWS], -1: no such row
    int   * head;  // [ROWS], of all query heads
    float * sum;   // [n_groups][ROWS]: of the row, in log2 units of a score. Last, so that all places are constants

    static __host__ __device__ size_t bytes(int NS, int n_groups) {
        return (size_t) NS*NB*256*sizeof(uint2) + (n_groups + 5)*ROWS*sizeof(float);
    }

    __device__ __forceinline__ pmkvq_queries(uint8_t * smem, int NS) : NS(NS) {
        half  = (uint2 *) smem;
        code  = half + 4*NS*ROWS*4;
        unit  = (float *) (code + 3*2*NS*NB*32);
        inv   = unit + ROWS;
        slope = inv + ROWS;
        token = (int *) (slope + ROWS);
        head  = token + ROWS;
        sum   = (float *) (head + ROWS);
    }

    // the integers for codes of W bits
    template <int W>
    __device__ __forceinline__ const uint2 * codes() const {
        return code + (W == 8 ? 0 : W == 4 ? 1 : 2)*(2*NS*NB*32);
    }

    // the power of two that takes a row's largest value to [2^13, 2^14)
    static __device__ __forceinline__ int scale_of(float amax) {
        return amax > 0.0f ? min(max(13 - pmkvq_exponent(amax), -100), 100) : 0;
    }

    // what takes the largest value to 127*256; smaller rows are as good as zero
    static __device__ __forceinline__ float up_of(float amax) {
        return 32512.0f/fmaxf(amax, 1e-30f);
    }

    static __device__ __forceinline__ float log2_units(const pmkvq_op_attn & op) {
        return op.scale*(op.softcap == 0.0f ? 1.4426950408889634f : 1.0f);
    }

    __device__ __forceinline__ void describe(const pmkvq_op_attn & op, int r, float amax, int e, bool there, int tok, int hq) {
        unit[r]  = fmaxf(amax, 1e-30f)*(1.0f/32512.0f)*log2_units(op);
        inv[r]   = pmkvq_pow2(-e)*log2_units(op);
        slope[r] = (there ? pmkvq_slope(op.max_bias, op.n_head, hq) : 0.0f)*1.4426950408889634f;
        token[r] = there ? tok : -1;
        head[r]  = hq;
    }

    // x times up as an integer, to the nearest, in the low bits: 16 of them count
    static __device__ __forceinline__ uint32_t integer(float x, float up) {
        return pmkvq_float_bits(x*up + 12582912.0f); // 1.5 * 2^23
    }

    // where the word of part 0 or 1 (high, low) of a quad lies, for the set of width number w
    __device__ __forceinline__ uint32_t * word(int w, int d, int r, int part) const {
        const int pair = d/64*2 + d/8%2;
        const int lane = 4*(2*(r/NB) + part) + d/16%4;
        return (uint32_t *) (code + ((w*2*NS + pair)*NB + r%NB)*32 + lane) + d/4%2;
    }

    // a quad of dimensions from d on, for codes of W bits
    template <int W>
    __device__ __forceinline__ void put(const float (&x)[4], float up, int d, int r) const {
        const float scaled = up/(1 << pmkvq_quad_bit<W>(d/4%4));
        uint32_t lo[4], hi[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            lo[i] = integer(x[i], scaled);
            hi[i] = lo[i] + 128;
        }
        const int w = W == 8 ? 0 : W == 4 ? 1 : 2;
        *word(w, d, r, 0) = pmkvq_perm(pmkvq_perm(hi[0], hi[1], 0x0051), pmkvq_perm(hi[2], hi[3], 0x0051), 0x5410);
        *word(w, d, r, 1) = pmkvq_perm(pmkvq_perm(lo[0], lo[1], 0x0040), pmkvq_perm(lo[2], lo[3], 0x0040), 0x5410);
    }

    __device__ __forceinline__ void put_all(const float (&x)[4], float amax, int e, int d, int r) const {
        const float up = pmkvq_pow2(e);
        half[((d/64*4 + d/4%4)*ROWS + r)*4 + d/16%4] = make_uint2(pmkvq_pack_h2(x[0]*up, x[2]*up), pmkvq_pack_h2(x[1]*up, x[3]*up));
        put<8>(x, up_of(amax), d, r);
        put<4>(x, up_of(amax), d, r);
        put<2>(x, up_of(amax), d, r);
    }

    // by n threads; before fill(), with a barrier between them
    __device__ __forceinline__ void clear(int thread, int n) {
        uint4 * all = (uint4 *) half;
        for (int i = thread; i < NS*NB*128; i += n) {
            all[i] = make_uint4(0, 0, 0, 0);
        }
    }

    // one group, head dimension 64 or 128: rows of a warp, asked for here and put later. A lane has dimensions 4 lane .. +3
    template <int D, int N>
    static __device__ __forceinline__ void ask(float (&x)[N][4], const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int head_kv, int first) {
        const int d = 4*(threadIdx.x%32);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            int tok, h;
            const bool there = tiling.row(tile, first + n, op.n_tokens, tok, h) && d < D;
            const float * p = (const float *) ((const char *) op.q + (there ? (head_kv*tiling.ratio + h)*op.q_nb_head + tok*op.q_nb_token : 0)) + d;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[n][i] = there ? p[i] : 0.0f;
            }
        }
    }

    // a barrier must follow; nothing has to be cleared before
    template <int D, int N>
    __device__ __forceinline__ void put_rows(
            const float (&x)[N][4], const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int head_kv, int first) {
        const int lane = threadIdx.x%32;
        const int d    = 4*lane;
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int r = first + n;
            float amax = fmaxf(fmaxf(fabsf(x[n][0]), fabsf(x[n][1])), fmaxf(fabsf(x[n][2]), fabsf(x[n][3])));
            float s    = (x[n][0] + x[n][1]) + (x[n][2] + x[n][3]);
#pragma unroll
            for (int i = 16; i > 0; i /= 2) {
                amax = fmaxf(amax, pmkvq_shfl_xor(amax, i));
                s   += pmkvq_shfl_xor(s, i);
            }
            const int e = scale_of(amax);
            if (d < D) {
                put_all(x[n], amax, e, d, r);
            }
            if (lane == 0) {
                int tok, h;
                const bool there = tiling.row(tile, r, op.n_tokens, tok, h);
                sum[r] = s*log2_units(op);
                describe(op, r, amax, e, there, tok, head_kv*tiling.ratio + h);
            }
        }
    }

    // by n_warp warps; a barrier must follow
    __device__ __forceinline__ void fill(const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int head_kv, int n_groups, int warp, int n_warp) {
        const int lane  = threadIdx.x%32;
        const int D     = op.head_dim_k;
        const int group = D/n_groups;

        for (int r = warp; r < ROWS; r += n_warp) {
            int tok, h;
            const bool there = tiling.row(tile, r, op.n_tokens, tok, h);
            const int  hq    = head_kv*tiling.ratio + h;

            const float * row = (const float *) ((const char *) op.q + (there ? hq*op.q_nb_head + tok*op.q_nb_token : 0));

            float amax = 0.0f;
            for (int d = lane; d < D; d += 32) {
                amax = fmaxf(amax, there ? fabsf(row[d]) : 0.0f);
            }
#pragma unroll
            for (int i = 16; i > 0; i /= 2) {
                amax = fmaxf(amax, pmkvq_shfl_xor(amax, i));
            }
            const int e = scale_of(amax);

            for (int gi = 0; gi < n_groups; ++gi) {
                float s = 0.0f;
                // head dimensions are multiples of 8
                for (int d = gi*group + 4*lane; d < (gi + 1)*group; d += 128) {
                    float x[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        x[i] = there ? row[d + i] : 0.0f;
                        s += x[i];
                    }
                    put_all(x, amax, e, d, r);
                }
#pragma unroll
                for (int i = 16; i > 0; i /= 2) {
                    s += pmkvq_shfl_xor(s, i);
                }
                if (lane == 0) {
                    sum[gi*ROWS + r] = s*log2_units(op);
                }
            }
            if (lane == 0) {
                describe(op, r, amax, e, there, tok, hq);
            }
        }
    }
};
