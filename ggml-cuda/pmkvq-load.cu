// pmkvq-load.cu - read rows back as f32: what a shift of positions rotates
//
// A warp has a row, one token of one head. Seldom run, so that it is written for reading. A row that has no place becomes NaN.

#include "pmkvq-place.cuh"

#define LOAD_WARPS 4

// the code of a dimension, where docs/layout.md has it
static __device__ __forceinline__ uint32_t pmkvq_code_at(const pmkvq_place & p, uint32_t side, uint32_t head_dim, uint32_t d) {
    const uint32_t token = p.at%PMKVQ_SUBTILE;
    const uint32_t quads = 8/p.width; // that share a byte
    const uint32_t quad  = side == 0 ? d/4 : token/4;
    const uint32_t place = side == 0 ? 4*token + d%4 : 4*d + token%4;
    const uint32_t row   = side == 0 ? 4*PMKVQ_SUBTILE : 4*head_dim;
    return (p.dst[quad/quads*row + place] >> (quad%quads*p.width)) & ((1u << p.width) - 1);
}

static __global__ void pmkvq_load_kernel(const pmkvq_op_load a) {
    const size_t row = (size_t) blockIdx.x*LOAD_WARPS + threadIdx.y;
    if (row >= (size_t) a.n_tokens*a.n_head_kv) {
        return;
    }
    const uint32_t token = (uint32_t) (row/a.n_head_kv);
    const uint32_t head  = (uint32_t) (row%a.n_head_kv);
    const pmkvq_place p  = pmkvq_place_of(a, token, head);

    float * dst = a.dst + row*a.head_dim;
    for (uint32_t d = threadIdx.x; d < a.head_dim; d += 32) {
        float x = NAN;
        if (p.width == 16) {
            x = pmkvq_h2f(((const uint16_t *) p.dst)[p.at%PMKVQ_SUBTILE*a.head_dim + d]);
        } else if (p.width != 0) {
            const uint16_t * plane = pmkvq_plane((uint16_t *) a.params, p.block, a.n_head_kv, head, a.head_dim/a.group, d/a.group) + p.at;
            const float min  = pmkvq_h2f(plane[0]);
            const float max  = pmkvq_h2f(plane[PMKVQ_BLOCK]);
            const float step = pmkvq_div_rn(pmkvq_add_rn(max, -min), (float) ((1u << p.width) - 1));
            x = pmkvq_add_rn(min, pmkvq_mul_rn((float) pmkvq_code_at(p, a.side, a.head_dim, d), step));
        }
        dst[d] = x;
    }
}

int pmkvq_cuda_op_load(const pmkvq_op_load * op, void * stream) {
    if (!op || !op->cells || !op->pool || !op->table || !op->dst || (op->group != 0 && !op->params)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_head_kv == 0 || op->n_pages == 0 || op->n_blocks == 0 || op->head_dim == 0 || op->head_dim > PMKVQ_MAX_HEAD_DIM
            || !pmkvq_group_valid(op->group, op->head_dim) || op->side > 1) {
        return cudaErrorInvalidValue;
    }
    if (((uintptr_t) op->dst | (uintptr_t) op->table)%4 != 0 || (uintptr_t) op->pool%16 != 0 || (uintptr_t) op->params%2 != 0 || (uintptr_t) op->cells%8 != 0) {
        return cudaErrorInvalidValue;
    }
    const size_t rows = (size_t) op->n_tokens*op->n_head_kv;
    const size_t ctas = (rows + LOAD_WARPS - 1)/LOAD_WARPS;
    if (ctas > 0x7fffffff) {
        return cudaErrorInvalidValue;
    }
    if (ctas == 0) {
        return cudaSuccess;
    }
    PMKVQ_LAUNCH(pmkvq_load_kernel, dim3((unsigned) ctas), dim3(32, LOAD_WARPS), 0, (cudaStream_t) stream, *op);
    return cudaGetLastError();
}
