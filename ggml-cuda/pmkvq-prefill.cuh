// pmkvq-prefill.cuh - attention of many queries
//
// A CTA has WARPS tiles of 16 query rows of one KV head. Every item of 64 cells is unpacked once into shared memory for all of them,
// while the item before it is multiplied (two tiles), or after it (one tile, where shared memory is small). No copy of the cache.

#pragma once

#include "pmkvq-prefill-tile.cuh"

// the current batch's rows as a tile: read from the graph's own K and V, rounded as the cache rounds
template <int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_put_current(const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_op_attn & op, int head, int first, int n, int v0) {
    const int Dk = op.head_dim_k;
    const int Dv = op.head_dim_v;
    for (int i = threadIdx.x; i < PMKVQ_ITEM*(Dk/8); i += THREADS) {
        const int cell = i/(Dk/8);
        const int p    = i%(Dk/8);
        uint16_t x[8];
        const float * src = (const float *) ((const char *) op.k_cur + head*op.k_nb_head + (first + min(cell, n - 1))*op.k_nb_token) + 8*p;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            x[j] = pmkvq_f2h_sat(src[j]);
        }
        // the order 0 2 1 3
        tile.k_piece(cell, p) = make_uint4(
            x[0] | (uint32_t) x[2] << 16, x[1] | (uint32_t) x[3] << 16, x[4] | (uint32_t) x[6] << 16, x[5] | (uint32_t) x[7] << 16);
    }
    for (int i = threadIdx.x; i < PMKVQ_ITEM/4*32*NV; i += THREADS) {
        const int q = i/(32*NV);
        const int p = i%(32*NV);
        if (v0 + 2*p >= Dv) {
            continue;
        }
        uint16_t x[4][2];
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const float * src = (const float *) ((const char *) op.v_cur + head*op.v_nb_head + (first + min(4*q + c, n - 1))*op.v_nb_token) + v0 + 2*p;
            x[c][0] = pmkvq_f2h_sat(src[0]);
            x[c][1] = pmkvq_f2h_sat(src[1]);
        }
        tile.v_piece(q, p) = make_uint4(
            x[0][0] | (uint32_t) x[2][0] << 16, x[1][0] | (uint32_t) x[3][0] << 16, x[0][1] | (uint32_t) x[2][1] << 16, x[1][1] | (uint32_t) x[3][1] << 16);
    }
}

// what a row sees of the current batch: tokens first+16t.. ; columns of the mask are the tokens' cells
static __device__ __forceinline__ uint32_t pmkvq_visible_current(const pmkvq_op_attn & op, const pmkvq_mask & mask, int tok, int end, bool & values) {
    uint32_t vis = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const int64_t cell = tok + i < end ? op.cells[tok + i] : -1;
        if (cell >= 0 && cell < (int64_t) op.n_kv) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const uint16_t m = mask.there[r] ? mask.row[r][cell] : 0xfc00;
                vis |= m != 0xfc00 ? 1u << (16*r + i) : 0;
                values = values || (m != 0xfc00 && (m & 0x7fff) != 0);
            }
        }
    }
    return vis;
}

