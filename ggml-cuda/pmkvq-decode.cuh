// pmkvq-decode.cuh - attention of a few queries: blocks of mixed widths through the table, and the current batch
//
// A CTA has a chunk, a KV head and a tile of 4 NB query rows that share its keys. The warps of all chunks take items of 64 cells in turn,
// of all or of those that the tile sees, each with a running softmax of its own; they are merged at the end into one partial result (pmkvq-merge.cu merges those).
// An item's first loads are under way while the item before it is multiplied.

#pragma once

#include "pmkvq-decode-current.cuh"
#include "pmkvq-decode-deal.cuh"
#include "pmkvq-decode-result.cuh"
#include "pmkvq-decode-scores.cuh"

template <int NS, int R>
static __device__ __forceinline__ void pmkvq_first_k(uint32_t (&buf)[R][8], const pmkvq_op_attn & op, const pmkvq_item & it, int D, int lane) {
    const uint8_t * keys = it.keys(op);
    switch (it.wk()) {
        case 16: pmkvq_k_first<16, NS, R>(buf, keys, D, lane); break;
        case  8: pmkvq_k_first< 8, NS, R>(buf, keys, D, lane); break;
        case  4: pmkvq_k_first< 4, NS, R>(buf, keys, D, lane); break;
        case  2: pmkvq_k_first< 2, NS, R>(buf, keys, D, lane); break;
    }
}

template <int NV, int R>
static __device__ __forceinline__ void pmkvq_first_v(uint32_t (&buf)[R][8], const pmkvq_op_attn & op, const pmkvq_item & it, int D, int v0, int lane) {
    const uint8_t * values = it.cells(op);
    switch (it.wv()) {
        case 16: pmkvq_v_first<16, NV, R>(buf, values, D, v0, lane); break;
        case  8: pmkvq_v_first< 8, NV, R>(buf, values, D, v0, lane); break;
        case  4: pmkvq_v_first< 4, NV, R>(buf, values, D, v0, lane); break;
        case  2: pmkvq_v_first< 2, NV, R>(buf, values, D, v0, lane); break;
    }
}

