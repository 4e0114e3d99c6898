// device.h - the library that the tests of the CUDA operations load (tests/cuda/main.rs)
//
// It is built twice from the same kernels: by nvcc for a GPU, and by the C++ compiler with the execution shim (tests/cuda/shim),
// which runs them on the host. Every function returns 0 or a cudaError_t.

#pragma once

#include "pmkvq-cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

// a name for people: of the GPU, or "shim"; n_sm: multiprocessors
int pmkvq_dev_open(char * name, size_t n, uint32_t * n_sm);

// seed of the shim's schedules; nothing on a GPU
void pmkvq_dev_seed(uint64_t seed);

// device memory. The shim surrounds allocations with guards and reports writes into them at free and sync, as the GPU's checker would
int pmkvq_dev_alloc(void ** p, size_t bytes);
int pmkvq_dev_free (void * p);
int pmkvq_dev_in   (void * dst, const void * src, size_t bytes);
int pmkvq_dev_out  (void * dst, const void * src, size_t bytes);
int pmkvq_dev_fill (void * dst, int byte, size_t bytes);

// waits; the error of anything since the last call
int pmkvq_dev_sync(void);

// an attention with lists of what is seen, which lie in device memory of pmkvq_cuda_seen_bytes()
typedef struct pmkvq_dev_listed {
    pmkvq_op_attn op;
    void        * seen;
} pmkvq_dev_listed;

// an attention as on a GPU whose CTAs can have so many bytes of shared memory
typedef struct pmkvq_dev_within {
    pmkvq_op_attn op;
    size_t        shared;
} pmkvq_dev_within;

// what ends a layer
typedef struct pmkvq_dev_end {
    pmkvq_op_merge merge;
    pmkvq_op_store stores[2];
} pmkvq_dev_end;

int pmkvq_dev_store (const pmkvq_op_store    * op);
int pmkvq_dev_stores(const pmkvq_op_store    * op); // two of them, in one launch
int pmkvq_dev_shrink(const pmkvq_cuda_shrink * op);
int pmkvq_dev_attn  (const pmkvq_op_attn     * op);
int pmkvq_dev_attn_within(const pmkvq_dev_within * op);
int pmkvq_dev_seen  (const pmkvq_dev_listed  * op); // makes the lists
int pmkvq_dev_attn_seen(const pmkvq_dev_listed * op);
int pmkvq_dev_merge (const pmkvq_op_merge    * op);
int pmkvq_dev_transform(const pmkvq_op_transform * op);
int pmkvq_dev_load  (const pmkvq_op_load     * op);
int pmkvq_dev_finish(const pmkvq_dev_end     * op); // in one launch

// seconds for each of n runs of a list of operations in turn, by events, from a captured graph of one round (-1: the shim has no clock).
// kinds[i]: 's', 'b' (both stores), 'k' (shrink), 'a', 'i' (lists), 'w' (attention with lists), 'p' (within), 'm', 'e' (end); ops[i]: the struct, or the first of two
int pmkvq_dev_time(const char * kinds, const void * const * ops, uint32_t n_ops, uint32_t n_runs, float * seconds);

// seconds of device-to-device copies of n bytes, each of n_runs
int pmkvq_dev_time_copy(void * dst, const void * src, size_t bytes, uint32_t n_runs, float * seconds);

#ifdef __cplusplus
}
#endif
