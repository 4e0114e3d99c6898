// pmkvq-attn-common.cuh - what decoding and prefill share: query rows, masks

#pragma once

#include "pmkvq-cuda.h"
#include "pmkvq-device.cuh"

#define PMKVQ_INF __int_as_float(0x7f800000)

// tiles of query rows that share the keys of a KV head: whole tokens where a token's rows fit, parts of one token where not. Made on the
// host: divisions are slow on a GPU
struct pmkvq_tiling {
    int rows;    // of a tile, at most 16
    int ratio;   // query heads of a KV head
    int inverse; // 256 by it, rounded up: r*inverse/256 = r/ratio for r < 16
    int tokens;  // of a tile
    int parts;   // tiles of a token
    int tiles;

    static pmkvq_tiling of(int rows, int n_tokens, int n_head, int n_head_kv) {
        pmkvq_tiling t;
        t.rows    = rows;
        t.ratio   = n_head/n_head_kv;
        t.inverse = (255 + t.ratio)/t.ratio;
        t.tokens  = t.ratio <= rows ? rows/t.ratio : 1;
        t.parts   = (t.ratio + rows - 1)/rows;
        t.tiles   = (n_tokens + t.tokens - 1)/t.tokens*t.parts;
        return t;
    }

    // token and head (within the KV head's) of a row; false if there is none
    __device__ __forceinline__ bool row(int tile, int r, int n_tokens, int & token, int & head) const {
        if (parts == 1) {
            const int i = r*inverse >> 8;
            token = tile*tokens + i;
            head  = r - i*ratio;
            return r < tokens*ratio && token < n_tokens;
        }
        token = tile/parts;
        head  = tile%parts*rows + r;
        return head < ratio;
    }
};

// the slope that ALiBi gives a head, as ggml has it
static __device__ __forceinline__ float pmkvq_slope(float max_bias, int n_head, int head) {
    if (max_bias <= 0.0f) {
        return 1.0f;
    }
    int n = 1;
    while (2*n <= n_head) {
        n *= 2;
    }
    return head < n ? exp2f(-max_bias/n*(head + 1)) : exp2f(-0.5f*max_bias/n*(2*(head - n) + 1));
}

// 16 bytes of the cache, or of what stands in for it in shared memory
template <bool SHARED>
static __device__ __forceinline__ uint4 pmkvq_load16(const uint8_t * p) {
    return SHARED ? *(const uint4 *) p : pmkvq_ldg_stream((const uint4 *) p);
}

template <bool SHARED>
static __device__ __forceinline__ uint2 pmkvq_load8(const uint8_t * p) {
    return SHARED ? *(const uint2 *) p : pmkvq_ldg8_stream((const uint2 *) p);
}

static __device__ __forceinline__ uint32_t pmkvq_word(const uint4 & x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

// f32 as the cache keeps it at 16 bits: saturated, one NaN
static __device__ __forceinline__ uint16_t pmkvq_f2h_sat(float x) {
    return x != x ? 0x7e00 : pmkvq_f2h(fminf(fmaxf(x, -65504.0f), 65504.0f));
}

static __device__ __forceinline__ float pmkvq_pow2(int e) {
    return __int_as_float((min(max(e, -126), 127) + 127) << 23);
}

// exponent of a positive number: x is in [2^e, 2^(e+1))
static __device__ __forceinline__ int pmkvq_exponent(float x) {
    return (int) (__float_as_int(x) >> 23) - 127;
}

// bits of the cells that words of a mask show, two each; values: some visible one is not 0
template <int N>
static __device__ __forceinline__ uint32_t pmkvq_visible_words(const uint32_t (&w)[N], bool & values) {
    uint32_t any = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        any |= w[i];
    }
    if (any == 0) {
        return (1u << (2*N)) - 1;
    }
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const uint32_t lo = w[i] & 0xffff;
        const uint32_t hi = w[i] >> 16;
        bits |= lo != 0xfc00 ? 1u << (2*i) : 0;
        bits |= hi != 0xfc00 ? 2u << (2*i) : 0;
        values = values || (lo != 0xfc00 && lo != 0) || (hi != 0xfc00 && hi != 0);
    }
    return bits;
}

static __device__ __forceinline__ uint32_t pmkvq_visible_words(const uint4 (&m)[2], bool & values) {
    const uint32_t w[8] = { m[0].x, m[0].y, m[0].z, m[0].w, m[1].x, m[1].y, m[1].z, m[1].w };
    return pmkvq_visible_words(w, values);
}

// the cells that a row sees, of 16 from `cell`
static __device__ __forceinline__ uint32_t pmkvq_visible16(
        const uint16_t * row, int cell, int n_kv, bool aligned, bool & values) {
    if (aligned && cell + 16 <= n_kv) {
        const uint4 m[2] = { pmkvq_ldg((const uint4 *) (row + cell)), pmkvq_ldg((const uint4 *) (row + cell) + 1) };
        return pmkvq_visible_words(m, values);
    }
    uint32_t bits = 0;
    for (int i = 0; i < 16; ++i) {
        const uint32_t m = cell + i < n_kv ? row[cell + i] : 0xfc00;
        bits |= m != 0xfc00 ? 1u << i : 0;
        values = values || (m != 0xfc00 && m != 0);
    }
    return bits;
}
