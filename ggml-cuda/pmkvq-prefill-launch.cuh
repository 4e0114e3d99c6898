// pmkvq-prefill-launch.cuh - which of a prefill's kernels runs: the one with most query rows that the device's shared memory holds

#pragma once

#include "pmkvq-prefill.cuh"

// cudaErrorInvalidConfiguration: the device's shared memory is too small
template <int NS, int NV, int WARPS, int M, bool MULTI, int STAGED>
static cudaError_t pmkvq_launch_prefill(const pmkvq_op_attn & op, size_t shared, cudaStream_t stream) {
    using MEM = pmkvq_prefill_memory<NS, NV, WARPS, M, MULTI, STAGED>;
    static_assert(MEM::tile::PIECES*16 >= WARPS*8*(64*NV + 4)*4, "the output goes through a tile");
    static_assert(WARPS > 2, "three warps have tasks of their own");

    const int stages = MEM::bytes(2) <= shared ? 2 : 1;
    if (MEM::bytes(stages) > shared) {
        return cudaErrorInvalidConfiguration;
    }
    cudaError_t err = pmkvq_allow_shared(pmkvq_attn_prefill<NS, NV, WARPS, M, MULTI, STAGED>, MEM::bytes(stages));
    if (err != cudaSuccess) {
        return err;
    }
    const pmkvq_tiling tiling = pmkvq_tiling::of(16, op.n_tokens, op.n_head, op.n_head_kv);
    const dim3 grid((tiling.tiles + WARPS*M - 1)/(WARPS*M), op.n_head_kv, op.n_chunk*((op.head_dim_v + 64*NV - 1)/(64*NV)));
    PMKVQ_LAUNCH((pmkvq_attn_prefill<NS, NV, WARPS, M, MULTI, STAGED>), grid, dim3(32*WARPS), MEM::bytes(stages), stream, op, tiling, stages);
    return cudaGetLastError();
}

// as many rows as shared memory allows: with 128 dimensions and one group a Hopper and an A100 have 256, what has 99 KiB 128, a Turing 64
template <int NS, int NV, bool MULTI>
static cudaError_t pmkvq_launch_prefill(const pmkvq_op_attn & op, size_t shared, cudaStream_t stream) {
    if constexpr (NS <= 3) {
        const cudaError_t err = pmkvq_launch_prefill<NS, NV, 8, 2, MULTI, 4>(op, shared, stream);
        if (err != cudaErrorInvalidConfiguration) {
            return err;
        }
    }
    if constexpr (NS <= 2) {
        const cudaError_t err = pmkvq_launch_prefill<NS, NV, 8, 1, MULTI, 2>(op, shared, stream);
        if (err != cudaErrorInvalidConfiguration) {
            return err;
        }
    }
    return pmkvq_launch_prefill<NS, NV, 4, 1, MULTI, 0>(op, shared, stream);
}