template <int NS, int NV, int WARPS, bool MULTI>
static __global__ void __launch_bounds__(32*WARPS, 1) pmkvq_attn_prefill(const pmkvq_op_attn op, const pmkvq_tiling tiling, int stages) {
    constexpr int THREADS = 32*WARPS;
    PMKVQ_DYNAMIC_SHARED(smem);
    __shared__ int flags[4];

    const int lane = threadIdx.x%32;
    const int warp = threadIdx.x/32;
    const int g    = lane/4;
    const int t    = lane%4;

    const int n_slice = (op.head_dim_v + 64*NV - 1)/(64*NV);
    const int head    = blockIdx.y;
    const int chunk   = blockIdx.z/n_slice;
    const int v0      = blockIdx.z%n_slice*64*NV;
    const int Dk      = op.head_dim_k;
    const int Dv      = op.head_dim_v;

    const int n_groups_k = pmkvq_groups<MULTI>(Dk, op.group_k);
    const int n_groups_v = pmkvq_groups<MULTI>(Dv, op.group_v);

    uint8_t * at = smem;
    pmkvq_queries q(at + warp*pmkvq_queries::bytes(16, NS, n_groups_k), 16, NS, n_groups_k);
    at += WARPS*pmkvq_queries::bytes(16, NS, n_groups_k);

    using tile_t = pmkvq_tile<NS, NV, THREADS>;
    const size_t tile_bytes = tile_t::bytes(n_groups_k, n_groups_v);

    // dimensions that a row does not have count as zero
    for (size_t i = threadIdx.x; i < stages*tile_bytes/16; i += THREADS) {
        ((uint4 *) at)[i] = make_uint4(0, 0, 0, 0);
    }
    q.clear(NS, lane, 32);
    pmkvq_syncwarp();
    q.fill(op, tiling, blockIdx.x*WARPS + warp < tiling.tiles ? blockIdx.x*WARPS + warp : tiling.tiles, head, n_groups_k, 0, 1);
    if (threadIdx.x < 4) {
        flags[threadIdx.x] = 0;
    }
    pmkvq_syncthreads();

    pmkvq_mask mask;
    mask.aligned = (op.mask_nb_token | (uintptr_t) op.mask)%16 == 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int token = q.token[g + 8*r];
        mask.there[r] = token >= 0;
        mask.slope[r] = q.slope[g + 8*r];
        mask.row[r]   = (const uint16_t *) ((const char *) op.mask + max(token, 0)*op.mask_nb_token);
    }

    pmkvq_tile_rows<NV> rows;

    const int n_cached = min(2*(int) op.n_blocks, ((int) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM);
    const int n_cur    = op.k_cur && chunk == (int) op.n_chunk - 1 ? ((int) op.n_tokens + PMKVQ_ITEM - 1)/PMKVQ_ITEM : 0;
    // this chunk's items of the cache, then those of the current batch
    const int n_mine   = chunk < n_cached ? (n_cached - chunk + op.n_chunk - 1)/op.n_chunk : 0;
    const int n_items  = n_mine + n_cur;

    int      cur_wk = 0, cur_wv = 0; // of the tile that is multiplied
    uint32_t cur_vis  = 0;
    bool     cur_values = false;
    bool     cur_live   = false;

    // items that cells of the current batch can lie in
    int cur_first = n_cached;
    int cur_last  = -1;
    if (op.k_cur) {
        for (int i = lane; i < (int) op.n_tokens; i += 32) {
            const int x = (int) (op.cells[i]/PMKVQ_ITEM);
            cur_first = min(cur_first, x);
            cur_last  = max(cur_last, x);
        }
#pragma unroll
        for (int x = 16; x > 0; x /= 2) {
            cur_first = min(cur_first, pmkvq_shfl(cur_first, lane ^ x));
            cur_last  = max(cur_last,  pmkvq_shfl(cur_last,  lane ^ x));
        }
    }

    auto is_cached = [&](int i) { return i < n_mine; };
    auto number    = [&](int i) { return is_cached(i) ? chunk + i*(int) op.n_chunk : i - n_mine; };

    // the mask of item i is asked for before another is multiplied
    uint4 words[2][2];
    auto ahead = [&](int i) { return is_cached(i) && mask.aligned && PMKVQ_ITEM*(number(i) + 1) <= (int) op.n_kv; };
    auto ask   = [&](int i) {
        if (ahead(i)) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const uint4 * p = (const uint4 *) (mask.row[r] + PMKVQ_ITEM*number(i) + 16*t);
                words[r][0] = pmkvq_ldg(p);
                words[r][1] = pmkvq_ldg(p + 1);
            }
        }
    };

    // what this warp's rows see of item i
    auto look = [&](int i, int & wk, int & wv, bool & values) {
        uint32_t vis = 0;
        values = false;
        wk = wv = 16; // of the current batch
        const int item = number(i);
        if (is_cached(i)) {
            const pmkvq_source src_k(op.pool_k, op.table_k, item, op.group_k, head, op.n_pages_k, Dk);
            const pmkvq_source src_v(op.pool_v, op.table_v, item, op.group_v, head, op.n_pages_v, Dv);
            wk = src_k.width;
            wv = src_v.width;
            const int cell = PMKVQ_ITEM*item + 16*t;
            bool ok_k, ok_v;
            src_k.subtile(t, ok_k);
            src_v.subtile(t, ok_v);
            if (wk != 0 && wv != 0 && ok_k && ok_v) {
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    if (mask.there[r]) {
                        vis |= (ahead(i) ? pmkvq_visible_words(words[r], values)
                                         : pmkvq_visible16(mask.row[r], cell, op.n_kv, mask.aligned, values)) << (16*r);
                    }
                }
            }
            // the current batch is not read from the cache
            if (item >= cur_first && item <= cur_last) {
                for (int base = 0; base < (int) op.n_tokens; base += 32) {
                    const int c = base + lane < (int) op.n_tokens ? (int) op.cells[base + lane] : -1;
                    uint32_t here = pmkvq_ballot(c >= 0 && c/PMKVQ_ITEM == item);
                    while (here != 0) {
                        const int x = pmkvq_shfl(c, __ffs(here) - 1) - cell;
                        here &= here - 1;
                        if (x >= 0 && x < 16) {
                            vis &= ~(0x10001u << x);
                        }
                    }
                }
            }
        } else if (i < n_items) {
            vis = pmkvq_visible_current(op, mask, PMKVQ_ITEM*item + 16*t, op.n_tokens, values);
        }
        // flags of three items: one is read, one is set, one is cleared
        if (pmkvq_any(vis != 0) && lane == 0) {
            flags[i%3] = 1;
        }
        if (threadIdx.x == 0) {
            flags[(i + 1)%3] = 0;
        }
        return vis;
    };

    int      wk, wv;
    bool     values;
    ask(0);
    uint32_t vis = look(0, wk, wv, values);
    pmkvq_syncthreads();

    // tile i is fetched, tile i-1 multiplied
    for (int i = 0; i <= n_items; ++i) {
        const bool cached = is_cached(i);
        const int  item   = number(i);
        const bool live   = flags[i%3] != 0;
        const pmkvq_source src_k(op.pool_k, op.table_k, cached ? item : 0, op.group_k, head, op.n_pages_k, Dk);
        const pmkvq_source src_v(op.pool_v, op.table_v, cached ? item : 0, op.group_v, head, op.n_pages_v, Dv);

        pmkvq_fetched<NS, NV, THREADS> raw;
        if (live && cached) {
            switch (wk) {
                case 16: pmkvq_fetch_k<16>(raw, src_k); break;
                case  8: pmkvq_fetch_k< 8>(raw, src_k); break;
                case  4: pmkvq_fetch_k< 4>(raw, src_k); break;
                default: pmkvq_fetch_k< 2>(raw, src_k); break;
            }
            switch (wv) {
                case 16: pmkvq_fetch_v<16>(raw, src_v, v0); break;
                case  8: pmkvq_fetch_v< 8>(raw, src_v, v0); break;
                case  4: pmkvq_fetch_v< 4>(raw, src_v, v0); break;
                default: pmkvq_fetch_v< 2>(raw, src_v, v0); break;
            }
        }

        ask(i + 1);

        // multiply tile i-1
        if (cur_live && pmkvq_any(cur_vis != 0)) {
            const tile_t tile(at + (stages == 2 ? (i + 1)%2*tile_bytes : 0), n_groups_k);
            const float inv[2] = { q.inv[g], q.inv[g + 8] };

            float s[8][4];
            if (cur_wk == 16) {
                pmkvq_tile_scores(s, tile, q.frag, lane, -PMKVQ_ALL, PMKVQ_ALL);
#pragma unroll
                for (int x = 0; x < 8; ++x) {
                    s[x][0] *= inv[0];
                    s[x][1] *= inv[0];
                    s[x][2] *= inv[1];
                    s[x][3] *= inv[1];
                }
            } else {
                const float unit = 16777216.0f/((1 << cur_wk) - 1);
                const float k[2] = { unit*inv[0], unit*inv[1] };
                if constexpr (!MULTI) {
                    pmkvq_tile_scores(s, tile, q.frag, lane, -PMKVQ_ALL, PMKVQ_ALL);
                    const float sum[2] = { q.sum[g]*inv[0], q.sum[g + 8]*inv[1] };
                    pmkvq_scale_scores(s, pmkvq_params::at(tile.params_k + 16*t, PMKVQ_ITEM), k, sum);
                } else {
                    float acc[8][4];
#pragma unroll
                    for (int x = 0; x < 8; ++x) {
                        s[x][0] = s[x][1] = s[x][2] = s[x][3] = 0.0f;
                    }
#pragma unroll 1
                    for (int gi = 0; gi < n_groups_k; ++gi) {
                        pmkvq_tile_scores(acc, tile, q.frag, lane, gi*op.group_k, (gi + 1)*op.group_k);
                        const float sum[2] = { q.sum[gi*16 + g]*inv[0], q.sum[gi*16 + g + 8]*inv[1] };
                        pmkvq_add_scores(s, acc, pmkvq_params::at(tile.params_k + gi*2*PMKVQ_ITEM + 16*t, PMKVQ_ITEM), k, sum);
                    }
                }
            }

            const int before = i - 1;
            if (before < n_mine) {
                pmkvq_bias(s, op, mask, cur_vis, cur_values, PMKVQ_ITEM*(chunk + before*op.n_chunk) + 16*t);
            } else {
                pmkvq_bias(s, op, mask, 0, false, 0);
                if (pmkvq_any(cur_values)) {
                    const int tok = PMKVQ_ITEM*(before - n_mine) + 16*t;
#pragma unroll
                    for (int x = 0; x < 16; ++x) {
#pragma unroll
                        for (int r = 0; r < 2; ++r) {
                            if (cur_vis >> (16*r + x) & 1) {
                                s[x%8][2*r + x/8] += mask.slope[r]*pmkvq_h2f(mask.row[r][op.cells[tok + x]]);
                            }
                        }
                    }
                }
            }
            rows.softmax(s, cur_vis);

            uint32_t w[4][4];
            if (cur_wv == 16) {
                pmkvq_weights_f16<NV>(rows, w, s);
                pmkvq_tile_values(rows.out, tile, w, v0, lane, -PMKVQ_ALL, PMKVQ_ALL);
            } else {
                const uint32_t mine = cur_vis | cur_vis >> 16;
                pmkvq_sum_weights(rows, s);
                float largest = 0.0f;
                for (int gi = 0; gi < n_groups_v; ++gi) {
                    largest = fmaxf(largest, pmkvq_largest(pmkvq_params::at(tile.params_v + gi*2*PMKVQ_ITEM + 16*t, PMKVQ_ITEM), mine));
                }
                const float unit = pmkvq_rescale_codes(rows, largest, 1.0f/((1 << cur_wv) - 1));
                float low[2];
                if constexpr (!MULTI) {
                    pmkvq_weights_codes<8>(w, low, s, pmkvq_params::at(tile.params_v + 16*t, PMKVQ_ITEM), mine, unit);
                    pmkvq_tile_values(rows.out, tile, w, v0, lane, -PMKVQ_ALL, PMKVQ_ALL);
                    rows.lo[0] += low[0];
                    rows.lo[1] += low[1];
                } else {
#pragma unroll 1
                    for (int gi = 0; gi < n_groups_v; ++gi) {
                        const int d0 = gi*op.group_v;
                        const int d1 = d0 + op.group_v;
                        if (d1 <= v0 || d0 >= v0 + 64*NV) {
                            continue;
                        }
                        pmkvq_weights_codes<8>(w, low, s, pmkvq_params::at(tile.params_v + gi*2*PMKVQ_ITEM + 16*t, PMKVQ_ITEM), mine, unit);
                        pmkvq_tile_values(rows.out, tile, w, v0, lane, d0, d1);
                        pmkvq_add_low<NV>(rows, low, v0, d0, d1, lane);
                    }
                }
            }
        }

        if (stages == 1) {
            pmkvq_syncthreads();
        }
        if (live) {
            const tile_t tile(at + (stages == 2 ? i%2*tile_bytes : 0), n_groups_k);
            if (cached) {
                switch (wk) {
                    case 16: pmkvq_put_k<16>(tile, raw, Dk); break;
                    case  8: pmkvq_put_k< 8>(tile, raw, Dk); break;
                    case  4: pmkvq_put_k< 4>(tile, raw, Dk); break;
                    default: pmkvq_put_k< 2>(tile, raw, Dk); break;
                }
                switch (wv) {
                    case 16: pmkvq_put_v<16>(tile, raw, Dv, v0); break;
                    case  8: pmkvq_put_v< 8>(tile, raw, Dv, v0); break;
                    case  4: pmkvq_put_v< 4>(tile, raw, Dv, v0); break;
                    default: pmkvq_put_v< 2>(tile, raw, Dv, v0); break;
                }
                // (min, max) of 64 cells: 8 pieces each
                const int n_k = wk != 16 ? n_groups_k*16 : 0;
                const int n_v = wv != 16 ? n_groups_v*16 : 0;
                for (int x = threadIdx.x; x < n_k + n_v; x += THREADS) {
                    const bool  of_k   = x < n_k;
                    const int   y      = of_k ? x : x - n_k;
                    const int   groups = of_k ? n_groups_k : n_groups_v;
                    const uint16_t * p = (of_k ? op.params_k : op.params_v)
                        + ((((size_t) item/2*op.n_head_kv + head)*groups + y/16)*2 + y%16/8)*PMKVQ_BLOCK + PMKVQ_ITEM*(item%2) + y%8*8;
                    ((uint4 *) (of_k ? tile.params_k : tile.params_v))[y] = pmkvq_ldg((const uint4 *) p);
                }
            } else {
                pmkvq_put_current(tile, op, head, PMKVQ_ITEM*item, min(PMKVQ_ITEM, (int) op.n_tokens - PMKVQ_ITEM*item), v0);
            }
        }
        cur_wk     = wk;
        cur_wv     = wv;
        cur_vis    = vis;
        cur_values = values;
        cur_live   = live;

        vis = look(i + 1, wk, wv, values);
        // tile i is whole, tile i-1 is read
        pmkvq_syncthreads();
    }

    // rows are whole: no other warp has a part of them
    const float back = pmkvq_pow2(rows.u);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float l  = rows.l[r];
        float lo = rows.lo[r];
        l  += pmkvq_shfl_xor(l, 1);
        l  += pmkvq_shfl_xor(l, 2);
        lo += pmkvq_shfl_xor(lo, 1);
        lo += pmkvq_shfl_xor(lo, 2);
        const int row = g + 8*r;
        if (q.token[row] < 0) {
            continue;
        }
        float * dst = op.dst + (((size_t) chunk*op.n_tokens + q.token[row])*op.n_head + q.head[row])*(Dv + 2);
