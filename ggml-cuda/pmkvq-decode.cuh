// pmkvq-decode.cuh - attention of a few queries: blocks of mixed widths through the table, and the current batch
//
// A CTA has a chunk, a KV head and a tile of 8 NT query rows that share its keys. The warps of all chunks take items of 64 cells in turn,
// of all or of those that the tile sees, each with a running softmax of its own; they are merged at the end into one partial result (pmkvq-merge.cu merges those).
// An item's first loads are under way while the item before it is multiplied.

#pragma once

#include "pmkvq-decode-deal.cuh"
#include "pmkvq-decode-item.cuh"

template <int NS, int R>
static __device__ __forceinline__ void pmkvq_first_k(uint32_t (&buf)[R][8], const pmkvq_item & it, int D, int lane) {
    switch (it.wk) {
        case 16: pmkvq_k_first<16, NS, R>(buf, it.k, D, lane); break;
        case  8: pmkvq_k_first< 8, NS, R>(buf, it.k, D, lane); break;
        case  4: pmkvq_k_first< 4, NS, R>(buf, it.k, D, lane); break;
        case  2: pmkvq_k_first< 2, NS, R>(buf, it.k, D, lane); break;
    }
}

template <int NV, int R>
static __device__ __forceinline__ void pmkvq_first_v(uint32_t (&buf)[R][8], const pmkvq_item & it, int D, int v0, int lane) {
    switch (it.wv) {
        case 16: pmkvq_v_first<16, NV, R>(buf, it.v, D, v0, lane); break;
        case  8: pmkvq_v_first< 8, NV, R>(buf, it.v, D, v0, lane); break;
        case  4: pmkvq_v_first< 4, NV, R>(buf, it.v, D, v0, lane); break;
        case  2: pmkvq_v_first< 2, NV, R>(buf, it.v, D, v0, lane); break;
    }
}

// rows of the current batch as halves in shared memory, [n][D], by one warp
static __device__ __forceinline__ void pmkvq_stage(uint16_t * dst, const float * x, size_t nb_head, size_t nb_token, int head, int first, int n, int D, int lane) {
    for (int tok = 0; tok < n; ++tok) {
        const float * row = (const float *) ((const char *) x + head*nb_head + (first + tok)*nb_token);
        for (int d = lane; d < D; d += 32) {
            dst[tok*D + d] = pmkvq_f2h_sat(row[d]);
        }
    }
}

// floats of a warp's record in the merge: rows of the output, then largest scores and sums
template <int NV, int NT> static constexpr __host__ __device__ int pmkvq_record() {
    return 8*NT*(64*NV + 2);
}

