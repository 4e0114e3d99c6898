// pmkvq-attn-decode.cu - kernels of pmkvq-attn-decode.cuh for the usual case, one group a row: head dimensions up to 128

#include "pmkvq-attn-decode.cuh"

int pmkvq_cuda_attn_decode_groups(const pmkvq_op_attn & op, void * stream);
int pmkvq_cuda_attn_decode(const pmkvq_op_attn & op, void * stream);

int pmkvq_cuda_attn_decode(const pmkvq_op_attn & op, void * stream_) {
    cudaStream_t stream = (cudaStream_t) stream_;

    const bool one = (op.group_k == 0 || op.group_k == op.head_dim_k) && (op.group_v == 0 || op.group_v == op.head_dim_v);
    if (!one || op.head_dim_k > 128) {
        return pmkvq_cuda_attn_decode_groups(op, stream_);
    }

    const pmkvq_tiling tiling = pmkvq_tiling::of(op.n_tokens, op.n_head, op.n_head_kv);

    // rows 8 to 15 of every tile are empty
    const bool half = tiling.ratio <= PMKVQ_ROWS && min(tiling.tokens, (int) op.n_tokens)*tiling.ratio <= 8;

    if (op.head_dim_k <= 64) {
        return half ? pmkvq_launch_decode<1, 1, true, false>(op, stream) : pmkvq_launch_decode<1, 1, false, false>(op, stream);
    }
    return half ? pmkvq_launch_decode<2, 2, true, false>(op, stream) : pmkvq_launch_decode<2, 2, false, false>(op, stream);
}
