// pmkvq-shim.h - the language of the kernels and all of pmkvq-device.cuh for the C++ compiler: see engine.h for how they run
//
// Beyond what a GPU does, it looks for mistakes: collective operations that not all lanes reach, reads before a barrier or a wait
// (threads run in random order, shared memory starts as garbage), addresses outside of allocations, and alignment.

#pragma once

#include <stdlib.h>

#include "cuda-types.h"
#include "engine.h"

#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

// the place of a call, for messages and to tell operations apart
#define PMKVQ_SHIM_HERE const char * file = __builtin_FILE(), int line = __builtin_LINE()

#define PMKVQ_LAUNCH(kernel, grid, block, smem, stream, ...) pmkvq_shim_launch(false, #kernel, kernel, grid, block, smem, stream, ##__VA_ARGS__)

// the kernel before has ended all the same; threads that touch device memory and have not waited are found out
#define PMKVQ_LAUNCH_EARLY(kernel, grid, block, smem, stream, ...) pmkvq_shim_launch(true, #kernel, kernel, grid, block, smem, stream, ##__VA_ARGS__)

static inline void pmkvq_wait_before() { pmkvq_shim::current->waits = false; }
static inline void pmkvq_start_next() {}

#define PMKVQ_DYNAMIC_SHARED(name) uint8_t * const name = pmkvq_shim::dynamic_shared

template <typename... P, typename... A>
static inline void pmkvq_shim_launch(bool early, const char * name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t, A... args) {
    struct Call {
        void (*kernel)(P...);
        std::tuple<std::decay_t<P>...> args;
    } call = { kernel, std::tuple<std::decay_t<P>...>((std::decay_t<P>) args...) };
    pmkvq_shim::run(early, name, (const void *) kernel, { grid.x, grid.y, grid.z }, { block.x, block.y, block.z }, shared, [](void * p) {
        const Call & c = *(const Call *) p;
        std::apply(c.kernel, c.args);
    }, &call, sizeof(call));
}

// a Hopper's
static inline size_t pmkvq_shared_limit() {
    return 227*1024;
}

template <typename K>
static inline cudaError_t pmkvq_allow_shared(K * kernel, size_t bytes) {
    return bytes > pmkvq_shared_limit() ? cudaErrorInvalidValue : (cudaError_t) pmkvq_shim::allow_shared((const void *) kernel, bytes);
}

static inline int pmkvq_multiprocessors() {
    return 64;
}

//
// f16 as bits
//

static inline float pmkvq_h2f(uint16_t h) {
#if defined(__F16C__)
    return _cvtsh_ss(h);
#elif defined(__aarch64__)
    __fp16 x;
    memcpy(&x, &h, 2);
    return (float) x;
#else
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    uint32_t e = h >> 10 & 31;
    uint32_t m = h & 0x3ff;
    if (e == 31) {
        return __int_as_float((int) (sign | 0x7f800000 | m << 13));
    }
    if (e == 0) {
        if (m == 0) {
            return __int_as_float((int) sign);
        }
        const int n = __builtin_clz(m) - 21; // to the place of the hidden bit
        m = m << n & 0x3ff;
        e = 1 - n;
    }
    return __int_as_float((int) (sign | (e + 112) << 23 | m << 13));
#endif
}

static inline uint16_t pmkvq_f2h(float x) {
#if defined(__F16C__)
    return (uint16_t) _cvtss_sh(x, 0);
#elif defined(__aarch64__)
    const __fp16 y = (__fp16) x;
    uint16_t h;
    memcpy(&h, &y, 2);
    return h;
#else
    const uint32_t u    = (uint32_t) __float_as_int(x);
    const uint16_t sign = (uint16_t) (u >> 16 & 0x8000);
    const uint32_t a    = u & 0x7fffffff;
    if (a >= 0x7f800000) {
        return sign | 0x7c00 | (a > 0x7f800000 ? 0x200 | (a >> 13 & 0x3ff) : 0);
    }
    if (a >= 0x477ff000) {
        return sign | 0x7c00; // rounds to 65536
    }
    if (a < 0x33000000) {
        return sign; // under half of the smallest
    }
    const uint32_t e     = a >> 23;
    const uint32_t shift = e < 113 ? 126 - e : 13; // bits that are rounded away
    const uint32_t m     = e < 113 ? (a & 0x7fffff) | 0x800000 : a - (112u << 23);
    const uint32_t half  = 1u << (shift - 1);
    const uint32_t rest  = m & (2*half - 1);
    const uint32_t q     = m >> shift;
    return (uint16_t) (sign | (q + (rest > half || (rest == half && (q & 1)))));
#endif
}

