// pmkvq-transform.cu - queries, K and V of a batch as they are stored and attended to, in one launch

#include "pmkvq-transform.cuh"

#define TRANSFORM_WARPS 4

// a warp has a row: those of the first kind come first
template <int N>
static __global__ void __launch_bounds__(32*TRANSFORM_WARPS) pmkvq_transform_kernel(const pmkvq_op_transform a) {
    pmkvq_start_next();
    pmkvq_wait_before();

    uint32_t row = blockIdx.x*TRANSFORM_WARPS + threadIdx.y;
#pragma unroll
    for (int kind = 0; kind < 3; ++kind) {
        const pmkvq_transform_rows & r = a.rows[kind];
        const uint32_t n = a.n_tokens*r.n_head;
        if (row < n) {
            const uint32_t token = row/r.n_head;
            const uint32_t head  = row - token*r.n_head;
            const float  * x     = (const float *) ((const char *) r.x + token*r.x_nb_token + head*r.x_nb_head);
            pmkvq_transform_row<N>(x, r.dst + (size_t) row*r.head_dim, r.head_dim, pmkvq_transform_of_head::of(r.of, head/(r.n_head/a.n_head_kv), r.head_dim));
            return;
        }
        row -= n;
    }
}

int pmkvq_cuda_op_transform(const pmkvq_op_transform * op, void * stream) {
    if (!op) {
        return cudaErrorInvalidValue;
    }
    uint64_t rows = 0;
    uint32_t most = 0;
    for (const auto & r : op->rows) {
        if (r.n_head == 0) {
            continue;
        }
        if (!r.x || !r.dst || !pmkvq_transform_valid(r.of, r.n_head, op->n_head_kv, r.head_dim)
                || ((uintptr_t) r.x | (uintptr_t) r.dst | r.x_nb_head | r.x_nb_token)%4 != 0) {
            return cudaErrorInvalidValue;
        }
        rows += (uint64_t) op->n_tokens*r.n_head;
        most  = r.head_dim > most ? r.head_dim : most;
    }
    // rows are counted in 32 bits
    if (rows > INT32_MAX) {
        return cudaErrorInvalidValue;
    }
    if (rows == 0) {
        return cudaSuccess;
    }
    const dim3 grid((unsigned) ((rows + TRANSFORM_WARPS - 1)/TRANSFORM_WARPS));
    const dim3 block(32, TRANSFORM_WARPS);
    if (most <= 128) {
        PMKVQ_LAUNCH_EARLY(pmkvq_transform_kernel<4>, grid, block, 0, (cudaStream_t) stream, *op);
    } else {
        PMKVQ_LAUNCH_EARLY(pmkvq_transform_kernel<PMKVQ_MAX_TRANSFORM/32>, grid, block, 0, (cudaStream_t) stream, *op);
    }
    return cudaGetLastError();
}
