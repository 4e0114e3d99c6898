// pmkvq-prefill.cuh - attention of many queries
//
// A CTA has WARPS tiles of 16 M query rows of one KV head. Every item of 64 cells is unpacked once into shared memory for all of them, with
// its scales applied: what is left for the warps is what attention over f16 takes. No copy of the cache is made.
//
// Between two barriers, of items i-1 .. i+2:
//   multiply   i-1
//   unpack     i      into the other tile; half of the warps begin with it, so that matrix units and the rest are both busy
//   fetch      i+1    its bytes are asked for, its scales and minima are made (warps 0 and 1)
//   look       i+2    who sees it, and where it lies (warp 2)
// With one tile, where shared memory is small, all warps multiply first, and a barrier stands before they unpack.

#pragma once

#include "pmkvq-prefill-current.cuh"
#include "pmkvq-prefill-items.cuh"
#include "pmkvq-prefill-output.cuh"
#include "pmkvq-prefill-unpack.cuh"

template <bool PUT, bool MULTI, int NS, int NV, int THREADS, int STAGED>
static __device__ __forceinline__ void pmkvq_tasks(
        const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_raw<STAGED, THREADS> & raw_k, const pmkvq_raw<STAGED, THREADS> & raw_v,
        const pmkvq_prefill_item & item, const pmkvq_op_attn & op, int v0, const uint16_t * scales_k, int group_k, const uint16_t * scales_v, int group_v, int thread) {
    const int Dk = op.head_dim_k;
    const int Dv = op.head_dim_v;
    switch (item.width[0]) {
        case 16: pmkvq_task_k<16, PUT, MULTI>(tile, raw_k, item.base, Dk, scales_k, group_k, thread); break;
        case  8: pmkvq_task_k< 8, PUT, MULTI>(tile, raw_k, item.base, Dk, scales_k, group_k, thread); break;
        case  4: pmkvq_task_k< 4, PUT, MULTI>(tile, raw_k, item.base, Dk, scales_k, group_k, thread); break;
        default: pmkvq_task_k< 2, PUT, MULTI>(tile, raw_k, item.base, Dk, scales_k, group_k, thread); break;
    }
    switch (item.width[1]) {
        case 16: pmkvq_task_v<16, PUT>(tile, raw_v, item.base + 4, Dv, v0, scales_v, group_v, thread); break;
        case  8: pmkvq_task_v< 8, PUT>(tile, raw_v, item.base + 4, Dv, v0, scales_v, group_v, thread); break;
        case  4: pmkvq_task_v< 4, PUT>(tile, raw_v, item.base + 4, Dv, v0, scales_v, group_v, thread); break;
        default: pmkvq_task_v< 2, PUT>(tile, raw_v, item.base + 4, Dv, v0, scales_v, group_v, thread); break;
    }
}

