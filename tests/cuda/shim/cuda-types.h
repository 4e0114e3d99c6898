// cuda-types.h - CUDA's keywords, types and functions as far as kernels need them, for the C++ compiler

#pragma once

#include "engine.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Blocks run one after another, so that one copy is enough. thread_local puts the variables side by side in memory, where
// engine.cpp fills them with garbage before each block (a section attribute would be lost in templates)
#define __shared__ static thread_local

#define PMKVQ_SHIM_VECTOR(type, name, n2, n4) \
    struct alignas(n2) name##2 { type x, y; }; \
    struct alignas(n4) name##4 { type x, y, z, w; }; \
    static inline name##2 make_##name##2(type x, type y) { return { x, y }; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return { x, y, z, w }; }

PMKVQ_SHIM_VECTOR(float,          float,  8, 16)
PMKVQ_SHIM_VECTOR(int,            int,    8, 16)
PMKVQ_SHIM_VECTOR(unsigned int,   uint,   8, 16)
PMKVQ_SHIM_VECTOR(short,          short,  4, 8)
PMKVQ_SHIM_VECTOR(unsigned short, ushort, 4, 8)
PMKVQ_SHIM_VECTOR(signed char,    char,   2, 4)
PMKVQ_SHIM_VECTOR(unsigned char,  uchar,  2, 4)

struct dim3 {
    unsigned int x, y, z;
    dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

// of the running thread
extern uint3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

typedef struct CUstream_st * cudaStream_t;

enum cudaError_t {
    cudaSuccess                   = pmkvq_shim::OK,
    cudaErrorInvalidValue         = pmkvq_shim::INVALID_VALUE,
    cudaErrorInvalidConfiguration = pmkvq_shim::INVALID_CONFIGURATION,
    cudaErrorIllegalAddress       = pmkvq_shim::ILLEGAL_ADDRESS,
    cudaErrorLaunchTimeout        = pmkvq_shim::TIMEOUT,
    cudaErrorMisalignedAddress    = pmkvq_shim::MISALIGNED,
    cudaErrorLaunchFailure        = pmkvq_shim::LAUNCH_FAILURE,
};

static inline cudaError_t cudaGetLastError()    { return (cudaError_t) pmkvq_shim::last_error(true); }
static inline cudaError_t cudaPeekAtLastError() { return (cudaError_t) pmkvq_shim::last_error(false); }

//
// numbers
//

#define PMKVQ_SHIM_MINMAX(result, a_type, b_type) \
    static inline result min(a_type a, b_type b) { return (result) a < (result) b ? (result) a : (result) b; } \
    static inline result max(a_type a, b_type b) { return (result) a > (result) b ? (result) a : (result) b; }

PMKVQ_SHIM_MINMAX(int,                int,                int)
PMKVQ_SHIM_MINMAX(unsigned int,       unsigned int,       unsigned int)
PMKVQ_SHIM_MINMAX(unsigned int,       int,                unsigned int)
PMKVQ_SHIM_MINMAX(unsigned int,       unsigned int,       int)
PMKVQ_SHIM_MINMAX(long,               long,               long)
PMKVQ_SHIM_MINMAX(unsigned long,      unsigned long,      unsigned long)
PMKVQ_SHIM_MINMAX(long long,          long long,          long long)
PMKVQ_SHIM_MINMAX(unsigned long long, unsigned long long, unsigned long long)

static inline float  min(float  a, float  b) { return fminf(a, b); }
static inline float  max(float  a, float  b) { return fmaxf(a, b); }

static inline int   __float_as_int (float x) { int   y; memcpy(&y, &x, 4); return y; }
static inline float __int_as_float (int   x) { float y; memcpy(&y, &x, 4); return y; }
static inline unsigned int __float_as_uint(float x) { return (unsigned int) __float_as_int(x); }
static inline float __uint_as_float(unsigned int x) { return __int_as_float((int) x); }

// saturate, NaN becomes 0
static inline int __float2int_rn(float x) {
    return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x < -2147483648.0f ? (int) 0x80000000 : (int) nearbyintf(x);
}

static inline float __fdividef(float a, float b) { return a/b; }
// glibc has functions of these names
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float rsqrtf (float x) { return 1.0f/sqrtf(x); }

static inline int __popc  (unsigned int x)       { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs   (int x)                { return __builtin_ffs(x); }
static inline int __ffsll (long long x)          { return __builtin_ffsll(x); }
static inline int __clz   (int x)                { return x ? __builtin_clz((unsigned int) x) : 32; }
static inline int __clzll (long long x)          { return x ? __builtin_clzll((unsigned long long) x) : 64; }

static inline unsigned int __byte_perm(unsigned int a, unsigned int b, unsigned int s) {
    const uint64_t ab = (uint64_t) b << 32 | a;
    unsigned int r = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned int select = s >> 4*i;
        unsigned int byte = (unsigned int) (ab >> 8*(select & 7)) & 0xff;
        byte = select & 8 ? (byte & 0x80 ? 0xff : 0) : byte; // the sign alone
        r |= byte << 8*i;
    }
    return r;
}

static inline unsigned int __funnelshift_r(unsigned int lo, unsigned int hi, unsigned int n) {
    return (unsigned int) (((uint64_t) hi << 32 | lo) >> (n & 31));
}

static inline unsigned int __funnelshift_l(unsigned int lo, unsigned int hi, unsigned int n) {
    return (unsigned int) ((((uint64_t) hi << 32 | lo) << (n & 31)) >> 32);
}

//
// memory
//

template <typename T>
static inline T __ldg(const T * p) {
    pmkvq_shim::check_global(p, sizeof(T), alignof(T), "a load");
    return *p;
}

template <typename T>
static inline T __ldcs(const T * p) {
    return __ldg(p);
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}

// another thread may come first
template <typename T, typename F>
static __attribute__((noinline, no_sanitize("thread"))) T pmkvq_shim_atomic(T * p, F f) {
    pmkvq_shim::yield();
    pmkvq_shim::check_any(p, sizeof(T), sizeof(T), "an atomic");
    const T old = *p;
    *p = f(old);
    return old;
}

#define PMKVQ_SHIM_ATOMICS(T) \
    static inline T atomicAdd (T * p, T x) { return pmkvq_shim_atomic(p, [=](T old) { return old + x; }); } \
    static inline T atomicExch(T * p, T x) { return pmkvq_shim_atomic(p, [=](T)     { return x; }); } \
    static inline T atomicMax (T * p, T x) { return pmkvq_shim_atomic(p, [=](T old) { return old > x ? old : x; }); } \
    static inline T atomicMin (T * p, T x) { return pmkvq_shim_atomic(p, [=](T old) { return old < x ? old : x; }); } \
    static inline T atomicOr  (T * p, T x) { return pmkvq_shim_atomic(p, [=](T old) { return old | x; }); } \
    static inline T atomicAnd (T * p, T x) { return pmkvq_shim_atomic(p, [=](T old) { return old & x; }); } \
    static inline T atomicCAS (T * p, T expected, T x) { return pmkvq_shim_atomic(p, [=](T old) { return old == expected ? x : old; }); }

PMKVQ_SHIM_ATOMICS(int)
PMKVQ_SHIM_ATOMICS(unsigned int)

static inline float atomicAdd(float * p, float x) { return pmkvq_shim_atomic(p, [=](float old) { return old + x; }); }
