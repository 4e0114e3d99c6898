// pmkvq-decode-scores.cuh - an item's products become scores, and weights times values are added to the output, at each width

#pragma once

#include "pmkvq-decode-item.cuh"
#include "pmkvq-decode-values.cuh"

// the groups of a side: with MULTI as many as there are, else one
template <bool MULTI>
static __device__ __forceinline__ int pmkvq_groups(int D, int group) {
    return MULTI && group != 0 ? D/group : 1;
}

// of the block, in the parameters
static __device__ __forceinline__ int pmkvq_cell_in_block(const pmkvq_item & it, int lane) {
    return PMKVQ_ITEM*(it.index%2) + pmkvq_first_cell(lane);
}

// products of codes with a row's integers become scores in log2 units
template <int W, int NB>
static __device__ __forceinline__ float pmkvq_score(
        const int (&acc)[NB][4][4], const pmkvq_params8 & p, const pmkvq_queries<NB> & q, int group, int b, int i, int lane) {
    const int   row = NB*(lane%4) + b;
    const float k   = q.unit[row]*(1.0f/((1 << W) - 1));
    return (float) (acc[b][i/2][i%2*2]*256 + acc[b][i/2][i%2*2 + 1])*(p.range(i)*k) + p.lo(i)*q.sum[group*(4*NB) + row];
}

// scores of 16-bit keys
template <int NS, int NB, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_scores_halves(
        float (&s)[NB][8], uint32_t (&buf)[R][8], const pmkvq_queries<NB> & q, const uint8_t * keys, int D, int lane) {
    float acc[4][4];
    pmkvq_k_halves<NS, NB, R, SHARED>(acc, buf, keys, q.half, D, lane);
#pragma unroll
    for (int b = 0; b < NB; ++b) {
        const float inv = q.inv[NB*(lane%4) + b];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            s[b][i] = acc[i/2][i%2*2 + b]*inv;
        }
    }
}

// one: the parameters, where there is one group
template <int W, int NS, int NB, int R, bool MULTI>
static __device__ __forceinline__ void pmkvq_scores(
        float (&s)[NB][8], uint32_t (&buf)[R][8], const pmkvq_params8 & one, const pmkvq_op_attn & op, const pmkvq_queries<NB> & q, const pmkvq_item & it,
        int head, int D, int lane) {
    if constexpr (W == 16) {
        pmkvq_scores_halves<NS, NB, R>(s, buf, q, it.keys(op), D, lane);
    } else if constexpr (!MULTI) {
        int acc[NB][4][4];
        pmkvq_k_codes<W, NS, NB, R>(acc, buf, it.keys(op), q.template codes<W>(), D, lane, 0, D);
#pragma unroll
        for (int b = 0; b < NB; ++b) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                s[b][i] = pmkvq_score<W, NB>(acc, one, q, 0, b, i, lane);
            }
        }
    } else {
        const int n_groups = pmkvq_groups<MULTI>(D, op.group_k);
#pragma unroll
        for (int b = 0; b < NB; ++b) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                s[b][i] = 0.0f;
            }
        }
#pragma unroll 1
        for (int gi = 0; gi < n_groups; ++gi) {
            const pmkvq_params8 p = pmkvq_params8::load(op.params_k, it.index/2, pmkvq_cell_in_block(it, lane), head, op.n_head_kv, gi, n_groups);
            const int d0 = gi*op.group_k;
            if (d0%64 != 0) { // the span is the group's before, too
                pmkvq_k_first<W, NS, R>(buf, it.keys(op), D, lane, d0/64);
            }
            int acc[NB][4][4];
            pmkvq_k_codes<W, NS, NB, R>(acc, buf, it.keys(op), q.template codes<W>(), D, lane, d0, d0 + op.group_k);
#pragma unroll
            for (int b = 0; b < NB; ++b) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    s[b][i] += pmkvq_score<W, NB>(acc, p, q, gi, b, i, lane);
                }
            }
        }
    }
}

template <int NB>
static __device__ __forceinline__ void pmkvq_cap(float (&s)[NB][8], const pmkvq_op_attn & op) {
    if (op.softcap != 0.0f) {
#pragma unroll
        for (int b = 0; b < NB; ++b) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                // tanh(x) = 1 - 2/(exp(2x) + 1)
                const float y = pmkvq_exp2(s[b][i]*(2.0f*1.4426950408889634f/op.softcap));
                s[b][i] = op.softcap*1.4426950408889634f*(1.0f - 2.0f/(y + 1.0f));
            }
        }
    }
}

