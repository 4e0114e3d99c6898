// pmkvq-decode.cu - kernels of pmkvq-decode.cuh for the usual case: one group a row, head dimensions of 64 and 128

#include "pmkvq-attn.cuh"
#include "pmkvq-decode.cuh"

int pmkvq_cuda_attn_decode(const pmkvq_op_attn & op, const void * seen, void * stream_) {
    cudaStream_t stream = (cudaStream_t) stream_;

    const bool one = (op.group_k == 0 || op.group_k == op.head_dim_k) && (op.group_v == 0 || op.group_v == op.head_dim_v);
    if (!one || op.head_dim_k != op.head_dim_v || (op.head_dim_k != 64 && op.head_dim_k != 128)) {
        return pmkvq_cuda_attn_decode_groups(op, seen, stream_);
    }
    if (pmkvq_decode_rows(op) == 4) {
        return op.head_dim_k == 64 ? pmkvq_launch_decode<1, 1, 1, false, true, 2, PMKVQ_DECODE_CTAS>(op, seen, stream)
                                   : pmkvq_launch_decode<2, 2, 1, false, true, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
    }
    return op.head_dim_k == 64 ? pmkvq_launch_decode<1, 1, 2, false, true, 2, PMKVQ_DECODE_CTAS>(op, seen, stream)
                               : pmkvq_launch_decode<2, 2, 2, false, true, 2, PMKVQ_DECODE_CTAS>(op, seen, stream);
}
