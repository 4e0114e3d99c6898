// pmkvq-attn-item.cuh - one item of 64 cells: scores, softmax, values

#pragma once

#include "pmkvq-attn-queries.cuh"
#include "pmkvq-attn-rows.cuh"
#include "pmkvq-attn-scores.cuh"
#include "pmkvq-attn-values.cuh"

// an item as a lane sees it
struct pmkvq_item {
    int             index;  // of 64 cells
    int             wk, wv; // widths; 0 in either: there is nothing
    const uint8_t * k;      // subtile g/2
    const uint8_t * v;      // subtile t
    uint32_t        vis;    // cells 16t.. of it that row g sees (low half), and row g+8
    bool            values; // some visible mask value is not 0
};

// what is added to scores, and how masks are read
struct pmkvq_mask {
    const uint16_t * row[2];
    float            slope[2];
    bool             there[2];
    bool             aligned;
};

// a warp's lanes hold the table entries of K (words 0..8) and V (9..17) of a block
static __device__ __forceinline__ int pmkvq_entries(const pmkvq_op_attn & op, int item, int n_items, int lane) {
    const int block = (item < n_items ? item : 0)/2;
    const int32_t * k = (const int32_t *) (op.table_k + block);
    const int32_t * v = (const int32_t *) (op.table_v + block);
    return lane < 9 ? k[lane] : lane < 18 ? v[lane - 9] : 0;
}

