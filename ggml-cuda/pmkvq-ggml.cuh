// pmkvq-ggml.cuh - ggml's CUDA backend meets the nodes of the progressive KV cache

#pragma once

#include "../common.cuh"

// before the first node of a graph is run or captured
void ggml_cuda_begin_pmkvq(ggml_backend_cuda_context & ctx);

// dst: a node that ggml_cuda_supports_pmkvq() accepted
void ggml_cuda_op_pmkvq(ggml_backend_cuda_context & ctx, ggml_tensor * dst);

// run node i of the graph and as many after it as one launch can do; returns the number of those, 0 if nothing was run
int ggml_cuda_fuse_pmkvq(ggml_backend_cuda_context & ctx, const ggml_cgraph * cgraph, int i);

// whether op is a custom node of ours, makes sense, has kernels and lies on the device
bool ggml_cuda_supports_pmkvq(int device, const ggml_tensor * op);
