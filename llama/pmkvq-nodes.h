// pmkvq-nodes.h - what a graph node of the progressive cache says, for every backend that runs it
//
// The nodes are GGML_OP_CUSTOM with a magic number and their parameters in op_params, behind what the CPU backend keeps there.
// Our parameters hold no pointers. pmkvq_read_*() turns a node into the operation that it stands for and checks it as it would a
// stranger's: no operation that it lets through reaches beyond the tensors that the node names, as far as shapes tell. Page
// numbers and cells are data, which kernels check. Tensors need not be allocated yet: supports_op() asks the same functions.

#pragma once

#include "pmkvq.h"
#include "pmkvq-chunks.h"

#include "ggml.h"

#include <cstdint>
#include <cstring>

static constexpr uint32_t PMKVQ_MAGIC = 0x51564b50; // "PKVQ"

// of ggml_custom_op_params (ggml-impl.h), which come first in op_params
static constexpr size_t PMKVQ_PARAMS_OFFSET = 24;

// there is no such part
static constexpr uint32_t PMKVQ_NO_OFFSET = UINT32_MAX;

enum pmkvq_op_kind : uint8_t {
    PMKVQ_OP_STORE,
    PMKVQ_OP_ATTN,
    PMKVQ_OP_MERGE,
    PMKVQ_OP_SHRINK,
    PMKVQ_OP_LOAD,
    PMKVQ_OP_TRANSFORM,
};

// behind ggml_custom_op_params; offsets in the meta buffer are in units of 64 bytes
struct pmkvq_op_params {
    uint32_t magic;
    uint8_t  kind;
    uint8_t  one_seq;  // attention: the tokens are of one sequence
    uint16_t n_chunk;  // store, load: 0 for K, 1 for V
    uint32_t offset_k; // shrink: the number of operations; merge: of the center in the transforms
    uint32_t offset_v; // shrink: counts the calls, so that no two are alike and none is worth capturing; merge: of the factor
    uint32_t table;
    uint32_t n_blocks; // merge: KV heads
    uint16_t group_k;  // merge: rows of the Hadamard matrix
    uint16_t group_v;  // store: what the step to 2 bits does with ranges
    float    scale;
    float    softcap;
    float    max_bias;
};

// of rows that are transformed; offsets in the transforms are in units of 64 bytes
struct pmkvq_rows_params {
    uint32_t center   = PMKVQ_NO_OFFSET;
    uint32_t factor   = PMKVQ_NO_OFFSET;
    uint16_t hadamard = 0;

    bool none() const { return center == PMKVQ_NO_OFFSET && factor == PMKVQ_NO_OFFSET && hadamard == 0; }
};

// in place of pmkvq_op_params: queries, K, V
struct pmkvq_transform_params {
    uint32_t magic;
    uint8_t  kind;
    uint8_t  unused;
    uint16_t n_head_kv;
    uint32_t center[3];
    uint32_t factor[3];
    uint16_t hadamard[3];
};

static_assert(sizeof(pmkvq_transform_params) <= sizeof(pmkvq_op_params), "a node's kind is read as that of the others");
static_assert(PMKVQ_PARAMS_OFFSET >= 2*sizeof(void *) + sizeof(int) && PMKVQ_PARAMS_OFFSET + sizeof(pmkvq_op_params) <= GGML_MAX_OP_PARAMS, "op_params are full");

// whether the node is one of ours
static inline bool pmkvq_get_params(const ggml_tensor * node, pmkvq_op_params & params) {
    if (node->op != GGML_OP_CUSTOM) {
        return false;
    }
    memcpy(&params, (const char *) node->op_params + PMKVQ_PARAMS_OFFSET, sizeof(params));
    return params.magic == PMKVQ_MAGIC;
}

// the parts that the visible cells are split into for n_tokens queries. rows_most: see pmkvq-chunks.h, 0 on the CPU
static inline uint32_t pmkvq_n_chunk(uint32_t rows_most, int64_t n_tokens, int64_t n_kv, int64_t n_head, int64_t n_head_kv) {
    auto clamp = [](int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; };

    if (rows_most == 0) {
        // a few queries: enough parts for all threads. Many queries: they are work enough
        return n_tokens > 8 ? 1 : clamp((n_kv + 1023)/1024, 1, 16);
    }

    // about 132 multiprocessors: the number of parts does not depend on which GPU there is
    return pmkvq_n_chunk_gpu(132, rows_most, n_tokens, n_kv, n_head, n_head_kv);
}

