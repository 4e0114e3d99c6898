#include "pmkvq-ops.h"
#include "pmkvq-nodes.h"

#include "llama-impl.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

static void pmkvq_compute(ggml_tensor * dst, int ith, int nth, void * userdata);

static ggml_tensor * pmkvq_node(
        ggml_context * ctx, pmkvq_shared * shared, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3, ggml_type type,
        std::vector<ggml_tensor *> srcs, const pmkvq_op_params & params) {
    ggml_tensor * res = ggml_custom_4d(ctx, type, ne0, ne1, ne2, ne3, srcs.data(), srcs.size(), pmkvq_compute, GGML_N_TASKS_MAX, shared);

    memcpy((char *) res->op_params + PMKVQ_PARAMS_OFFSET, &params, sizeof(params));

    return res;
}

// rows of floats without gaps, whatever the model's graph made of them
static ggml_tensor * pmkvq_rows_f32(ggml_context * ctx, ggml_tensor * cur) {
    if (cur->type != GGML_TYPE_F32) {
        return ggml_cast(ctx, cur, GGML_TYPE_F32);
    }
    if (cur->nb[0] != sizeof(float)) {
        return ggml_cont(ctx, cur);
    }
    return cur;
}

// of an operation on rows of one side
static pmkvq_op_params pmkvq_side_params(pmkvq_op_kind kind, pmkvq_side_ref ref, int side) {
    pmkvq_op_params params = {};
    params.magic    = PMKVQ_MAGIC;
    params.kind     = kind;
    params.n_chunk  = side;
    params.offset_k = ref.side.offset/64;
    params.table    = ref.cache.table_bytes/64;
    params.n_blocks = ref.cache.n_blocks;
    params.group_k  = ref.side.group;
    params.group_v  = ref.side.range;

    return params;
}

ggml_tensor * pmkvq_build_store(
        ggml_context * ctx,
        pmkvq_shared * shared,
         ggml_tensor * cur,
         ggml_tensor * idxs,
         ggml_tensor * pool,
         ggml_tensor * meta,
      pmkvq_side_ref   ref,
                 int   side) {
    const auto params = pmkvq_side_params(PMKVQ_OP_STORE, ref, side);

    return pmkvq_node(ctx, shared, 1, 1, 1, 1, GGML_TYPE_I32, { pmkvq_rows_f32(ctx, cur), idxs, pool, meta }, params);
}

ggml_tensor * pmkvq_build_load(
        ggml_context * ctx,
        pmkvq_shared * shared,
             int64_t   head_dim,
         ggml_tensor * idxs,
         ggml_tensor * pool,
         ggml_tensor * meta,
      pmkvq_side_ref   ref,
                 int   side) {
    const auto params = pmkvq_side_params(PMKVQ_OP_LOAD, ref, side);

    return pmkvq_node(ctx, shared, head_dim, pool->ne[2], idxs->ne[0], 1, GGML_TYPE_F32, { idxs, pool, meta }, params);
}

