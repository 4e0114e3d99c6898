// pmkvq-attn.cu - attention over the progressive KV cache: which kernel runs

#include "pmkvq-attn.cuh"
#include "pmkvq-attn-common.cuh"
#include "pmkvq-layout.cuh"

int pmkvq_cuda_supports_attn(uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim_k, uint32_t head_dim_v, uint32_t group_k, uint32_t group_v) {
    // KV heads are what a grid has no more than 65535 of
    return n_head_kv > 0 && n_head > 0 && n_head%n_head_kv == 0 && (uint64_t) n_head_kv*((head_dim_v + 63)/64) <= UINT16_MAX
        && head_dim_k > 0 && head_dim_k%8 == 0 && head_dim_k <= 576
        && head_dim_v > 0 && head_dim_v%8 == 0 && head_dim_v <= 576
        && pmkvq_group_valid(group_k, head_dim_k) && pmkvq_group_valid(group_v, head_dim_v);
}

int pmkvq_cuda_supports_pool(uint32_t n_head_kv, uint32_t head_dim, uint32_t n_pages) {
    // pages have 32 bytes for each dimension
    return (uint64_t) n_head_kv*n_pages*(32/8*head_dim) <= UINT32_MAX;
}

uint32_t pmkvq_cuda_n_chunk(uint32_t n_sm, uint32_t n_tokens, uint32_t n_kv, uint32_t n_head, uint32_t n_head_kv) {
    return pmkvq_n_chunk_gpu(n_sm, PMKVQ_ROWS, n_tokens, n_kv, n_head, n_head_kv);
}

size_t pmkvq_cuda_shared_limit(void) {
    return pmkvq_shared_limit();
}

int pmkvq_cuda_op_attn(const pmkvq_op_attn * op, const void * seen, void * stream) {
    return pmkvq_cuda_op_attn_within(op, seen, pmkvq_shared_limit(), stream);
}

int pmkvq_cuda_op_attn_within(const pmkvq_op_attn * op, const void * seen, size_t shared, void * stream) {
    if (!op || !pmkvq_cuda_supports_attn(op->n_head, op->n_head_kv, op->head_dim_k, op->head_dim_v, op->group_k, op->group_v)) {
        return cudaErrorInvalidValue;
    }
    if (!op->q || !op->mask || !op->cells || !op->pool_k || !op->pool_v || !op->table_k || !op->table_v || !op->dst
            || (op->group_k && !op->params_k) || (op->group_v && !op->params_v) || !op->k_cur != !op->v_cur) {
        return cudaErrorInvalidValue;
    }
    if (op->n_chunk == 0 || op->n_blocks == 0 || op->n_pages_k == 0 || op->n_pages_v == 0 || op->n_kv == 0
            || op->n_kv > (uint64_t) op->n_blocks*PMKVQ_BLOCK
            || !pmkvq_cuda_supports_pool(op->n_head_kv, op->head_dim_k, op->n_pages_k) || !pmkvq_cuda_supports_pool(op->n_head_kv, op->head_dim_v, op->n_pages_v)) {
        return cudaErrorInvalidValue;
    }
    if ((uintptr_t) seen%4 != 0) {
        return cudaErrorInvalidValue;
    }
    // keys and values are read in pieces of 16 bytes
    if (((uintptr_t) op->pool_k | (uintptr_t) op->pool_v | (uintptr_t) op->params_k | (uintptr_t) op->params_v)%16 != 0) {
        return cudaErrorInvalidValue;
    }
    if (op->n_tokens == 0) {
        return cudaSuccess;
    }
    // several tiles of query rows share an unpacked block, where shared memory suffices for that
    if (op->n_tokens > PMKVQ_FEW) {
        const int err = pmkvq_cuda_attn_prefill(*op, shared, stream);
        if (err != cudaErrorInvalidConfiguration) {
            return err;
        }
    }
    return pmkvq_cuda_attn_decode(*op, pmkvq_cuda_seen_bytes(op) != 0 ? seen : nullptr, stream);
}
