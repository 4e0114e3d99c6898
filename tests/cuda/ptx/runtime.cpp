// runtime.cpp - the CUDA runtime that nvcc's host code meets in place of a GPU's, as far as the kernels' code uses it
//
// Everything is done at once: a launch runs its kernel to the end, and its error is given to who waits. What a kernel does is in runtime.rs.

#include <cuda_runtime_api.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ptx_config {
    const void * stub;
    uint32_t     grid[3];
    uint32_t     block[3];
    uint64_t     dynamic;
    int          early;
};

extern "C" {
int    ptx_register(const void * wrapper);
void   ptx_function(int module, const void * stub, const char * name);
int    ptx_launch(const ptx_config * config, void ** args);
int    ptx_allow_shared(const void * stub, size_t bytes);
int    ptx_target(const void * stub);
int    ptx_arch();
void * ptx_alloc(size_t bytes);
int    ptx_free(void * p);
int    ptx_has(const void * p, size_t bytes, const char * what);
int    ptx_sync();
int    ptx_last_error(int clear);
void   ptx_fail(int code);
void   ptx_report();
}

static cudaError_t result(int code) {
    if (code != 0) {
        ptx_fail(code);
    }
    return (cudaError_t) code;
}

// what is launched by <<<...>>> leaves its configuration here for the kernel's stub
static thread_local struct { dim3 grid, block; size_t dynamic; void * stream; } pushed;

static cudaError_t launch(const void * stub, dim3 grid, dim3 block, void ** args, size_t dynamic, bool early) {
    const ptx_config config = { stub, { grid.x, grid.y, grid.z }, { block.x, block.y, block.z }, dynamic, early };
    return (cudaError_t) ptx_launch(&config, args);
}

// shared memory that a CTA may ask for, by compute capability (CUDA C++ programming guide)
static int shared_limit() {
    switch (ptx_arch()) {
        case 75: return 64*1024;
        case 80: return 163*1024;
        case 86: case 89: case 120: return 99*1024;
        default: return 227*1024;
    }
}

static const int N_SM = 64;

extern "C" {

void ** __cudaRegisterFatBinary(void * wrapper) {
    return (void **) (intptr_t) (ptx_register(wrapper) + 1);
}

void __cudaRegisterFatBinaryEnd(void **) {}

void __cudaUnregisterFatBinary(void ** handle) {
    if ((intptr_t) handle == 1) {
        ptx_report();
    }
}

void __cudaRegisterFunction(void ** handle, const char * stub, char *, const char * name, int, uint3 *, uint3 *, dim3 *, dim3 *, int *) {
    ptx_function((int) (intptr_t) handle - 1, stub, name);
}

// no kernel of ours reads one: it would say so
void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}

char __cudaInitModule(void **) {
    return 1;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t dynamic, void * stream) {
    pushed = { grid, block, dynamic, stream };
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 * grid, dim3 * block, size_t * dynamic, void * stream) {
    *grid     = pushed.grid;
    *block    = pushed.block;
    *dynamic  = pushed.dynamic;
    *(void **) stream = pushed.stream;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t * kernel, const void * stub) {
    *kernel = (cudaKernel_t) stub;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void ** args, size_t dynamic, cudaStream_t) {
    return launch((const void *) kernel, grid, block, args, dynamic, false);
}

cudaError_t cudaLaunchKernel(const void * stub, dim3 grid, dim3 block, void ** args, size_t dynamic, cudaStream_t) {
    return launch(stub, grid, block, args, dynamic, false);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t * config, const void * stub, void ** args) {
    bool early = false;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
        if (config->attrs[i].id != cudaLaunchAttributeProgrammaticStreamSerialization) {
            fprintf(stderr, "ptx: a launch attribute that is not known: %d\n", (int) config->attrs[i].id);
            return result(cudaErrorInvalidValue);
        }
        early = config->attrs[i].val.programmaticStreamSerializationAllowed != 0;
    }
    return launch(stub, config->gridDim, config->blockDim, args, config->dynamicSmemBytes, early);
}

cudaError_t cudaFuncSetAttribute(const void * stub, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value > shared_limit()) {
        return result(cudaErrorInvalidValue);
    }
    return result(ptx_allow_shared(stub, (size_t) value));
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes * attributes, const void * stub) {
    const int target = ptx_target(stub);
    if (target < 0) {
        return result(cudaErrorInvalidDeviceFunction);
    }
    *attributes = {};
    attributes->ptxVersion = attributes->binaryVersion = target;
    attributes->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int * value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:   *value = shared_limit(); return cudaSuccess;
        case cudaDevAttrMultiProcessorCount:            *value = N_SM;           return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor:         *value = ptx_arch()/10;  return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor:         *value = ptx_arch()%10;  return cudaSuccess;
        default:
            fprintf(stderr, "ptx: an attribute that is not known: %d\n", (int) attribute);
            return result(cudaErrorInvalidValue);
    }
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp * prop, int) {
    memset(prop, 0, sizeof(*prop));
    snprintf(prop->name, sizeof(prop->name), "shim, PTX of compute_%d", ptx_arch());
    prop->major = ptx_arch()/10;
    prop->minor = ptx_arch()%10;
    prop->warpSize = 32;
    prop->multiProcessorCount = N_SM;
    prop->sharedMemPerBlockOptin = (size_t) shared_limit();
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int * device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : result(cudaErrorInvalidDevice);
}

cudaError_t cudaStreamCreate(cudaStream_t * stream) {
    *stream = nullptr;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void ** p, size_t bytes) {
    *p = ptx_alloc(bytes);
    return *p ? cudaSuccess : result(cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void * p) {
    return result(ptx_free(p));
}

cudaError_t cudaMemset(void * p, int byte, size_t bytes) {
    const int code = ptx_has(p, bytes, "a fill");
    if (code == 0) {
        memset(p, byte, bytes);
    }
    return (cudaError_t) code;
}

cudaError_t cudaMemcpy(void * dst, const void * src, size_t bytes, cudaMemcpyKind kind) {
    int code = 0;
    if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) {
        code = ptx_has(dst, bytes, "a copy's target");
    }
    if (code == 0 && (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice)) {
        code = ptx_has(src, bytes, "a copy's source");
    }
    if (code == 0) {
        memmove(dst, src, bytes);
    }
    return (cudaError_t) code;
}

cudaError_t cudaMemsetAsync(void * p, int byte, size_t bytes, cudaStream_t) {
    return cudaMemset(p, byte, bytes);
}

cudaError_t cudaMemcpyAsync(void * dst, const void * src, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
    return cudaMemcpy(dst, src, bytes, kind);
}

cudaError_t cudaDeviceSynchronize() {
    return result(ptx_sync());
}

cudaError_t cudaGetLastError() {
    return (cudaError_t) ptx_last_error(1);
}

cudaError_t cudaPeekAtLastError() {
    return (cudaError_t) ptx_last_error(0);
}

const char * cudaGetErrorString(cudaError_t code) {
    static thread_local char text[32];
    snprintf(text, sizeof(text), "error %d", (int) code);
    return text;
}

} // extern "C"
