// Nodes become operations: what a node says is read and checked by pmkvq-nodes.h, as on the CPU.

#include "pmkvq-ggml.cuh"
#include "pmkvq-cuda.h"
#include "pmkvq-nodes.h"

#include "ggml-cuda.h"

#include <algorithm>
#include <memory>
#include <vector>

static pmkvq_cuda_shrink pmkvq_shrink_on_device(const pmkvq_op_shrink & op) {
    pmkvq_cuda_shrink res = {};
    res.ops         = op.ops;
    res.sides       = op.sides;
    res.n_ops       = op.n_ops;
    res.n_sides     = op.n_sides;
    res.n_head_kv   = op.n_head_kv;
    res.head_dim    = op.head_dim;
    res.n_pages     = op.n_pages;
    res.n_blocks    = op.n_blocks;
    res.pool        = op.pool;
    res.meta        = op.meta;
    res.table_bytes = op.table_bytes;
    res.done        = nullptr; // what follows in the stream runs after it, and nobody waits
    return res;
}

// Lists of what is seen (pmkvq-cuda.h) that there are in the graph that is being run or captured: the first attention that reads a mask
// makes them, in the cache's memory, the next ones find them made. A captured graph makes its own again each time that it is launched, in
// the same order
struct pmkvq_lists {
    struct entry {
        const void        * memory;
        const ggml_tensor * mask;
        pmkvq_op_attn op; // of the attention that made them

        bool suits(const ggml_tensor * m, const pmkvq_op_attn & o) const {
            return m == mask && o.n_tokens == op.n_tokens && o.n_kv == op.n_kv && o.n_head == op.n_head && o.n_head_kv == op.n_head_kv &&
                o.head_dim_k == op.head_dim_k && o.head_dim_v == op.head_dim_v && o.n_chunk == op.n_chunk && o.one_seq == op.one_seq;
        }
    };

    std::vector<entry> made;
};

void ggml_cuda_begin_pmkvq(ggml_backend_cuda_context & ctx) {
    if (ctx.pmkvq) {
        ((pmkvq_lists *) ctx.pmkvq.get())->made.clear();
    }
}

// NULL where there are none
static const void * pmkvq_seen_by(ggml_backend_cuda_context & ctx, const ggml_tensor * node, const pmkvq_op_attn & op) {
    const ggml_tensor * mask = node->src[1];
    const ggml_tensor * room = node->src[8];

    // branches of the graph that run side by side don't know of each other's
    if (!pmkvq_is_bytes(room) || ggml_nbytes(room) < pmkvq_cuda_seen_bytes(&op) || !pmkvq_cuda_seen_pays(&op) || ctx.curr_stream_no != 0) {
        return nullptr;
    }
    if (!ctx.pmkvq) {
        ctx.pmkvq = std::make_shared<pmkvq_lists>();
    }
    auto & made = ((pmkvq_lists *) ctx.pmkvq.get())->made;

    auto it = std::find_if(made.begin(), made.end(), [&](const pmkvq_lists::entry & e) { return e.memory == room->data; });
    if (it != made.end() && it->suits(mask, op)) {
        return room->data;
    }
    // others may have been there: what reads them comes before in the stream
    CUDA_CHECK((cudaError_t) pmkvq_cuda_op_seen(&op, room->data, ctx.stream()));
    if (it == made.end()) {
        made.push_back({ room->data, mask, op });
    } else {
        *it = { room->data, mask, op };
    }
    return room->data;
}

