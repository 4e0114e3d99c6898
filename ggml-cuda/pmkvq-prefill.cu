// pmkvq-prefill.cu - kernels of pmkvq-prefill.cuh for one group a row

#include "pmkvq-attn.cuh"
#include "pmkvq-prefill-launch.cuh"

int pmkvq_cuda_attn_prefill(const pmkvq_op_attn & op, size_t shared, void * stream) {
    const bool one = (op.group_k == 0 || op.group_k == op.head_dim_k) && (op.group_v == 0 || op.group_v == op.head_dim_v);
    if (!one || op.head_dim_k > 128) {
        return pmkvq_cuda_attn_prefill_groups(op, shared, stream);
    }
    return op.head_dim_k <= 64 ? pmkvq_launch_prefill<1, 1, false>(op, shared, (cudaStream_t) stream)
                               : pmkvq_launch_prefill<2, 2, false>(op, shared, (cudaStream_t) stream);
}
