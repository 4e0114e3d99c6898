// device.cu - the library that the tests of the CUDA operations load: see device.h. One source for the GPU and for the shim.

#include "device.h"
#include "pmkvq-device.cuh"

#include <stdio.h>
#include <string.h>

static int run(char kind, const void * op, cudaStream_t stream) {
    switch (kind) {
        case 's': return pmkvq_cuda_op_store ((const pmkvq_op_store    *) op, stream);
        case 'b': return pmkvq_cuda_op_stores((const pmkvq_op_store *) op, (const pmkvq_op_store *) op + 1, stream);
        case 'k': return pmkvq_cuda_op_shrink((const pmkvq_cuda_shrink *) op, stream);
        case 'a': return pmkvq_cuda_op_attn  ((const pmkvq_op_attn     *) op, nullptr, stream);
        case 'i': return pmkvq_cuda_op_seen  (&((const pmkvq_dev_listed *) op)->op, ((const pmkvq_dev_listed *) op)->seen, stream);
        case 'w': return pmkvq_cuda_op_attn  (&((const pmkvq_dev_listed *) op)->op, ((const pmkvq_dev_listed *) op)->seen, stream);
        case 'p': return pmkvq_cuda_op_attn_within(&((const pmkvq_dev_within *) op)->op, nullptr, ((const pmkvq_dev_within *) op)->shared, stream);
        case 'e': {
            const pmkvq_dev_end & end = *(const pmkvq_dev_end *) op;
            return pmkvq_cuda_op_merge_stores(&end.merge, &end.stores[0], &end.stores[1], stream);
        }
        case 'm': return pmkvq_cuda_op_merge ((const pmkvq_op_merge    *) op, stream);
        case 't': return pmkvq_cuda_op_transform((const pmkvq_op_transform *) op, stream);
        case 'l': return pmkvq_cuda_op_load  ((const pmkvq_op_load     *) op, stream);
        default:  return cudaErrorInvalidValue;
    }
}

#ifdef PMKVQ_SHIM

static cudaStream_t get_stream() {
    return nullptr;
}

int pmkvq_dev_open(char * name, size_t n, uint32_t * n_sm) {
    snprintf(name, n, "shim");
    *n_sm = pmkvq_multiprocessors();
    return 0;
}

void pmkvq_dev_seed(uint64_t seed) {
    pmkvq_shim::set_seed(seed);
}

int pmkvq_dev_alloc(void ** p, size_t bytes) {
    return pmkvq_shim::alloc(p, bytes);
}

int pmkvq_dev_free(void * p) {
    return pmkvq_shim::release(p);
}

int pmkvq_dev_in(void * dst, const void * src, size_t bytes) {
    const int code = pmkvq_shim::check_span(dst, bytes, "a copy to the device");
    if (code == 0) {
        memcpy(dst, src, bytes);
    }
    return code;
}

int pmkvq_dev_out(void * dst, const void * src, size_t bytes) {
    const int code = pmkvq_shim::check_span(src, bytes, "a copy from the device");
    if (code == 0) {
        memcpy(dst, src, bytes);
    }
    return code;
}

int pmkvq_dev_fill(void * dst, int byte, size_t bytes) {
    const int code = pmkvq_shim::check_span(dst, bytes, "a fill");
    if (code == 0) {
        memset(dst, byte, bytes);
    }
    return code;
}

int pmkvq_dev_sync(void) {
    return pmkvq_shim::sync();
}

int pmkvq_dev_time(const char * kinds, const void * const * ops, uint32_t n_ops, uint32_t n_runs, float * seconds) {
    int code = 0;
    for (uint32_t i = 0; i < n_ops && code == 0; ++i) {
        code = run(kinds[i], ops[i], nullptr);
    }
    for (uint32_t i = 0; i < n_runs; ++i) {
        seconds[i] = -1;
    }
    return code ? code : pmkvq_shim::sync();
}

