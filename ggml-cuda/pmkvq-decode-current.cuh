// pmkvq-decode-current.cuh - the current batch while decoding: one more item, of 16-bit cells staged in shared memory
//
// It comes after the last item, whosever turn that is. Several steps where it has more tokens than are staged at a time.

#pragma once

#include "pmkvq-decode-scores.cuh"

// K and V take turns in the same memory where head dimensions are large: a Turing has 64 KiB
template <int NS> static constexpr __host__ __device__ bool pmkvq_stage_twice() { return NS > 2; }

// tokens that are staged at a time, and bytes for them
static inline int pmkvq_n_stage(const pmkvq_op_attn & op, int NS) {
    return !op.k_cur ? 0 : op.n_tokens <= 16 || NS > 2 || op.head_dim_v > 128 ? 16 : 64;
}

template <int NS>
static inline size_t pmkvq_stage_bytes(const pmkvq_op_attn & op) {
    const size_t d = pmkvq_stage_twice<NS>() ? max(op.head_dim_k, op.head_dim_v) : op.head_dim_k + op.head_dim_v;
    return pmkvq_n_stage(op, NS)*d*sizeof(uint16_t);
}

// rows of the current batch as halves in shared memory, [n][D], by n_threads threads
static __device__ __forceinline__ void pmkvq_stage(
        uint16_t * dst, const float * x, size_t nb_head, size_t nb_token, int head, int first, int n, int D, int thread, int n_threads) {
    const char * rows = (const char *) x + head*nb_head + first*nb_token;
#pragma unroll 4
    for (int tok = 0; tok < n; ++tok) {
        const uint32_t * row = (const uint32_t *) (rows + tok*nb_token);
#pragma unroll 1
        for (int d = thread; d < D; d += n_threads) {
            dst[tok*D + d] = pmkvq_f2h_sat(__int_as_float((int) pmkvq_ldg4(row + d)));
        }
    }
}

// the first tokens, by the whole CTA before its items, so that nobody waits for them at the end; a barrier must follow
template <int NS>
static __device__ __forceinline__ void pmkvq_stage_first(uint16_t * stage, const pmkvq_op_attn & op, int n_stage, int head, int Dk, int Dv) {
    const int n = min((int) op.n_tokens, n_stage);
    pmkvq_stage(stage, op.k_cur, op.k_nb_head, op.k_nb_token, head, 0, n, Dk, threadIdx.x, PMKVQ_THREADS);
    if (!pmkvq_stage_twice<NS>()) {
        pmkvq_stage(stage + n_stage*Dk, op.v_cur, op.v_nb_head, op.v_nb_token, head, 0, n, Dv, threadIdx.x, PMKVQ_THREADS);
    }
}

// by one warp. stage: memory for n_stage tokens, the first of which are there
template <int NS, int NV, int NB, int R>
static __device__ __forceinline__ void pmkvq_current(
        pmkvq_rows<NV, NB> & rows, const pmkvq_op_attn & op, const pmkvq_queries<NB> & q, const pmkvq_mask & mask,
        uint16_t * stage, int n_stage, int head, int Dk, int Dv, int v0, int lane) {
    const int g = lane/4;
    const int t = lane%4;

    uint16_t * stage_k = stage;
    uint16_t * stage_v = pmkvq_stage_twice<NS>() ? stage : stage + n_stage*Dk;
    // lanes of subtiles that are not staged read another's: nobody sees them
    const int sub_k = g/2 < n_stage/16 ? g/2 : 0;
    const int sub_v = t   < n_stage/16 ? t   : 0;

    const uint16_t * mask_row = mask.row(op);
    const uint8_t * keys   = (const uint8_t *) (stage_k + (16*sub_k + 2*(g%2))*Dk);
    const uint8_t * values = (const uint8_t *) (stage_v + 16*sub_v*Dv);
#pragma unroll 1
    for (int first = 0; first < (int) op.n_tokens; first += n_stage) {
        const int n = min((int) op.n_tokens - first, n_stage);

        if (first > 0) {
            pmkvq_syncwarp();
            pmkvq_stage(stage_k, op.k_cur, op.k_nb_head, op.k_nb_token, head, first, n, Dk, lane, 32);
            if (!pmkvq_stage_twice<NS>()) {
                pmkvq_stage(stage_v, op.v_cur, op.v_nb_head, op.v_nb_token, head, first, n, Dv, lane, 32);
            }
            pmkvq_syncwarp();
        }

        float s[NB][8];
        uint32_t buf[R][8];
        pmkvq_k_first<16, NS, R, true>(buf, keys, Dk, lane);
        pmkvq_scores_halves<NS, NB, R, true>(s, buf, q, keys, Dk, lane);
        pmkvq_cap<NB>(s, op);
        uint32_t vis = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int     tok  = pmkvq_first_cell(lane) + i/2*4 + i%2;
            const int64_t cell = tok < n ? op.cells[first + tok] : -1;
            if (cell >= 0 && cell < (int64_t) op.n_kv) {
                const uint16_t m = mask_row[cell];
                if (m != 0xfc00) {
                    vis |= 1u << i;
#pragma unroll
                    for (int b = 0; b < NB; ++b) {
                        s[b][i] += q.slope[NB*t + b]*pmkvq_h2f(m);
                    }
                }
            }
        }
        if (!pmkvq_any(vis != 0)) {
            continue;
        }
        rows.softmax(s, vis, false);
        if (pmkvq_stage_twice<NS>()) {
            pmkvq_syncwarp();
            pmkvq_stage(stage_v, op.v_cur, op.v_nb_head, op.v_nb_token, head, first, n, Dv, lane, 32);
            pmkvq_syncwarp();
        }
        pmkvq_v_first<16, NV, R, true>(buf, values, Dv, v0, lane);
        pmkvq_values_halves<NV, NB, R, true>(rows, s, buf, values, vis, false, Dv, v0, lane);
    }
}