#pragma unroll
        for (int i = 0; i < NV; ++i) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int d = v0 + 64*i + 16*t + 8*e;
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    if (d + j < Dv) {
                        dst[d + j] = rows.out[8*i + j][2*r + e]*back + lo;
                    }
                }
            }
        }
        if (t == 0 && v0 == 0) {
            dst[Dv]     = rows.m[r]*0.6931471805599453f;
            dst[Dv + 1] = l;
        }
    }
}

// cudaErrorInvalidConfiguration: the device's shared memory is too small
template <int NS, int NV, int WARPS, bool MULTI>
static cudaError_t pmkvq_launch_prefill(const pmkvq_op_attn & op, size_t shared, cudaStream_t stream) {
    const pmkvq_tiling tiling = pmkvq_tiling::of(16, op.n_tokens, op.n_head, op.n_head_kv);

    const int n_groups_k = MULTI && op.group_k != 0 ? op.head_dim_k/op.group_k : 1;
    const int n_groups_v = MULTI && op.group_v != 0 ? op.head_dim_v/op.group_v : 1;

    const size_t queries = WARPS*pmkvq_queries::bytes(16, NS, n_groups_k);
    const size_t tile    = pmkvq_tile<NS, NV, 32*WARPS>::bytes(n_groups_k, n_groups_v);

    const int stages = queries + 2*tile <= shared ? 2 : 1;
    if (queries + stages*tile > shared) {
        return cudaErrorInvalidConfiguration;
    }
    cudaError_t err = pmkvq_allow_shared(pmkvq_attn_prefill<NS, NV, WARPS, MULTI>, queries + stages*tile);
    if (err != cudaSuccess) {
        return err;
    }

    const dim3 grid((tiling.tiles + WARPS - 1)/WARPS, op.n_head_kv, op.n_chunk*((op.head_dim_v + 64*NV - 1)/(64*NV)));
    PMKVQ_LAUNCH((pmkvq_attn_prefill<NS, NV, WARPS, MULTI>), grid, dim3(32*WARPS), queries + stages*tile, stream, op, tiling, stages);
    return cudaGetLastError();
}

// with as many warps as shared memory allows
template <int NS, int NV, bool MULTI>
static cudaError_t pmkvq_launch_prefill(const pmkvq_op_attn & op, size_t shared, cudaStream_t stream) {
    cudaError_t err = pmkvq_launch_prefill<NS, NV, 8, MULTI>(op, shared, stream);
    return err == cudaErrorInvalidConfiguration ? pmkvq_launch_prefill<NS, NV, 4, MULTI>(op, shared, stream) : err;
}
