// pmkvq-launch.cuh - kernels that are made ready while the one before them in the stream still runs
//
// A launch takes one to two microseconds of a decode's layer after layer. Since Hopper a kernel's CTAs can be on the device before
// the kernel before it has ended (programmatic dependent launch); what it must not do until then is touch memory that others
// write. So a kernel that is launched with PMKVQ_LAUNCH_EARLY begins with pmkvq_wait_before(), in all of its threads: it returns once all
// kernels before have ended and what they wrote is there. On older GPUs, both are what they were.

#pragma once

#include <mutex>
#include <unordered_map>

// nothing of device memory is read or written before this
static __device__ __forceinline__ void pmkvq_wait_before() {
#if defined(GGML_CUDA_USE_PDL) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}

// the kernel after this one may be made ready as soon as all CTAs have come here. It takes room that no CTA of this one needs any more
static __device__ __forceinline__ void pmkvq_start_next() {
#if defined(GGML_CUDA_USE_PDL) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" : : : "memory");
#endif
}

#ifdef GGML_CUDA_USE_PDL

// whether a kernel's code has the wait in it: code that was made for an older GPU, and runs on a newer one, has not
static inline bool pmkvq_has_wait(const void * kernel) {
    static std::mutex mutex;
    static std::unordered_map<const void *, uint64_t> known; // a bit for each device that has it, and one for each that was asked

    // as for ggml's own kernels
    static const bool allowed = [] {
        const char * env = getenv("GGML_CUDA_PDL");
        return !env || atoi(env) != 0;
    }();

    int device = 0;
    if (!allowed || cudaGetDevice(&device) != cudaSuccess || device >= 32) {
        return false;
    }
    const uint64_t asked = 1ull << (32 + device);
    const uint64_t has   = 1ull << device;

    std::lock_guard<std::mutex> guard(mutex);
    uint64_t & bits = known[kernel];
    if (!(bits & asked)) {
        cudaFuncAttributes attr = {};
        const bool ok = cudaFuncGetAttributes(&attr, kernel) == cudaSuccess && attr.ptxVersion >= 90;
        bits |= asked | (ok ? has : 0);
    }
    return bits & has;
}

// errors are cudaGetLastError's, as after a plain launch
template <typename... P, typename... A>
static inline void pmkvq_launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A... args) {
    if (!pmkvq_has_wait((const void *) kernel)) {
        kernel<<<grid, block, shared, stream>>>(args...);
        return;
    }
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr.val.programmaticStreamSerializationAllowed = 1;

    cudaLaunchConfig_t config = {};
    config.gridDim          = grid;
    config.blockDim         = block;
    config.dynamicSmemBytes = shared;
    config.stream           = stream;
    config.attrs            = &attr;
    config.numAttrs         = 1;
    cudaLaunchKernelEx(&config, kernel, P(args)...);
}

#define PMKVQ_LAUNCH_EARLY(kernel, grid, block, smem, stream, ...) pmkvq_launch_early(kernel, grid, block, smem, stream, ##__VA_ARGS__)

#else

#define PMKVQ_LAUNCH_EARLY(kernel, grid, block, smem, stream, ...) kernel<<<(grid), (block), (smem), (stream)>>>(__VA_ARGS__)

#endif // GGML_CUDA_USE_PDL
