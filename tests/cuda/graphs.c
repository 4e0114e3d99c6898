// Counts what a program does with CUDA graphs: a library for LD_PRELOAD, for programs that link cudart as a shared one.
//
//   LD_PRELOAD=./libpmkvq_graphs.so PROGRAM     at its end a line on stderr
//
// examples/steps.rs asks for the counts after each step, by pmkvq_graph_counts.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// captured, made executable, updated in place, launched; kernels that no graph launched
enum { CAPTURES, INSTANTIATIONS, UPDATES, LAUNCHES, KERNELS, N_COUNTS };

static atomic_ullong counts[N_COUNTS];

void pmkvq_graph_counts(uint64_t * out) {
    for (int i = 0; i < N_COUNTS; ++i) {
        out[i] = atomic_load(&counts[i]);
    }
}

__attribute__((destructor)) static void say(void) {
    uint64_t n[N_COUNTS];
    pmkvq_graph_counts(n);
    if (n[CAPTURES] + n[LAUNCHES] + n[KERNELS] > 0) {
        fprintf(stderr, "CUDA graphs: captured %llu, instantiated %llu, updated %llu, launched %llu; kernels beside them, or captured, %llu\n",
            (unsigned long long) n[CAPTURES], (unsigned long long) n[INSTANTIATIONS], (unsigned long long) n[UPDATES],
            (unsigned long long) n[LAUNCHES], (unsigned long long) n[KERNELS]);
    }
}

static void * real(const char * name) {
    void * p = dlsym(RTLD_NEXT, name);
    if (!p) {
        fprintf(stderr, "graphs: cudart has no %s\n", name);
        abort();
    }
    return p;
}

// a function of cudart, with the types of its arguments; cudaError_t is an int
#define COUNTED(which, name, params, args)            \
    int name params {                                 \
        static int (* _Atomic f) params;              \
        if (!f) {                                     \
            f = (int (*) params) real(#name);         \
        }                                             \
        atomic_fetch_add(&counts[which], 1);          \
        return f args;                                \
    }

struct dim { unsigned x, y, z; }; // dim3

COUNTED(CAPTURES,       cudaStreamBeginCapture, (void * stream, int mode), (stream, mode))
COUNTED(INSTANTIATIONS, cudaGraphInstantiate, (void * exec, void * graph, unsigned long long flags), (exec, graph, flags))
COUNTED(UPDATES,        cudaGraphExecUpdate, (void * exec, void * graph, void * info), (exec, graph, info))
COUNTED(LAUNCHES,       cudaGraphLaunch, (void * exec, void * stream), (exec, stream))
#define LAUNCH (const void * func, struct dim grid, struct dim block, void ** args, size_t shared, void * stream)
COUNTED(KERNELS,        cudaLaunchKernel, LAUNCH, (func, grid, block, args, shared, stream))   // nvcc's <<<>>> up to CUDA 12
COUNTED(KERNELS,        __cudaLaunchKernel, LAUNCH, (func, grid, block, args, shared, stream)) // and from 13 on
COUNTED(KERNELS,        cudaLaunchKernelExC, (const void * config, const void * func, void ** args), (config, func, args))
