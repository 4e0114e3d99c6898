// pmkvq-shrink.cu - convert blocks to narrower widths, in place
//
// A CTA has one block of one head. Destinations may be any of the sources, so what a destination is made of is built in shared
// memory first: the whole block if it fits there, else page after page in an order in which no page is written that is still to be
// read. An operation that makes no sense is left alone and not counted.

#include "pmkvq-shrink-fit.cuh"
#include "pmkvq-shrink-tiles.cuh"

#define SHRINK_THREADS 128

// subtiles of page i
static __device__ __forceinline__ uint32_t pmkvq_subtiles_of(uint32_t i, int width) {
    return ((1u << 16/width) - 1) << i*(16/width);
}

// whether an operation can be run; present: subtiles that are there
static __device__ __forceinline__ bool pmkvq_check(const pmkvq_block_op * op, uint32_t n_pages, uint32_t group, uint32_t & present) {
    const int from = op->from, to = op->to;
    if (!pmkvq_width_valid(from, group) || !pmkvq_width_valid(to, group) || to >= from) {
        return false;
    }
    bool ok = true;
    present = 0;
#pragma unroll
    for (int i = 0; i < PMKVQ_MAX_PAGES; ++i) {
        const int page = i < from/2 ? op->src[i] : -1;
        ok = ok && (page == -1 || (uint32_t) page < n_pages);
        present |= page != -1 ? pmkvq_subtiles_of(i, from) : 0;
    }
#pragma unroll
    for (int i = 0; i < PMKVQ_MAX_PAGES/2; ++i) {
        const int  page   = i < to/2 ? op->dst[i] : -1;
        const bool needed = i < to/2 && (present & pmkvq_subtiles_of(i, to)) != 0;
        ok = ok && ((page == -1 && !needed) || (uint32_t) page < n_pages);
    }
    return ok;
}

// whether destination i is what one of the pages in left is still to be made of
static __device__ bool pmkvq_still_read(const pmkvq_block_op * op, uint32_t i, uint32_t left) {
    const uint32_t ratio = op->from/op->to;
    for (uint32_t k = 0; k < op->from/2u; ++k) {
        if (k/ratio != i && ((left >> k/ratio) & 1) && op->src[k] == op->dst[i]) {
            return true;
        }
    }
    return false;
}

// the next page of those in left, -1: there is none that can be written
static __device__ int pmkvq_next_page(const pmkvq_block_op * op, uint32_t left) {
    for (uint32_t i = 0; i < op->to/2u; ++i) {
        if (((left >> i) & 1) && (op->dst[i] == -1 || !pmkvq_still_read(op, i, left))) {
            return (int) i;
        }
    }
    return -1;
}

static __device__ bool pmkvq_has_order(const pmkvq_block_op * op) {
    uint32_t left = (1u << op->to/2) - 1;
    while (left != 0) {
        const int i = pmkvq_next_page(op, left);
        if (i < 0) {
            return false;
        }
        left &= ~(1u << i);
    }
    return true;
}

// subtiles into the stage, at width to
template <int to>
static __device__ void pmkvq_convert(const pmkvq_job & job, bool is_v, const pmkvq_stage stage, uint32_t first, uint32_t n) {
    switch (job.op->from) {
        case 16:
            if (is_v) {
                pmkvq_quantize_tiles<to, true >(job, stage, first, n);
            } else {
                pmkvq_quantize_tiles<to, false>(job, stage, first, n);
            }
            break;
        case 8:  pmkvq_join<8, to>(job, is_v, stage, first, n); break;
        default: pmkvq_join<4, to < 4 ? to : 4>(job, is_v, stage, first, n); break;
    }
}

// n pages from page i on
template <int to>
static __device__ void pmkvq_pages(const pmkvq_job & job, bool is_v, const pmkvq_stage stage, uint32_t i, uint32_t n) {
    constexpr uint32_t in_page = 16/to;
    const uint32_t pieces = 2*job.head_dim; // of a page
    pmkvq_convert<to>(job, is_v, stage, i*in_page, n*in_page);
    pmkvq_syncthreads();
    for (uint32_t k = 0; k < n; ++k) {
        if ((job.present & pmkvq_subtiles_of(i + k, to)) == 0) {
            continue; // holds nothing
        }
        uint4 * page = (uint4 *) job.page(job.op->dst[i + k]);
        for (uint32_t p = threadIdx.x; p < pieces; p += blockDim.x) {
            const bool there = job.has((i + k)*in_page + p/(pieces/in_page));
            page[p] = there ? stage[k*pieces + p] : make_uint4(0, 0, 0, 0);
        }
    }
}

