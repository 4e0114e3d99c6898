// pmkvq-store.cu - store a batch's K or V, or both in one launch

#include "pmkvq-store.cuh"

#define STORE_WARPS 4

static __global__ void pmkvq_store_kernel(const pmkvq_stores stores) {
    pmkvq_start_next();
    pmkvq_wait_before();

    pmkvq_store_row(stores, blockIdx.y, blockIdx.x*STORE_WARPS + threadIdx.y);
}

static int pmkvq_launch(const pmkvq_stores & stores, void * stream) {
    if (stores.rows == 0) {
        return cudaSuccess;
    }
    const dim3 grid((stores.rows + STORE_WARPS - 1)/STORE_WARPS, stores.n);
    PMKVQ_LAUNCH_EARLY(pmkvq_store_kernel, grid, dim3(32, STORE_WARPS), 0, (cudaStream_t) stream, stores);
    return cudaGetLastError();
}

int pmkvq_cuda_op_store(const pmkvq_op_store * op, void * stream) {
    pmkvq_stores stores = {};
    return stores.add(op) ? pmkvq_launch(stores, stream) : cudaErrorInvalidValue;
}

int pmkvq_cuda_op_stores(const pmkvq_op_store * k, const pmkvq_op_store * v, void * stream) {
    pmkvq_stores stores = {};
    return stores.add(k) && stores.add(v) ? pmkvq_launch(stores, stream) : cudaErrorInvalidValue;
}
