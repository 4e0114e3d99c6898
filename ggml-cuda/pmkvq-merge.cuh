// pmkvq-merge.cuh - partial results of all chunks become the output
//
// A row has one or more warps, which divide the chunks between them and then add up what they have. A chunk that saw nothing has
// the sum 0, and the rest of its record is anything. Where V was transformed, a row is put together in shared memory and one of its
// warps undoes that.

#pragma once

#include "pmkvq-cuda.h"
#include "pmkvq-device.cuh"
#include "pmkvq-transform.cuh"

#define MERGE_WARPS 8   // of a CTA
#define MERGE_DIMS  128 // at a time
#define MERGE_BATCH 8   // chunks that a warp has under way

#define MERGE_LOG2E 1.4426950408889634f

// weights are relative to max; that of nothing is 0, also where max is -inf, too
static __device__ __forceinline__ float pmkvq_weight(float x, float max) {
    return x > -INFINITY ? pmkvq_exp2((x - max)*MERGE_LOG2E) : 0.0f;
}

// what a lane has of its warp's chunks
struct pmkvq_merged {
    float max;
    float sum;
    float x[4];
};

static __device__ __forceinline__ pmkvq_merged pmkvq_merge_chunks(
        const pmkvq_op_merge & a, size_t row, size_t rows, uint32_t first, uint32_t step, const bool (&in)[4], const uint32_t (&d)[4]) {
    const size_t len = a.head_dim_v + 2;
    pmkvq_merged m = { -INFINITY, 0.0f, { 0.0f, 0.0f, 0.0f, 0.0f } };
    for (uint32_t c0 = first; c0 < a.n_chunk; c0 += MERGE_BATCH*step) {
        float max[MERGE_BATCH], sum[MERGE_BATCH], x[MERGE_BATCH][4];
#pragma unroll
        for (int i = 0; i < MERGE_BATCH; ++i) {
            const uint32_t c = c0 + i*step;
            const float  * r = a.partial + ((size_t) c*rows + row)*len;
            const bool there = c < a.n_chunk;
            max[i] = there ? r[a.head_dim_v]     : 0.0f;
            sum[i] = there ? r[a.head_dim_v + 1] : 0.0f;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                x[i][j] = there && in[j] ? r[d[j]] : 0.0f;
            }
        }
        float now = m.max;
#pragma unroll
        for (int i = 0; i < MERGE_BATCH; ++i) {
            now = sum[i] != 0.0f ? fmaxf(now, max[i]) : now;
        }
        const float old = pmkvq_weight(m.max, now);
        m.max  = now;
        m.sum *= old;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            m.x[j] *= old;
        }
#pragma unroll
        for (int i = 0; i < MERGE_BATCH; ++i) {
            if (sum[i] != 0.0f) {
                const float w = pmkvq_weight(max[i], now);
                m.sum += w*sum[i];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    m.x[j] += w*x[i][j];
                }
            }
        }
    }
    return m;
}

// how rows and chunks are divided
struct pmkvq_merge_shape {
    uint32_t warps;  // of a row
    uint32_t in_cta; // rows
    uint32_t ctas;
    uint32_t n;    // values of a row that a lane transforms, 0: none
    size_t   smem; // bytes: the rows that are transformed

    // false: something makes no sense
    static bool of(const pmkvq_op_merge * op, pmkvq_merge_shape & s) {
        if (!op || !op->partial || !op->dst || op->n_chunk == 0 || op->head_dim_v == 0 || op->head_dim_v > 4096 || op->n_head == 0) {
            return false;
        }
        if (((uintptr_t) op->partial | (uintptr_t) op->dst | (uintptr_t) op->sinks)%4 != 0) {
            return false;
        }
        if (!pmkvq_transform_none(op->back) && !pmkvq_transform_valid(op->back, op->n_head, op->n_head_kv, op->head_dim_v)) {
            return false;
        }
        s.warps = 1;
        while (s.warps < MERGE_WARPS && s.warps < op->n_chunk) {
            s.warps *= 2;
        }
        s.in_cta = MERGE_WARPS/s.warps;
        const uint64_t ctas = ((uint64_t) op->n_tokens*op->n_head + s.in_cta - 1)/s.in_cta;
        s.ctas = (uint32_t) ctas;
        s.n    = pmkvq_transform_none(op->back) ? 0 : op->head_dim_v <= 128 ? 4 : PMKVQ_MAX_TRANSFORM/32;
        s.smem = s.n ? s.in_cta*op->head_dim_v*sizeof(float) : 0;
        return ctas <= INT32_MAX;
    }
};

