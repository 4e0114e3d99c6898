// pmkvq-device.cuh - what the kernels use of a GPU, behind names of our own
//
// Halves are kept as raw bits (uint16_t, two in a uint32_t), so that the kernels compile against this header or against the
// execution shim of the tests (tests/cuda/shim), which runs them on the host with PMKVQ_SHIM defined. Warps have 32 lanes, and all
// lanes of a warp take part in every collective operation.

#pragma once

#include <stdint.h>

#ifdef PMKVQ_SHIM

#include "pmkvq-shim.h" // defines everything that stands below, and the CUDA keywords and launches

#else

#include "common.cuh" // ggml's portability macros

#include <map>
#include <mutex>
#include <utility>

#include "pmkvq-launch.cuh" // PMKVQ_LAUNCH_EARLY

#define PMKVQ_LAUNCH(kernel, grid, block, smem, stream, ...) kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__)

// dynamic shared memory, 16-byte aligned
#define PMKVQ_DYNAMIC_SHARED(name) extern __shared__ __align__(16) uint8_t name[]

// Raise the limit of a kernel's dynamic shared memory on the current device. Never lowered: another thread may be about to launch the kernel
// with more, or a captured graph hold such a launch
template <typename K>
static inline cudaError_t pmkvq_allow_shared(K * kernel, size_t bytes) {
    static std::mutex mutex;
    static std::map<std::pair<int, const void *>, size_t> allowed;

    int device = 0;
    if (bytes <= 48*1024) {
        return cudaSuccess;
    }
    cudaError_t err = cudaGetDevice(&device);
    std::lock_guard<std::mutex> guard(mutex);
    size_t & most = allowed[{ device, (const void *) kernel }];
    if (err == cudaSuccess && bytes > most) {
        err = cudaFuncSetAttribute((const void *) kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
        most = err == cudaSuccess ? bytes : most;
    }
    return err;
}

// the most shared memory that a CTA of the current device can have, in bytes
static inline size_t pmkvq_shared_limit() {
    int device = 0;
    int bytes  = 0;
    return cudaGetDevice(&device) == cudaSuccess
        && cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess ? bytes : 48*1024;
}

// of the current device
static inline int pmkvq_multiprocessors() {
    int device = 0;
    int n      = 0;
    return cudaGetDevice(&device) == cudaSuccess
        && cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) == cudaSuccess && n > 0 ? n : 1;
}

//
// f16 as bits
//

static __device__ __forceinline__ float pmkvq_h2f(uint16_t h) {
    return __half2float(__ushort_as_half(h));
}

// round to nearest even; overflow becomes infinity
static __device__ __forceinline__ uint16_t pmkvq_f2h(float x) {
    return __half_as_ushort(__float2half_rn(x));
}

// two floats as halves, lo in the low 16 bits
static __device__ __forceinline__ uint32_t pmkvq_pack_h2(float lo, float hi) {
    const half2 h = __floats2half2_rn(lo, hi);
    return *(const uint32_t *) &h;
}

static __device__ __forceinline__ float2 pmkvq_unpack_h2(uint32_t h) {
    return __half22float2(*(const half2 *) &h);
}

static __device__ __forceinline__ uint32_t pmkvq_mul_h2(uint32_t a, uint32_t b) {
    const half2 c = __hmul2(*(const half2 *) &a, *(const half2 *) &b);
    return *(const uint32_t *) &c;
}

// a*b + c, rounded once
static __device__ __forceinline__ uint32_t pmkvq_fma_h2(uint32_t a, uint32_t b, uint32_t c) {
    const half2 d = __hfma2(*(const half2 *) &a, *(const half2 *) &b, *(const half2 *) &c);
    return *(const uint32_t *) &d;
}

//
// numbers
//