static __device__ __forceinline__ pmkvq_item pmkvq_resolve(
        const pmkvq_op_attn & op, int item, int entries, const pmkvq_mask & mask, int head, int my_cell, int lane) {
    const int g = lane/4;
    const int t = lane%4;

    pmkvq_item it;
    it.index = item;

    const int wk = pmkvq_shfl(entries, 0);
    const int wv = pmkvq_shfl(entries, 9);
    it.wk = wk == 16 || (op.group_k != 0 && (wk == 8 || wk == 4 || wk == 2)) ? wk : 0;
    it.wv = wv == 16 || (op.group_v != 0 && (wv == 8 || wv == 4 || wv == 2)) ? wv : 0;
    if (it.wk == 0 || it.wv == 0) {
        it.wk = it.wv = 0;
    }

    // what a lane multiplies: subtile g/2 of K, t of V; what it knows the visibility of: subtile t of both
    const int sk = 4*(item%2) + g/2;
    const int st = 4*(item%2) + t;
    const int pk = pmkvq_shfl(entries,  1 + sk*it.wk/16);
    const int pt = pmkvq_shfl(entries,  1 + st*it.wk/16);
    const int pv = pmkvq_shfl(entries, 10 + st*it.wv/16);

    const bool ok_k = pk >= 0 && pk < (int) op.n_pages_k;
    const bool ok_t = pt >= 0 && pt < (int) op.n_pages_k;
    const bool ok_v = pv >= 0 && pv < (int) op.n_pages_v;

    const int per_k = it.wk ? 16/it.wk : 1;
    const int per_v = it.wv ? 16/it.wv : 1;
    it.k = op.pool_k + ((size_t) head*op.n_pages_k + (ok_k ? pk : 0))*(32*op.head_dim_k) + sk%per_k*(2*it.wk*op.head_dim_k);
    it.v = op.pool_v + ((size_t) head*op.n_pages_v + (ok_v ? pv : 0))*(32*op.head_dim_v) + st%per_v*(2*it.wv*op.head_dim_v);

    it.vis    = 0;
    it.values = false;
    const int cell = PMKVQ_ITEM*item + 16*t;
    if (it.wk != 0 && ok_t && ok_v) {
        if (mask.there[0]) {
            it.vis = pmkvq_visible16(mask.row[0], cell, op.n_kv, mask.aligned, it.values);
        }
        if (mask.there[1]) {
            it.vis |= pmkvq_visible16(mask.row[1], cell, op.n_kv, mask.aligned, it.values) << 16;
        }
    }
    // the current batch is not read from the cache
    if (op.k_cur) {
        for (int base = 0; base < (int) op.n_tokens; base += 32) {
            const int c = base == 0 ? my_cell : base + lane < (int) op.n_tokens ? (int) op.cells[base + lane] : -1;
            uint32_t here = pmkvq_ballot(c >= 0 && c/PMKVQ_ITEM == item);
            while (here != 0) {
                const int x = pmkvq_shfl(c, __ffs(here) - 1) - cell;
                here &= here - 1;
                if (x >= 0 && x < 16) {
                    it.vis &= ~(0x10001u << x);
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

// sums of products with codes become scores: k takes a range times a sum to log2 units, sum are the rows' sums of queries
template <bool HALF>
static __device__ __forceinline__ void pmkvq_scale_scores(float (&s)[8][4], const pmkvq_params & p, const float (&k)[2], const float (&sum)[2]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const float mn = pmkvq_half_of(p.min, i);
        const float sc = pmkvq_half_of(p.max, i) - mn;
        float (&x)[4] = s[i%8];
        x[i/8] = x[i/8]*(sc*k[0]) + mn*sum[0];
        if (!HALF) {
            x[2 + i/8] = x[2 + i/8]*(sc*k[1]) + mn*sum[1];
        }
    }
}

// the same for one of several groups, added to s
static __device__ __forceinline__ void pmkvq_add_scores(
        float (&s)[8][4], const float (&acc)[8][4], const pmkvq_params & p, const float (&k)[2], const float (&sum)[2]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const float mn = pmkvq_half_of(p.min, i);
        const float sc = pmkvq_half_of(p.max, i) - mn;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int e = 2*r + i/8;
            s[i%8][e] += acc[i%8][e]*(sc*k[r]) + mn*sum[r];
        }
    }
}

// sums of products become scores in log2 units
template <int W, int NS, bool MULTI, bool HALF>
static __device__ __forceinline__ void pmkvq_scores(
        float (&s)[8][4], uint4 (&buf)[8], const pmkvq_op_attn & op, const pmkvq_queries & q, const pmkvq_item & it, int head, int lane) {
    const int g = lane/4;
    const int t = lane%4;
    const int D = op.head_dim_k;
    const float inv[2] = { q.inv[g], q.inv[g + 8] };

    if constexpr (W == 16) {
        pmkvq_k_item<W, NS>(s, buf, it.k, q.frag, D, lane, 0, D);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            s[i][0] *= inv[0];
            s[i][1] *= inv[0];
            if (!HALF) {
                s[i][2] *= inv[1];
                s[i][3] *= inv[1];
            }
        }
    } else {

    const float unit = 16777216.0f/((1 << W) - 1); // 2^24 / steps of a range
    const int   n_groups = pmkvq_groups<MULTI>(D, op.group_k);
    const int   cell = PMKVQ_ITEM*(it.index%2) + 16*t;

    if constexpr (!MULTI) {
        const pmkvq_params p = pmkvq_params::load(op.params_k, it.index/2, cell, head, op.n_head_kv, 0, 1);
        pmkvq_k_item<W, NS>(s, buf, it.k, q.frag, D, lane, 0, D);
        const float sum[2] = { q.sum[g]*inv[0], q.sum[g + 8]*inv[1] };
        const float k[2]   = { unit*inv[0], unit*inv[1] };
        pmkvq_scale_scores<HALF>(s, p, k, sum);
    } else {

    float acc[8][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
    }
#pragma unroll 1
    for (int gi = 0; gi < n_groups; ++gi) {
        const pmkvq_params p = pmkvq_params::load(op.params_k, it.index/2, cell, head, op.n_head_kv, gi, n_groups);
        if (gi > 0) {
            pmkvq_k_first<W, NS>(buf, it.k, D, lane);
        }
        pmkvq_k_item<W, NS>(acc, buf, it.k, q.frag, D, lane, gi*op.group_k, (gi + 1)*op.group_k);
        const float sum[2] = { q.sum[gi*PMKVQ_ROWS + g]*inv[0], q.sum[gi*PMKVQ_ROWS + g + 8]*inv[1] };
        const float k[2]   = { unit*inv[0], unit*inv[1] };
        pmkvq_add_scores(s, acc, p, k, sum);
    }
    }
    }
}

// cap, and what the mask adds
template <bool HALF>
static __device__ __forceinline__ void pmkvq_bias(float (&s)[8][4], const pmkvq_op_attn & op, const pmkvq_mask & mask, uint32_t vis, bool values, int cell) {
    if (op.softcap != 0.0f) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
            for (int e = 0; e < (HALF ? 2 : 4); ++e) {
                // tanh(x) = 1 - 2/(exp(2x) + 1)
                const float y = pmkvq_exp2(s[i][e]*(2.0f*1.4426950408889634f/op.softcap));
                s[i][e] = op.softcap*1.4426950408889634f*(1.0f - 2.0f/(y + 1.0f));
            }
        }
    }
    if (pmkvq_any(values)) {
#pragma unroll
        for (int r = 0; r < (HALF ? 1 : 2); ++r) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                if (vis >> (16*r + i) & 1) {
                    s[i%8][2*r + i/8] += mask.slope[r]*pmkvq_h2f(mask.row[r][cell + i]);
                }
            }
        }
    }
}