//
// checks
//

static inline bool pmkvq_is_bytes(const ggml_tensor * t) {
    return t && t->type == GGML_TYPE_I8 && ggml_is_contiguous(t);
}

// [head_dim, n_head, n_tokens] f32 without gaps in rows
static inline bool pmkvq_is_rows(const ggml_tensor * t) {
    return t && t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float) && t->ne[3] == 1 && ggml_nelements(t) > 0 &&
        t->nb[1] % sizeof(float) == 0 && t->nb[2] % sizeof(float) == 0 && t->ne[2] <= INT32_MAX;
}

// a pool whose pages suit n_head_kv heads of head_dim values
static inline bool pmkvq_is_pool(const ggml_tensor * t, int64_t head_dim, int64_t n_head_kv) {
    return pmkvq_is_bytes(t) && t->ne[0] == 32*head_dim && t->ne[2] == n_head_kv && t->ne[3] == 1 && t->ne[1] <= INT32_MAX;
}

// a cell for each of n_tokens
static inline bool pmkvq_is_cells(const ggml_tensor * t, int64_t n_tokens) {
    return t && t->type == GGML_TYPE_I64 && ggml_is_contiguous(t) && ggml_nelements(t) >= n_tokens;
}

// meta holds a side's table and parameters
static inline bool pmkvq_has_side(const ggml_tensor * meta, const pmkvq_op_params & params, uint32_t offset, int64_t n_head_kv, int64_t head_dim, uint32_t group) {
    if (!pmkvq_is_bytes(meta) || params.n_blocks == 0 || params.n_blocks > INT32_MAX/PMKVQ_BLOCK ||
            64*(uint64_t) params.table < params.n_blocks*(uint64_t) sizeof(pmkvq_block) || (group != 0 && head_dim % group != 0)) {
        return false;
    }
    // (min, max) of each group and cell, two bytes each
    const uint64_t row = group == 0 ? 0 : 2*2*PMKVQ_BLOCK*(uint64_t) (head_dim/group);

    // heads and dimensions are bounded by a pool that exists, so that nothing overflows
    return 64*(uint64_t) offset + 64*(uint64_t) params.table + row*n_head_kv*params.n_blocks <= (uint64_t) ggml_nbytes(meta);
}

// n_head_kv rows of head_dim values at an offset in the transforms, or none
static inline bool pmkvq_has_values(const ggml_tensor * transforms, uint32_t offset, int64_t n_head_kv, int64_t head_dim, const float *& values) {
    values = nullptr;
    if (offset == PMKVQ_NO_OFFSET) {
        return true;
    }
    if (!transforms || transforms->type != GGML_TYPE_F32 || !ggml_is_contiguous(transforms) ||
            64*(uint64_t) offset + sizeof(float)*(uint64_t) n_head_kv*head_dim > (uint64_t) ggml_nbytes(transforms)) {
        return false;
    }
    values = (const float *) ((const char *) transforms->data + 64*(size_t) offset);
    return true;
}

static inline bool pmkvq_read_row_transform(
        const ggml_tensor * transforms, const pmkvq_rows_params & params, int64_t n_head, int64_t n_head_kv, int64_t head_dim, pmkvq_row_transform & res) {
    const uint32_t n = params.hadamard;

    // heads and dimensions are those of tensors, so that nothing overflows
    res.hadamard = n;
    return n_head_kv > 0 && n_head_kv <= UINT16_MAX && n_head % n_head_kv == 0 && head_dim <= INT32_MAX && (n & (n - 1)) == 0 && (n == 0 || head_dim % n == 0) &&
        pmkvq_has_values(transforms, params.center, n_head_kv, head_dim, res.center) &&
        pmkvq_has_values(transforms, params.factor, n_head_kv, head_dim, res.factor);
}

//
// nodes
//

