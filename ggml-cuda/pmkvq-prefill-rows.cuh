// pmkvq-prefill-rows.cuh - what a warp does with an item: scores, the running softmax, weights times values of its 16 M query rows
//
// Queries and weights are operand A, keys and values operand B; what a lane has of them: pmkvq-prefill-tile.cuh. M tiles of rows share
// what is read of K and V, which shared memory is the limit of.
//
// A weight is 2^14 times exp(score - largest), rounded to f16: it keeps 11 bits down to 2^-28 of the largest, so that a long flat tail
// beside a peak is not lost. The output and the sum of weights are in the same unit.

#pragma once

#include "pmkvq-prefill-queries.cuh"

#define PMKVQ_WEIGHT_EXP 14

// NV: 64 dimensions each; NX: tiles of ones and middles behind them
template <int M, int NV, int NX>
struct pmkvq_prefill_rows {
    float out[M][8*NV + NX][4];
    float largest[M][2]; // score of rows g and g+8, in log2 units

    __device__ __forceinline__ pmkvq_prefill_rows() {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int i = 0; i < 8*NV + NX; ++i) {
                out[m][i][0] = out[m][i][1] = out[m][i][2] = out[m][i][3] = 0.0f;
            }
            largest[m][0] = largest[m][1] = -PMKVQ_INF;
        }
    }
};

// the lane's bits of cells (rows g in the low half): place of score e of tile j
static __device__ __forceinline__ constexpr int pmkvq_cell_bit(int j, int e) { return 16*(e/2) + 4*(j/2) + j%2 + 2*(e%2); }

// products of queries with all keys of the tile
template <typename MEM, int NS, int M>
static __device__ __forceinline__ void pmkvq_prefill_scores(
        float (&s)[M][8][4], const uint4 * smem, int first_tile, const uint4 * k, const uint2 * middles, int n_steps, int lane) {
    constexpr int STRIDE = MEM::tile::K_STRIDE;
    const int g = lane/4;
    const int t = lane%4;
    const uint4 * mine = k + (g/2*16 + g%2)*STRIDE + 2*t;
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            s[m][j][0] = s[m][j][1] = s[m][j][2] = s[m][j][3] = 0.0f;
        }
    }
#pragma unroll
    for (int c = 0; c < 2*NS; ++c) {
        uint32_t a[M][2][4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const pmkvq_prefill_queries<MEM> q(smem, first_tile + m);
#pragma unroll
            for (int y = 0; y < 2; ++y) {
                const uint4 x = q.frag(2*c + y, lane);
                a[m][y][0] = x.x;
                a[m][y][1] = x.y;
                a[m][y][2] = x.z;
                a[m][y][3] = x.w;
            }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const uint4 b = mine[(j%2*8 + j/2*2)*STRIDE + c/2*8 + c%2];
#pragma unroll
            for (int m = 0; m < M; ++m) {
                pmkvq_mma_f16(s[m][j], a[m][0], b.x, b.y);
            }
#pragma unroll
            for (int m = 0; m < M; ++m) {
                pmkvq_mma_f16(s[m][j], a[m][1], b.z, b.w);
            }
        }
    }
#pragma unroll
    for (int c = 0; c < MEM::STEPS; ++c) {
        if (c < n_steps) {
            uint32_t a[M][4];
#pragma unroll
            for (int m = 0; m < M; ++m) {
                const uint4 x = pmkvq_prefill_queries<MEM>(smem, first_tile + m).sums(c, lane);
                a[m][0] = x.x;
                a[m][1] = x.y;
                a[m][2] = x.z;
                a[m][3] = x.w;
            }
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                // with one group the lanes t > 0 have queries of 0
                const uint2 b = middles[(c*PMKVQ_ITEM + 8*j + g)*MEM::BESIDE + (MEM::BESIDE > 1 ? t : 0)];
#pragma unroll
                for (int m = 0; m < M; ++m) {
                    pmkvq_mma_f16(s[m][j], a[m], b.x, b.y);
                }
            }
        }
    }
}

// products with codes become scores; units: of the cells, [4 quads][4 subtiles] of four, 0 2 1 3, so that lanes find different banks
template <int M>
static __device__ __forceinline__ void pmkvq_prefill_scale(float (&s)[M][8][4], const float * units, int lane) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const float4 u = ((const float4 *) units)[4*q + lane%4];
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                s[m][2*q][e]     *= e%2 ? u.y : u.x;
                s[m][2*q + 1][e] *= e%2 ? u.w : u.z;
            }
        }
    }
}

