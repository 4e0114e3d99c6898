#include "pmkvq-ops.h"
#include "pmkvq-store.h"

#include "llama-impl.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

static constexpr uint32_t PMKVQ_MAGIC = 0x51564b50; // "PKVQ"

// of ggml_custom_op_params (ggml-impl.h), which come first in op_params
static constexpr size_t PMKVQ_PARAMS_OFFSET = 24;

enum pmkvq_op_kind : uint16_t {
    PMKVQ_OP_STORE,
    PMKVQ_OP_ATTN,
    PMKVQ_OP_MERGE,
};

// behind ggml_custom_op_params; offsets in the meta buffer are in units of 64 bytes
struct pmkvq_op_params {
    uint32_t magic;
    uint16_t kind;
    uint16_t n_chunk; // store: 0 for K, 1 for V
    uint32_t offset_k;
    uint32_t offset_v;
    uint32_t table;
    uint32_t n_blocks;
    uint16_t group_k;
    uint16_t group_v; // store: what the step to 2 bits does with ranges
    float    scale;
    float    softcap;
    float    max_bias;
};

static_assert(PMKVQ_PARAMS_OFFSET >= 2*sizeof(void *) + sizeof(int) && PMKVQ_PARAMS_OFFSET + sizeof(pmkvq_op_params) <= GGML_MAX_OP_PARAMS, "op_params are full");

static void pmkvq_compute(ggml_tensor * dst, int ith, int nth, void * userdata);

