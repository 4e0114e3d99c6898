// pmkvq-seen.cuh - what each tile of query rows sees, in lists that decoding reads instead of every mask
//
//   bits  [n_tokens][n_words]    whether the token sees a cell of the item, 32 items a word
//   count [n_lists]              of the items that some token of the tile sees
//   list  [n_lists][n_items]     which they are, in order

#pragma once

#include "pmkvq-attn-common.cuh"

// of decoding: query rows of a tile, and what a CTA has
#define PMKVQ_DECODE_ROWS 8
#define PMKVQ_WARPS       4
#define PMKVQ_THREADS     (32*PMKVQ_WARPS)

struct pmkvq_seen {
    uint32_t * bits; // NULL: there are no lists, and all items are looked at
    uint32_t * count;
    uint32_t * list;
    int        tokens; // of a tile
    int        n_lists;
    int        n_items;
    int        n_words;

    static pmkvq_seen of(const pmkvq_op_attn & op, void * memory) {
        pmkvq_seen s;
        s.tokens  = pmkvq_tiling::of(PMKVQ_DECODE_ROWS, op.n_tokens, op.n_head, op.n_head_kv).tokens;
        s.n_lists = (op.n_tokens + s.tokens - 1)/s.tokens;
        s.n_items = ((int64_t) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM;
        s.n_words = (s.n_items + 31)/32;
        s.bits    = (uint32_t *) memory;
        s.count   = memory ? s.bits  + (size_t) op.n_tokens*s.n_words : nullptr;
        s.list    = memory ? s.count + s.n_lists : nullptr;
        return s;
    }

    size_t bytes(int n_tokens) const {
        return ((size_t) n_tokens*n_words + n_lists + (size_t) n_lists*n_items)*sizeof(uint32_t);
    }
};
