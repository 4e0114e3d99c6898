// pmkvq-attn-decode.cuh - attention of a few queries: blocks of mixed widths through the table, and the current batch
//
// A CTA has a chunk of the cells, a KV head and a tile of 16 query rows that share its keys. Its warps take items of 64 cells in turn,
// each with a running softmax of its own; they are merged at the end into one partial result (pmkvq-merge.cu merges those).
// An item's first loads are under way while the item before it is multiplied.

#pragma once

#include "pmkvq-attn-item.cuh"

template <int NS>
static __device__ __forceinline__ void pmkvq_first_k(uint4 (&buf)[8], const pmkvq_item & it, int D, int lane) {
    switch (it.wk) {
        case 16: pmkvq_k_first<16, NS>(buf, it.k, D, lane); break;
        case  8: pmkvq_k_first< 8, NS>(buf, it.k, D, lane); break;
        case  4: pmkvq_k_first< 4, NS>(buf, it.k, D, lane); break;
        case  2: pmkvq_k_first< 2, NS>(buf, it.k, D, lane); break;
    }
}

template <int NV>
static __device__ __forceinline__ void pmkvq_first_v(uint4 (&buf)[8], const pmkvq_item & it, int D, int v0, int lane) {
    switch (it.wv) {
        case 16: pmkvq_v_load<16, NV, 0>(buf, it.v, 0, D, v0, lane); break;
        case  8: pmkvq_v_load< 8, NV, 0>(buf, it.v, 0, D, v0, lane); break;
        case  4: pmkvq_v_load< 4, NV, 0>(buf, it.v, 0, D, v0, lane); break;
        case  2: pmkvq_v_load< 2, NV, 0>(buf, it.v, 0, D, v0, lane); break;
    }
}

// rows of the current batch as halves in shared memory, [64][D]; those beyond the batch are not written, nobody sees them
static __device__ __forceinline__ void pmkvq_stage(uint16_t * dst, const float * x, size_t nb_head, size_t nb_token, int head, int first, int n, int D) {
    for (int i = threadIdx.x; i < n*D; i += PMKVQ_THREADS) {
        const int tok = i/D;
        dst[i] = pmkvq_f2h_sat(((const float *) ((const char *) x + head*nb_head + (first + tok)*nb_token))[i%D]);
    }
}

// floats of a warp's record in the merge: rows of the output, then largest scores and sums
template <int NV> static constexpr __host__ __device__ int pmkvq_record() {
    return PMKVQ_ROWS*(64*NV + 2);
}