// EXACT: head dimensions of 64 NS and 64 NV, so that all offsets are constants. R: steps of 8 registers that a
// lane has under way on either side. CTAS: on a multiprocessor. LISTED: there are lists of what tiles see
template <int NS, int NV, int NT, bool MULTI, bool EXACT, int R, int CTAS, bool LISTED>
static __global__ void __launch_bounds__(PMKVQ_THREADS, CTAS) pmkvq_attn_decode(const pmkvq_op_attn op, const pmkvq_tiling tiling, const pmkvq_seen seen, int n_stage) {
    PMKVQ_DYNAMIC_SHARED(smem);

    pmkvq_start_next();
    pmkvq_wait_before();

    constexpr int ROWS = 8*NT;

    const int lane = threadIdx.x%32;
    const int warp = threadIdx.x/32;
    const int g    = lane/4;
    const int t    = lane%4;

    const pmkvq_part part = pmkvq_part_of<LISTED>(seen, tiling, lane);
    if (LISTED && part.used == 0) {
        return;
    }
    const int tile  = part.tile;
    const int head  = EXACT ? blockIdx.z : blockIdx.z%op.n_head_kv;
    const int v0    = EXACT ? 0 : blockIdx.z/op.n_head_kv*64*NV;
    const int Dk    = EXACT ? 64*NS : op.head_dim_k;
    const int Dv    = EXACT ? 64*NV : op.head_dim_v;

    const int n_groups_k = pmkvq_groups<MULTI>(Dk, op.group_k);

    pmkvq_queries q(smem, ROWS, NS, n_groups_k);
    float * buffer = (float *) (smem + pmkvq_queries::bytes(ROWS, NS, n_groups_k));

    // the first item's keys are asked for before the queries are made ready
    const int n_all = min(2*(int) op.n_blocks, ((int) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM);
    pmkvq_deal<LISTED> deal(seen, tiling, part, n_all, warp, lane);
    int at = deal.at();
    const int my_cell = op.k_cur && lane < (int) op.n_tokens ? (int) op.cells[lane] : -1;

    pmkvq_mask<NT> mask;
    mask.aligned = (op.mask_nb_token | (uintptr_t) op.mask)%4 == 0;
    mask.there   = 0;
    mask.same    = true;
    int first_token = -1;
#pragma unroll
    for (int r = 0; r < 2*NT; ++r) {
        int token, h;
        const bool there = tiling.row(tile, r/2*8 + 2*t + r%2, op.n_tokens, token, h);
        if (there) {
            mask.there |= 1u << r;
            mask.same   = mask.same && (first_token < 0 || first_token == token);
            first_token = token;
        }
        mask.row[r] = (const uint16_t *) ((const char *) op.mask + (there ? token : 0)*op.mask_nb_token);
    }
    if (first_token >= 0 && mask.same) {
        mask.row[0] = (const uint16_t *) ((const char *) op.mask + first_token*op.mask_nb_token);
#pragma unroll
        for (int r = 1; r < 2*NT; ++r) {
            mask.row[r] = mask.row[0];
        }
    }

    pmkvq_ahead ahead = pmkvq_ask<NT>(op, mask, deal.item(), lane);

    // keys and parameters that are under way; parameters of a row's one group only
    uint32_t kbuf[R][8];
    pmkvq_params8 kp = {};
    auto first_k = [&](const pmkvq_item & it) {
        pmkvq_first_k<NS, R>(kbuf, it, Dk, lane);
        if (!MULTI && it.wk != 16) {
            kp = pmkvq_params8::load(op.params_k, it.index/2, PMKVQ_ITEM*(it.index%2) + pmkvq_first_cell(lane), head, op.n_head_kv, 0, 1);
        }
    };

    pmkvq_item it;
    it.wk = 16;
    bool live = false;
    if (at < deal.n) {
        it   = pmkvq_resolve<NT>(op, ahead, mask, head, my_cell, Dk, Dv, lane);
        live = pmkvq_any(it.vis != 0);
        if (live) {
            first_k(it);
        }
    }

    int next_at = deal.advance(warp, lane);
    ahead = pmkvq_ask<NT>(op, mask, deal.item(), lane);

    if constexpr (EXACT && !MULTI) {
        q.template fill_one<64*NS>(op, tiling, tile, head, warp, PMKVQ_WARPS);
    } else {
        q.clear(NS, threadIdx.x, PMKVQ_THREADS);
        pmkvq_syncthreads();
        q.fill(op, tiling, tile, head, n_groups_k, warp, PMKVQ_WARPS);
    }
    pmkvq_syncthreads();

    pmkvq_rows<NV, NT> rows;

    while (at < deal.n) {
        float s[NT][4][4];
        uint32_t vbuf[R][8];
        pmkvq_params8 vp = {};
        if (live) {
            pmkvq_first_v<NV, R>(vbuf, it, Dv, v0, lane);
            if (!MULTI && it.wv != 16) {
                vp = pmkvq_params8::load(op.params_v, it.index/2, PMKVQ_ITEM*(it.index%2) + pmkvq_first_cell(lane), head, op.n_head_kv, 0, 1);
            }
            switch (it.wk) {
                case 16: pmkvq_scores<16, NS, NT, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
                case  8: pmkvq_scores< 8, NS, NT, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
                case  4: pmkvq_scores< 4, NS, NT, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
                default: pmkvq_scores< 2, NS, NT, R, MULTI>(s, kbuf, kp, op, q, it, head, Dk, lane); break;
            }
        }
        // the next item's keys
        int after = deal.n;
        pmkvq_item next;
        bool next_live = false;
        if (next_at < deal.n) {
            next      = pmkvq_resolve<NT>(op, ahead, mask, head, my_cell, Dk, Dv, lane);
            next_live = pmkvq_any(next.vis != 0);
            after     = deal.advance(warp, lane);
            ahead     = pmkvq_ask<NT>(op, mask, deal.item(), lane);
            if (next_live) {
                first_k(next);
            }
        }
        if (live) {
            pmkvq_bias<NT>(s, op, q, mask, it, lane);
            rows.softmax(s, it.vis);
            switch (it.wv) {
                case 16: pmkvq_values<16, NV, NT, R, MULTI>(rows, s, vbuf, vp, op, it, head, Dv, v0, lane); break;
                case  8: pmkvq_values< 8, NV, NT, R, MULTI>(rows, s, vbuf, vp, op, it, head, Dv, v0, lane); break;
                case  4: pmkvq_values< 4, NV, NT, R, MULTI>(rows, s, vbuf, vp, op, it, head, Dv, v0, lane); break;
                default: pmkvq_values< 2, NV, NT, R, MULTI>(rows, s, vbuf, vp, op, it, head, Dv, v0, lane); break;
            }
        }
        at      = next_at;
        next_at = after;
        it      = next;
        live    = next_live;
    }

    // the current batch comes after the last item, whosever turn that is
    if (op.k_cur && deal.has_rest(at, warp, lane)) {
        uint16_t * stage_k = (uint16_t *) (buffer + PMKVQ_WARPS*pmkvq_record<NV, NT>());
        uint16_t * stage_v = stage_k + n_stage*Dk;
        // lanes of subtiles that are not staged read another's: nobody sees them
        const int sub_k = g/2 < n_stage/16 ? g/2 : 0;
        const int sub_v = t   < n_stage/16 ? t   : 0;
#pragma unroll 1
        for (int first = 0; first < (int) op.n_tokens; first += n_stage) {
            const int n = min((int) op.n_tokens - first, n_stage);

            it.index  = 0;
            it.vis    = 0;
            it.values = false;
            pmkvq_syncwarp();
            pmkvq_stage(stage_k, op.k_cur, op.k_nb_head, op.k_nb_token, head, first, n, Dk, lane);
            pmkvq_stage(stage_v, op.v_cur, op.v_nb_head, op.v_nb_token, head, first, n, Dv, lane);
            pmkvq_syncwarp();

            float s[NT][4][4];
            it.k = (const uint8_t *) (stage_k + (16*sub_k + 2*(g%2))*Dk);
            pmkvq_k_first<16, NS, R, true>(kbuf, it.k, Dk, lane);
            pmkvq_k_item<16, NS, NT, R, true>(s, kbuf, it.k, q.frag, Dk, lane, 0, Dk);
#pragma unroll
            for (int r = 0; r < 2*NT; ++r) {
                const float inv = q.inv[r/2*8 + 2*t + r%2];
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    PMKVQ_AT(s, r, i) *= inv;
                }
            }
            pmkvq_bias<NT>(s, op, q, mask, it, lane);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const int     tok  = pmkvq_first_cell(lane) + i/2*4 + i%2;
                const int64_t cell = tok < n ? op.cells[first + tok] : -1;
                if (cell >= 0 && cell < (int64_t) op.n_kv) {
#pragma unroll
                    for (int r = 0; r < 2*NT; ++r) {
                        const uint16_t m = mask.there >> r & 1 ? mask.row[r][cell] : 0xfc00;
                        if (m != 0xfc00) {
                            it.vis |= 1u << (8*r + i);
                            PMKVQ_AT(s, r, i) += q.slope[r/2*8 + 2*t + r%2]*pmkvq_h2f(m);
                        }
                    }
                }
            }
            if (pmkvq_any(it.vis != 0)) {
                rows.softmax(s, it.vis);
                it.v = (const uint8_t *) (stage_v + 16*sub_v*Dv);
                uint32_t vbuf[R][8];
                const pmkvq_params8 vp = {};
                pmkvq_v_first<16, NV, R, true>(vbuf, it.v, Dv, v0, lane);
                pmkvq_values<16, NV, NT, R, MULTI, true>(rows, s, vbuf, vp, op, it, head, Dv, v0, lane);
            }
        }
    }

    // warps' results
    constexpr int row_len = 64*NV;
    float * mine = buffer + warp*pmkvq_record<NV, NT>();