// weights of 16-bit cells, and their sums
template <int NV, bool HALF>
static __device__ __forceinline__ void pmkvq_weights_f16(pmkvq_rows<NV, HALF> & rows, uint32_t (&w)[4][4], const float (&s)[8][4]) {
    rows.rescale(-14);
    const float e = pmkvq_pow2(-rows.u);
    const float k[4] = { e, e, e, e };
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        pmkvq_weights<HALF>(w[q], s, q, k);
    }
    // the sum of the weights as they are rounded: a large mean of the values would show otherwise
    const float back = pmkvq_pow2(rows.u);
#pragma unroll
    for (int r = 0; r < (HALF ? 1 : 2); ++r) {
        float sum = 0.0f;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            const float2 a = pmkvq_unpack_h2(w[q][r]);
            const float2 b = pmkvq_unpack_h2(w[q][r + 2]);
            sum += (a.x + a.y) + (b.x + b.y);
        }
        rows.l[r] += sum*back;
    }
}

// sums of the weights of cells with codes
template <int NV, bool HALF>
static __device__ __forceinline__ void pmkvq_sum_weights(pmkvq_rows<NV, HALF> & rows, const float (&s)[8][4]) {
#pragma unroll
    for (int r = 0; r < (HALF ? 1 : 2); ++r) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            sum += s[i][2*r] + s[i][2*r + 1];
        }
        rows.l[r] += sum;
    }
}

// the largest range among this lane's cells that one of its rows sees
static __device__ __forceinline__ float pmkvq_largest(const pmkvq_params & p, uint32_t mine) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        largest = fmaxf(largest, mine >> i & 1 ? pmkvq_half_of(p.max, i) - pmkvq_half_of(p.min, i) : 0.0f);
    }
    return largest;
}

// units in which the weights of codes fit; returns what takes a range to a factor of weights
template <int NV, bool HALF>
static __device__ __forceinline__ float pmkvq_rescale_codes(pmkvq_rows<NV, HALF> & rows, float largest, float step) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        largest = fmaxf(largest, pmkvq_shfl_xor(largest, i));
    }
    rows.rescale(largest > 0.0f ? pmkvq_exponent(largest*step) + 11 : rows.u);
    return pmkvq_pow2(24 - rows.u)*step;
}

// weights of cells with codes of W bits (quads in one byte stand W bits apart), and the rows' sums of weights times minima
template <int W, bool HALF>
static __device__ __forceinline__ void pmkvq_weights_codes(
        uint32_t (&w)[4][4], float (&low)[2], const float (&s)[8][4], const pmkvq_params & p, uint32_t mine, float unit) {
    low[0] = low[1] = 0.0f;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const float unit_q = unit*(1.0f/(1 << (W == 16 ? 0 : W*(q%(W == 16 ? 1 : 8/W)))));
        float k[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            // parameters of cells that were never written may be NaN
            const int   i   = 4*q + j;
            const bool  see = mine >> i & 1;
            const float mn  = pmkvq_half_of(p.min, i);
            const float lo  = see ? mn : 0.0f;
            k[j] = see ? (pmkvq_half_of(p.max, i) - mn)*unit_q : 0.0f;
            low[0] += s[i%8][i/8]*lo;
            if (!HALF) {
                low[1] += s[i%8][2 + i/8]*lo;
            }
        }
        pmkvq_weights<HALF>(w[q], s, q, k);
    }
}