// the cta'th of them: threadIdx.y: warp of the row, threadIdx.z: row of the CTA. N: values that a lane transforms, 0: none
template <int N>
static __device__ __forceinline__ void pmkvq_merge_rows(const pmkvq_op_merge & a, uint32_t cta) {
    PMKVQ_DYNAMIC_SHARED(smem);

    __shared__ float s_x[MERGE_WARPS*MERGE_DIMS];
    __shared__ float s_max[MERGE_WARPS];
    __shared__ float s_sum[MERGE_WARPS];

    const uint32_t n_warps = blockDim.y;
    const size_t   rows    = (size_t) a.n_tokens*a.n_head;
    const size_t   row     = (size_t) cta*blockDim.z + threadIdx.z;
    const uint32_t warp    = threadIdx.z*n_warps + threadIdx.y;
    const bool     there   = row < rows;
    const float    sink    = there && a.sinks ? a.sinks[row%a.n_head] : -INFINITY;
    float        * dst     = N > 0 ? (float *) smem + threadIdx.z*a.head_dim_v : a.dst + row*a.head_dim_v;

    for (uint32_t d0 = 0; d0 < a.head_dim_v; d0 += MERGE_DIMS) {
        bool     in[4];
        uint32_t d[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            d[j]  = d0 + 32*j + threadIdx.x;
            in[j] = d[j] < a.head_dim_v;
        }
        const uint32_t first = there ? threadIdx.y : a.n_chunk;
        const pmkvq_merged m = pmkvq_merge_chunks(a, row, rows, first, n_warps, in, d);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            s_x[warp*MERGE_DIMS + 32*j + threadIdx.x] = m.x[j];
        }
        if (threadIdx.x == 0) {
            s_max[warp] = m.max;
            s_sum[warp] = m.sum;
        }
        pmkvq_syncthreads();

        float max = sink;
        for (uint32_t w = 0; w < n_warps; ++w) {
            max = fmaxf(max, s_max[threadIdx.z*n_warps + w]);
        }
        float sum = pmkvq_weight(sink, max);
        for (uint32_t w = 0; w < n_warps; ++w) {
            sum += pmkvq_weight(s_max[threadIdx.z*n_warps + w], max)*s_sum[threadIdx.z*n_warps + w];
        }
        const float inverse = sum == 0.0f ? 0.0f : 1.0f/sum;
        for (uint32_t i = threadIdx.y*32 + threadIdx.x; i < MERGE_DIMS && there && d0 + i < a.head_dim_v; i += 32*n_warps) {
            float x = 0.0f;
            for (uint32_t w = 0; w < n_warps; ++w) {
                x += pmkvq_weight(s_max[threadIdx.z*n_warps + w], max)*s_x[(threadIdx.z*n_warps + w)*MERGE_DIMS + i];
            }
            dst[d0 + i] = x*inverse;
        }
        pmkvq_syncthreads();
    }
    if (N > 0 && there && threadIdx.y == 0) {
        const uint32_t head_kv = (uint32_t) (row%a.n_head)/(a.n_head/a.n_head_kv);
        pmkvq_transform_row_back<N ? N : 1>(dst, a.dst + row*a.head_dim_v, a.head_dim_v, pmkvq_transform_of_head::of(a.back, head_kv, a.head_dim_v));
    }
}
