// pmkvq-decode-groups.cu - kernels of pmkvq-decode.cuh for all other head dimensions, and for rows of several groups

#include "pmkvq-attn.cuh"
#include "pmkvq-decode.cuh"

int pmkvq_cuda_attn_decode_groups(const pmkvq_op_attn & op, const void * seen, void * stream_) {
    cudaStream_t stream = (cudaStream_t) stream_;

    const bool few = pmkvq_decode_rows(op) == 4;
    switch ((op.head_dim_k + 63)/64) {
        case 1:  return few ? pmkvq_launch_decode<1, 1, 1, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream)
                            : pmkvq_launch_decode<1, 1, 2, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
        case 2:  return few ? pmkvq_launch_decode<2, 2, 1, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream)
                            : pmkvq_launch_decode<2, 2, 2, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
        case 3:  return pmkvq_launch_decode<3, 2, 1, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
        case 4:  return pmkvq_launch_decode<4, 2, 1, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
        default: return pmkvq_launch_decode<9, 2, 1, true, false, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
    }
}