int pmkvq_dev_time_copy(void * dst, const void * src, size_t bytes, uint32_t n_runs, float * seconds) {
    int code = pmkvq_shim::check_span(src, bytes, "a copy's source");
    code = code ? code : pmkvq_dev_in(dst, src, bytes);
    for (uint32_t i = 0; i < n_runs; ++i) {
        seconds[i] = -1;
    }
    return code;
}

#else

#define TRY(call) do { const cudaError_t code_ = (call); if (code_ != cudaSuccess) { return report(code_, #call); } } while (0)

static int report(cudaError_t code, const char * what) {
    fprintf(stderr, "pmkvq-device: %s: %s\n", what, cudaGetErrorString(code));
    cudaGetLastError(); // it was seen
    return code;
}

// one stream for everything. It waits for the default stream and the other way round, so that plain copies come in order
static cudaStream_t get_stream() {
    static const cudaStream_t stream = [] {
        cudaStream_t s = nullptr;
        if (cudaStreamCreate(&s) != cudaSuccess) {
            fprintf(stderr, "pmkvq-device: no stream, the default stream is used\n");
        }
        return s;
    }();
    return stream;
}

#ifdef PMKVQ_PTX
extern "C" void ptx_seed(uint64_t seed);
extern "C" void ptx_may_read_unwritten(const char * kernels);
#endif

int pmkvq_dev_open(char * name, size_t n, uint32_t * n_sm) {
#ifdef PMKVQ_PTX
    // decoding the current batch reads rows of cells that are not there, and masks their scores
    ptx_may_read_unwritten("pmkvq_attn_decode");
#endif
    cudaDeviceProp prop;
    TRY(cudaSetDevice(0));
    TRY(cudaGetDeviceProperties(&prop, 0));
    snprintf(name, n, "%s", prop.name);
    *n_sm = prop.multiProcessorCount;
    return 0;
}

void pmkvq_dev_seed(uint64_t seed) {
#ifdef PMKVQ_PTX
    ptx_seed(seed);
#else
    (void) seed;
#endif
}

int pmkvq_dev_alloc(void ** p, size_t bytes) {
    TRY(cudaMalloc(p, bytes ? bytes : 1));
    TRY(cudaMemset(*p, 0xFF, bytes ? bytes : 1));
    return 0;
}

int pmkvq_dev_free(void * p) {
    TRY(cudaFree(p));
    return 0;
}

int pmkvq_dev_in(void * dst, const void * src, size_t bytes) {
    TRY(cudaMemcpy(dst, src, bytes, cudaMemcpyHostToDevice));
    return 0;
}

int pmkvq_dev_out(void * dst, const void * src, size_t bytes) {
    TRY(cudaMemcpy(dst, src, bytes, cudaMemcpyDeviceToHost));
    return 0;
}

int pmkvq_dev_fill(void * dst, int byte, size_t bytes) {
    TRY(cudaMemset(dst, byte, bytes));
    return 0;
}

int pmkvq_dev_sync(void) {
    TRY(cudaDeviceSynchronize());
    TRY(cudaGetLastError());
    return 0;
}

#ifdef PMKVQ_PTX

// the stand-in for a GPU has no clock
int pmkvq_dev_time(const char * kinds, const void * const * ops, uint32_t n_ops, uint32_t n_runs, float * seconds) {
    for (uint32_t i = 0; i < n_ops; ++i) {
        TRY((cudaError_t) run(kinds[i], ops[i], get_stream()));
    }
    for (uint32_t i = 0; i < n_runs; ++i) {
        seconds[i] = -1;
    }
    return pmkvq_dev_sync();
}

int pmkvq_dev_time_copy(void * dst, const void * src, size_t bytes, uint32_t n_runs, float * seconds) {
    TRY(cudaMemcpy(dst, src, bytes, cudaMemcpyDeviceToDevice));
    for (uint32_t i = 0; i < n_runs; ++i) {
        seconds[i] = -1;
    }
    return 0;
}