// 2^x, about 2 ulp; 2^-inf = 0
static __device__ __forceinline__ float pmkvq_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// operations that fast-math flags leave correctly rounded
static __device__ __forceinline__ float pmkvq_add_rn(float a, float b) { return __fadd_rn(a, b); }
static __device__ __forceinline__ float pmkvq_mul_rn(float a, float b) { return __fmul_rn(a, b); }
static __device__ __forceinline__ float pmkvq_div_rn(float a, float b) { return __fdiv_rn(a, b); }
static __device__ __forceinline__ float pmkvq_fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }

static __device__ __forceinline__ uint32_t pmkvq_float_bits(float x) { return __float_as_uint(x); }

// x, but the compiler does not know: what is made of it in a loop is made there, and not kept in registers all the time
static __device__ __forceinline__ int pmkvq_opaque(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// bits that are set
static __device__ __forceinline__ int pmkvq_popc(uint32_t x) { return __popc(x); }

// bytes s (selectors 0 to 7, 4 bits each) of b:a
static __device__ __forceinline__ uint32_t pmkvq_perm(uint32_t a, uint32_t b, uint32_t s) { return __byte_perm(a, b, s); }

//
// warps
//

static __device__ __forceinline__ float    pmkvq_shfl_xor(float    x, int mask) { return __shfl_xor_sync(0xffffffff, x, mask, 32); }
static __device__ __forceinline__ uint32_t pmkvq_shfl_xor(uint32_t x, int mask) { return __shfl_xor_sync(0xffffffff, x, mask, 32); }
static __device__ __forceinline__ int      pmkvq_shfl    (int      x, int lane) { return __shfl_sync    (0xffffffff, x, lane, 32); }
static __device__ __forceinline__ float    pmkvq_shfl    (float    x, int lane) { return __shfl_sync    (0xffffffff, x, lane, 32); }
static __device__ __forceinline__ uint32_t pmkvq_ballot  (bool x) { return __ballot_sync(0xffffffff, x); }
static __device__ __forceinline__ bool     pmkvq_any     (bool x) { return __any_sync(0xffffffff, x); }
static __device__ __forceinline__ bool     pmkvq_all     (bool x) { return __all_sync(0xffffffff, x); }
static __device__ __forceinline__ void     pmkvq_syncwarp() { __syncwarp(); }
static __device__ __forceinline__ void     pmkvq_syncthreads() { __syncthreads(); }

//
// memory
//

// read once: kept out of L1 where that is possible
static __device__ __forceinline__ uint4 pmkvq_ldg_stream(const uint4 * p) {
    return __ldcs(p);
}

static __device__ __forceinline__ uint2 pmkvq_ldg8_stream(const uint2 * p) {
    return __ldcs(p);
}

// Not __ldg: what it reads must not change while the kernel is on the device, and a kernel that is launched early (pmkvq-launch.cuh) is there
// while others still write. Nor is such a load kept behind the wait (pull request 24030 of llama.cpp). Volatile: loads stay where they are
// asked for, and behind the wait
static __device__ __forceinline__ uint2 pmkvq_ldg8(const uint2 * p) {
    uint2 x;
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(x.x), "=r"(x.y) : "l"(p));
    return x;
}

static __device__ __forceinline__ uint32_t pmkvq_ldg4(const uint32_t * p) {
    uint32_t x;
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(x) : "l"(p));
    return x;
}

static __device__ __forceinline__ uint4 pmkvq_ldg(const uint4 * p) {
    uint4 x;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(p));
    return x;
}

// copy 16 bytes from global to shared memory (both aligned), zeros if !valid; done after pmkvq_cp_async_wait and a barrier
static __device__ __forceinline__ void pmkvq_cp_async_16(void * dst, const void * src, bool valid) {
#if defined(CP_ASYNC_AVAILABLE)
    const unsigned int d = (unsigned int) __cvta_generic_to_shared(dst);
    const int          n = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(d), "l"(src), "r"(n) : "memory");
#else
    *(uint4 *) dst = valid ? *(const uint4 *) src : make_uint4(0, 0, 0, 0);