template <int NS, int NV, int WARPS, int M, bool MULTI, int STAGED>
static __global__ void __launch_bounds__(32*WARPS, 1) pmkvq_attn_prefill(const pmkvq_op_attn op, const pmkvq_tiling tiling, int stages) {
    using MEM = pmkvq_prefill_memory<NS, NV, WARPS, M, MULTI, STAGED>;
    using tile_t = typename MEM::tile;
    constexpr int THREADS = 32*WARPS;
    PMKVQ_DYNAMIC_SHARED(bytes);
    uint4 * const smem = (uint4 *) bytes;

    const int lane = threadIdx.x%32;
    const int warp = threadIdx.x/32;

    const int n_slice = (op.head_dim_v + 64*NV - 1)/(64*NV);
    const int head    = blockIdx.y;
    const int chunk   = blockIdx.z/n_slice;
    const int v0      = blockIdx.z%n_slice*64*NV;
    const int Dv      = op.head_dim_v;

    // groups of the whole row, and of this slice
    const int n_groups_k = MULTI && op.group_k != 0 ? op.head_dim_k/op.group_k : 1;
    const int n_groups_v = MULTI && op.group_v != 0 ? Dv/op.group_v : 1;
    const int group_k    = n_groups_k > 1 ? op.group_k : 0;
    const int group_v    = n_groups_v > 1 ? op.group_v : 0;
    const int first_v    = group_v ? v0/group_v : 0;
    const int slice_v    = group_v ? (min(v0 + 64*NV, Dv) - 1)/group_v - first_v + 1 : 1;

    // what no item writes counts as zero: dimensions that a row does not have, groups, flags
    for (int i = MEM::SCALE_K + threadIdx.x; i < MEM::TILES + stages*tile_t::PIECES; i += THREADS) {
        smem[i] = make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
        pmkvq_fill_queries<MEM, NS>(smem, warp*M + m, op, tiling, (blockIdx.x*WARPS + warp)*M + m, head, n_groups_k);
    }
    pmkvq_syncthreads();
    const pmkvq_prefill_items items(op, chunk);
    auto * const spans = (pmkvq_prefill_span *) (smem + MEM::SPANS);
    pmkvq_prefill_span::look_at_cells(op, spans, WARPS);

    {
        const int token = pmkvq_prefill_queries<MEM>(smem, warp*M + lane/16%M).token(lane%16);
        int lo = token >= 0 ? token : 0x7fffffff, hi = token;
#pragma unroll
        for (int x = 16; x > 0; x /= 2) {
            lo = min(lo, pmkvq_shfl(lo, lane ^ x));
            hi = max(hi, pmkvq_shfl(hi, lane ^ x));
        }
        if (lane == 0) {
            spans[warp].token  = lo;
            spans[warp].pieces = hi >= 0 ? PMKVQ_ITEM/8*(hi - lo + 1) : 0;
        }
        pmkvq_syncwarp();
    }

    auto * const describe = (pmkvq_prefill_item *) (smem + MEM::ITEMS);
    auto * const flags    = (int *) (smem + MEM::FLAGS);
    auto * const units_k  = (float *) (smem + MEM::UNIT_K);
    auto * const units_v  = (float *) (smem + MEM::UNIT_V);

    const bool aligned = (op.mask_nb_token | (uintptr_t) op.mask)%16 == 0;

    pmkvq_prefill_rows<M, NV, MEM::NX> rows;

    int live   = 0; // bit x: whether somebody sees item i+1-x
    int three  = 0; // (i+2)%3
    const int n_items = items.count();
    for (int i = -2; i <= n_items; ++i) {
        const int next3 = three == 2 ? 0 : three + 1; // of i
        const int prev3 = three == 0 ? 2 : three - 1; // of i+1
        live = (live << 1 | (flags[prev3] != 0)) & 7;
        if (threadIdx.x == 0) {
            flags[next3] = 0;
        }
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
            // registers are scarce: nothing that follows from the thread's number is kept in them
            const int thread = pmkvq_opaque(threadIdx.x);
            const int lane   = thread%32;
            const int warp   = thread/32;
            const int g      = lane/4;
            const int t      = lane%4;
            auto * const states  = (int *) (smem + MEM::STATE) + warp;
            auto * const visible = (uint32_t *) (smem + MEM::VISIBLE) + warp*M*32 + lane;

            if ((half == 1) == (stages == 2 && warp >= WARPS/2)) {
                const pmkvq_prefill_item & it = describe[(i + 3) & 3]; // i-1
                const int state = states[((i + 3) & 3)*WARPS];
                if ((live & 4) && (state & 2) && it.valid != 0) {
                    uint32_t vis[M];
                    bool full = true;
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        vis[m] = it.valid >> t & 1 ? visible[(((i + 3) & 3)*WARPS*M + m)*32] : 0;
                        full   = full && vis[m] == 0xffffffff;
                    }
                    full = pmkvq_all(full);

                    const tile_t tile(smem + MEM::TILES + (stages == 2 ? ((i + 1) & 1)*tile_t::PIECES : 0));
                    float s[M][8][4];
                    pmkvq_prefill_scores<MEM, NS>(s, smem, warp*M, tile.k, (const uint2 *) (smem + MEM::MID_K) + three*MEM::STEPS*64*MEM::BESIDE,
                        it.width[0] < 16 ? (n_groups_k + 3)/4 : 0, lane);

                    if (it.width[0] < 16) {
                        pmkvq_prefill_scale(s, units_k + three*PMKVQ_ITEM, lane);
                    }
                    float k[M][2];
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        const pmkvq_prefill_queries<MEM> q(smem, warp*M + m);
                        k[m][0] = q.inv(g);
                        k[m][1] = q.inv(g + 8);
                    }
                    if (op.softcap != 0.0f || (state & 1)) {
#pragma unroll
                        for (int m = 0; m < M; ++m) {
#pragma unroll
                            for (int j = 0; j < 8; ++j) {
                                s[m][j][0] *= k[m][0];
                                s[m][j][1] *= k[m][0];
                                s[m][j][2] *= k[m][1];
                                s[m][j][3] *= k[m][1];
                            }
                            k[m][0] = k[m][1] = 1.0f;
                        }
                        const int  first  = PMKVQ_ITEM*items.number(i - 1) + 16*t;
                        const bool cached = items.cached(i - 1);
                        pmkvq_prefill_bias<MEM>(s, op, smem, warp*M, vis, state & 1, [&](int x) { return cached ? first + x : spans[warp].cell(op, first + x); }, lane);
                    }
                    if (!full) {
#pragma unroll
                        for (int m = 0; m < M; ++m) {
#pragma unroll
                            for (int j = 0; j < 8; ++j) {
#pragma unroll
                                for (int e = 0; e < 4; ++e) {
                                    s[m][j][e] = vis[m] >> pmkvq_cell_bit(j, e) & 1 ? s[m][j][e] : -PMKVQ_INF;
                                }
                            }
                        }
                    }
                    const float unit = units_v[three];
                    uint32_t w[M][4][4];
                    pmkvq_prefill_weights(rows, w, s, k);
                    pmkvq_prefill_values<MEM, 8*NV>(rows, 0, tile.v, w, unit, lane);
                    pmkvq_prefill_values<MEM, MEM::NX>(rows, 8*NV, smem + MEM::MID_V + three*MEM::NX*8*tile_t::V_STRIDE, w, unit, lane);
                }
            } else {
                const pmkvq_raw<STAGED, THREADS> raw_k = { smem + MEM::STAGE + thread };
                const pmkvq_raw<STAGED, THREADS> raw_v = { smem + MEM::STAGE + STAGED*MEM::TASKS_K*THREADS + thread };
                const int  number2 = items.number(i + 2);
                const bool cached2 = items.cached(i + 2);
                const bool some2   = i + 2 < n_items;
                const int  number1 = items.number(i + 1);
                const pmkvq_prefill_item & it1 = describe[(i + 5) & 3]; // i+1
                const pmkvq_prefill_item & it0 = describe[(i + 4) & 3]; // i
                const bool live1 = (live & 1) && it1.width[0] != 0;

                // ask for what the next steps look at: the first pieces of the masks, where an item's columns follow one another
                const pmkvq_prefill_span span = spans[warp];
                const int   column = PMKVQ_ITEM*number2 + (cached2 ? 0 : span.first);
                const int   end    = cached2 ? op.n_kv : span.run() ? op.n_tokens : 0;
                const bool  ahead  = some2 && aligned && column%8 == 0 && PMKVQ_ITEM*(number2 + 1) <= end;
                const uint4 none   = make_uint4(0, 0, 0, 0);
                auto mask_at = [&](int x) {
                    const uint4 * row = (const uint4 *) ((const char *) op.mask + (span.token + x/8)*op.mask_nb_token + 2*column);
                    return x < span.pieces ? pmkvq_ldg(row + x%8) : none;
                };
                uint4 words[2] = { ahead ? mask_at(lane) : none, ahead ? mask_at(lane + 32) : none };
                const int entry = some2 && cached2 && warp == 2 ? pmkvq_ask_entry(op, number2, lane) : 0;
                auto ask_k = [&](int x) { return pmkvq_ask_range(op.params_k, n_groups_k, op.n_head_kv, number1, head, x, lane); };
                auto ask_v = [&](int x) { return pmkvq_ask_range(op.params_v, n_groups_v, op.n_head_kv, number1, head, first_v + x, lane); };
                uint2 range = make_uint2(0, 0);
                if (live1 && warp == 0 && it1.width[0] < 16) {
                    range = ask_k(0);
                }
                if (live1 && warp == 1 && it1.width[1] < 16) {
                    range = ask_v(0);
                }

                // unpack
                if ((live & 2) && it0.width[0] != 0) {
                    const tile_t tile(smem + MEM::TILES + (stages == 2 ? (i & 1)*tile_t::PIECES : 0));
                    if (it0.width[0] == PMKVQ_CURRENT) {
                        const int first = PMKVQ_ITEM*items.number(i);
                        pmkvq_put_current(tile, op, head, first, min(PMKVQ_ITEM, (int) op.n_tokens - first), v0);
                    } else {
                        pmkvq_cp_async_wait<0>();
                        pmkvq_tasks<true, MULTI>(tile, raw_k, raw_v, it0, op, v0, (const uint16_t *) (smem + MEM::SCALE_K + (i & 1)*MEM::GROUPS_K*8), group_k,
                            (const uint16_t *) (smem + MEM::SCALE_V + (i & 1)*MEM::GROUPS_V*8), group_v, thread);
                    }
                }

                // fetch
                if (live1) {
                    if (STAGED > 0 && it1.width[0] != PMKVQ_CURRENT) {
                        pmkvq_tasks<false, MULTI>(tile_t(smem), raw_k, raw_v, it1, op, v0, nullptr, group_k, nullptr, group_v, thread);
                        pmkvq_cp_async_commit();
                    }
                    if (warp == 0 && it1.width[0] < 16) {
                        pmkvq_scales_k<MULTI>((uint16_t *) (smem + MEM::SCALE_K + ((i + 1) & 1)*MEM::GROUPS_K*8),
                            (uint2 *) (smem + MEM::MID_K) + prev3*MEM::STEPS*64*MEM::BESIDE, units_k + prev3*PMKVQ_ITEM, it1.width[0], n_groups_k, range, ask_k, lane);
                    }
                    if (warp == 1) {
                        const float unit = pmkvq_scales_v<MULTI, tile_t::V_STRIDE>((uint16_t *) (smem + MEM::SCALE_V + ((i + 1) & 1)*MEM::GROUPS_V*8),
                            smem + MEM::MID_V + prev3*MEM::NX*8*tile_t::V_STRIDE, it1.width[1], slice_v, range, ask_v, lane);
                        if (lane == 0) {
                            units_v[prev3] = unit;
                        }
                    }
                }

                // look
                if (some2) {
                    bool     values = false;
                    uint32_t vis[M], there[M];
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        const pmkvq_prefill_queries<MEM> q(smem, warp*M + m);
                        there[m] = (q.token(g) >= 0 ? 0x0000ffff : 0) | (q.token(g + 8) >= 0 ? 0xffff0000 : 0);
                        vis[m]   = 0xffffffff;
                    }
                    uint32_t any = !ahead;
                    if (ahead) {
                        any = (words[0].x | words[0].y | words[0].z | words[0].w) | (words[1].x | words[1].y | words[1].z | words[1].w);
                        for (int x = lane + 64; x < span.pieces; x += 32) {
                            const uint4 y = mask_at(x);
                            any |= y.x | y.y | y.z | y.w;
                        }
                    }
                    if (pmkvq_any(any != 0)) {
#pragma unroll 1
                        for (int x = 0; x < 2*M; ++x) {
                            const int token = pmkvq_prefill_queries<MEM>(smem, warp*M + x/2).token(g + x%2*8);
                            const uint16_t * row = (const uint16_t *) ((const char *) op.mask + max(token, 0)*op.mask_nb_token);
                            const int first = PMKVQ_ITEM*number2 + 16*t;
                            const uint32_t bits = token < 0 ? 0 : cached2 ? pmkvq_visible16(row, first, op.n_kv, aligned, values)
                                                                          : pmkvq_visible_tokens(op, span, row, first, aligned, values);
#pragma unroll
                            for (int m = 0; m < M; ++m) {
                                vis[m] &= x/2 == m ? x%2 ? bits << 16 | 0x0000ffff : bits | 0xffff0000 : 0xffffffff;
                            }
                        }
                    }
                    if (cached2) {
                        span.leave_out(op, number2, PMKVQ_ITEM*number2 + 16*t, vis);
                    }
                    uint32_t seen = 0;
#pragma unroll
                    for (int m = 0; m < M; ++m) {
                        seen |= vis[m] & there[m];
                        // rows that don't exist see everything: what comes of them is not written
                        visible[(((i + 2) & 3)*WARPS*M + m)*32] = vis[m] | ~there[m];
                    }
                    const bool see = pmkvq_any(seen != 0);
                    values = pmkvq_any(values);
                    if (lane == 0) {
                        states[((i + 2) & 3)*WARPS] = values + 2*see;
                        if (see) {
                            flags[three] = 1;
                        }
                    }
                    if (warp == 2) {
                        pmkvq_describe_item(describe[(i + 2) & 3], op, cached2, number2, head, entry, lane);
                    }
                }
            }
            if (half == 0 && stages == 1) {
                pmkvq_syncthreads();
            }
        }
        three = next3;
        pmkvq_syncthreads();
    }
    pmkvq_prefill_output<MEM, MULTI>(rows, op, smem, warp*M, (float *) (smem + MEM::TILES) + warp*8*(64*NV + 4), chunk, v0, lane);
}
