// pmkvq-decode-item.cuh - one item of 64 cells while decoding: what is seen, scores, values

#pragma once

#include "pmkvq-decode-keys.cuh"
#include "pmkvq-decode-rows.cuh"
#include "pmkvq-decode-values.cuh"
#include "pmkvq-seen.cuh"

// an item as a lane sees it
struct pmkvq_item {
    int             index;  // of 64 cells
    int             wk, wv; // widths
    const uint8_t * k;      // subtile g/2, at the lane's first cell
    const uint8_t * v;      // subtile t
    uint32_t        vis;    // bit 8r + i: row r of the lane sees its cell i
    bool            values; // some visible mask value is not 0
};

// what is asked for long before an item is resolved
struct pmkvq_ahead {
    int      item;
    int      entries; // of the table: K in lanes 0..8, V in lanes 9..17
    uint32_t mask[4]; // of the lane's cells, where all its rows have one token and the mask can be read in words
};

// how the lane's rows read the mask
template <int NT>
struct pmkvq_mask {
    const uint16_t * row[2*NT];
    uint32_t         there;   // bits of rows
    bool             aligned; // for words
    bool             same;    // all rows have one token
};

// a lane's first cell of an item
static __device__ __forceinline__ int pmkvq_first_cell(int lane) {
    return 16*(lane/8) + 2*(lane/4%2);
}

static __device__ __forceinline__ void pmkvq_mask_words(uint32_t (&w)[4], const uint16_t * row, int cell) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        w[q] = pmkvq_ldg4((const uint32_t *) (row + cell + 4*q));
    }
}

// the cells of 8, two of each quad from `cell`, that a row of the mask shows
static __device__ __forceinline__ uint32_t pmkvq_visible8(const uint16_t * row, int cell, int n_kv, bool aligned, bool & values) {
    if (aligned && cell + 14 <= n_kv) {
        uint32_t w[4];
        pmkvq_mask_words(w, row, cell);
        return pmkvq_visible_words(w, values);
    }
    uint32_t bits = 0;
#pragma unroll 1
    for (int i = 0; i < 8; ++i) {
        const int      c = cell + i/2*4 + i%2;
        const uint32_t m = c < n_kv ? row[c] : 0xfc00;
        bits |= m != 0xfc00 ? 1u << i : 0;
        values = values || (m != 0xfc00 && m != 0);
    }
    return bits;
}

// whether the mask of an item can be asked for ahead: all of the lane's cells lie in it
template <int NT>
static __device__ __forceinline__ bool pmkvq_mask_ahead(const pmkvq_op_attn & op, const pmkvq_mask<NT> & mask, int item) {
    return mask.same && mask.aligned && PMKVQ_ITEM*(item + 1) <= (int) op.n_kv;
}

template <int NT>
static __device__ __forceinline__ pmkvq_ahead pmkvq_ask(const pmkvq_op_attn & op, const pmkvq_mask<NT> & mask, int item, int lane) {
    const int block = item/2;
    const int32_t * k = (const int32_t *) (op.table_k + block);
    const int32_t * v = (const int32_t *) (op.table_v + block);

    pmkvq_ahead a;
    a.item    = item;
    a.entries = lane < 9 ? k[lane] : lane < 18 ? v[lane - 9] : 0;
    a.mask[0] = a.mask[1] = a.mask[2] = a.mask[3] = 0;
    if (pmkvq_mask_ahead<NT>(op, mask, item)) {
        pmkvq_mask_words(a.mask, mask.row[0], PMKVQ_ITEM*item + pmkvq_first_cell(lane));
    }
    return a;
}