template <int NS, int NV, bool HALF, bool MULTI>
static __global__ void __launch_bounds__(PMKVQ_THREADS, 2) pmkvq_attn_decode(const pmkvq_op_attn op) {
    PMKVQ_DYNAMIC_SHARED(smem);

    const int lane = threadIdx.x%32;
    const int warp = threadIdx.x/32;
    const int g    = lane/4;
    const int t    = lane%4;

    const pmkvq_tiling tiling = pmkvq_tiling::of(op.n_tokens, op.n_head, op.n_head_kv);
    const int chunk = blockIdx.x;
    const int head  = blockIdx.y/tiling.tiles;
    const int tile  = blockIdx.y%tiling.tiles;
    const int v0    = blockIdx.z*64*NV;
    const int Dk    = op.head_dim_k;
    const int Dv    = op.head_dim_v;

    const int n_groups_k = pmkvq_groups<MULTI>(Dk, op.group_k);

    pmkvq_queries q(smem, NS, n_groups_k);
    q.clear(NS, threadIdx.x, PMKVQ_THREADS);
    pmkvq_syncthreads();
    q.fill(op, tiling, tile, head, n_groups_k, warp, PMKVQ_WARPS);
    pmkvq_syncthreads();

    float * buffer = (float *) (smem + pmkvq_queries::bytes(NS, n_groups_k));

    pmkvq_mask mask;
    mask.aligned = (op.mask_nb_token | (uintptr_t) op.mask)%16 == 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int token = q.token[g + 8*r];
        mask.there[r] = token >= 0;
        mask.slope[r] = q.slope[g + 8*r];
        mask.row[r]   = (const uint16_t *) ((const char *) op.mask + max(token, 0)*op.mask_nb_token);
    }

    pmkvq_rows<NV, HALF> rows;

    const int n_items = min(2*(int) op.n_blocks, ((int) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM);
    const int n_work  = op.n_chunk*PMKVQ_WARPS;
    const int my_cell = op.k_cur && lane < (int) op.n_tokens ? (int) op.cells[lane] : -1;

    // rounds of n_work items, rotated: blocks of several sequences follow a pattern that must not meet the warps'
    const int me      = chunk*PMKVQ_WARPS + warp;
    auto      nth     = [&](int round) { return round*n_work + (me + 5*round)%n_work; };

    int round   = 0;
    int item    = nth(0);
    int entries = pmkvq_entries(op, item, n_items, lane);

    uint4 kbuf[8];
    uint4 vbuf[8];

    pmkvq_item it;
    it.wk = 0;
    if (item < n_items) {
        it = pmkvq_resolve(op, item, entries, mask, head, my_cell, lane);
    }
    bool live = item < n_items && pmkvq_any(it.vis != 0);
    if (live) {
        pmkvq_first_k<NS>(kbuf, it, Dk, lane);
    }
    entries = pmkvq_entries(op, nth(1), n_items, lane);

    while (item < n_items) {
        float s[8][4];
        if (live) {
            pmkvq_first_v<NV>(vbuf, it, Dv, v0, lane);
            switch (it.wk) {
                case 16: pmkvq_scores<16, NS, MULTI, HALF>(s, kbuf, op, q, it, head, lane); break;
                case  8: pmkvq_scores< 8, NS, MULTI, HALF>(s, kbuf, op, q, it, head, lane); break;
                case  4: pmkvq_scores< 4, NS, MULTI, HALF>(s, kbuf, op, q, it, head, lane); break;
                default: pmkvq_scores< 2, NS, MULTI, HALF>(s, kbuf, op, q, it, head, lane); break;
            }
        }
        // the next item's keys
        const int next_item = nth(round + 1);
        pmkvq_item next;
        next.wk = 0;
        bool next_live = false;
        if (next_item < n_items) {
            next      = pmkvq_resolve(op, next_item, entries, mask, head, my_cell, lane);
            next_live = pmkvq_any(next.vis != 0);
            entries   = pmkvq_entries(op, nth(round + 2), n_items, lane);
            if (next_live) {
                pmkvq_first_k<NS>(kbuf, next, Dk, lane);
            }
        }
        if (live) {
            pmkvq_bias<HALF>(s, op, mask, it.vis, it.values, PMKVQ_ITEM*item + 16*t);
            rows.softmax(s, it.vis);
            switch (it.wv) {
                case 16: pmkvq_values<16, NV, MULTI, HALF>(rows, s, vbuf, op, it, head, v0, lane); break;
                case  8: pmkvq_values< 8, NV, MULTI, HALF>(rows, s, vbuf, op, it, head, v0, lane); break;
                case  4: pmkvq_values< 4, NV, MULTI, HALF>(rows, s, vbuf, op, it, head, v0, lane); break;
                default: pmkvq_values< 2, NV, MULTI, HALF>(rows, s, vbuf, op, it, head, v0, lane); break;
            }
        }
        round++;
        item = next_item;
        it   = next;
        live = next_live;
    }

    // the current batch, by the last chunk's first warp
    if (op.k_cur && chunk == (int) op.n_chunk - 1) {
        uint16_t * stage = (uint16_t *) buffer;
        for (int first = 0; first < (int) op.n_tokens; first += PMKVQ_ITEM) {
            const int n = min((int) op.n_tokens - first, PMKVQ_ITEM);

            float s[8][4];
            it.vis    = 0;
            it.values = false;
            it.index  = 0;
            pmkvq_syncthreads();
            pmkvq_stage(stage, op.k_cur, op.k_nb_head, op.k_nb_token, head, first, n, Dk);
            pmkvq_syncthreads();
            if (warp == 0) {
                uint16_t * at = stage + (size_t) 16*(g/2)*Dk;
                it.k = (const uint8_t *) at;
                pmkvq_k_first<16, NS, true>(kbuf, it.k, Dk, lane);
                pmkvq_k_item<16, NS, true>(s, kbuf, it.k, q.frag, Dk, lane, 0, Dk);
                const float inv[2] = { q.inv[g], q.inv[g + 8] };
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    s[i][0] *= inv[0];
                    s[i][1] *= inv[0];
                    s[i][2] *= inv[1];
                    s[i][3] *= inv[1];
                }
                pmkvq_bias<HALF>(s, op, mask, 0, false, 0);
#pragma unroll
                for (int i = 0; i < 16; ++i) {
                    const int     tok  = 16*t + i;
                    const int64_t cell = tok < n ? op.cells[first + tok] : -1;
                    if (cell >= 0 && cell < (int64_t) op.n_kv) {
#pragma unroll
                        for (int r = 0; r < (HALF ? 1 : 2); ++r) {
                            const uint16_t m = mask.there[r] ? mask.row[r][cell] : 0xfc00;
                            if (m != 0xfc00) {
                                it.vis |= 1u << (16*r + i);
                                s[i%8][2*r + i/8] += mask.slope[r]*pmkvq_h2f(m);
                            }
                        }
                    }
                }
            }
            pmkvq_syncthreads();
            pmkvq_stage(stage, op.v_cur, op.v_nb_head, op.v_nb_token, head, first, n, Dv);
            pmkvq_syncthreads();
            if (warp == 0 && pmkvq_any(it.vis != 0)) {
                rows.softmax(s, it.vis);
                it.v = (const uint8_t *) (stage + (size_t) 16*t*Dv);
                pmkvq_v_load<16, NV, 0, true>(vbuf, it.v, 0, Dv, v0, lane);
                pmkvq_values<16, NV, MULTI, HALF, true>(rows, s, vbuf, op, it, head, v0, lane);
            }
        }
        pmkvq_syncthreads();
    }

    // warps' results, in true units
    constexpr int row_len = 64*NV;
    float * mine = buffer + warp*pmkvq_record<NV>();
    const float back = pmkvq_pow2(rows.u);