#pragma unroll
    for (int r = 0; r < 2*NT; ++r) {
        float l  = rows.l[r];
        float lo = rows.lo[r];
#pragma unroll
        for (int x = 4; x < 32; x *= 2) {
            l  += pmkvq_shfl_xor(l,  x);
            lo += pmkvq_shfl_xor(lo, x);
        }
        const int row = r/2*8 + 2*t + r%2;
#pragma unroll
        for (int i = 0; i < NV; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float (&o)[4] = rows.out[r/2][4*i + j];
                *(float2 *) (mine + row*row_len + 64*i + 8*g + 2*j) = make_float2(o[r%2] + lo, o[2 + r%2] + lo);
            }
        }
        if (g == 0) {
            mine[ROWS*row_len + row]        = rows.m[r];
            mine[ROWS*row_len + ROWS + row] = l;
        }
    }
    pmkvq_syncthreads();

    // a warp writes every fourth row. Asked again, since registers are scarce until here
    const pmkvq_part out = pmkvq_part_of<LISTED>(seen, tiling, lane);
    for (int row = warp; row < ROWS; row += PMKVQ_WARPS) {
        if (q.token[row] < 0) {
            continue;
        }
        float m = -PMKVQ_INF;
#pragma unroll
        for (int w = 0; w < PMKVQ_WARPS; ++w) {
            m = fmaxf(m, buffer[w*pmkvq_record<NV, NT>() + ROWS*row_len + row]);
        }
        float k[PMKVQ_WARPS];
        float l = 0.0f;
#pragma unroll
        for (int w = 0; w < PMKVQ_WARPS; ++w) {
            const float * rec = buffer + w*pmkvq_record<NV, NT>() + ROWS*row_len;
            k[w] = m == -PMKVQ_INF ? 0.0f : pmkvq_exp2(rec[row] - m);
            l += k[w]*rec[ROWS + row];
        }
        const size_t in_chunk = (size_t) op.n_tokens*op.n_head*(Dv + 2);
        float * dst = op.dst + ((size_t) q.token[row]*op.n_head + q.head[row])*(Dv + 2) + out.chunk*in_chunk;
#pragma unroll
        for (int i = 0; i < 2*NV; ++i) {
            const int d = 32*i + lane;
            float x = 0.0f;
#pragma unroll
            for (int w = 0; w < PMKVQ_WARPS; ++w) {
                x += k[w]*buffer[w*pmkvq_record<NV, NT>() + row*row_len + d];
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
            for (int c = out.used*(lane + 1); out.chunk + c < (int) op.n_chunk; c += 32*out.used) {
                dst[c*in_chunk + Dv]     = -PMKVQ_INF;
                dst[c*in_chunk + Dv + 1] = 0.0f;
            }
        }
    }
}