// EXACT: head dimensions of 64 NS and 64 NV, so that all offsets are constants. R: steps of 8 registers that a
// lane has under way on either side. CTAS: on a multiprocessor. LISTED: there are lists of what tiles see
template <int NS, int NV, int NB, bool MULTI, bool EXACT, int R, int CTAS, bool LISTED>
static __global__ void __launch_bounds__(PMKVQ_THREADS, CTAS) pmkvq_attn_decode(
        const pmkvq_op_attn op, const pmkvq_tiling tiling, const pmkvq_seen seen, int first_tile, int n_stage, bool mask_aligned) {
    PMKVQ_DYNAMIC_SHARED(smem);

    pmkvq_start_next();
    pmkvq_wait_before();

    int       lane = threadIdx.x%32;
    const int warp = threadIdx.x/32;

    const pmkvq_part part = pmkvq_part_of<LISTED>(seen, tiling, first_tile, lane);
    if (LISTED && part.used == 0) {
        return;
    }
    const int head = EXACT ? blockIdx.z : blockIdx.z%op.n_head_kv;
    const int v0   = EXACT ? 0 : blockIdx.z/op.n_head_kv*64*NV;
    int       Dk   = EXACT ? 64*NS : op.head_dim_k;
    int       Dv   = EXACT ? 64*NV : op.head_dim_v;

    const int n_groups_k = pmkvq_groups<MULTI>(Dk, op.group_k);

    float * records = (float *) smem;
    pmkvq_queries<NB> q(smem + PMKVQ_WARPS*pmkvq_record<NV, NB>()*sizeof(float), NS);
    // made anew for its second use
    auto stage = [&] {
        return (uint16_t *) ((uint8_t *) q.half + pmkvq_queries<NB>::bytes(NS, pmkvq_groups<MULTI>(Dk, op.group_k)));
    };

    // the first item's bytes are asked for before the queries are made ready
    pmkvq_deal<LISTED> deal(seen, tiling, part, warp, lane);
    const int my_cell = op.k_cur && lane < (int) op.n_tokens ? (int) op.cells[lane] : -1;

    const pmkvq_mask mask(op, tiling, part.tile, NB*(lane%4), mask_aligned);

    pmkvq_ahead ahead = pmkvq_ask(op, mask, deal.item(), lane);

    constexpr bool one = EXACT && !MULTI; // group, and head dimensions that a warp's lanes take four of
    float rows_q[NB][4];
    if constexpr (one) {
        pmkvq_queries<NB>::template ask<64*NS, NB>(rows_q, op, tiling, part.tile, head, NB*warp);
    }

    // keys, values and parameters that are under way; parameters of a row's one group only
    uint32_t kbuf[R][8];
    uint32_t vbuf[R][8];
    pmkvq_params8 kp = {};
    pmkvq_params8 vp = {};
    auto first_k = [&](const pmkvq_item & it) {
        pmkvq_first_k<NS, R>(kbuf, op, it, Dk, lane);
        if (!MULTI && it.wk() != 16) {
            kp = pmkvq_params8::load(op.params_k, it.index/2, pmkvq_cell_in_block(it, lane), head, op.n_head_kv, 0, 1);
        }
    };

    auto first_v = [&](const pmkvq_item & it) {
        pmkvq_first_v<NV, R>(vbuf, op, it, Dv, v0, lane);
        if (!MULTI && it.wv() != 16) {
            vp = pmkvq_params8::load(op.params_v, it.index/2, pmkvq_cell_in_block(it, lane), head, op.n_head_kv, 0, 1);
        }
    };

    pmkvq_item it;
    it.bits = 0;
    bool here = deal.here();
    bool live = false;
    if (here) {
        it   = pmkvq_resolve(op, ahead, mask, head, my_cell, Dk, Dv, lane);
        live = pmkvq_any(it.vis() != 0);
        if (live) {
            first_k(it);
            first_v(it);
        }
        deal.advance(warp, lane);
    }
    ahead = pmkvq_ask(op, mask, deal.item(), lane);

    if constexpr (one) {
        q.template put_rows<64*NS, NB>(rows_q, op, tiling, part.tile, head, NB*warp);
    } else {
        q.clear(threadIdx.x, PMKVQ_THREADS);
        pmkvq_syncthreads();
        q.fill(op, tiling, part.tile, head, n_groups_k, warp, PMKVQ_WARPS);
    }
    if (op.k_cur && deal.has_rest(part)) {
        pmkvq_stage_first<NS>(stage(), op, n_stage, head, Dk, Dv);
    }
    pmkvq_syncthreads();

    pmkvq_rows<NV, NB> rows;

    while (here) {
        if constexpr (!EXACT) {
            // offsets, which are no constants here, would all be kept from item to item
            lane = pmkvq_opaque(lane);
            Dk   = pmkvq_opaque(op.head_dim_k);
            Dv   = pmkvq_opaque(op.head_dim_v);
        }
        float s[NB][8];
        if (live) {
            switch (it.wk()) {
                case 16: pmkvq_scores<16, NS, NB, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
                case  8: pmkvq_scores< 8, NS, NB, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
                case  4: pmkvq_scores< 4, NS, NB, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
                default: pmkvq_scores< 2, NS, NB, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
            }
        }
        // the next item's keys
        pmkvq_item next;
        const bool next_here = deal.here();
        bool next_live = false;
        if (next_here) {
            next      = pmkvq_resolve(op, ahead, mask, head, my_cell, Dk, Dv, lane);
            next_live = pmkvq_any(next.vis() != 0);
            deal.advance(warp, lane);
            ahead     = pmkvq_ask(op, mask, deal.item(), lane);
            if (next_live) {
                first_k(next);
            }
        }
        if (live) {
            const bool full = pmkvq_all(it.vis() == 0xff); // all rows see all cells
            pmkvq_bias<NB>(s, op, q, mask, it, lane);
            rows.softmax(s, it.vis(), full);
            switch (it.wv()) {
                case 16: pmkvq_values<16, NV, NB, R, MULTI>(rows, s, vbuf, vp, op, it, full, head, Dv, v0, lane); break;
                case  8: pmkvq_values< 8, NV, NB, R, MULTI>(rows, s, vbuf, vp, op, it, full, head, Dv, v0, lane); break;
                case  4: pmkvq_values< 4, NV, NB, R, MULTI>(rows, s, vbuf, vp, op, it, full, head, Dv, v0, lane); break;
                default: pmkvq_values< 2, NV, NB, R, MULTI>(rows, s, vbuf, vp, op, it, full, head, Dv, v0, lane); break;
            }
        }
        it   = next;
        here = next_here;
        live = next_live;
        if (live) {
            first_v(it);
        }
    }

    if (op.k_cur && deal.has_rest(warp, lane)) {
        pmkvq_current<NS, NV, NB, R>(rows, op, q, mask, stage(), n_stage, head, Dk, Dv, v0, lane);
    }

    pmkvq_put_record<NV, NB>(records + warp*pmkvq_record<NV, NB>(), rows, lane);
    pmkvq_syncthreads();
    // asked again, since registers are scarce until here
    pmkvq_write_partials<NV, NB>(records, op, q, pmkvq_part_of<LISTED>(seen, tiling, first_tile, lane), Dv, v0, warp, lane);
}