// cap, and what the mask adds
template <int NB>
static __device__ __forceinline__ void pmkvq_bias(
        float (&s)[NB][8], const pmkvq_op_attn & op, const pmkvq_queries<NB> & q, const pmkvq_mask & mask, const pmkvq_item & it, int lane) {
    pmkvq_cap<NB>(s, op);
    if (pmkvq_any(it.values())) {
        const uint16_t * row = mask.row(op) + PMKVQ_ITEM*it.index + pmkvq_first_cell(lane);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (it.vis() >> i & 1) {
                const float m = pmkvq_h2f(row[i/2*4 + i%2]);
#pragma unroll
                for (int b = 0; b < NB; ++b) {
                    s[b][i] += q.slope[NB*(lane%4) + b]*m;
                }
            }
        }
    }
}

// weights times 16-bit values
template <int NV, int NB, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_values_halves(
        pmkvq_rows<NV, NB> & rows, const float (&s)[NB][8], uint32_t (&buf)[R][8], const uint8_t * values, uint32_t vis, bool full, int D, int v0, int lane) {
    uint32_t w[4][2];
    pmkvq_weights_halves<NV, NB>(rows, w, s);
    if (full) {
        pmkvq_v_halves<true,  NV, NB, R, SHARED>(rows, buf, values, w, 1.0f/16384.0f, D, v0, lane, 0);
    } else {
        pmkvq_v_halves<false, NV, NB, R, SHARED>(rows, buf, values, w, 1.0f/16384.0f, D, v0, lane, pmkvq_seen16(vis, lane));
    }
}

// weights times values. buf: the first steps, one: the parameters, where there is one group; full: all rows see all cells
template <int W, int NV, int NB, int R, bool MULTI>
static __device__ __forceinline__ void pmkvq_values(
        pmkvq_rows<NV, NB> & rows, const float (&s)[NB][8], uint32_t (&buf)[R][8], const pmkvq_params8 & one, const pmkvq_op_attn & op,
        const pmkvq_item & it, bool full, int head, int D, int v0, int lane) {
    if constexpr (W == 16) {
        pmkvq_values_halves<NV, NB, R>(rows, s, buf, it.cells(op), it.vis(), full, D, v0, lane);
    } else {
        const int n_groups = pmkvq_groups<MULTI>(D, op.group_v);

#pragma unroll
        for (int b = 0; b < NB; ++b) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                rows.l[b] += s[b][i];
            }
        }
#pragma unroll 1
        for (int gi = 0; gi < n_groups; ++gi) {
            const int d0 = MULTI ? gi*op.group_v : 0;
            const int d1 = MULTI ? d0 + op.group_v : D;
            if (MULTI && (d1 <= v0 || d0 >= v0 + 64*NV)) {
                continue;
            }
            pmkvq_params8 p = one;
            if (MULTI) {
                p = pmkvq_params8::load(op.params_v, it.index/2, pmkvq_cell_in_block(it, lane), head, op.n_head_kv, gi, n_groups);
            }
            if (!full) {
                p.keep(it.vis());
            }
            uint32_t w[NB][4];
            float    low[NB];
            float    unit[NB];
            pmkvq_weights_codes<W, NB>(w, low, unit, s, p);
            if (MULTI && d0 > v0 && d0%64 != 0 && pmkvq_v_steps<W>(NV) > R) { // the span is the group's before, too
                pmkvq_v_first<W, NV, R>(buf, it.cells(op), D, v0, lane, (d0 - v0)/64);
            }
            pmkvq_v_codes<W, NV, NB, R>(rows, buf, it.cells(op), w, unit, D, v0, lane, d0, d1);

            if constexpr (!MULTI) {
#pragma unroll
                for (int b = 0; b < NB; ++b) {
                    rows.lo[b] += low[b];
                }
            } else {
#pragma unroll
                for (int b = 0; b < NB; ++b) {
                    low[b] += pmkvq_shfl_xor(low[b], 4);
                    low[b] += pmkvq_shfl_xor(low[b], 8);
                    low[b] += pmkvq_shfl_xor(low[b], 16);
                }
#pragma unroll
                for (int i = 0; i < NV; ++i) {
                    const int d = v0 + 64*i + 8*(lane/4);
                    if (d >= d0 && d < d1) {
#pragma unroll
                        for (int b = 0; b < NB; ++b) {
#pragma unroll
                            for (int j = 0; j < 4; ++j) {
                                rows.out[b][4*i + j][0] += low[b];
                                rows.out[b][4*i + j][1] += low[b];
                            }
                        }
                    }
                }
            }
        }
    }
}