// my_cell: of the current batch's token `lane`
template <int NT>
static __device__ __forceinline__ pmkvq_item pmkvq_resolve(
        const pmkvq_op_attn & op, const pmkvq_ahead & ahead, const pmkvq_mask<NT> & mask, int head, int my_cell, int Dk, int Dv, int lane) {
    const int g = lane/4;
    const int t = lane%4;

    const int item = ahead.item;

    pmkvq_item it;
    it.index = item;

    const int wk = pmkvq_shfl(ahead.entries, 0);
    const int wv = pmkvq_shfl(ahead.entries, 9);
    const bool ok = (wk == 16 || (op.group_k != 0 && (wk == 8 || wk == 4 || wk == 2)))
                 && (wv == 16 || (op.group_v != 0 && (wv == 8 || wv == 4 || wv == 2)));
    it.wk = ok ? wk : 16;
    it.wv = ok ? wv : 16;

    // what a lane multiplies: subtile g/2 of K, t of V; what it knows the visibility of: cells of subtile g/2
    const int sg = 4*(item%2) + g/2;
    const int st = 4*(item%2) + t;
    // subtiles of a page: 2^shift
    const int shift_k = __clz(it.wk) - 27;
    const int shift_v = __clz(it.wv) - 27;
    const int pk = pmkvq_shfl(ahead.entries,  1 + (sg >> shift_k));
    const int pg = pmkvq_shfl(ahead.entries, 10 + (sg >> shift_v));
    const int pv = pmkvq_shfl(ahead.entries, 10 + (st >> shift_v));

    const bool ok_k = pk >= 0 && pk < (int) op.n_pages_k;
    const bool ok_g = pg >= 0 && pg < (int) op.n_pages_v;
    const bool ok_v = pv >= 0 && pv < (int) op.n_pages_v;

    it.k = op.pool_k + ((size_t) head*op.n_pages_k + (ok_k ? pk : 0))*(32*Dk) + (sg & ((1 << shift_k) - 1))*(2*it.wk*Dk)
         + g%2*(it.wk == 16 ? 4*Dk : 8);
    it.v = op.pool_v + ((size_t) head*op.n_pages_v + (ok_v ? pv : 0))*(32*Dv) + (st & ((1 << shift_v) - 1))*(2*it.wv*Dv);

    it.vis    = 0;
    it.values = false;
    const int first = PMKVQ_ITEM*item + 16*(g/2);
    const int cell  = first + 2*(g%2);
    if (ok && ok_k && ok_g) {
        if (mask.same) {
            const uint32_t bits = !mask.there ? 0
                : pmkvq_mask_ahead<NT>(op, mask, item) ? pmkvq_visible_words(ahead.mask, it.values)
                : pmkvq_visible8(mask.row[0], cell, op.n_kv, mask.aligned, it.values);
#pragma unroll
            for (int r = 0; r < 2*NT; ++r) {
                it.vis |= mask.there >> r & 1 ? bits << (8*r) : 0;
            }
        } else {
#pragma unroll
            for (int r = 0; r < 2*NT; ++r) {
                if (mask.there >> r & 1) {
                    it.vis |= pmkvq_visible8(mask.row[r], cell, op.n_kv, mask.aligned, it.values) << (8*r);
                }
            }
        }
    }
    // the current batch is not read from the cache
    if (op.k_cur) {
        for (int base = 0; base < (int) op.n_tokens; base += 32) {
            const int c = base == 0 ? my_cell : base + lane < (int) op.n_tokens ? (int) op.cells[base + lane] : -1;
            uint32_t here = pmkvq_ballot(c >= 0 && c/PMKVQ_ITEM == item);
            while (here != 0) {
                const int x = pmkvq_shfl(c, __ffs(here) - 1) - first;
                here &= here - 1;
                if (x >= 0 && x < 16 && x/2%2 == g%2) {
                    it.vis &= ~(0x01010101u << (x/4*2 + x%2));
                }
            }
        }
    }
    return it;
}

// the groups of a side: with MULTI as many as there are, else one
template <bool MULTI>
static __device__ __forceinline__ int pmkvq_groups(int D, int group) {
    return MULTI && group != 0 ? D/group : 1;
}