ggml_tensor * pmkvq_build_attn(
        ggml_context * ctx,
        pmkvq_shared * shared,
         ggml_tensor * q,
         ggml_tensor * k_cur,
         ggml_tensor * v_cur,
         ggml_tensor * kq_mask,
         ggml_tensor * idxs,
         ggml_tensor * pool_k,
         ggml_tensor * pool_v,
         ggml_tensor * meta,
         ggml_tensor * seen,
      pmkvq_side_ref   ref_k,
      pmkvq_side_ref   ref_v,
            uint32_t   rows_most,
             int64_t   head_dim_v,
               float   kq_scale,
               float   softcap,
               float   max_bias,
                bool   one_seq) {
    GGML_ASSERT(q->ne[3] == 1);
    GGML_ASSERT(kq_mask->type == GGML_TYPE_F16);
    GGML_ASSERT(kq_mask->ne[1] >= q->ne[2]);

    pmkvq_op_params params = {};
    params.magic    = PMKVQ_MAGIC;
    params.kind     = PMKVQ_OP_ATTN;
    params.n_chunk  = pmkvq_n_chunk(rows_most, q->ne[2], kq_mask->ne[0], q->ne[1], pool_k->ne[2]);
    params.offset_k = ref_k.side.offset/64;
    params.offset_v = ref_v.side.offset/64;
    params.table    = ref_k.cache.table_bytes/64;
    params.n_blocks = ref_k.cache.n_blocks;
    params.group_k  = ref_k.side.group;
    params.group_v  = ref_v.side.group;
    params.scale    = kq_scale;
    params.softcap  = softcap;
    params.max_bias = max_bias;
    params.one_seq  = one_seq;

    std::vector<ggml_tensor *> srcs = { pmkvq_rows_f32(ctx, q), kq_mask, idxs, pool_k, pool_v, meta, nullptr, nullptr, seen };
    if (k_cur && v_cur) {
        srcs[6] = pmkvq_rows_f32(ctx, k_cur);
        srcs[7] = pmkvq_rows_f32(ctx, v_cur);
    }

    return pmkvq_node(ctx, shared, head_dim_v + 2, q->ne[1], q->ne[2], params.n_chunk, GGML_TYPE_F32, srcs, params);
}

ggml_tensor * pmkvq_build_merge(
        ggml_context * ctx,
        pmkvq_shared * shared,
         ggml_tensor * partial,
         ggml_tensor * sinks,
         ggml_tensor * transforms,
  const pmkvq_rows_params & back,
             int64_t   n_head_kv) {
    pmkvq_op_params params = {};
    params.magic    = PMKVQ_MAGIC;
    params.kind     = PMKVQ_OP_MERGE;
    params.n_chunk  = partial->ne[3];
    params.n_blocks = n_head_kv;
    params.offset_k = back.center;
    params.offset_v = back.factor;
    params.group_k  = back.hadamard;

    const bool none = back.center == PMKVQ_NO_OFFSET && back.factor == PMKVQ_NO_OFFSET;

    std::vector<ggml_tensor *> srcs = { partial, sinks ? pmkvq_rows_f32(ctx, sinks) : nullptr, none ? nullptr : transforms };

    return pmkvq_node(ctx, shared, (partial->ne[0] - 2)*partial->ne[1], partial->ne[2], 1, 1, GGML_TYPE_F32, srcs, params);
}

ggml_tensor * pmkvq_build_transform(
                  ggml_context * ctx,
                  pmkvq_shared * shared,
                   ggml_tensor * (&rows)[3],
                   ggml_tensor * transforms,
       const pmkvq_rows_params (&params)[3],
                       int64_t   n_head_kv) {
    pmkvq_transform_params res = {};
    res.magic     = PMKVQ_MAGIC;
    res.kind      = PMKVQ_OP_TRANSFORM;
    res.n_head_kv = n_head_kv;

    std::vector<ggml_tensor *> srcs(4);
    srcs[3] = transforms;

    int64_t n = 0;

    for (int i = 0; i < 3; ++i) {
        res.center[i]   = params[i].center;
        res.factor[i]   = params[i].factor;
        res.hadamard[i] = params[i].hadamard;
        if (rows[i]) {
            srcs[i] = pmkvq_rows_f32(ctx, rows[i]);
            n += ggml_nelements(rows[i]);
        }
    }

    pmkvq_op_params raw = {};
    memcpy(&raw, &res, sizeof(res));

    ggml_tensor * node = pmkvq_node(ctx, shared, n, 1, 1, 1, GGML_TYPE_F32, srcs, raw);

    size_t offset = 0;

    for (auto *& x : rows) {
        if (x) {
            const size_t nb1 = x->ne[0]*sizeof(float);
            x = ggml_view_3d(ctx, node, x->ne[0], x->ne[1], x->ne[2], nb1, x->ne[1]*nb1, offset);
            offset += ggml_nbytes(x);
        }
    }

    return node;
}

