// pmkvq-decode-item.cuh - one item of 64 cells while decoding: where it is, and what of it is seen

#pragma once

#include "pmkvq-seen.cuh"

// an item as a lane sees it. In few registers: there is one that is multiplied, and the next one
struct pmkvq_item {
    int      index; // of 64 cells
    uint32_t k;     // where in the pool, in 8 bytes: subtile g/2, at the lane's first cell
    uint32_t v;     // subtile t
    uint32_t bits;  // i: the lane's rows see its cell i; 8: some visible mask value is not 0; from 16 and 24 on: widths

    __device__ __forceinline__ int      wk()     const { return bits >> 16 & 0xff; }
    __device__ __forceinline__ int      wv()     const { return bits >> 24; }
    __device__ __forceinline__ uint32_t vis()    const { return bits & 0xff; }
    __device__ __forceinline__ bool     values() const { return bits & 0x100; }

    __device__ __forceinline__ const uint8_t * keys (const pmkvq_op_attn & op) const { return op.pool_k + (size_t) k*8; }
    __device__ __forceinline__ const uint8_t * cells(const pmkvq_op_attn & op) const { return op.pool_v + (size_t) v*8; }
};

// what is asked for long before an item is resolved
struct pmkvq_ahead {
    int      item;
    int      entries; // of the table: K in lanes 0..8, V in lanes 9..17
    uint32_t mask[4]; // of the lane's cells, where the mask can be read in words
};

// how a lane reads the mask. Its rows have one token (pmkvq_decode_rows)
struct pmkvq_mask {
    int  token;
    bool aligned; // for words; from the host, and so in no register

    // rows that there are not see what the tile's first token sees, so that there is not always something hidden. row: the lane's first
    __device__ __forceinline__ pmkvq_mask(const pmkvq_op_attn & op, const pmkvq_tiling & tiling, int tile, int row, bool aligned) : aligned(aligned) {
        int first, h;
        tiling.row(tile, 0, op.n_tokens, first, h);
        token = tiling.row(tile, row, op.n_tokens, token, h) ? token : first;
    }

    static bool is_aligned(const pmkvq_op_attn & op) {
        return (op.mask_nb_token | (uintptr_t) op.mask)%4 == 0;
    }

    __device__ __forceinline__ const uint16_t * row(const pmkvq_op_attn & op) const {
        return (const uint16_t *) ((const char *) op.mask + token*op.mask_nb_token);
    }

    // whether that of an item can be asked for ahead: all of the lane's cells lie in it
    __device__ __forceinline__ bool ahead(const pmkvq_op_attn & op, int item) const {
        return aligned && PMKVQ_ITEM*(item + 1) <= (int) op.n_kv;
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

static __device__ __forceinline__ pmkvq_ahead pmkvq_ask(const pmkvq_op_attn & op, const pmkvq_mask & mask, int item, int lane) {
    const int block = item/2;
    const int32_t * k = (const int32_t *) (op.table_k + block);
    const int32_t * v = (const int32_t *) (op.table_v + block);

    pmkvq_ahead a;
    a.item    = item;
    a.entries = lane < 9 ? k[lane] : lane < 18 ? v[lane - 9] : 0;
    a.mask[0] = a.mask[1] = a.mask[2] = a.mask[3] = 0;
    if (mask.ahead(op, item)) {
        pmkvq_mask_words(a.mask, mask.row(op), PMKVQ_ITEM*item + pmkvq_first_cell(lane));
    }
    return a;
}

// my_cell: of the current batch's token `lane`
static __device__ __forceinline__ pmkvq_item pmkvq_resolve(
        const pmkvq_op_attn & op, const pmkvq_ahead & ahead, const pmkvq_mask & mask, int head, int my_cell, int Dk, int Dv, int lane) {
    const int g = lane/4;
    const int t = lane%4;

    const int item = ahead.item;

    pmkvq_item it;
    it.index = item;

    int wk = pmkvq_shfl(ahead.entries, 0);
    int wv = pmkvq_shfl(ahead.entries, 9);
    const bool ok = (wk == 16 || (op.group_k != 0 && (wk == 8 || wk == 4 || wk == 2)))
                 && (wv == 16 || (op.group_v != 0 && (wv == 8 || wv == 4 || wv == 2)));
    wk = ok ? wk : 16;
    wv = ok ? wv : 16;

    // what a lane multiplies: subtile g/2 of K, t of V; what it knows the visibility of: cells of subtile g/2
    const int sg = 4*(item%2) + g/2;
    const int st = 4*(item%2) + t;
    // subtiles of a page: 2^shift
    const int shift_k = __clz(wk) - 27;
    const int shift_v = __clz(wv) - 27;
    const int pk = pmkvq_shfl(ahead.entries,  1 + (sg >> shift_k));
    const int pg = pmkvq_shfl(ahead.entries, 10 + (sg >> shift_v));
    const int pv = pmkvq_shfl(ahead.entries, 10 + (st >> shift_v));

    const bool ok_k = pk >= 0 && pk < (int) op.n_pages_k;
    const bool ok_g = pg >= 0 && pg < (int) op.n_pages_v;
    const bool ok_v = pv >= 0 && pv < (int) op.n_pages_v;

    it.k = (uint32_t) (((size_t) head*op.n_pages_k + (ok_k ? pk : 0))*(4*Dk)) + (sg & ((1 << shift_k) - 1))*(wk*Dk/4) + g%2*(wk == 16 ? Dk/2 : 1);
    it.v = (uint32_t) (((size_t) head*op.n_pages_v + (ok_v ? pv : 0))*(4*Dv)) + (st & ((1 << shift_v) - 1))*(wv*Dv/4);

    const int first  = PMKVQ_ITEM*item + 16*(g/2);
    uint32_t  vis    = 0;
    bool      values = false;
    if (ok && ok_k && ok_g) {
        vis = mask.ahead(op, item) ? pmkvq_visible_words(ahead.mask, values)
                                   : pmkvq_visible8(mask.row(op), first + 2*(g%2), op.n_kv, mask.aligned, values);
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
                    vis &= ~(1u << (x/4*2 + x%2));
                }
            }
        }
    }
    it.bits = vis | (values ? 0x100 : 0) | wk << 16 | wv << 24;
    return it;
}

// cells of subtile t that any row of the warp sees: bit 4u + i, cell i of quad u
static __device__ __forceinline__ uint32_t pmkvq_seen16(uint32_t vis, int lane) {
    uint32_t mine = vis;
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