static inline uint32_t pmkvq_pack_h2(float lo, float hi) {
    return pmkvq_f2h(lo) | (uint32_t) pmkvq_f2h(hi) << 16;
}

static inline float2 pmkvq_unpack_h2(uint32_t h) {
    return { pmkvq_h2f((uint16_t) h), pmkvq_h2f((uint16_t) (h >> 16)) };
}

// the product of halves is exact in a float
static inline uint32_t pmkvq_mul_h2(uint32_t a, uint32_t b) {
    const float2 x = pmkvq_unpack_h2(a);
    const float2 y = pmkvq_unpack_h2(b);
    return pmkvq_pack_h2(x.x*y.x, x.y*y.y);
}

// a*b + c is exact enough in a double; from there to a float it is rounded to odd, so that a half is rounded once
static inline uint16_t pmkvq_shim_fma_h(float a, float b, float c) {
    const double d = (double) a*b + c;
    float f = (float) d;
    if (f - d != 0 && f == f && !(__float_as_int(f) & 1)) {
        const bool away = f > 0 ? f > d : f < d;
        f = __int_as_float(__float_as_int(f) + (away ? -1 : 1));
    }
    return pmkvq_f2h(f);
}

static inline uint32_t pmkvq_fma_h2(uint32_t a, uint32_t b, uint32_t c) {
    const float2 x = pmkvq_unpack_h2(a);
    const float2 y = pmkvq_unpack_h2(b);
    const float2 z = pmkvq_unpack_h2(c);
    return pmkvq_shim_fma_h(x.x, y.x, z.x) | (uint32_t) pmkvq_shim_fma_h(x.y, y.y, z.y) << 16;
}

//
// numbers. Products and sums of kernels are fused where that is possible, as nvcc does; these are not (rounding.cpp)
//

float pmkvq_add_rn(float a, float b);
float pmkvq_mul_rn(float a, float b);
float pmkvq_div_rn(float a, float b);
float pmkvq_fma_rn(float a, float b, float c);
float pmkvq_exp2  (float x);

static inline uint32_t pmkvq_float_bits(float x) {
    return __float_as_uint(x);
}

static inline int pmkvq_opaque(int x) {
    return x;
}

static inline int pmkvq_popc(uint32_t x) {
    return __popc(x);
}

static inline uint32_t pmkvq_perm(uint32_t a, uint32_t b, uint32_t s) {
    return __byte_perm(a, b, s);
}

//
// warps
//

static inline uint32_t pmkvq_shim_shfl(uint32_t x, uint32_t from, const char * file, int line) {
    pmkvq_shim::Fiber & f = *pmkvq_shim::current;
    if (from > 31) {
        pmkvq_shim::fail(pmkvq_shim::LAUNCH_FAILURE, "shfl at %s:%d from lane %d", file, line, (int) from);
    }
    f.warp->in[0][f.lane] = x;
    f.warp->in[1][f.lane] = from;
    pmkvq_shim::collective(pmkvq_shim::SHFL, file, line);
    return f.warp->out[0][f.lane];
}

static inline uint32_t pmkvq_shfl_xor(uint32_t x, int mask, PMKVQ_SHIM_HERE) {
    return pmkvq_shim_shfl(x, pmkvq_shim::current->lane ^ (uint32_t) mask, file, line);
}

static inline float pmkvq_shfl_xor(float x, int mask, PMKVQ_SHIM_HERE) {
    return __int_as_float((int) pmkvq_shim_shfl((uint32_t) __float_as_int(x), pmkvq_shim::current->lane ^ (uint32_t) mask, file, line));
}

static inline int pmkvq_shfl(int x, int lane, PMKVQ_SHIM_HERE) {
    return (int) pmkvq_shim_shfl((uint32_t) x, (uint32_t) lane, file, line);
}

static inline float pmkvq_shfl(float x, int lane, PMKVQ_SHIM_HERE) {
    return __int_as_float((int) pmkvq_shim_shfl((uint32_t) __float_as_int(x), (uint32_t) lane, file, line));
}

