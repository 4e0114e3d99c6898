// pmkvq-layout.cuh - positions and numbers of the stored bytes, as docs/layout.md gives them
//
// A tile is four tokens of one quad of dimensions, 4x4 codes. As a quad of K and as a quad of V it is 16 consecutive bytes at 8
// bits: in K a word for each token (its bytes are dimensions), in V a word for each dimension (its bytes are tokens).

#pragma once

#include "pmkvq-cuda.h"
#include "pmkvq-device.cuh"

#define PMKVQ_SUBTILE  16
#define PMKVQ_SUBTILES (PMKVQ_BLOCK/PMKVQ_SUBTILE)
#define PMKVQ_MAX_HEAD_DIM 4096

static __host__ __device__ inline bool pmkvq_group_valid(uint32_t group, uint32_t head_dim) {
    return group == 0 || (group <= 128 && group%16 == 0 && head_dim%group == 0);
}

// a width that a side with such groups can have
static __device__ __forceinline__ bool pmkvq_width_valid(int width, uint32_t group) {
    return width == 16 || (group != 0 && (width == 8 || width == 4 || width == 2));
}

static __device__ __forceinline__ uint8_t * pmkvq_page(uint8_t * pool, uint32_t head, uint32_t n_pages, int page, uint32_t head_dim) {
    return pool + ((size_t) head*n_pages + page)*32*head_dim;
}

// of a group: (min, max) planes of 128 tokens each
static __device__ __forceinline__ uint16_t * pmkvq_plane(uint16_t * params, uint32_t block, uint32_t n_head, uint32_t head, uint32_t n_groups, uint32_t group) {
    return params + (((size_t) block*n_head + head)*n_groups + group)*2*PMKVQ_BLOCK;
}

// lanes that share a group where each has four dimensions of it: a power of two, the last ones idle
static __host__ __device__ inline uint32_t pmkvq_lanes_of(uint32_t group) {
    return group <= 16 ? 4 : group <= 32 ? 8 : group <= 64 ? 16 : 32;
}

//
// numbers: each step correctly rounded, so that the bytes are the CPU's
//

#define PMKVQ_NAN16 0x7e00

// as the cache keeps it at 16 bits
static __device__ __forceinline__ uint16_t pmkvq_to_f16(float x) {
    const bool nan = (pmkvq_float_bits(x) & 0x7fffffff) > 0x7f800000;
    return nan ? PMKVQ_NAN16 : pmkvq_f2h(fminf(fmaxf(x, -65504.0f), 65504.0f));
}

// what the codes of a group are made with
struct pmkvq_scale {
    float min;
    float max;
    float step;    // a 255th of max - min, 1 in a constant group
    float inverse; // of step

    // least and most: fminf and fmaxf over the group's f16 values, from +inf and -inf, which leave NaN out
    static __device__ __forceinline__ pmkvq_scale of(float least, float most) {
        pmkvq_scale s;
        const bool some = least <= most;
        // -0 becomes +0
        s.min = some ? pmkvq_add_rn(fminf(fmaxf(least, -65504.0f), 65504.0f), 0.0f) : 0.0f;
        s.max = some ? pmkvq_add_rn(fminf(fmaxf(most,  -65504.0f), 65504.0f), 0.0f) : 0.0f;
        const float range = pmkvq_add_rn(s.max, -s.min);
        s.step    = range > 0.0f ? pmkvq_div_rn(range, 255.0f) : 1.0f;
        s.inverse = pmkvq_div_rn(1.0f, s.step);
        return s;
    }

    // the 8-bit code, in the low byte. The quotient by step is multiplied out: src/kernels/quantize.rs tests that it rounds as the
    // true one does, for all steps. NaN becomes min and so 0
    __device__ __forceinline__ uint32_t code(float x) const {
        const float y    = pmkvq_add_rn(fminf(fmaxf(x, min), max), -min);
        const float near = pmkvq_mul_rn(y, inverse);
        const float rest = pmkvq_fma_rn(-near, step, y);
        const float q    = pmkvq_fma_rn(rest, inverse, near);
        return pmkvq_float_bits(pmkvq_add_rn(q, 12582912.0f)); // 1.5*2^23: the last place is 1
    }
};

// low bytes of four words as one
static __device__ __forceinline__ uint32_t pmkvq_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    return pmkvq_perm(pmkvq_perm(a, b, 0x0040), pmkvq_perm(c, d, 0x0040), 0x5410);
}

// a tile between its orders in K and in V
static __device__ __forceinline__ void pmkvq_transpose(uint32_t (&w)[4]) {
    const uint32_t a = pmkvq_perm(w[0], w[1], 0x5140), b = pmkvq_perm(w[2], w[3], 0x5140);
    const uint32_t c = pmkvq_perm(w[0], w[1], 0x7362), d = pmkvq_perm(w[2], w[3], 0x7362);
    w[0] = pmkvq_perm(a, b, 0x5410);
    w[1] = pmkvq_perm(a, b, 0x7632);
    w[2] = pmkvq_perm(c, d, 0x5410);
    w[3] = pmkvq_perm(c, d, 0x7632);
}

// four 8-bit codes become 4-bit ones, a byte each: round(c/17)
static __device__ __forceinline__ uint32_t pmkvq_shift8(uint32_t w) {
    const uint32_t even = (w        & 0x00ff00ff)*241 + 0x07880788;
    const uint32_t odd  = ((w >> 8) & 0x00ff00ff)*241 + 0x07880788;
    return ((even >> 12) & 0x000f000f) | ((odd >> 4) & 0x0f000f00);
}

// four 4-bit codes, a byte each, become 2-bit ones: round(c/5)
static __device__ __forceinline__ uint32_t pmkvq_shift4(uint32_t w) {
    return ((w*13 + 0x1a1a1a1a) >> 6) & 0x03030303;
}

// four 8-bit codes at a width, a byte each
template <int width>
static __device__ __forceinline__ uint32_t pmkvq_narrow8(uint32_t w) {
    return width == 8 ? w : width == 4 ? pmkvq_shift8(w) : pmkvq_shift4(pmkvq_shift8(w));
}