// sums of products become scores in log2 units. one: the parameters, where there is one group
template <int W, int NS, int NT, int R, bool MULTI>
static __device__ __forceinline__ void pmkvq_scores(
        float (&s)[NT][4][4], uint32_t (&buf)[R][8], const pmkvq_params8 & one, const pmkvq_op_attn & op, const pmkvq_queries & q, const pmkvq_item & it,
        int head, int D, int lane) {
    const int t = lane%4;

    if constexpr (W == 16) {
        pmkvq_k_item<W, NS, NT, R>(s, buf, it.k, q.frag, D, lane, 0, D);
#pragma unroll
        for (int r = 0; r < 2*NT; ++r) {
            const float inv = q.inv[r/2*8 + 2*t + r%2];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                PMKVQ_AT(s, r, i) *= inv;
            }
        }
    } else {
        const float unit     = 16777216.0f/((1 << W) - 1); // 2^24 by the steps of a range
        const int   n_groups = pmkvq_groups<MULTI>(D, op.group_k);
        const int   cell     = PMKVQ_ITEM*(it.index%2) + pmkvq_first_cell(lane);

        if constexpr (!MULTI) {
            const pmkvq_params8 & p = one;
            pmkvq_k_item<W, NS, NT, R>(s, buf, it.k, q.frag, D, lane, 0, D);
#pragma unroll
            for (int r = 0; r < 2*NT; ++r) {
                const float inv = q.inv[r/2*8 + 2*t + r%2];
                const float sum = q.sum[r/2*8 + 2*t + r%2]*inv;
                const float k   = unit*inv;
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    float & x = PMKVQ_AT(s, r, i);
                    x = x*(p.range(i)*k) + p.lo(i)*sum;
                }
            }
        } else {
            float acc[NT][4][4];
#pragma unroll
            for (int r = 0; r < 2*NT; ++r) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    PMKVQ_AT(s, r, i) = 0.0f;
                }
            }
#pragma unroll 1
            for (int gi = 0; gi < n_groups; ++gi) {
                const pmkvq_params8 p = pmkvq_params8::load(op.params_k, it.index/2, cell, head, op.n_head_kv, gi, n_groups);
                if (gi > 0) {
                    pmkvq_k_first<W, NS, R>(buf, it.k, D, lane);
                }
                pmkvq_k_item<W, NS, NT, R>(acc, buf, it.k, q.frag, D, lane, gi*op.group_k, (gi + 1)*op.group_k);
#pragma unroll
                for (int r = 0; r < 2*NT; ++r) {
                    const float inv = q.inv[r/2*8 + 2*t + r%2];
                    const float sum = q.sum[gi*16 + r/2*8 + 2*t + r%2]*inv;
                    const float k   = unit*inv;
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
                        PMKVQ_AT(s, r, i) += PMKVQ_AT(acc, r, i)*(p.range(i)*k) + p.lo(i)*sum;
                    }
                }
            }
        }
    }
}

// cap, and what the mask adds
template <int NT>
static __device__ __forceinline__ void pmkvq_bias(
        float (&s)[NT][4][4], const pmkvq_op_attn & op, const pmkvq_queries & q, const pmkvq_mask<NT> & mask, const pmkvq_item & it, int lane) {
    const int g = lane/4;
    const int t = lane%4;
    if (op.softcap != 0.0f) {
#pragma unroll
        for (int r = 0; r < 2*NT; ++r) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                // tanh(x) = 1 - 2/(exp(2x) + 1)
                float & x = PMKVQ_AT(s, r, i);
                const float y = pmkvq_exp2(x*(2.0f*1.4426950408889634f/op.softcap));
                x = op.softcap*1.4426950408889634f*(1.0f - 2.0f/(y + 1.0f));
            }
        }
    }
    if (pmkvq_any(it.values)) {
        const int cell = PMKVQ_ITEM*it.index + 16*(g/2) + 2*(g%2);
#pragma unroll
        for (int r = 0; r < 2*NT; ++r) {
            const float slope = q.slope[r/2*8 + 2*t + r%2];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (it.vis >> (8*r + i) & 1) {
                    PMKVQ_AT(s, r, i) += slope*pmkvq_h2f(mask.row[r][cell + i/2*4 + i%2]);
                }
            }
        }
    }
}

// cells of subtile t that any row of the warp sees: bit 4u + i, cell i of quad u
template <int NT>
static __device__ __forceinline__ uint32_t pmkvq_seen16(uint32_t vis, int lane) {
    uint32_t mine = vis | vis >> 16;
    mine = (mine | mine >> 8) & 0xff;
    mine |= pmkvq_shfl_xor(mine, 1);
    mine |= pmkvq_shfl_xor(mine, 2);
    const uint32_t a = (uint32_t) pmkvq_shfl((int) mine, lane%4*8);     // cells 0 and 1 of the quads
    const uint32_t b = (uint32_t) pmkvq_shfl((int) mine, lane%4*8 + 4); // 2 and 3
    uint32_t seen = 0;
#pragma unroll
    for (int u = 0; u < 4; ++u) {
        seen |= (a >> (2*u) & 3) << (4*u) | (b >> (2*u) & 3) << (4*u + 2);
    }
    return seen;
}

