// What the graph of a model has of a layer: store, attention and merge, with the plan's transforms around them.

#include "pmkvq-store.h"
#include "pmkvq-ops.h"

#include <stdexcept>

// one Hadamard matrix for every n values
static ggml_tensor * pmkvq_mul_hadamard(ggml_context * ctx, ggml_tensor * x, ggml_tensor * had) {
    ggml_tensor * res = ggml_is_contiguous(x) ? x : ggml_cont(ctx, x);

    res = ggml_reshape_2d(ctx, res, had->ne[0], ggml_nelements(res)/had->ne[0]);
    res = ggml_mul_mat(ctx, had, res);
    ggml_mul_mat_set_hint(res, GGML_HINT_SRC0_IS_HADAMARD);

    return ggml_reshape_3d(ctx, res, x->ne[0], x->ne[1], x->ne[2]);
}

ggml_tensor * pmkvq_store::build_transform(ggml_context * ctx, ggml_tensor * x, uint32_t ikv, int side, transform_part part) const {
    const auto & t = transforms[2*ikv + side];

    ggml_tensor * t_transforms = devices[layers[ikv].device].t_transforms;

    if (!t_transforms || (t.hadamard == 0 && t.center == 0 && t.factor == PMKVQ_FACTOR_NONE)) {
        return x;
    }

    const int64_t d         = x->ne[0];
    const int64_t n_head_kv = layers[ikv].n_head_kv;
    const int64_t n_rep     = x->ne[1]/n_head_kv;
    const int64_t n_tokens  = x->ne[2];

    if (x->type != GGML_TYPE_F32) {
        x = ggml_cast(ctx, x, GGML_TYPE_F32);
    }

    // [head_dim, 1, n_head_kv], for all query heads of a KV head
    auto vector = [&](uint64_t offset) {
        return ggml_view_3d(ctx, t_transforms, d, 1, n_head_kv, d*sizeof(float), d*sizeof(float), offset);
    };
    auto by_head_kv = [&](ggml_tensor * cur) {
        return ggml_reshape_4d(ctx, ggml_is_contiguous(cur) ? cur : ggml_cont(ctx, cur), d, n_rep, n_head_kv, n_tokens);
    };
    auto by_head = [&](ggml_tensor * cur) {
        return ggml_reshape_3d(ctx, cur, d, n_rep*n_head_kv, n_tokens);
    };

    auto center = [&](ggml_tensor * cur) {
        if (t.center == 0) {
            return cur;
        }
        auto * c = vector(t.offset_center);
        return by_head(part == TRANSFORM_STORED ? ggml_sub(ctx, by_head_kv(cur), c) : ggml_add(ctx, by_head_kv(cur), c));
    };
    auto factor = [&](ggml_tensor * cur) {
        const uint64_t offset = part == TRANSFORM_STORED ? t.offset_forward : t.offset_inverse;

        if (t.factor == PMKVQ_FACTOR_SCALE) {
            return by_head(ggml_mul(ctx, by_head_kv(cur), vector(offset)));
        }
        if (t.factor == PMKVQ_FACTOR_MATRIX) {
            auto * m = ggml_view_3d(ctx, t_transforms, d, d, n_head_kv, d*sizeof(float), d*d*sizeof(float), offset);

            // of K there is the inverse's transpose
            if (part == TRANSFORM_LOADED) {
                m = ggml_cont(ctx, ggml_transpose(ctx, m));
            }

            // heads last: a matrix serves the query heads of its KV head
            auto * res = ggml_mul_mat(ctx, m, ggml_permute(ctx, cur, 0, 2, 1, 3));
            return ggml_cont(ctx, ggml_permute(ctx, res, 0, 2, 1, 3));
        }
        return cur;
    };
    auto hadamard = [&](ggml_tensor * cur) {
        if (t.hadamard == 0) {
            return cur;
        }
        return pmkvq_mul_hadamard(ctx, cur, ggml_view_2d(ctx, t_transforms, t.hadamard, t.hadamard, t.hadamard*sizeof(float), t.offset_hadamard));
    };

    if (part == TRANSFORM_OUTPUT || part == TRANSFORM_LOADED) {
        return center(factor(hadamard(x)));
    }

    return hadamard(factor(part == TRANSFORM_STORED ? center(x) : x));
}

