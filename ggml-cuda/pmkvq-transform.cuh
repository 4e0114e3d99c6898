// pmkvq-transform.cuh - what is done to a row before it is stored, and undone behind the attention
//
// A warp has a row, N values a lane: value 32*i + lane is x[i]. All roundings are those of the CPU, so that both store the same bytes.

#pragma once

#include "pmkvq-cuda.h"
#include "pmkvq-device.cuh"

// orthonormal Hadamard matrices of n rows, a power of two that divides the row: sums and differences at distances 1, 2, 4, ..
template <int N>
static __device__ __forceinline__ void pmkvq_rotate(float (&x)[N], uint32_t n) {
    if (n <= 1) {
        return;
    }
    // the root of n, 2^k or 2^k*sqrt(2)
    const int   log   = pmkvq_popc(n - 1);
    const float root  = (float) (1 << log/2)*(log%2 ? 1.41421354f : 1.0f);
    const float scale = pmkvq_div_rn(1.0f, root);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        x[i] = pmkvq_mul_rn(x[i], scale);
    }
    // within a warp
#pragma unroll
    for (int h = 1; h < 32; h *= 2) {
        if (h < (int) n) {
            const bool low = (threadIdx.x & h) == 0;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const float other = pmkvq_shfl_xor(x[i], h);
                x[i] = low ? pmkvq_add_rn(x[i], other) : pmkvq_add_rn(other, -x[i]);
            }
        }
    }
    // within a lane
#pragma unroll
    for (int h = 1; h < N; h *= 2) {
        if (32*h < (int) n) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
                if ((i & h) == 0 && i + h < N) {
                    const float a = x[i];
                    const float b = x[i + h];
                    x[i]     = pmkvq_add_rn(a, b);
                    x[i + h] = pmkvq_add_rn(a, -b);
                }
            }
        }
    }
}

// the parts of a KV head
struct pmkvq_transform_of_head {
    const float * center;
    const float * factor;
    uint32_t      hadamard;

    static __device__ __forceinline__ pmkvq_transform_of_head of(const pmkvq_row_transform & t, uint32_t head_kv, uint32_t head_dim) {
        const size_t at = (size_t) head_kv*head_dim;
        return { t.center ? t.center + at : nullptr, t.factor ? t.factor + at : nullptr, t.hadamard };
    }
};

// H*F*(x - c)
template <int N>
static __device__ __forceinline__ void pmkvq_transform_row(const float * src, float * dst, uint32_t head_dim, const pmkvq_transform_of_head & t) {
    float x[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const uint32_t d = 32*i + threadIdx.x;
        const bool     in = d < head_dim;
        x[i] = in ? src[d] : 0.0f;
        if (t.center && in) {
            x[i] = pmkvq_add_rn(x[i], -t.center[d]);
        }
        if (t.factor && in) {
            x[i] = pmkvq_mul_rn(x[i], t.factor[d]);
        }
    }
    pmkvq_rotate(x, t.hadamard);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const uint32_t d = 32*i + threadIdx.x;
        if (d < head_dim) {
            dst[d] = x[i];
        }
    }
}

// F*H*x + c
template <int N>
static __device__ __forceinline__ void pmkvq_transform_row_back(const float * src, float * dst, uint32_t head_dim, const pmkvq_transform_of_head & t) {
    float x[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const uint32_t d = 32*i + threadIdx.x;
        x[i] = d < head_dim ? src[d] : 0.0f;
    }
    pmkvq_rotate(x, t.hadamard);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const uint32_t d = 32*i + threadIdx.x;
        if (d < head_dim) {
            const float y = t.factor ? pmkvq_mul_rn(x[i], t.factor[d]) : x[i];
            dst[d] = t.center ? pmkvq_add_rn(y, t.center[d]) : y;
        }
    }
}

static inline bool pmkvq_transform_none(const pmkvq_row_transform & t) {
    return !t.center && !t.factor && t.hadamard == 0;
}

static inline bool pmkvq_transform_valid(const pmkvq_row_transform & t, uint32_t n_head, uint32_t n_head_kv, uint32_t head_dim) {
    const uint32_t n = t.hadamard;
    return n_head_kv > 0 && n_head%n_head_kv == 0 && head_dim > 0 && head_dim <= PMKVQ_MAX_TRANSFORM && (n & (n - 1)) == 0 && (n == 0 || head_dim%n == 0)
        && ((uintptr_t) t.center | (uintptr_t) t.factor)%4 == 0;
}
