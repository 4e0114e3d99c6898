// pmkvq-chunks.h - the parts that a GPU splits the cells into, and the memory of its lists of what is seen

#pragma once

#include <cstddef>
#include <cstdint>

#define PMKVQ_FEW  16 // the most query tokens of a decode
#define PMKVQ_ITEM 64 // cells that a warp works on at a time: half a block

// thread blocks of a decode on a multiprocessor
#ifndef PMKVQ_DECODE_CTAS
#define PMKVQ_DECODE_CTAS 2
#endif

// partial results of many tokens take no more than those of as many tokens in one part: a batch of 512 in two parts fills a GPU
#define PMKVQ_ROWS 1024

// or, where the budget does not have these, than plans count with
#define PMKVQ_ROWS_LEAST 512

// query rows that a thread block of a decode takes, where a KV head has so many query heads
static inline int pmkvq_rows_few(int64_t ratio) {
    return ratio <= 4 ? 4 : 8;
}

// n_sm: multiprocessors, rows_most: one of the above. The parts are the chunks of pmkvq_op_attn
static inline uint32_t pmkvq_n_chunk_gpu(int64_t n_sm, int64_t rows_most, int64_t n_tokens, int64_t n_kv, int64_t n_head, int64_t n_head_kv) {
    auto clamp = [](int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; };

    const int64_t kv = clamp(n_head_kv, 1, INT32_MAX);

    // a thread block takes a KV head and some of its queries, several blocks on each multiprocessor; of many, 256 queries, and one block
    const bool    few     = n_tokens <= PMKVQ_FEW;
    const int64_t rows    = few ? pmkvq_rows_few(n_head/kv) : 256;
    const int64_t n_tiles = clamp((n_tokens*(n_head/kv) + rows - 1)/rows, 1, INT32_MAX);

    // where queries of different sequences see more or less, room for up to four times the blocks that each would have
    const int64_t room = few && n_tokens > 1 ? clamp(n_tiles, 1, 4) : 1;

    const int64_t most = few ? clamp(PMKVQ_ROWS_LEAST/clamp(n_tokens, 1, INT32_MAX), 1, 128) : clamp(rows_most/n_tokens, 1, 32);

    // a part has at least 256 cells
    const int64_t fill = room*(few ? PMKVQ_DECODE_CTAS : 1)*n_sm/(kv*n_tiles);

    return clamp((n_kv + 255)/256, 1, clamp(fill, 1, most));
}

// bytes of n_lists lists of what n_tokens see of n_kv cells, as pmkvq-seen.cuh draws them
static inline size_t pmkvq_seen_bytes(int64_t n_tokens, int64_t n_lists, int64_t n_kv) {
    const int64_t n_items = (n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM;
    const int64_t n_words = (n_items + 31)/32;

    return (n_tokens*n_words + 2*n_lists + 1 + n_lists*n_items)*sizeof(uint32_t);
}