ggml_backend_t pmkvq_store::backend(ggml_backend_sched_t sched, uint32_t ikv) const {
    return devices[layers[ikv].device].backend(sched);
}

ggml_tensor * pmkvq_store::build_stored(ggml_context * ctx, ggml_tensor * cur, uint32_t ikv, int side) const {
    return cur ? build_transform(ctx, cur, ikv, side, TRANSFORM_STORED) : nullptr;
}

ggml_tensor * pmkvq_store::build_loaded_k(ggml_context * ctx, ggml_tensor * idxs, uint32_t ikv, std::vector<ggml_tensor *> & nodes) const {
    const auto & s = sides[2*ikv];

    nodes.push_back(pmkvq_build_load(ctx, shared.get(), layers[ikv].head_dim_k, idxs, t_pool[s.pool], devices[layers[ikv].device].t_meta, { s, desc }, 0));

    return build_transform(ctx, nodes.back(), ikv, 0, TRANSFORM_LOADED);
}

ggml_tensor * pmkvq_store::build_store(ggml_context * ctx, ggml_tensor * cur, ggml_tensor * idxs, uint32_t ikv, int side) const {
    const auto & s = sides[2*ikv + side];

    return pmkvq_build_store(ctx, shared.get(), cur, idxs, t_pool[s.pool], devices[layers[ikv].device].t_meta, { s, desc }, side);
}

ggml_tensor * pmkvq_store::build_attn(
        ggml_context * ctx,
         ggml_tensor * q,
         ggml_tensor * k_cur,
         ggml_tensor * v_cur,
         ggml_tensor * kq_mask,
         ggml_tensor * idxs,
         ggml_tensor * sinks,
               float   kq_scale,
               float   softcap,
               float   max_bias,
                bool   one_seq,
            uint32_t   ikv,
         std::vector<ggml_tensor *> & nodes) const {
    const auto & sk = sides[2*ikv + 0];
    const auto & sv = sides[2*ikv + 1];

    const auto & device = devices[layers[ikv].device];

    // a constant that all scores lose shows in a cap or beside a sink, and then weights don't sum to one either
    if (((transforms[2*ikv + 0].center || transforms[2*ikv + 1].center) && sinks) || (transforms[2*ikv + 0].center && softcap != 0.0f)) {
        throw std::runtime_error("pmkvq: the plan's transforms have centers, which don't work with the attention of this model (" +
                std::string(sinks ? "sinks" : "soft-capping") + "): make the plan without them");
    }

    q = build_transform(ctx, q, ikv, 0, TRANSFORM_QUERY);

    ggml_tensor * partial = pmkvq_build_attn(ctx, shared.get(), q, k_cur, v_cur, kq_mask, idxs, t_pool[sk.pool], t_pool[sv.pool], device.t_meta,
            { sk, desc }, { sv, desc }, device.direct ? 0 : rows_most, layers[ikv].head_dim_v, kq_scale, softcap, max_bias, one_seq);

    ggml_tensor * cur = pmkvq_build_merge(ctx, shared.get(), partial, sinks);

    nodes.push_back(partial);
    nodes.push_back(cur);

    const int64_t d = layers[ikv].head_dim_v;

    ggml_tensor * out = build_transform(ctx, ggml_reshape_3d(ctx, cur, d, cur->ne[0]/d, cur->ne[1]), ikv, 1, TRANSFORM_OUTPUT);

    return ggml_reshape_2d(ctx, out, cur->ne[0], cur->ne[1]);
}