#pragma unroll
    for (int r = 0; r < (HALF ? 1 : 2); ++r) {
        float l  = rows.l[r];
        float lo = rows.lo[r];
        l  += pmkvq_shfl_xor(l, 1);
        l  += pmkvq_shfl_xor(l, 2);
        lo += pmkvq_shfl_xor(lo, 1);
        lo += pmkvq_shfl_xor(lo, 2);
        const int row = g + 8*r;
#pragma unroll
        for (int i = 0; i < NV; ++i) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    mine[row*row_len + 64*i + 16*t + 8*e + j] = rows.out[8*i + j][2*r + e]*back + lo;
                }
            }
        }
        if (t == 0) {
            mine[PMKVQ_ROWS*row_len + row]              = rows.m[r];
            mine[PMKVQ_ROWS*row_len + PMKVQ_ROWS + row] = l;
        }
    }
    pmkvq_syncthreads();

    for (int row = 0; row < (HALF ? 8 : PMKVQ_ROWS); ++row) {
        if (q.token[row] < 0) {
            continue;
        }
        float m = -PMKVQ_INF;
        for (int w = 0; w < PMKVQ_WARPS; ++w) {
            m = fmaxf(m, buffer[w*pmkvq_record<NV>() + PMKVQ_ROWS*row_len + row]);
        }
        float k[PMKVQ_WARPS];
        float l = 0.0f;
        for (int w = 0; w < PMKVQ_WARPS; ++w) {
            const float * rec = buffer + w*pmkvq_record<NV>() + PMKVQ_ROWS*row_len;
            k[w] = m == -PMKVQ_INF ? 0.0f : pmkvq_exp2(rec[row] - m);
            l += k[w]*rec[PMKVQ_ROWS + row];
        }
        float * dst = op.dst + (((size_t) chunk*op.n_tokens + q.token[row])*op.n_head + q.head[row])*(Dv + 2);
        for (int d = threadIdx.x; d < row_len && v0 + d < Dv; d += PMKVQ_THREADS) {
            float x = 0.0f;
            for (int w = 0; w < PMKVQ_WARPS; ++w) {
                x += k[w]*buffer[w*pmkvq_record<NV>() + row*row_len + d];
            }
            dst[v0 + d] = x;
        }
        if (threadIdx.x == 0 && v0 == 0) {
            dst[Dv]     = m*0.6931471805599453f;
            dst[Dv + 1] = l;
        }
    }
}

template <int NS, int NV, bool HALF, bool MULTI>
static int pmkvq_launch_decode(const pmkvq_op_attn & op, cudaStream_t stream) {
    const pmkvq_tiling tiling = pmkvq_tiling::of(op.n_tokens, op.n_head, op.n_head_kv);

    const int n_groups = MULTI && op.group_k != 0 ? op.head_dim_k/op.group_k : 1;

    const size_t stage = (size_t) PMKVQ_ITEM*(op.head_dim_k > op.head_dim_v ? op.head_dim_k : op.head_dim_v)*sizeof(uint16_t);
    const size_t merge = PMKVQ_WARPS*pmkvq_record<NV>()*sizeof(float);
    const size_t bytes = pmkvq_queries::bytes(NS, n_groups) + (stage > merge ? stage : merge);

    cudaError_t err = pmkvq_allow_shared(pmkvq_attn_decode<NS, NV, HALF, MULTI>, bytes);
    if (err != cudaSuccess) {
        return err;
    }

    const dim3 grid(op.n_chunk, op.n_head_kv*tiling.tiles, (op.head_dim_v + 64*NV - 1)/(64*NV));
    PMKVQ_LAUNCH((pmkvq_attn_decode<NS, NV, HALF, MULTI>), grid, dim3(PMKVQ_THREADS), bytes, stream, op);
    return cudaGetLastError();
}