// cur, cells, pool, meta
static inline bool pmkvq_read_store(const ggml_tensor * node, const pmkvq_op_params & params, pmkvq_op_store & op) {
    const ggml_tensor * x     = node->src[0];
    const ggml_tensor * cells = node->src[1];
    const ggml_tensor * pool  = node->src[2];
    const ggml_tensor * meta  = node->src[3];

    if (!pmkvq_is_rows(x) || !pmkvq_is_cells(cells, x->ne[2]) || !pmkvq_is_pool(pool, x->ne[0], x->ne[1]) ||
            !pmkvq_has_side(meta, params, params.offset_k, x->ne[1], x->ne[0], params.group_k) || params.n_chunk > 1 || params.group_v > 1) {
        return false;
    }

    uint8_t * table = (uint8_t *) meta->data + 64*(size_t) params.offset_k;

    op = {
        /*.x          =*/ (const float *) x->data,
        /*.x_nb_head  =*/ x->nb[1],
        /*.x_nb_token =*/ x->nb[2],
        /*.cells      =*/ (const int64_t *) cells->data,
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
    return true;
}

// q, mask, cells, pool of K, pool of V, meta, K and V of the current batch or neither, and on devices memory for lists of what is seen
static inline bool pmkvq_read_attn(const ggml_tensor * node, const pmkvq_op_params & params, pmkvq_op_attn & op) {
    const ggml_tensor * q      = node->src[0];
    const ggml_tensor * mask   = node->src[1];
    const ggml_tensor * cells  = node->src[2];
    const ggml_tensor * pool_k = node->src[3];
    const ggml_tensor * pool_v = node->src[4];
    const ggml_tensor * meta   = node->src[5];
    const ggml_tensor * k_cur  = node->src[6];
    const ggml_tensor * v_cur  = node->src[7];

    if (!pmkvq_is_rows(q) || !pool_k || !pool_v) {
        return false;
    }

    const int64_t n_tokens   = q->ne[2];
    const int64_t n_head     = q->ne[1];
    const int64_t head_dim_k = q->ne[0];
    const int64_t head_dim_v = node->ne[0] - 2;
    const int64_t n_head_kv  = pool_k->ne[2];

    if (n_head_kv <= 0 || n_head % n_head_kv != 0 || head_dim_v <= 0 ||
            !pmkvq_is_pool(pool_k, head_dim_k, n_head_kv) || !pmkvq_is_pool(pool_v, head_dim_v, n_head_kv) || !pmkvq_is_cells(cells, n_tokens) ||
            !pmkvq_has_side(meta, params, params.offset_k, n_head_kv, head_dim_k, params.group_k) ||
            !pmkvq_has_side(meta, params, params.offset_v, n_head_kv, head_dim_v, params.group_v)) {
        return false;
    }
    if (!mask || mask->type != GGML_TYPE_F16 || mask->nb[0] != 2 || mask->nb[1] % 2 != 0 || mask->ne[1] < n_tokens || mask->ne[0] <= 0 ||
            mask->ne[0] > (int64_t) params.n_blocks*PMKVQ_BLOCK) {
        return false;
    }
    if (node->type != GGML_TYPE_F32 || !ggml_is_contiguous(node) || node->ne[1] != n_head || node->ne[2] != n_tokens ||
            params.n_chunk == 0 || node->ne[3] != params.n_chunk) {
        return false;
    }
    if (!k_cur != !v_cur) {
        return false;
    }
    if (k_cur && (!pmkvq_is_rows(k_cur) || k_cur->ne[0] != head_dim_k || k_cur->ne[1] != n_head_kv || k_cur->ne[2] != n_tokens ||
                  !pmkvq_is_rows(v_cur) || v_cur->ne[0] != head_dim_v || v_cur->ne[1] != n_head_kv || v_cur->ne[2] != n_tokens)) {
        return false;
    }

    const uint8_t * table_k = (const uint8_t *) meta->data + 64*(size_t) params.offset_k;
    const uint8_t * table_v = (const uint8_t *) meta->data + 64*(size_t) params.offset_v;

    op = {
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
        /*.cells         =*/ (const int64_t *) cells->data,
        /*.n_tokens      =*/ (uint32_t) n_tokens,
        /*.n_kv          =*/ (uint32_t) mask->ne[0],
        /*.n_head        =*/ (uint32_t) n_head,
        /*.n_head_kv     =*/ (uint32_t) n_head_kv,
        /*.head_dim_k    =*/ (uint32_t) head_dim_k,
        /*.head_dim_v    =*/ (uint32_t) head_dim_v,
        /*.group_k       =*/ params.group_k,
        /*.group_v       =*/ params.group_v,
        /*.n_blocks      =*/ params.n_blocks,
        /*.n_chunk       =*/ params.n_chunk,
        /*.scale         =*/ params.scale,
        /*.softcap       =*/ params.softcap,
        /*.max_bias      =*/ params.max_bias,
        /*.one_seq       =*/ params.one_seq,
        /*.pool_k        =*/ (const uint8_t *) pool_k->data,
        /*.pool_v        =*/ (const uint8_t *) pool_v->data,
        /*.n_pages_k     =*/ (uint32_t) pool_k->ne[1],
        /*.n_pages_v     =*/ (uint32_t) pool_v->ne[1],
        /*.table_k       =*/ (const pmkvq_block *) table_k,
        /*.table_v       =*/ (const pmkvq_block *) table_v,
        /*.params_k      =*/ (const uint16_t *) (table_k + 64*(size_t) params.table),
        /*.params_v      =*/ (const uint16_t *) (table_v + 64*(size_t) params.table),
        /*.dst           =*/ (float *) node->data,
        /*.next_task     =*/ nullptr,
    };
    return true;
}

// q, K, V, each there or not, and the transforms. The node's data are the rows of the first, then those of the second, then those of the third
static inline bool pmkvq_read_transform(const ggml_tensor * node, pmkvq_op_transform & op) {
    pmkvq_transform_params params;
    memcpy(&params, (const char *) node->op_params + PMKVQ_PARAMS_OFFSET, sizeof(params));

    if (node->type != GGML_TYPE_F32 || !ggml_is_contiguous(node)) {
        return false;
    }

    op = {};
    op.n_head_kv = params.n_head_kv;

    float * dst = (float *) node->data;
    int64_t n   = 0;

    for (int i = 0; i < 3; ++i) {
        const ggml_tensor * x = node->src[i];
        if (!x) {
            continue;
        }
        auto & rows = op.rows[i];

        if (!pmkvq_is_rows(x) || (n > 0 && x->ne[2] != op.n_tokens) || x->ne[1] > INT32_MAX ||
                !pmkvq_read_row_transform(node->src[3], { params.center[i], params.factor[i], params.hadamard[i] }, x->ne[1], params.n_head_kv, x->ne[0], rows.of)) {
            return false;
        }
        rows.x          = (const float *) x->data;
        rows.x_nb_head  = x->nb[1];
        rows.x_nb_token = x->nb[2];
        rows.n_head     = (uint32_t) x->ne[1];
        rows.head_dim   = (uint32_t) x->ne[0];
        rows.dst        = dst ? dst + n : nullptr;

        op.n_tokens = (uint32_t) x->ne[2];
        n += ggml_nelements(x);
    }

    return n > 0 && n == ggml_nelements(node);
}

// partial results, sinks or not, and the transforms or not
static inline bool pmkvq_read_merge(const ggml_tensor * node, const pmkvq_op_params & params, pmkvq_op_merge & op) {
    const ggml_tensor * partial = node->src[0];
    const ggml_tensor * sinks   = node->src[1];

    pmkvq_row_transform back;

    if (!partial || partial->type != GGML_TYPE_F32 || !ggml_is_contiguous(partial) || partial->ne[0] <= 2 || ggml_nelements(partial) <= 0 ||
            params.n_chunk == 0 || partial->ne[3] != params.n_chunk) {
        return false;
    }
    if (node->type != GGML_TYPE_F32 || !ggml_is_contiguous(node) || ggml_nelements(node) != (partial->ne[0] - 2)*partial->ne[1]*partial->ne[2]) {
        return false;
    }
    if (!pmkvq_read_row_transform(node->src[2], { params.offset_k, params.offset_v, params.group_k }, partial->ne[1], params.n_blocks, partial->ne[0] - 2, back)) {
        return false;
    }
    if (sinks && (sinks->type != GGML_TYPE_F32 || sinks->nb[0] != sizeof(float) || sinks->ne[0] < partial->ne[1])) {
        return false;
    }

    op = {
        /*.partial    =*/ (const float *) partial->data,
        /*.sinks      =*/ sinks ? (const float *) sinks->data : nullptr,
        /*.n_tokens   =*/ (uint32_t) partial->ne[2],
        /*.n_head     =*/ (uint32_t) partial->ne[1],
        /*.head_dim_v =*/ (uint32_t) partial->ne[0] - 2,
        /*.n_chunk    =*/ params.n_chunk,
        /*.n_head_kv  =*/ params.n_blocks,
        /*.back       =*/ back,
        /*.dst        =*/ (float *) node->data,
    };
    return true;
}

// pool, meta, operations, sides. The node's own data are the counts of heads that were converted
static inline bool pmkvq_read_shrink(const ggml_tensor * node, const pmkvq_op_params & params, pmkvq_op_shrink & op) {
    const ggml_tensor * pool  = node->src[0];
    const ggml_tensor * meta  = node->src[1];
    const ggml_tensor * ops   = node->src[2];
    const ggml_tensor * sides = node->src[3];

    if (!pmkvq_is_bytes(pool) || pool->ne[0] <= 0 || pool->ne[0] % 32 != 0 || !pmkvq_is_pool(pool, pool->ne[0]/32, pool->ne[2]) ||
            !pmkvq_is_bytes(ops) || !pmkvq_is_bytes(sides) || node->type != GGML_TYPE_I32 || !ggml_is_contiguous(node)) {
        return false;
    }
    // where sides lie is data
    if (!pmkvq_has_side(meta, params, 0, 0, 0, 0)) {
        return false;
    }

    const uint32_t n_ops = params.offset_k;

    if (n_ops*(uint64_t) sizeof(pmkvq_block_op) > (uint64_t) ggml_nbytes(ops) || (int64_t) n_ops > ggml_nelements(node)) {
        return false;
    }

    op = {
        /*.ops         =*/ (const pmkvq_block_op *) ops->data,
        /*.done        =*/ (uint32_t *) node->data,
        /*.n_ops       =*/ n_ops,
        /*.n_head_kv   =*/ (uint32_t) pool->ne[2],
        /*.head_dim    =*/ (uint32_t) (pool->ne[0]/32),
        /*.n_pages     =*/ (uint32_t) pool->ne[1],
        /*.n_blocks    =*/ params.n_blocks,
        /*.pool        =*/ (uint8_t *) pool->data,
        /*.meta        =*/ (uint8_t *) meta->data,
        /*.sides       =*/ (const pmkvq_side_desc *) sides->data,
        /*.n_sides     =*/ (uint32_t) (ggml_nbytes(sides)/sizeof(pmkvq_side_desc)),
        /*.table_bytes =*/ 64*(uint64_t) params.table,
    };
    return true;
}

// cells, pool, meta. The node is [head_dim, n_head_kv, n_tokens] f32
static inline bool pmkvq_read_load(const ggml_tensor * node, const pmkvq_op_params & params, pmkvq_op_load & op) {
    const ggml_tensor * cells = node->src[0];
    const ggml_tensor * pool  = node->src[1];
    const ggml_tensor * meta  = node->src[2];

    if (!pmkvq_is_rows(node) || !ggml_is_contiguous(node) || !pmkvq_is_cells(cells, node->ne[2]) || !pmkvq_is_pool(pool, node->ne[0], node->ne[1]) ||
            !pmkvq_has_side(meta, params, params.offset_k, node->ne[1], node->ne[0], params.group_k) || params.n_chunk > 1) {
        return false;
    }

    const uint8_t * table = (const uint8_t *) meta->data + 64*(size_t) params.offset_k;

    op = {
        /*.cells     =*/ (const int64_t *) cells->data,
        /*.n_tokens  =*/ (uint32_t) node->ne[2],
        /*.n_head_kv =*/ (uint32_t) node->ne[1],
        /*.head_dim  =*/ (uint32_t) node->ne[0],
        /*.group     =*/ params.group_k,
        /*.n_pages   =*/ (uint32_t) pool->ne[1],
        /*.n_blocks  =*/ params.n_blocks,
        /*.side      =*/ params.n_chunk,
        /*.pool      =*/ (const uint8_t *) pool->data,
        /*.table     =*/ (const pmkvq_block *) table,
        /*.params    =*/ (const uint16_t *) (table + 64*(size_t) params.table),
        /*.dst       =*/ (float *) node->data,
    };
    return true;
}
