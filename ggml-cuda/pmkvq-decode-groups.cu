// pmkvq-decode-groups.cu - kernels of pmkvq-decode.cuh for all other head dimensions, and for rows of several groups

#include "pmkvq-decode.cuh"

int pmkvq_cuda_attn_decode_groups(const pmkvq_op_attn & op, void * stream);

template <int NS, int NV>
static int pmkvq_launch_groups(const pmkvq_op_attn & op, cudaStream_t stream) {
    return op.n_tokens*(op.n_head/op.n_head_kv) <= 8 ? pmkvq_launch_decode<NS, NV, 1, true, false, 2, 2>(op, stream)
                                                      : pmkvq_launch_decode<NS, NV, 2, true, false, 2, 2>(op, stream);
}

int pmkvq_cuda_attn_decode_groups(const pmkvq_op_attn & op, void * stream_) {
    cudaStream_t stream = (cudaStream_t) stream_;

    switch ((op.head_dim_k + 63)/64) {
        case 1:  return pmkvq_launch_groups<1, 1>(op, stream);
        case 2:  return pmkvq_launch_groups<2, 2>(op, stream);
        case 3:  return pmkvq_launch_groups<3, 2>(op, stream);
        case 4:  return pmkvq_launch_groups<4, 2>(op, stream);
        default: return pmkvq_launch_groups<9, 2>(op, stream);
    }
}
