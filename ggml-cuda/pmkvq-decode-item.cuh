// pmkvq-decode-item.cuh - one item of 64 cells while decoding: where it is, and what of it is seen

#pragma once

#include "pmkvq-seen.cuh"

// an item as a lane sees it
struct pmkvq_item {
    int             index;  // of 64 cells
    int             wk, wv; // widths
    const uint8_t * k;      // subtile g/2, at the lane's first cell
    const uint8_t * v;      // subtile t
    uint32_t        vis;    // bit 8b + i: row b of the lane sees its cell i
    bool            values; // some visible mask value is not 0
};

// what is asked for long before an item is resolved
struct pmkvq_ahead {
    int      item;
    int      entries; // of the table: K in lanes 0..8, V in lanes 9..17
    uint32_t mask[4]; // of the lane's cells, where all its rows have one token and the mask can be read in words
};

// how the lane's rows read the mask
template <int NB>
struct pmkvq_mask {
    const uint16_t * row[NB];
    bool             aligned; // for words
    bool             same;    // all rows have one token

    // rows that there are not see what the tile's first token sees, so that they are not always something hidden
    __device__ __forceinline__ pmkvq_mask(const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int lane) {
        int first, h;
        tiling.row(tile, 0, op.n_tokens, first, h);
        aligned = (op.mask_nb_token | (uintptr_t) op.mask)%4 == 0;
        same    = true;
#pragma unroll
        for (int b = 0; b < NB; ++b) {
            int token;
            token  = tiling.row(tile, NB*(lane%4) + b, op.n_tokens, token, h) ? token : first;
            row[b] = (const uint16_t *) ((const char *) op.mask + token*op.mask_nb_token);
            same   = same && row[b] == row[0];
        }
    }
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
template <int NB>
static __device__ __forceinline__ bool pmkvq_mask_ahead(const pmkvq_op_attn & op, const pmkvq_mask<NB> & mask, int item) {
    return mask.same && mask.aligned && PMKVQ_ITEM*(item + 1) <= (int) op.n_kv;
}

template <int NB>
static __device__ __forceinline__ pmkvq_ahead pmkvq_ask(const pmkvq_op_attn & op, const pmkvq_mask<NB> & mask, int item, int lane) {
    const int block = item/2;
    const int32_t * k = (const int32_t *) (op.table_k + block);
    const int32_t * v = (const int32_t *) (op.table_v + block);

    pmkvq_ahead a;
    a.item    = item;
    a.entries = lane < 9 ? k[lane] : lane < 18 ? v[lane - 9] : 0;
    a.mask[0] = a.mask[1] = a.mask[2] = a.mask[3] = 0;
    if (pmkvq_mask_ahead<NB>(op, mask, item)) {
        pmkvq_mask_words(a.mask, mask.row[0], PMKVQ_ITEM*item + pmkvq_first_cell(lane));
    }
    return a;
}

// my_cell: of the current batch's token `lane`
template <int NB>
static __device__ __forceinline__ pmkvq_item pmkvq_resolve(
        const pmkvq_op_attn & op, const pmkvq_ahead & ahead, const pmkvq_mask<NB> & mask, int head, int my_cell, int Dk, int Dv, int lane) {
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
            const uint32_t bits = pmkvq_mask_ahead<NB>(op, mask, item) ? pmkvq_visible_words(ahead.mask, it.values)
                                : pmkvq_visible8(mask.row[0], cell, op.n_kv, mask.aligned, it.values);
            it.vis = NB == 1 ? bits : bits*0x0101;
        } else {
#pragma unroll
            for (int b = 0; b < NB; ++b) {
                it.vis |= pmkvq_visible8(mask.row[b], cell, op.n_kv, mask.aligned, it.values) << (8*b);
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
                    it.vis &= ~(0x0101u << (x/4*2 + x%2));
                }
            }
        }
    }
    return it;
}

// whether all rows of the warp see all cells of an item
template <int NB>
static __device__ __forceinline__ bool pmkvq_sees_all(const pmkvq_item & it) {
    return pmkvq_all(it.vis == (1u << 8*NB) - 1);
}

// cells of subtile t that any row of the warp sees: bit 4u + i, cell i of quad u
static __device__ __forceinline__ uint32_t pmkvq_seen16(uint32_t vis, int lane) {
    uint32_t mine = (vis | vis >> 8) & 0xff;
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