ggml_tensor * pmkvq_build_shrink(
           ggml_context * ctx,
           pmkvq_shared * shared,
            ggml_tensor * pool,
            ggml_tensor * meta,
            ggml_tensor * ops,
            ggml_tensor * sides,
 const pmkvq_cache_desc & cache) {
    pmkvq_op_params params = {};
    params.magic    = PMKVQ_MAGIC;
    params.kind     = PMKVQ_OP_SHRINK;
    params.table    = cache.table_bytes/64;
    params.n_blocks = cache.n_blocks;

    return pmkvq_node(ctx, shared, ggml_nbytes(ops)/sizeof(pmkvq_block_op), 1, 1, 1, GGML_TYPE_I32, { pool, meta, ops, sides }, params);
}

void pmkvq_set_shrink(ggml_tensor * node, uint32_t n_ops) {
    pmkvq_op_params params;
    if (pmkvq_get_params(node, params)) {
        params.offset_k = n_ops;
        params.offset_v++;
        memcpy((char *) node->op_params + PMKVQ_PARAMS_OFFSET, &params, sizeof(params));
    }
}

//
// CPU
//

static void pmkvq_fill_nan(ggml_tensor * dst, int ith) {
    if (ith == 0) {
        float * data = (float *) dst->data;
        std::fill(data, data + ggml_nelements(dst), std::numeric_limits<float>::quiet_NaN());
    }
}

static void pmkvq_compute(ggml_tensor * dst, int ith, int nth, void * userdata) {
    auto * shared = (pmkvq_shared *) userdata;

    const auto * rt = pmkvq_get_runtime();

    int ret = -1;

    pmkvq_op_params params = {};
    if (rt && pmkvq_get_params(dst, params)) {
        switch (params.kind) {
            case PMKVQ_OP_STORE:
                {
                    pmkvq_op_store op;
                    ret = pmkvq_read_store(dst, params, op) ? rt->op_store(&op, ith, nth) : -1;
                } break;
            case PMKVQ_OP_ATTN:
                {
                    pmkvq_op_attn op;
                    if (pmkvq_read_attn(dst, params, op)) {
                        op.next_task = (uint32_t *) &shared->next_task;
                        ret = rt->op_attn(&op, ith, nth);
                    }
                } break;
            case PMKVQ_OP_MERGE:
                {
                    // all threads see the same here, since those that failed did so in an earlier node
                    if (shared->failed.load()) {
                        pmkvq_fill_nan(dst, ith);
                        return;
                    }
                    pmkvq_op_merge op;
                    ret = pmkvq_read_merge(dst, params, op) ? rt->op_merge(&op, ith, nth) : -1;
                } break;
            case PMKVQ_OP_LOAD:
                {
                    pmkvq_op_load op;
                    ret = pmkvq_read_load(dst, params, op) ? rt->op_load(&op, ith, nth) : -1;
                } break;
            case PMKVQ_OP_TRANSFORM:
                {
                    pmkvq_op_transform op;
                    ret = pmkvq_read_transform(dst, op) ? rt->op_transform(&op, ith, nth) : -1;
                } break;
            case PMKVQ_OP_SHRINK:
                {
                    pmkvq_op_shrink op;
                    ret = pmkvq_read_shrink(dst, params, op) ? rt->op_shrink(&op, ith, nth) : -1;
                } break;
        }
    }

    if (ret != 0) {
        // a node can't report an error. What must not happen is a wrong answer that looks right
        static std::atomic<bool> reported { false };
        if (!reported.exchange(true)) {
            LLAMA_LOG_ERROR("%s: operation %u of node '%s' failed (%d): its result is NaN\n", __func__, params.kind, dst->name, ret);
        }
        if (params.kind == PMKVQ_OP_MERGE || params.kind == PMKVQ_OP_TRANSFORM) {
            pmkvq_fill_nan(dst, ith);
        }
        shared->failed.store(true);
    }
}