// sums of weights times minima, for the dimensions of a group
template <int NV, bool HALF>
static __device__ __forceinline__ void pmkvq_add_low(pmkvq_rows<NV, HALF> & rows, float (&low)[2], int v0, int d0, int d1, int lane) {
    const int t = lane%4;
    const float back = pmkvq_pow2(-rows.u);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        low[r] += pmkvq_shfl_xor(low[r], 1);
        low[r] += pmkvq_shfl_xor(low[r], 2);
        low[r] *= back;
    }
#pragma unroll
    for (int i = 0; i < NV; ++i) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int d = v0 + 64*i + 16*t + 8*e;
            if (d >= d0 && d < d1) {
#pragma unroll
                for (int j = 0; j < 8; ++j) {
                    rows.out[8*i + j][e]     += low[0];
                    rows.out[8*i + j][e + 2] += low[1];
                }
            }
        }
    }
}

// weights times values. buf: the first half of the first part
template <int W, int NV, bool MULTI, bool HALF, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_values(
        pmkvq_rows<NV, HALF> & rows, float (&s)[8][4], uint4 (&buf)[8], const pmkvq_op_attn & op, const pmkvq_item & it, int head, int v0, int lane) {
    const int t = lane%4;
    const int D = op.head_dim_v;
    uint32_t w[4][4];

    pmkvq_v_load<W, NV, 1, SHARED>(buf, it.v, 0, D, v0, lane);

    if (W == 16) {
        // bytes of cells that nobody sees may be NaN
        uint32_t seen = (it.vis | it.vis >> 16) & 0xffff;
        seen |= pmkvq_shfl_xor(seen, 4);
        seen |= pmkvq_shfl_xor(seen, 8);
        seen |= pmkvq_shfl_xor(seen, 16);
        const bool all = pmkvq_all(seen == 0xffff);

        pmkvq_weights_f16<NV, HALF>(rows, w, s);
        pmkvq_v_item<W, NV, SHARED>(rows.out, buf, it.v, w, D, v0, lane, all, seen, 0, D);
        return;
    }

    const int cell     = PMKVQ_ITEM*(it.index%2) + 16*t;
    const int n_groups = pmkvq_groups<MULTI>(D, op.group_v);
    const uint32_t mine = it.vis | it.vis >> 16;

    pmkvq_sum_weights(rows, s);

    // the largest range sets the unit
    float largest = 0.0f;
    pmkvq_params p;
#pragma unroll 1
    for (int gi = 0; gi < n_groups; ++gi) {
        p = pmkvq_params::load(op.params_v, it.index/2, cell, head, op.n_head_kv, gi, n_groups);
        largest = fmaxf(largest, pmkvq_largest(p, mine));
    }
    const float unit = pmkvq_rescale_codes(rows, largest, 1.0f/((1 << W) - 1));

#pragma unroll 1
    for (int gi = 0; gi < n_groups; ++gi) {
        const int d0 = MULTI ? gi*op.group_v : 0;
        const int d1 = MULTI ? d0 + op.group_v : D;
        if (MULTI && (d1 <= v0 || d0 >= v0 + 64*NV)) {
            continue;
        }
        if (MULTI) {
            p = pmkvq_params::load(op.params_v, it.index/2, cell, head, op.n_head_kv, gi, n_groups);
        }
        float low[2];
        pmkvq_weights_codes<W, HALF>(w, low, s, p, mine, unit);
        if (MULTI && gi > 0) {
            pmkvq_v_first<W, NV, SHARED>(buf, it.v, D, v0, lane);
        }
        pmkvq_v_item<W, NV, SHARED>(rows.out, buf, it.v, w, D, v0, lane, true, 0, d0, d1);

        if (!MULTI) {
            rows.lo[0] += low[0];
            rows.lo[1] += low[1];
            continue;
        }
        pmkvq_add_low<NV, HALF>(rows, low, v0, d0, d1, lane);
    }
}