// 0, or a cudaError_t
static int pmkvq_run(ggml_backend_cuda_context & ctx, const ggml_tensor * dst, const pmkvq_op_params & params) {
    cudaStream_t stream = ctx.stream();

    switch (params.kind) {
        case PMKVQ_OP_STORE:
            {
                pmkvq_op_store op;
                return pmkvq_read_store(dst, params, op) ? pmkvq_cuda_op_store(&op, stream) : cudaErrorInvalidValue;
            }
        case PMKVQ_OP_ATTN:
            {
                pmkvq_op_attn op;
                return pmkvq_read_attn(dst, params, op) ? pmkvq_cuda_op_attn(&op, pmkvq_seen_by(ctx, dst, op), stream) : cudaErrorInvalidValue;
            }
        case PMKVQ_OP_MERGE:
            {
                pmkvq_op_merge op;
                return pmkvq_read_merge(dst, params, op) ? pmkvq_cuda_op_merge(&op, stream) : cudaErrorInvalidValue;
            }
        case PMKVQ_OP_TRANSFORM:
            {
                pmkvq_op_transform op;
                return pmkvq_read_transform(dst, op) ? pmkvq_cuda_op_transform(&op, stream) : cudaErrorInvalidValue;
            }
        case PMKVQ_OP_LOAD:
            {
                pmkvq_op_load op;
                return pmkvq_read_load(dst, params, op) ? pmkvq_cuda_op_load(&op, stream) : cudaErrorInvalidValue;
            }
        case PMKVQ_OP_SHRINK:
            {
                pmkvq_op_shrink op;
                if (!pmkvq_read_shrink(dst, params, op)) {
                    return cudaErrorInvalidValue;
                }
                if (op.n_ops == 0) {
                    return cudaSuccess;
                }
                const pmkvq_cuda_shrink shrink = pmkvq_shrink_on_device(op);
                return pmkvq_cuda_op_shrink(&shrink, stream);
            }
        default:
            return cudaErrorInvalidValue;
    }
}

void ggml_cuda_op_pmkvq(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    pmkvq_op_params params;
    GGML_ASSERT(pmkvq_get_params(dst, params) && "a custom node that is not ours");

    // a node can't report an error, and a wrong answer must not look right
    CUDA_CHECK((cudaError_t) pmkvq_run(ctx, dst, params));
}

// the next node that the backend computes, or cgraph->n_nodes
static int pmkvq_next(const ggml_cgraph * cgraph, int i) {
    for (++i; i < cgraph->n_nodes; ++i) {
        const ggml_tensor * t = cgraph->nodes[i];
        const bool no_op = ggml_is_empty(t) || t->op == GGML_OP_NONE || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_TRANSPOSE ||
            t->op == GGML_OP_VIEW || t->op == GGML_OP_PERMUTE;
        if (!no_op && (t->flags & GGML_TENSOR_FLAG_COMPUTE)) {
            break;
        }
    }
    return i;
}

static bool pmkvq_overlap(const ggml_tensor * a, const ggml_tensor * b) {
    const char * a0 = (const char *) a->data;
    const char * b0 = (const char *) b->data;
    return a0 < b0 + ggml_nbytes(b) && b0 < a0 + ggml_nbytes(a);
}

// K and V of a layer are stored in one launch, and the merge before them in the same one. Where nothing is computed between these nodes,
// what they read is there, and nobody reads the results of stores
int ggml_cuda_fuse_pmkvq(ggml_backend_cuda_context & ctx, const ggml_cgraph * cgraph, int i) {
    // branches of the graph that run side by side are in order only within their stream
    if (ctx.curr_stream_no != 0) {
        return 0;
    }
    pmkvq_op_params params;
    pmkvq_op_merge  merge;
    const bool merges = pmkvq_get_params(cgraph->nodes[i], params) && params.kind == PMKVQ_OP_MERGE && pmkvq_read_merge(cgraph->nodes[i], params, merge);

    pmkvq_op_store stores[2];
    int last = merges ? pmkvq_next(cgraph, i) : i;
    for (int n = 0; n < 2; ++n) {
        last = n > 0 ? pmkvq_next(cgraph, last) : last;
        if (last == cgraph->n_nodes) {
            return 0;
        }
        const ggml_tensor * node = cgraph->nodes[last];
        if (!pmkvq_get_params(node, params) || params.kind != PMKVQ_OP_STORE || !pmkvq_read_store(node, params, stores[n])) {
            return 0;
        }
        // what is read here must not be where the merge writes at the same time
        if (merges && (pmkvq_overlap(cgraph->nodes[i], node->src[0]) || pmkvq_overlap(cgraph->nodes[i], node->src[1]))) {
            return 0;
        }
    }
    // two of one side may store the same cell
    if (stores[0].side == stores[1].side || stores[0].table == stores[1].table) {
        return 0;
    }
    CUDA_CHECK((cudaError_t) (merges ? pmkvq_cuda_op_merge_stores(&merge, &stores[0], &stores[1], ctx.stream())
                                     : pmkvq_cuda_op_stores(&stores[0], &stores[1], ctx.stream())));
    return last - i;
}

