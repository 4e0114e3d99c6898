// pmkvq-cuda.h - what the CUDA operations of the progressive KV cache offer
//
// Operations are described by the structs of pmkvq.h, with pointers to device memory. Each call checks what it can check without
// reading device memory, puts its kernels in the stream and returns a cudaError_t as int: 0, cudaErrorInvalidValue for shapes
// that don't make sense, or what the launch gave. Nothing is allocated and nothing waits.

#pragma once

#include "pmkvq.h"
#include "pmkvq-chunks.h"

#define PMKVQ_MAX_TRANSFORM 576 // values of a row that is transformed

#ifdef __cplusplus
extern "C" {
#endif

// block operations as the device has them: of sides in one pool
typedef struct pmkvq_cuda_shrink {
    const pmkvq_block_op  * ops;   // device, [n_ops]
    const pmkvq_side_desc * sides; // device, [n_sides]
    uint32_t   n_ops;
    uint32_t   n_sides;
    uint32_t   n_head_kv;
    uint32_t   head_dim;
    uint32_t   n_pages;
    uint32_t   n_blocks;
    uint8_t  * pool;
    uint8_t  * meta;
    uint64_t   table_bytes;
    uint32_t * done;               // device, [n_ops]: heads that were converted are added; NULL: nobody asks
} pmkvq_cuda_shrink;

// chunks that suit an attention over n_kv cells on a device of n_sm multiprocessors
uint32_t pmkvq_cuda_n_chunk(uint32_t n_sm, uint32_t n_tokens, uint32_t n_kv, uint32_t n_head, uint32_t n_head_kv);

// whether there are kernels for the shape; group_k, group_v: 0 for a side that stays at 16 bits
int pmkvq_cuda_supports_attn(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim_k, uint32_t head_dim_v, uint32_t group_k, uint32_t group_v);

// and whether they reach all of a pool: while decoding, places in it are 32 bits that count 8 bytes, so that 32 GiB are the most. For such shapes only
int pmkvq_cuda_supports_pool(uint32_t n_head_kv, uint32_t head_dim, uint32_t n_pages);

// stream: cudaStream_t
int pmkvq_cuda_op_store (const pmkvq_op_store    * op, void * stream);
int pmkvq_cuda_op_stores(const pmkvq_op_store * k, const pmkvq_op_store * v, void * stream); // both in one launch; they share no bytes
int pmkvq_cuda_op_shrink(const pmkvq_cuda_shrink * op, void * stream);
int pmkvq_cuda_op_attn  (const pmkvq_op_attn     * op, const void * seen, void * stream); // seen: lists, or NULL
// as on a GPU whose CTAs can have so many bytes of shared memory, which is what a prefill's kernel is chosen by; no more than the device's limit
int pmkvq_cuda_op_attn_within(const pmkvq_op_attn * op, const void * seen, size_t shared, void * stream);
size_t pmkvq_cuda_shared_limit(void);
int pmkvq_cuda_op_merge (const pmkvq_op_merge    * op, void * stream);
int pmkvq_cuda_op_load  (const pmkvq_op_load     * op, void * stream);
int pmkvq_cuda_op_transform(const pmkvq_op_transform * op, void * stream);
// a merge and a layer's stores in one launch; what the merge writes is no other's
int pmkvq_cuda_op_merge_stores(const pmkvq_op_merge * op, const pmkvq_op_store * k, const pmkvq_op_store * v, void * stream);

// Where each query sees a part of the cache only, lists of what is seen save looking for it. They hold for all attentions with the
// same mask, tokens and heads: made once, used until the mask changes. Bytes of device memory; 0: so many tokens have none
size_t pmkvq_cuda_seen_bytes(const pmkvq_op_attn * op);
int    pmkvq_cuda_seen_pays (const pmkvq_op_attn * op);
int    pmkvq_cuda_op_seen   (const pmkvq_op_attn * op, void * seen, void * stream);

#ifdef __cplusplus
}
#endif