#endif
}

// the same for 8 bytes
static __device__ __forceinline__ void pmkvq_cp_async_8(void * dst, const void * src, bool valid) {
#if defined(CP_ASYNC_AVAILABLE)
    const unsigned int d = (unsigned int) __cvta_generic_to_shared(dst);
    const int          n = valid ? 8 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" : : "r"(d), "l"(src), "r"(n) : "memory");
#else
    *(uint2 *) dst = valid ? *(const uint2 *) src : make_uint2(0, 0);
#endif
}

static __device__ __forceinline__ void pmkvq_cp_async_commit() {
#if defined(CP_ASYNC_AVAILABLE)
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

// until at most n of this thread's latest groups are still under way
template <int n>
static __device__ __forceinline__ void pmkvq_cp_async_wait() {
#if defined(CP_ASYNC_AVAILABLE)
    asm volatile("cp.async.wait_group %0;" : : "n"(n) : "memory");
#endif
}

// an 8x8 matrix of halves, row lane/4 and columns 2*(lane%4) and the next in a lane, transposed
static __device__ __forceinline__ uint32_t pmkvq_movmatrix_trans(uint32_t x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
    uint32_t y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
#else
    NO_DEVICE_CODE;
    return x;
#endif
}

//
// matrix units
//

// d += a b, a [16][16] and b [16][8] halves, d [16][8] floats. With g = lane/4 and t = lane%4:
//   a[0] (g, 2t) (g, 2t+1)      a[1] (g+8, 2t) ..      a[2] (g, 2t+8) ..      a[3] (g+8, 2t+8) ..
//   b[0] (2t, g) (2t+1, g)      b[1] (2t+8, g) (2t+9, g)
//   d[0] (g, 2t)  d[1] (g, 2t+1)  d[2] (g+8, 2t)  d[3] (g+8, 2t+1)
static __device__ __forceinline__ void pmkvq_mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#else
    GGML_UNUSED(d); GGML_UNUSED(a); GGML_UNUSED(b0); GGML_UNUSED(b1);
    NO_DEVICE_CODE;
#endif
}

// d += a b, a [16][32] and b [32][8] bytes, a unsigned, d [16][8] integers. With g = lane/4 and t = lane%4:
//   a[0] (g, 4t .. 4t+3)      a[1] (g+8, 4t ..)      a[2] (g, 4t+16 ..)      a[3] (g+8, 4t+16 ..)
//   b[0] (4t .. 4t+3, g)      b[1] (4t+16 .., g)     d as above
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define PMKVQ_MMA_BYTES(type_b) \
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8." type_b ".s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
#define PMKVQ_MMA_BYTES_8(type_b, i, a, b) \
    asm("mma.sync.aligned.m8n8k16.row.col.s32.u8." type_b ".s32 {%0, %1}, {%2}, {%3}, {%0, %1};" : "+r"(d[i]), "+r"(d[i + 1]) : "r"(a), "r"(b))
#define PMKVQ_MMA_BYTES(type_b) \
    PMKVQ_MMA_BYTES_8(type_b, 0, a[0], b0); PMKVQ_MMA_BYTES_8(type_b, 0, a[2], b1); \
    PMKVQ_MMA_BYTES_8(type_b, 2, a[1], b0); PMKVQ_MMA_BYTES_8(type_b, 2, a[3], b1)
#else
#define PMKVQ_MMA_BYTES(type_b) GGML_UNUSED(d); GGML_UNUSED(a); GGML_UNUSED(b0); GGML_UNUSED(b1); NO_DEVICE_CODE
#endif

// b signed
static __device__ __forceinline__ void pmkvq_mma_s8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { PMKVQ_MMA_BYTES("s8"); }

// b unsigned
static __device__ __forceinline__ void pmkvq_mma_u8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { PMKVQ_MMA_BYTES("u8"); }

#endif // PMKVQ_SHIM