template <int NS, int NV, int NT, bool MULTI, bool EXACT, int R, int CTAS, bool LISTED>
static int pmkvq_launch_decode(const pmkvq_op_attn & op, const pmkvq_seen & seen, cudaStream_t stream) {
    const pmkvq_tiling tiling = pmkvq_tiling::of(8*NT, op.n_tokens, op.n_head, op.n_head_kv);

    const int n_groups = MULTI && op.group_k != 0 ? op.head_dim_k/op.group_k : 1;

    // tokens of the current batch at a time
    const int    n_stage = !op.k_cur ? 0 : op.n_tokens <= 16 || NS > 2 ? 16 : 64; // a Turing has 64 KiB
    const size_t stage   = (size_t) n_stage*(op.head_dim_k + op.head_dim_v)*sizeof(uint16_t);
    const size_t merge   = PMKVQ_WARPS*pmkvq_record<NV, NT>()*sizeof(float);
    const size_t bytes   = pmkvq_queries::bytes(8*NT, NS, n_groups) + merge + stage;

    cudaError_t err = pmkvq_allow_shared(pmkvq_attn_decode<NS, NV, NT, MULTI, EXACT, R, CTAS, LISTED>, bytes);
    if (err != cudaSuccess) {
        return err;
    }

    const int  z = op.n_head_kv*((op.head_dim_v + 64*NV - 1)/(64*NV));
    const dim3 grid = LISTED ? dim3(seen.n_ctas, tiling.parts, z) : dim3(pmkvq_chunks_used(op, tiling.tiles, z), tiling.tiles, z);
    PMKVQ_LAUNCH_EARLY((pmkvq_attn_decode<NS, NV, NT, MULTI, EXACT, R, CTAS, LISTED>), grid, dim3(PMKVQ_THREADS), bytes, stream, op, tiling, seen, n_stage);
    return cudaGetLastError();
}

template <int NS, int NV, int NT, bool MULTI, bool EXACT, int R, int CTAS>
static int pmkvq_launch_decode(const pmkvq_op_attn & op, const void * lists, cudaStream_t stream) {
    static_assert(8*NT == PMKVQ_DECODE_ROWS, "lists are for tiles of that size");
    const pmkvq_seen seen = pmkvq_seen::of(op, (void *) lists);
    return lists ? pmkvq_launch_decode<NS, NV, NT, MULTI, EXACT, R, CTAS, true >(op, seen, stream)
                 : pmkvq_launch_decode<NS, NV, NT, MULTI, EXACT, R, CTAS, false>(op, seen, stream);
}