static ggml_tensor * pmkvq_node(
        ggml_context * ctx, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3, ggml_type type,
        std::vector<ggml_tensor *> srcs, const pmkvq_op_params & params) {
    ggml_tensor * res = ggml_custom_4d(ctx, type, ne0, ne1, ne2, ne3, srcs.data(), srcs.size(), pmkvq_compute, GGML_N_TASKS_MAX, nullptr);

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

ggml_tensor * pmkvq_build_store(
        ggml_context * ctx,
         ggml_tensor * cur,
         ggml_tensor * idxs,
         ggml_tensor * pool,
         ggml_tensor * meta,
      pmkvq_side_ref   ref,
                 int   side) {
    pmkvq_op_params params = {};
    params.magic    = PMKVQ_MAGIC;
    params.kind     = PMKVQ_OP_STORE;
    params.n_chunk  = side;
    params.offset_k = ref.side.offset/64;
    params.table    = ref.cache.table_bytes/64;
    params.n_blocks = ref.cache.n_blocks;
    params.group_k  = ref.side.group;
    params.group_v  = ref.side.range;

    return pmkvq_node(ctx, 1, 1, 1, 1, GGML_TYPE_I32, { pmkvq_rows_f32(ctx, cur), idxs, pool, meta }, params);
}

ggml_tensor * pmkvq_build_attn(
        ggml_context * ctx,
         ggml_tensor * q,
         ggml_tensor * k_cur,
         ggml_tensor * v_cur,
         ggml_tensor * kq_mask,
         ggml_tensor * idxs,
         ggml_tensor * pool_k,
         ggml_tensor * pool_v,
         ggml_tensor * meta,
      pmkvq_side_ref   ref_k,
      pmkvq_side_ref   ref_v,
             int64_t   head_dim_v,
               float   kq_scale,
               float   softcap,
               float   max_bias) {
    GGML_ASSERT(q->ne[3] == 1);
    GGML_ASSERT(kq_mask->type == GGML_TYPE_F16);
    GGML_ASSERT(kq_mask->ne[1] >= q->ne[2]);

    pmkvq_op_params params = {};
    params.magic    = PMKVQ_MAGIC;
    params.kind     = PMKVQ_OP_ATTN;
    params.n_chunk  = pmkvq_n_chunk(q->ne[2], kq_mask->ne[0]);
    params.offset_k = ref_k.side.offset/64;
    params.offset_v = ref_v.side.offset/64;
    params.table    = ref_k.cache.table_bytes/64;
    params.n_blocks = ref_k.cache.n_blocks;
    params.group_k  = ref_k.side.group;
    params.group_v  = ref_v.side.group;
    params.scale    = kq_scale;
    params.softcap  = softcap;
    params.max_bias = max_bias;

    std::vector<ggml_tensor *> srcs = { pmkvq_rows_f32(ctx, q), kq_mask, idxs, pool_k, pool_v, meta };
    if (k_cur && v_cur) {
        srcs.push_back(pmkvq_rows_f32(ctx, k_cur));
        srcs.push_back(pmkvq_rows_f32(ctx, v_cur));
    }

    return pmkvq_node(ctx, head_dim_v + 2, q->ne[1], q->ne[2], params.n_chunk, GGML_TYPE_F32, srcs, params);
}

ggml_tensor * pmkvq_build_merge(
        ggml_context * ctx,
         ggml_tensor * partial,
         ggml_tensor * sinks) {
    pmkvq_op_params params = {};
    params.magic   = PMKVQ_MAGIC;
    params.kind    = PMKVQ_OP_MERGE;
    params.n_chunk = partial->ne[3];

    std::vector<ggml_tensor *> srcs = { partial };
    if (sinks) {
        srcs.push_back(pmkvq_rows_f32(ctx, sinks));
    }

    return pmkvq_node(ctx, (partial->ne[0] - 2)*partial->ne[1], partial->ne[2], 1, 1, GGML_TYPE_F32, srcs, params);
}

//
// CPU
//

static int pmkvq_compute_store(const pmkvq_runtime & rt, const pmkvq_op_params & params, ggml_tensor * dst, int ith, int nth) {
    const ggml_tensor * x    = dst->src[0];
    const ggml_tensor * idxs = dst->src[1];
    const ggml_tensor * pool = dst->src[2];
    const ggml_tensor * meta = dst->src[3];

    uint8_t * table = (uint8_t *) meta->data + 64*(size_t) params.offset_k;

    const pmkvq_op_store op = {
        /*.x          =*/ (const float *) x->data,
        /*.x_nb_head  =*/ x->nb[1],
        /*.x_nb_token =*/ x->nb[2],
        /*.cells      =*/ (const int64_t *) idxs->data,
        /*.n_tokens   =*/ (uint32_t) x->ne[2],
        /*.n_head_kv  =*/ (uint32_t) x->ne[1],
        /*.head_dim   =*/ (uint32_t) x->ne[0],
        /*.group      =*/ params.group_k,
        /*.range      =*/ params.group_v,
        /*.n_pages    =*/ (uint32_t) pool->ne[1],
        /*.n_blocks   =*/ params.n_blocks,
        /*.side       =*/ params.n_chunk,
        /*.pool       =*/ (uint8_t *) pool->data,
        /*.table      =*/ (const pmkvq_block *) table,
        /*.params     =*/ (uint16_t *) (table + 64*(size_t) params.table),
    };

    return rt.op_store(&op, ith, nth);
}

static int pmkvq_compute_attn(const pmkvq_runtime & rt, const pmkvq_op_params & params, ggml_tensor * dst, int ith, int nth) {
    const ggml_tensor * q      = dst->src[0];
    const ggml_tensor * mask   = dst->src[1];
    const ggml_tensor * idxs   = dst->src[2];
    const ggml_tensor * pool_k = dst->src[3];
    const ggml_tensor * pool_v = dst->src[4];
    const ggml_tensor * meta   = dst->src[5];
    const ggml_tensor * k_cur  = dst->src[6];
    const ggml_tensor * v_cur  = dst->src[7];

    const uint8_t * table_k = (const uint8_t *) meta->data + 64*(size_t) params.offset_k;
    const uint8_t * table_v = (const uint8_t *) meta->data + 64*(size_t) params.offset_v;

    const pmkvq_op_attn op = {
        /*.q             =*/ (const float *) q->data,
        /*.q_nb_head     =*/ q->nb[1],
        /*.q_nb_token    =*/ q->nb[2],
        /*.k_cur         =*/ k_cur ? (const float *) k_cur->data : nullptr,
        /*.k_nb_head     =*/ k_cur ? k_cur->nb[1] : 0,
        /*.k_nb_token    =*/ k_cur ? k_cur->nb[2] : 0,
        /*.v_cur         =*/ v_cur ? (const float *) v_cur->data : nullptr,
        /*.v_nb_head     =*/ v_cur ? v_cur->nb[1] : 0,
        /*.v_nb_token    =*/ v_cur ? v_cur->nb[2] : 0,
        /*.mask          =*/ (const uint16_t *) mask->data,
        /*.mask_nb_token =*/ mask->nb[1],
        /*.cells         =*/ (const int64_t *) idxs->data,
        /*.n_tokens      =*/ (uint32_t) q->ne[2],
        /*.n_kv          =*/ (uint32_t) mask->ne[0],
        /*.n_head        =*/ (uint32_t) q->ne[1],
        /*.n_head_kv     =*/ (uint32_t) pool_k->ne[2],
        /*.head_dim_k    =*/ (uint32_t) q->ne[0],
        /*.head_dim_v    =*/ (uint32_t) dst->ne[0] - 2,
        /*.group_k       =*/ params.group_k,
        /*.group_v       =*/ params.group_v,
        /*.n_blocks      =*/ params.n_blocks,
        /*.n_chunk       =*/ params.n_chunk,
        /*.scale         =*/ params.scale,
        /*.softcap       =*/ params.softcap,
        /*.max_bias      =*/ params.max_bias,
        /*.pool_k        =*/ (const uint8_t *) pool_k->data,
        /*.pool_v        =*/ (const uint8_t *) pool_v->data,
        /*.n_pages_k     =*/ (uint32_t) pool_k->ne[1],
        /*.n_pages_v     =*/ (uint32_t) pool_v->ne[1],
        /*.table_k       =*/ (const pmkvq_block *) table_k,
        /*.table_v       =*/ (const pmkvq_block *) table_v,
        /*.params_k      =*/ (const uint16_t *) (table_k + 64*(size_t) params.table),
        /*.params_v      =*/ (const uint16_t *) (table_v + 64*(size_t) params.table),
        /*.dst           =*/ (float *) dst->data,
    };

    return rt.op_attn(&op, ith, nth);
}

static int pmkvq_compute_merge(const pmkvq_runtime & rt, const pmkvq_op_params & params, ggml_tensor * dst, int ith, int nth) {
    const ggml_tensor * partial = dst->src[0];
    const ggml_tensor * sinks   = dst->src[1];

    const pmkvq_op_merge op = {
        /*.partial    =*/ (const float *) partial->data,
        /*.sinks      =*/ sinks ? (const float *) sinks->data : nullptr,
        /*.n_tokens   =*/ (uint32_t) partial->ne[2],
        /*.n_head     =*/ (uint32_t) partial->ne[1],
        /*.head_dim_v =*/ (uint32_t) partial->ne[0] - 2,
        /*.n_chunk    =*/ params.n_chunk,
        /*.dst        =*/ (float *) dst->data,
    };

    return rt.op_merge(&op, ith, nth);
}

static void pmkvq_compute(ggml_tensor * dst, int ith, int nth, void * userdata) {
    GGML_UNUSED(userdata);

    pmkvq_op_params params;
    memcpy(&params, (const char *) dst->op_params + PMKVQ_PARAMS_OFFSET, sizeof(params));

    const auto * rt = pmkvq_get_runtime();

    int ret = -1;

    if (rt && params.magic == PMKVQ_MAGIC) {
        switch (params.kind) {
            case PMKVQ_OP_STORE: ret = pmkvq_compute_store(*rt, params, dst, ith, nth); break;
            case PMKVQ_OP_ATTN:  ret = pmkvq_compute_attn (*rt, params, dst, ith, nth); break;
            case PMKVQ_OP_MERGE: ret = pmkvq_compute_merge(*rt, params, dst, ith, nth); break;
        }
    }

    if (ret != 0) {
        // a node can't report an error. What must not happen is a wrong answer that looks right
        static std::atomic<bool> reported { false };
        if (!reported.exchange(true)) {
            LLAMA_LOG_ERROR("%s: operation %u of node '%s' failed (%d): its result is NaN\n", __func__, params.kind, dst->name, ret);
        }
        if (ith == 0 && dst->type == GGML_TYPE_F32) {
            float * data = (float *) dst->data;
            std::fill(data, data + ggml_nelements(dst), std::numeric_limits<float>::quiet_NaN());
        }
    }
}