// cap, and what the mask adds; cell(i): of the lane's 16
template <typename MEM, int M, typename CELL>
static __device__ __forceinline__ void pmkvq_prefill_bias(
        float (&s)[M][8][4], const pmkvq_op_attn & op, const uint4 * smem, int first_tile, const uint32_t (&vis)[M], bool values, CELL && cell, int lane) {
    if (op.softcap != 0.0f) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    // tanh(x) = 1 - 2/(exp(2x) + 1)
                    const float y = pmkvq_exp2(s[m][j][e]*(2.0f*1.4426950408889634f/op.softcap));
                    s[m][j][e] = op.softcap*1.4426950408889634f*(1.0f - 2.0f/(y + 1.0f));
                }
            }
        }
    }
    if (values) {
#pragma unroll
        for (int m = 0; m < M; ++m) {
            const pmkvq_prefill_queries<MEM> q(smem, first_tile + m);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int        token = q.token(lane/4 + 8*r);
                const float      slope = q.slope(lane/4 + 8*r);
                const uint16_t * row   = (const uint16_t *) ((const char *) op.mask + max(token, 0)*op.mask_nb_token);
#pragma unroll
                for (int j = 0; j < 8; ++j) {
#pragma unroll
                    for (int e = 2*r; e < 2*r + 2; ++e) {
                        const int i = pmkvq_cell_bit(j, e);
                        if (token >= 0 && vis[m] >> i & 1) {
                            s[m][j][e] += slope*pmkvq_h2f(row[cell(i%16)]);
                        }
                    }
                }
            }
        }
    }
}

// scores times k (of rows g and g+8; in log2 units) become weights, operand A of steps of quads
template <int M, int NV, int NX>
static __device__ __forceinline__ void pmkvq_prefill_weights(
        pmkvq_prefill_rows<M, NV, NX> & rows, uint32_t (&w)[M][4][4], float (&s)[M][8][4], const float (&k)[M][2]) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
        float back[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float top = fmaxf(s[m][0][2*r], s[m][0][2*r + 1]);
#pragma unroll
            for (int j = 1; j < 8; ++j) {
                top = fmaxf(top, fmaxf(s[m][j][2*r], s[m][j][2*r + 1]));
            }
            top = fmaxf(top, pmkvq_shfl_xor(top, 1));
            top = fmaxf(top, pmkvq_shfl_xor(top, 2));
            const float now  = fmaxf(rows.largest[m][r], top*k[m][r]);
            const float base = now == -PMKVQ_INF ? 0.0f : now;
            back[r] = pmkvq_exp2(rows.largest[m][r] - base);
            rows.largest[m][r] = now;
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int e = 2*r; e < 2*r + 2; ++e) {
                    s[m][j][e] = pmkvq_exp2(s[m][j][e]*k[m][r] + (PMKVQ_WEIGHT_EXP - base));
                }
            }
        }
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            w[m][q][0] = pmkvq_pack_h2(s[m][2*q][0],     s[m][2*q][1]);
            w[m][q][1] = pmkvq_pack_h2(s[m][2*q][2],     s[m][2*q][3]);
            w[m][q][2] = pmkvq_pack_h2(s[m][2*q + 1][0], s[m][2*q + 1][1]);
            w[m][q][3] = pmkvq_pack_h2(s[m][2*q + 1][2], s[m][2*q + 1][3]);
        }
        // a new maximum is rare in a long cache
        if (pmkvq_any(back[0] != 1.0f || back[1] != 1.0f)) {
#pragma unroll
            for (int i = 0; i < 8*NV + NX; ++i) {
                rows.out[m][i][0] *= back[0];
                rows.out[m][i][1] *= back[0];
                rows.out[m][i][2] *= back[1];
                rows.out[m][i][3] *= back[1];
            }
        }
    }
}

// N tiles of 8 rows of v (dimensions, or ones and middles), from output tile `to`. An item's products are summed up in registers of their
// own and added by ordinary additions: the matrix units cut off what they add to a large sum
template <typename MEM, int N, int M, int NV, int NX>
static __device__ __forceinline__ void pmkvq_prefill_values(
        pmkvq_prefill_rows<M, NV, NX> & rows, int to, const uint4 * v, const uint32_t (&w)[M][4][4], float unit, int lane) {
    constexpr int STRIDE = MEM::tile::V_STRIDE;
    const uint4 * mine = v + lane/4*STRIDE + lane%4*2;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        float acc[M][4] = {};
#pragma unroll
        for (int x = 0; x < 2; ++x) {
            const uint4 b = mine[8*i*STRIDE + x];
#pragma unroll
            for (int m = 0; m < M; ++m) {
                pmkvq_mma_f16(acc[m], w[m][2*x], b.x, b.y);
            }
#pragma unroll
            for (int m = 0; m < M; ++m) {
                pmkvq_mma_f16(acc[m], w[m][2*x + 1], b.z, b.w);
            }
        }
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                rows.out[m][to + i][e] += acc[m][e]*unit;
            }
        }
    }
}