// value e of a lane: row lane/4, column 2*(lane%4) + e. Two shuffles do it
static inline uint32_t pmkvq_movmatrix_trans(uint32_t x, PMKVQ_SHIM_HERE) {
    const uint32_t row = pmkvq_shim::current->lane/4;
    const uint32_t col = pmkvq_shim::current->lane%4*2;
    const uint32_t a = pmkvq_shim_shfl(x, 4*col + row/2, file, line);
    const uint32_t b = pmkvq_shim_shfl(x, 4*(col + 1) + row/2, file, line);
    return (row%2 ? a >> 16 : a & 0xffff) | (row%2 ? b >> 16 : b & 0xffff) << 16;
}

static inline uint32_t pmkvq_shim_vote(pmkvq_shim::Kind kind, bool x, const char * file, int line) {
    pmkvq_shim::Fiber & f = *pmkvq_shim::current;
    f.warp->in[0][f.lane] = x;
    pmkvq_shim::collective(kind, file, line);
    return f.warp->out[0][0];
}

static inline uint32_t pmkvq_ballot(bool x, PMKVQ_SHIM_HERE) { return pmkvq_shim_vote(pmkvq_shim::BALLOT, x, file, line); }
static inline bool     pmkvq_any   (bool x, PMKVQ_SHIM_HERE) { return pmkvq_shim_vote(pmkvq_shim::ANY,    x, file, line) != 0; }
static inline bool     pmkvq_all   (bool x, PMKVQ_SHIM_HERE) { return pmkvq_shim_vote(pmkvq_shim::ALL,    x, file, line) == 0xffffffff; }

static inline void pmkvq_syncwarp   (PMKVQ_SHIM_HERE) { pmkvq_shim::collective(pmkvq_shim::SYNCWARP, file, line); }
static inline void pmkvq_syncthreads(PMKVQ_SHIM_HERE) { pmkvq_shim::barrier(file, line); }

//
// memory
//

static inline uint4 pmkvq_ldg_stream(const uint4 * p) {
    return __ldcs(p);
}

static inline uint2 pmkvq_ldg8_stream(const uint2 * p) {
    return __ldcs(p);
}

static inline uint4 pmkvq_ldg(const uint4 * p) {
    return __ldg(p);
}

static inline uint2 pmkvq_ldg8(const uint2 * p) {
    return __ldg(p);
}

static inline uint32_t pmkvq_ldg4(const uint32_t * p) {
    return __ldg(p);
}

static inline void pmkvq_cp_async_16(void * dst, const void * src, bool valid, PMKVQ_SHIM_HERE) {
    pmkvq_shim::copy_issue(dst, src, 16, valid, file, line);
}

static inline void pmkvq_cp_async_8(void * dst, const void * src, bool valid, PMKVQ_SHIM_HERE) {
    pmkvq_shim::copy_issue(dst, src, 8, valid, file, line);
}

static inline void pmkvq_cp_async_commit() {
    pmkvq_shim::copy_commit();
}

template <int n>
static inline void pmkvq_cp_async_wait() {
    static_assert(n >= 0);
    pmkvq_shim::copy_wait(n);
}

static inline void pmkvq_shim_mma(
        pmkvq_shim::Kind kind, uint32_t * d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char * file, int line) {
    pmkvq_shim::Fiber & f = *pmkvq_shim::current;
    auto & in = f.warp->in;
    for (int i = 0; i < 4; ++i) {
        in[i    ][f.lane] = a[i];
        in[i + 6][f.lane] = d[i];
    }
    in[4][f.lane] = b0;
    in[5][f.lane] = b1;
    pmkvq_shim::collective(kind, file, line);
    for (int i = 0; i < 4; ++i) {
        d[i] = f.warp->out[i][f.lane];
    }
}

static inline void pmkvq_mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, PMKVQ_SHIM_HERE) {
    uint32_t x[4];
    memcpy(x, d, sizeof(x));
    pmkvq_shim_mma(pmkvq_shim::MMA, x, a, b0, b1, file, line);
    memcpy(d, x, sizeof(x));
}

static inline void pmkvq_mma_s8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, PMKVQ_SHIM_HERE) {
    pmkvq_shim_mma(pmkvq_shim::MMA_S8, (uint32_t *) d, a, b0, b1, file, line);
}

static inline void pmkvq_mma_u8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, PMKVQ_SHIM_HERE) {
    pmkvq_shim_mma(pmkvq_shim::MMA_U8, (uint32_t *) d, a, b0, b1, file, line);
}
