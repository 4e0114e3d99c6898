// pmkvq-merge.cu - partial results become the output, and beside that the batch's K and V are stored
//
// An attention that is given the current batch does not read it from the cache, so that its layer's stores can wait until the merge.
// Neither needs the other, and both have work for a few multiprocessors only: in one launch they take the time of the longer.

#include "pmkvq-merge.cuh"
#include "pmkvq-store.cuh"

#include <type_traits>

template <int N>
static __global__ void __launch_bounds__(32*MERGE_WARPS) pmkvq_merge_kernel(const pmkvq_op_merge a) {
    pmkvq_start_next();
    pmkvq_wait_before();

    pmkvq_merge_rows<N>(a, blockIdx.x);
}

// CTAs of the merge come first, then n_store for each side
template <int N>
static __global__ void __launch_bounds__(32*MERGE_WARPS) pmkvq_merge_store_kernel(const pmkvq_op_merge a, const pmkvq_stores stores, uint32_t n_merge, uint32_t n_store) {
    pmkvq_start_next();
    pmkvq_wait_before();

    if (blockIdx.x < n_merge) {
        pmkvq_merge_rows<N>(a, blockIdx.x);
        return;
    }
    const uint32_t cta  = blockIdx.x - n_merge;
    const uint32_t side = cta < n_store ? 0 : 1;
    pmkvq_store_row(stores, side, (cta - side*n_store)*MERGE_WARPS + threadIdx.z*blockDim.y + threadIdx.y);
}

// the kernel for the values that a lane transforms
template <typename F>
static void pmkvq_with_values(uint32_t n, F && launch) {
    if (n == 0) {
        launch(std::integral_constant<int, 0>());
    } else if (n <= 4) {
        launch(std::integral_constant<int, 4>());
    } else {
        launch(std::integral_constant<int, PMKVQ_MAX_TRANSFORM/32>());
    }
}

int pmkvq_cuda_op_merge(const pmkvq_op_merge * op, void * stream) {
    pmkvq_merge_shape shape;
    if (!pmkvq_merge_shape::of(op, shape)) {
        return cudaErrorInvalidValue;
    }
    if (shape.ctas == 0) {
        return cudaSuccess;
    }
    pmkvq_with_values(shape.n, [&](auto n) {
        PMKVQ_LAUNCH_EARLY(pmkvq_merge_kernel<decltype(n)::value>, dim3(shape.ctas), dim3(32, shape.warps, shape.in_cta), shape.smem, (cudaStream_t) stream, *op);
    });
    return cudaGetLastError();
}

int pmkvq_cuda_op_merge_stores(const pmkvq_op_merge * op, const pmkvq_op_store * k, const pmkvq_op_store * v, void * stream) {
    pmkvq_merge_shape shape;
    pmkvq_stores stores = {};
    if (!pmkvq_merge_shape::of(op, shape) || !stores.add(k) || !stores.add(v)) {
        return cudaErrorInvalidValue;
    }
    const uint32_t n_store = (stores.rows + MERGE_WARPS - 1)/MERGE_WARPS;
    const uint64_t ctas    = shape.ctas + 2*(uint64_t) n_store;
    if (ctas > INT32_MAX) {
        return cudaErrorInvalidValue;
    }
    if (ctas == 0) {
        return cudaSuccess;
    }
    const dim3 block(32, shape.warps, shape.in_cta);
    pmkvq_with_values(shape.n, [&](auto n) {
        PMKVQ_LAUNCH_EARLY(pmkvq_merge_store_kernel<decltype(n)::value>, dim3((unsigned) ctas), block, shape.smem, (cudaStream_t) stream, *op, stores, shape.ctas, n_store);
    });
    return cudaGetLastError();
}