template <int to>
static __device__ bool pmkvq_shrink_to(const pmkvq_job & job, bool is_v, const pmkvq_stage stage, uint32_t stage_bytes) {
    if (to/2*32*job.head_dim <= stage_bytes) {
        pmkvq_pages<to>(job, is_v, stage, 0, to/2);
        return true;
    }
    if (!pmkvq_has_order(job.op)) {
        return false;
    }
    uint32_t left = (1u << to/2) - 1;
    while (left != 0) {
        const int i = pmkvq_next_page(job.op, left);
        left &= ~(1u << i);
        pmkvq_pages<to>(job, is_v, stage, i, 1);
        pmkvq_syncthreads();
    }
    return true;
}

template <bool is_v>
static __device__ void pmkvq_shrink_fit(const pmkvq_job & job, const pmkvq_stage stage) {
    uint32_t * luts = (uint32_t *) (stage.pieces + 4*job.head_dim);
    pmkvq_convert<4>(job, is_v, stage, 0, PMKVQ_SUBTILES);
    pmkvq_syncthreads();
    pmkvq_fit_ranges(job, is_v, stage, luts);
    pmkvq_syncthreads();
    if (job.present != 0) {
        pmkvq_write_fitted<is_v>(job, stage, luts, (uint4 *) job.page(job.op->dst[0]));
    }
}

static __global__ void __launch_bounds__(SHRINK_THREADS, 5) pmkvq_shrink_kernel(const pmkvq_cuda_shrink a, const uint32_t stage_bytes) {
    PMKVQ_DYNAMIC_SHARED(shared);
    const pmkvq_stage stage = { (uint4 *) shared };

    const uint32_t i = blockIdx.x/a.n_head_kv;
    pmkvq_job job;
    job.op       = a.ops + i;
    job.head     = blockIdx.x%a.n_head_kv;
    job.pool     = a.pool;
    job.n_pages  = a.n_pages;
    job.head_dim = a.head_dim;
    if (job.op->side >= a.n_sides || job.op->block >= a.n_blocks) {
        return;
    }
    const pmkvq_side_desc * side = a.sides + job.op->side;
    job.group = side->group;
    if (!pmkvq_group_valid(job.group, a.head_dim) || side->range > 1 || !pmkvq_check(job.op, a.n_pages, job.group, job.present)) {
        return;
    }
    job.n_groups = a.head_dim/job.group;
    job.params   = pmkvq_plane((uint16_t *) (a.meta + side->offset + a.table_bytes), job.op->block, a.n_head_kv, job.head, job.n_groups, 0);

    const bool is_v = job.op->side%2 == 1;
    const int  to   = job.op->to;
    bool done = true;
    if (to == 2 && side->range == 1) {
        if (is_v) {
            pmkvq_shrink_fit<true >(job, stage);
        } else {
            pmkvq_shrink_fit<false>(job, stage);
        }
    } else if (to == 2) {
        done = pmkvq_shrink_to<2>(job, is_v, stage, stage_bytes);
    } else if (to == 4) {
        done = pmkvq_shrink_to<4>(job, is_v, stage, stage_bytes);
    } else {
        done = pmkvq_shrink_to<8>(job, is_v, stage, stage_bytes);
    }
    if (done && a.done) {
        pmkvq_syncthreads();
        if (threadIdx.x == 0) {
            atomicAdd(a.done + i, 1u);
        }
    }
}

int pmkvq_cuda_op_shrink(const pmkvq_cuda_shrink * op, void * stream) {
    if (!op || (op->n_ops != 0 && (!op->ops || !op->sides || !op->pool || !op->meta))) {
        return cudaErrorInvalidValue;
    }
    if (op->n_head_kv == 0 || op->n_pages == 0 || op->n_blocks == 0 || op->head_dim == 0 || op->head_dim > PMKVQ_MAX_HEAD_DIM
            || op->table_bytes%2 != 0 || (uintptr_t) op->pool%16 != 0 || (uintptr_t) op->meta%4 != 0) {
        return cudaErrorInvalidValue;
    }
    const uint64_t ctas = (uint64_t) op->n_ops*op->n_head_kv;
    if (ctas > 0x7fffffff) {
        return cudaErrorInvalidValue;
    }
    if (ctas == 0) {
        return cudaSuccess;
    }
    // four pages, which is a block at 8 bits; or three, which is what the step to 2 bits needs with all its tables
    uint32_t    stage = 4*32*op->head_dim;
    cudaError_t error = pmkvq_allow_shared(pmkvq_shrink_kernel, stage);
    if (error != cudaSuccess) {
        (void) cudaGetLastError();
        stage = 3*32*op->head_dim;
        error = pmkvq_allow_shared(pmkvq_shrink_kernel, stage);
    }
    if (error != cudaSuccess) {
        (void) cudaGetLastError();
        return error;
    }
    PMKVQ_LAUNCH(pmkvq_shrink_kernel, dim3((unsigned) ctas), dim3(SHRINK_THREADS), stage, (cudaStream_t) stream, *op, stage);
    return cudaGetLastError();
}
