// pmkvq-ops.h - the graph nodes of the progressive cache
//
// They are GGML_OP_CUSTOM nodes (pmkvq-nodes.h). The CPU backend calls their function, others recognise them.

#pragma once

#include "pmkvq.h"
#include "pmkvq-nodes.h"

#include "ggml.h"

#include <atomic>

// what the CPU's threads share while they compute the nodes of a cache
struct pmkvq_shared {
    // tasks of the attention under way that have been taken: threads that are held up take fewer
    alignas(64) std::atomic<uint32_t> next_task { 0 };

    // a node of this ubatch failed on some thread: no result that comes of it may look right
    alignas(64) std::atomic<bool> failed { false };
};

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "counters are handed on as plain words");

struct pmkvq_side_ref {
    const pmkvq_side_desc  & side;
    const pmkvq_cache_desc & cache;
};

// cur: [head_dim, n_head_kv, n_tokens] f32, idxs: [n_tokens] i64 cells. The result holds nothing.
ggml_tensor * pmkvq_build_store(
        ggml_context * ctx,
        pmkvq_shared * shared,
         ggml_tensor * cur,
         ggml_tensor * idxs,
         ggml_tensor * pool,
         ggml_tensor * meta,
      pmkvq_side_ref   ref,
                 int   side);

// the rows of idxs as they were stored, dequantized: [head_dim, n_head_kv, n_tokens] f32
ggml_tensor * pmkvq_build_load(
        ggml_context * ctx,
        pmkvq_shared * shared,
             int64_t   head_dim,
         ggml_tensor * idxs,
         ggml_tensor * pool,
         ggml_tensor * meta,
      pmkvq_side_ref   ref,
                 int   side);

// q: [head_dim_k, n_head, n_tokens] f32, k_cur and v_cur: [head_dim, n_head_kv, n_tokens] f32 or NULL
// kq_mask: [n_kv, n_tokens] f16
// seen: memory for lists of what is seen, i8, or NULL
// one_seq: the tokens are of one sequence
// rows_most: of partial results on a device, see pmkvq-chunks.h; 0: on the CPU
// returns partial results, [head_dim_v + 2, n_head, n_tokens, n_chunk] f32
ggml_tensor * pmkvq_build_attn(
        ggml_context * ctx,
        pmkvq_shared * shared,
         ggml_tensor * q,
         ggml_tensor * k_cur,
         ggml_tensor * v_cur,
         ggml_tensor * kq_mask,
         ggml_tensor * idxs,
         ggml_tensor * pool_k,
         ggml_tensor * pool_v,
         ggml_tensor * meta,
         ggml_tensor * seen,
      pmkvq_side_ref   ref_k,
      pmkvq_side_ref   ref_v,
            uint32_t   rows_most,
             int64_t   head_dim_v,
               float   kq_scale,
               float   softcap,
               float   max_bias,
                bool   one_seq);

// q, k, v: [head_dim, n_head, n_tokens] f32, with the same tokens, or NULL. Each becomes a part of the result, transformed; it is one node, so
// that a device runs it as one
ggml_tensor * pmkvq_build_transform(
                  ggml_context * ctx,
                  pmkvq_shared * shared,
                   ggml_tensor * (&rows)[3],
                   ggml_tensor * transforms,
       const pmkvq_rows_params (&params)[3],
                       int64_t   n_head_kv);

// returns [head_dim_v*n_head, n_tokens] f32. back: what is done to it on the way back, for each of n_head_kv heads
ggml_tensor * pmkvq_build_merge(
             ggml_context * ctx,
             pmkvq_shared * shared,
              ggml_tensor * partial,
              ggml_tensor * sinks,
              ggml_tensor * transforms,
  const pmkvq_rows_params & back,
                  int64_t   n_head_kv);

// block operations on the pool of a device. ops: the operations, as many as there is room for, sides: [n_sides]
// pmkvq_side_desc, both i8. Returns the counts of heads that were converted, i32, one for each operation that there is room for.
ggml_tensor * pmkvq_build_shrink(
           ggml_context * ctx,
           pmkvq_shared * shared,
            ggml_tensor * pool,
            ggml_tensor * meta,
            ggml_tensor * ops,
            ggml_tensor * sides,
 const pmkvq_cache_desc & cache);

// the operations that the node's next computation runs
void pmkvq_set_shrink(ggml_tensor * node, uint32_t n_ops);