// pool and meta are never copied to where a node happens to run
static bool pmkvq_is_on_device(const ggml_tensor * t, int device) {
    return t && t->buffer && ggml_backend_buffer_get_type(t->buffer) == ggml_backend_cuda_buffer_type(device);
}

// what is stored and shrunk is there to be attended to
static bool pmkvq_has_kernels(uint32_t n_head_kv, uint32_t head_dim, uint32_t group) {
    return pmkvq_cuda_supports_attn(n_head_kv, n_head_kv, head_dim, head_dim, group, group);
}

bool ggml_cuda_supports_pmkvq(int device, const ggml_tensor * op) {
    pmkvq_op_params params;
    // the kernels begin with Turing, and so must the code that this build has for the device
    if (!turing_mma_available(ggml_cuda_info().devices[device].cc) || !pmkvq_get_params(op, params)) {
        return false;
    }

    auto on_device = [&](int first, int last) {
        for (int i = first; i <= last; ++i) {
            if (!pmkvq_is_on_device(op->src[i], device)) {
                return false;
            }
        }
        return true;
    };

    switch (params.kind) {
        case PMKVQ_OP_STORE:
            {
                pmkvq_op_store o;
                return on_device(2, 3) && pmkvq_read_store(op, params, o) && pmkvq_has_kernels(o.n_head_kv, o.head_dim, o.group);
            }
        case PMKVQ_OP_ATTN:
            {
                pmkvq_op_attn o;
                return on_device(3, 5) && (!op->src[8] || on_device(8, 8)) && pmkvq_read_attn(op, params, o) &&
                    pmkvq_cuda_supports_attn(o.n_head, o.n_head_kv, o.head_dim_k, o.head_dim_v, o.group_k, o.group_v) &&
                    pmkvq_cuda_supports_pool(o.n_head_kv, o.head_dim_k, o.n_pages_k) && pmkvq_cuda_supports_pool(o.n_head_kv, o.head_dim_v, o.n_pages_v);
            }
        case PMKVQ_OP_MERGE:
            {
                pmkvq_op_merge o;
                return (!op->src[2] || on_device(2, 2)) && pmkvq_read_merge(op, params, o) && o.head_dim_v <= PMKVQ_MAX_TRANSFORM;
            }
        case PMKVQ_OP_TRANSFORM:
            {
                pmkvq_op_transform o;
                return (!op->src[3] || on_device(3, 3)) && pmkvq_read_transform(op, o) &&
                    std::all_of(std::begin(o.rows), std::end(o.rows), [](const pmkvq_transform_rows & r) { return r.head_dim <= PMKVQ_MAX_TRANSFORM; });
            }
        case PMKVQ_OP_LOAD:
            {
                pmkvq_op_load o;
                return on_device(1, 2) && pmkvq_read_load(op, params, o) && pmkvq_has_kernels(o.n_head_kv, o.head_dim, o.group);
            }
        case PMKVQ_OP_SHRINK:
            {
                pmkvq_op_shrink o;
                return on_device(0, 3) && pmkvq_read_shrink(op, params, o) && pmkvq_has_kernels(o.n_head_kv, o.head_dim, 0);
            }
        default:
            return false;
    }
}