// weights times values. buf: the first steps, one: the parameters, where there is one group
template <int W, int NV, int NT, int R, bool MULTI, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_values(
        pmkvq_rows<NV, NT> & rows, float (&s)[NT][4][4], uint32_t (&buf)[R][8], const pmkvq_params8 & one, const pmkvq_op_attn & op, const pmkvq_item & it,
        int head, int D, int v0, int lane) {
    uint32_t w[NT][4][2];

    if constexpr (W == 16) {
        const uint32_t seen = pmkvq_seen16<NT>(it.vis, lane);
        pmkvq_weights_f16<NV, NT>(rows, w, s);
        pmkvq_v_item<W, NV, NT, R, SHARED>(rows.out, buf, it.v, w, rows.f, 1.0f/16384.0f, D, v0, lane, pmkvq_all(seen == 0xffff), seen, 0, D);
    } else {
        const int cell     = PMKVQ_ITEM*(it.index%2) + pmkvq_first_cell(lane);
        const int n_groups = pmkvq_groups<MULTI>(D, op.group_v);
        uint32_t  mine     = it.vis | it.vis >> 16;
        mine |= mine >> 8;

#pragma unroll
        for (int r = 0; r < 2*NT; ++r) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                rows.l[r] += PMKVQ_AT(s, r, i);
            }
        }

        // the largest range sets the unit
        float largest = 0.0f;
        pmkvq_params8 p = one;
#pragma unroll 1
        for (int gi = 0; gi < n_groups; ++gi) {
            if (MULTI) {
                p = pmkvq_params8::load(op.params_v, it.index/2, cell, head, op.n_head_kv, gi, n_groups);
            }
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                largest = fmaxf(largest, mine >> i & 1 ? p.range(i) : 0.0f);
            }
        }
#pragma unroll
        for (int i = 16; i > 0; i /= 2) {
            largest = fmaxf(largest, pmkvq_shfl_xor(largest, i));
        }
        // ranges times 2^e are about 1 at most
        const int   e    = largest > 0.0f ? -1 - pmkvq_exponent(largest) : 0;
        const float up   = pmkvq_pow2(e + 14);
        const float down = pmkvq_pow2(-e - 14)*(16777216.0f/((1 << W) - 1));

#pragma unroll 1
        for (int gi = 0; gi < n_groups; ++gi) {
            const int d0 = MULTI ? gi*op.group_v : 0;
            const int d1 = MULTI ? d0 + op.group_v : D;
            float low[2*NT];
            if (MULTI) {
                p = pmkvq_params8::load(op.params_v, it.index/2, cell, head, op.n_head_kv, gi, n_groups);
            }
            pmkvq_weights_codes<W, NT>(w, low, s, p, mine, up);
            if (MULTI && gi > 0) {
                pmkvq_v_first<W, NV, R, SHARED>(buf, it.v, D, v0, lane);
#pragma unroll
                for (int r = 0; r < 2*NT; ++r) {
                    rows.f[r] = 1.0f;
                }
            }
            pmkvq_v_item<W, NV, NT, R, SHARED>(rows.out, buf, it.v, w, rows.f, down, D, v0, lane, true, 0, d0, d1);

            if (!MULTI) {
#pragma unroll
                for (int r = 0; r < 2*NT; ++r) {
                    rows.lo[r] += low[r];
                }
                continue;
            }
#pragma unroll
            for (int r = 0; r < 2*NT; ++r) {
                low[r] += pmkvq_shfl_xor(low[r], 4);
                low[r] += pmkvq_shfl_xor(low[r], 8);
                low[r] += pmkvq_shfl_xor(low[r], 16);
            }
#pragma unroll
            for (int i = 0; i < NV; ++i) {
                const int d = v0 + 64*i + 8*(lane/4);
                if (d >= d0 && d < d1) {
#pragma unroll
                    for (int n = 0; n < NT; ++n) {
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
#pragma unroll
                            for (int x = 0; x < 4; ++x) {
                                rows.out[n][4*i + j][x] += low[2*n + x%2];
                            }
                        }
                    }
                }
            }
        }
    }
}
