// pmkvq-seen.cuh - what each tile of query rows sees, in lists that decoding reads instead of every mask
//
//   bits  [n_tokens][n_words]    whether the token sees a cell of the item, 32 items a word
//   count [n_lists]              of the items that some token of the tile sees
//   list  [n_lists][n_items]     which they are, in order
//   start [n_lists + 1]          where each tile's chunks begin, of n_ctas: a tile that sees more has more

#pragma once

#include "pmkvq-attn-common.cuh"

// what a CTA of decoding has
#define PMKVQ_WARPS   4
#define PMKVQ_THREADS (32*PMKVQ_WARPS)

// query rows of a tile: 4 or 8. With up to four heads a KV head a token has a tile of its own, so that tokens of several sequences are apart;
// two tokens of one sequence share a tile, where the two rows of a lane are one token's. Large head dimensions leave no registers for 8
static inline int pmkvq_decode_rows(const pmkvq_op_attn & op) {
    const uint32_t ratio = op.n_head/op.n_head_kv;
    if (op.head_dim_k > 128) {
        return 4;
    }
    return op.one_seq && op.n_tokens > 1 && (ratio == 2 || ratio == 4) ? 8 : pmkvq_rows_few(ratio);
}

// chunks of each tile, of op.n_chunk that there is room for, where all tiles have as many: a single token's as many as there are, else no
// more than run at the same time
static inline int pmkvq_chunks_used(const pmkvq_op_attn & op, int tiles, int z) {
    if (op.n_tokens == 1) {
        return op.n_chunk;
    }
    return min(max(PMKVQ_DECODE_CTAS*pmkvq_multiprocessors()/(tiles*z), 1), (int) op.n_chunk);
}

struct pmkvq_seen {
    uint32_t * bits; // NULL: there are no lists, and all items are looked at
    uint32_t * count;
    uint32_t * start;
    uint32_t * list;
    int        tokens; // of a tile
    int        n_lists;
    int        n_items;
    int        n_words;
    int        n_chunk; // at most, of a tile
    int        n_ctas;  // for all lists, a KV head and part of a token

    static pmkvq_seen of(const pmkvq_op_attn & op, void * memory) {
        const pmkvq_tiling tiling = pmkvq_tiling::of(pmkvq_decode_rows(op), op.n_tokens, op.n_head, op.n_head_kv);
        pmkvq_seen s;
        s.tokens  = tiling.tokens;
        s.n_lists = tiling.tiles/tiling.parts;
        s.n_items = ((int64_t) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM;
        s.n_words = (s.n_items + 31)/32;
        s.n_chunk = op.n_chunk;
        s.n_ctas  = s.n_lists*pmkvq_chunks_used(op, tiling.tiles, op.n_head_kv*((op.head_dim_v + 127)/128));
        s.bits    = (uint32_t *) memory;
        s.count   = memory ? s.bits  + (size_t) op.n_tokens*s.n_words : nullptr;
        s.start   = memory ? s.count + s.n_lists : nullptr;
        s.list    = memory ? s.start + s.n_lists + 1 : nullptr;
        return s;
    }
};
