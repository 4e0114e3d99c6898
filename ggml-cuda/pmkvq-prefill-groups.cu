// pmkvq-prefill-groups.cu - kernels of pmkvq-prefill.cuh for rows of several groups, and head dimensions up to 256

#include "pmkvq-attn.cuh"
#include "pmkvq-prefill-launch.cuh"

int pmkvq_cuda_attn_prefill_groups(const pmkvq_op_attn & op, size_t shared, void * stream) {
    switch ((op.head_dim_k + 63)/64) {
        case 1:  return pmkvq_launch_prefill<1, 1, true>(op, shared, (cudaStream_t) stream);
        case 2:  return pmkvq_launch_prefill<2, 2, true>(op, shared, (cudaStream_t) stream);
        case 3:  return pmkvq_launch_prefill<3, 2, true>(op, shared, (cudaStream_t) stream);
        case 4:  return pmkvq_launch_prefill<4, 2, true>(op, shared, (cudaStream_t) stream);
        default: return cudaErrorInvalidConfiguration;
    }
}