template <int NS, int NV, int NB, bool MULTI, bool EXACT, int R, int CTAS, bool LISTED>
static int pmkvq_launch_decode(const pmkvq_op_attn & op, const pmkvq_tiling & tiling, const pmkvq_seen & seen, cudaStream_t stream) {
    const int    n_groups = MULTI && op.group_k != 0 ? op.head_dim_k/op.group_k : 1;
    const size_t bytes    = pmkvq_queries<NB>::bytes(NS, n_groups) + PMKVQ_WARPS*pmkvq_record<NV, NB>()*sizeof(float) + pmkvq_stage_bytes<NS>(op);

    cudaError_t err = pmkvq_allow_shared(pmkvq_attn_decode<NS, NV, NB, MULTI, EXACT, R, CTAS, LISTED>, bytes);

    const int z = op.n_head_kv*((op.head_dim_v + 64*NV - 1)/(64*NV));
    // of a grid's second dimension
    const int most = LISTED ? tiling.parts : 65535;
    for (int first = 0; first < (LISTED ? tiling.parts : tiling.tiles) && err == cudaSuccess; first += most) {
        const int  y = LISTED ? tiling.parts : min(tiling.tiles - first, most);
        const dim3 grid(LISTED ? seen.n_ctas : pmkvq_chunks_used(op, tiling.tiles, z), y, z);
        PMKVQ_LAUNCH_EARLY((pmkvq_attn_decode<NS, NV, NB, MULTI, EXACT, R, CTAS, LISTED>), grid, dim3(PMKVQ_THREADS), bytes, stream,
            op, tiling, seen, first, pmkvq_n_stage(op, NS), pmkvq_mask::is_aligned(op));
        err = cudaGetLastError();
    }
    return err;
}

template <int NS, int NV, int NB, bool MULTI, bool EXACT, int R, int CTAS>
static int pmkvq_launch_decode(const pmkvq_op_attn & op, const void * lists, cudaStream_t stream) {
    const pmkvq_tiling tiling = pmkvq_tiling::of(4*NB, op.n_tokens, op.n_head, op.n_head_kv);
    const pmkvq_seen   seen   = pmkvq_seen::of(op, (void *) lists);
    return lists ? pmkvq_launch_decode<NS, NV, NB, MULTI, EXACT, R, CTAS, true >(op, tiling, seen, stream)
                 : pmkvq_launch_decode<NS, NV, NB, MULTI, EXACT, R, CTAS, false>(op, tiling, seen, stream);
}