#else

// keeps the device busy while the host puts the next run in the stream: otherwise the host's time would be measured
static __global__ void busy_kernel(uint64_t ns) {
    uint64_t start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < ns);
}

static const uint32_t N_WARM_UP = 3;
static const uint64_t BUSY_NS   = 60*1000;

// seconds of each of n_runs calls of round
template <typename F>
static int time_rounds(uint32_t n_runs, float * seconds, F round) {
    const cudaStream_t stream = get_stream();
    cudaEvent_t start, stop;
    TRY(cudaEventCreate(&start));
    TRY(cudaEventCreate(&stop));
    for (uint32_t i = 0; i < N_WARM_UP + n_runs; ++i) {
        busy_kernel<<<1, 1, 0, stream>>>(BUSY_NS);
        TRY(cudaEventRecord(start, stream));
        TRY(round(stream));
        TRY(cudaEventRecord(stop, stream));
        TRY(cudaEventSynchronize(stop));
        float ms = 0;
        TRY(cudaEventElapsedTime(&ms, start, stop));
        if (i >= N_WARM_UP) {
            seconds[i - N_WARM_UP] = ms*1e-3f;
        }
    }
    TRY(cudaEventDestroy(start));
    TRY(cudaEventDestroy(stop));
    return 0;
}

int pmkvq_dev_time(const char * kinds, const void * const * ops, uint32_t n_ops, uint32_t n_runs, float * seconds) {
    const cudaStream_t stream = get_stream();
    cudaGraph_t     graph = nullptr;
    cudaGraphExec_t exec  = nullptr;

    TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    int code = 0;
    for (uint32_t i = 0; i < n_ops && code == 0; ++i) {
        code = run(kinds[i], ops[i], stream);
    }
    const cudaError_t ended = cudaStreamEndCapture(stream, &graph); // always, or the stream stays in capture
    if (code != 0) {
        return report((cudaError_t) code, "an operation that was to be timed");
    }
    TRY(ended);
    TRY(cudaGraphInstantiate(&exec, graph, 0));
    code = time_rounds(n_runs, seconds, [exec](cudaStream_t s) { return cudaGraphLaunch(exec, s); });
    TRY(cudaGraphExecDestroy(exec));
    TRY(cudaGraphDestroy(graph));
    return code;
}

int pmkvq_dev_time_copy(void * dst, const void * src, size_t bytes, uint32_t n_runs, float * seconds) {
    return time_rounds(n_runs, seconds, [=](cudaStream_t s) { return cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, s); });
}

#endif // PMKVQ_PTX
#endif // PMKVQ_SHIM

int pmkvq_dev_store (const pmkvq_op_store    * op) { return run('s', op, get_stream()); }
int pmkvq_dev_stores(const pmkvq_op_store    * op) { return run('b', op, get_stream()); }
int pmkvq_dev_shrink(const pmkvq_cuda_shrink * op) { return run('k', op, get_stream()); }
int pmkvq_dev_attn  (const pmkvq_op_attn     * op) { return run('a', op, get_stream()); }
int pmkvq_dev_attn_within(const pmkvq_dev_within * op) { return run('p', op, get_stream()); }
int pmkvq_dev_seen  (const pmkvq_dev_listed  * op) { return run('i', op, get_stream()); }
int pmkvq_dev_attn_seen(const pmkvq_dev_listed * op) { return run('w', op, get_stream()); }
int pmkvq_dev_merge (const pmkvq_op_merge    * op) { return run('m', op, get_stream()); }
int pmkvq_dev_transform(const pmkvq_op_transform * op) { return run('t', op, get_stream()); }
int pmkvq_dev_load  (const pmkvq_op_load     * op) { return run('l', op, get_stream()); }
int pmkvq_dev_finish(const pmkvq_dev_end     * op) { return run('e', op, get_stream()); }
