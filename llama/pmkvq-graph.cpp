// What the graph of a model has of a layer: store, attention and merge, with the plan's transforms around them.

#include "pmkvq-store.h"
#include "pmkvq-ops.h"

#include <stdexcept>

// where a vector is in the transforms
static uint32_t pmkvq_offset(bool there, uint64_t offset) {
    return there ? offset/64 : PMKVQ_NO_OFFSET;
}

ggml_tensor * pmkvq_store::mul_matrix(ggml_context * ctx, ggml_tensor * x, uint32_t ikv, uint64_t offset, bool transposed) const {
    const int64_t d = x->ne[0];

    ggml_tensor * m = ggml_view_3d(ctx, devices[layers[ikv].device].t_transforms, d, d, layers[ikv].n_head_kv, d*sizeof(float), d*d*sizeof(float), offset);
    if (transposed) {
        m = ggml_cont(ctx, ggml_transpose(ctx, m));
    }

    // heads last: a matrix serves the query heads of its KV head
    ggml_tensor * res = ggml_mul_mat(ctx, m, ggml_permute(ctx, x, 0, 2, 1, 3));

    return ggml_cont(ctx, ggml_permute(ctx, res, 0, 2, 1, 3));
}

void pmkvq_store::build_transform(
        ggml_context * ctx,
         ggml_tensor *& q,
         ggml_tensor *& k,
         ggml_tensor *& v,
            uint32_t   ikv,
         std::vector<ggml_tensor *> & nodes) const {
    const auto & tk = transforms[2*ikv + 0];
    const auto & tv = transforms[2*ikv + 1];

    // one node for all rows that have something done to them
    auto run = [&](const pmkvq_rows_params (&params)[3]) {
        ggml_tensor ** all[3] = { &q, &k, &v };

        ggml_tensor * rows[3];
        for (int i = 0; i < 3; ++i) {
            rows[i] = params[i].none() ? nullptr : *all[i];
        }
        if (!rows[0] && !rows[1] && !rows[2]) {
            return;
        }

        nodes.push_back(pmkvq_build_transform(ctx, shared.get(), rows, devices[layers[ikv].device].t_transforms, params, layers[ikv].n_head_kv));

        for (int i = 0; i < 3; ++i) {
            *all[i] = rows[i] ? rows[i] : *all[i];
        }
    };

    auto params = [](const pmkvq_transform_desc & t, bool stored) {
        pmkvq_rows_params res;
        res.center = pmkvq_offset(t.center && stored, t.offset_center);
        res.factor = pmkvq_offset(t.factor == PMKVQ_FACTOR_SCALE, stored ? t.offset_forward : t.offset_inverse);
        if (t.factor != PMKVQ_FACTOR_MATRIX) {
            res.hadamard = t.hadamard;
        }
        return res;
    };

    run({ params(tk, false), params(tk, true), params(tv, true) });

    if (tk.factor != PMKVQ_FACTOR_MATRIX && tv.factor != PMKVQ_FACTOR_MATRIX) {
        return;
    }

    // a full matrix is between the two
    auto matrix = [&](ggml_tensor *& x, const pmkvq_transform_desc & t, uint64_t offset) {
        pmkvq_rows_params res;
        if (x && t.factor == PMKVQ_FACTOR_MATRIX) {
            x = mul_matrix(ctx, x, ikv, offset, false);
            res.hadamard = t.hadamard;
        }
        return res;
    };

    const auto rq = matrix(q, tk, tk.offset_inverse);
    const auto rk = matrix(k, tk, tk.offset_forward);
    const auto rv = matrix(v, tv, tv.offset_forward);

    run({ rq, rk, rv });
}

ggml_backend_t pmkvq_store::backend(ggml_backend_sched_t sched, uint32_t ikv) const {
    return devices[layers[ikv].device].backend(sched);
}

ggml_tensor * pmkvq_store::build_loaded_k(ggml_context * ctx, ggml_tensor * idxs, uint32_t ikv, std::vector<ggml_tensor *> & nodes) const {
    const auto & s = sides[2*ikv];
    const auto & t = transforms[2*ikv];

    const auto & device = devices[layers[ikv].device];

    ggml_tensor * res = pmkvq_build_load(ctx, shared.get(), layers[ikv].head_dim_k, idxs, t_pool[s.pool], device.t_meta, { s, desc }, 0);

    nodes.push_back(res);

    // the way back, seldom run
    if (t.hadamard != 0) {
        pmkvq_rows_params params;
        params.hadamard = t.hadamard;

        ggml_tensor * rows[3] = { nullptr, res, nullptr };
        nodes.push_back(pmkvq_build_transform(ctx, shared.get(), rows, nullptr, { {}, params, {} }, layers[ikv].n_head_kv));
        res = rows[1];
    }

    auto vector = [&](uint64_t offset) {
        return ggml_view_2d(ctx, device.t_transforms, res->ne[0], res->ne[1], res->ne[0]*sizeof(float), offset);
    };

    if (t.factor == PMKVQ_FACTOR_SCALE) {
        res = ggml_mul(ctx, res, vector(t.offset_inverse));
    }
    if (t.factor == PMKVQ_FACTOR_MATRIX) {
        // of K there is the inverse's transpose
        res = mul_matrix(ctx, res, ikv, t.offset_inverse, true);
    }

    return t.center ? ggml_add(ctx, res, vector(t.offset_center)) : res;
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

    ggml_tensor * partial = pmkvq_build_attn(ctx, shared.get(), q, k_cur, v_cur, kq_mask, idxs, t_pool[sk.pool], t_pool[sv.pool], device.t_meta, t_seen[ikv],
            { sk, desc }, { sv, desc }, device.direct ? 0 : rows_most, layers[ikv].head_dim_v, kq_scale, softcap, max_bias, one_seq);

    const auto & tv = transforms[2*ikv + 1];

    // the way back of what was done to V
    const bool matrix = tv.factor == PMKVQ_FACTOR_MATRIX;

    pmkvq_rows_params back;
    back.hadamard = tv.hadamard;
    back.factor   = pmkvq_offset(tv.factor == PMKVQ_FACTOR_SCALE, tv.offset_inverse);
    back.center   = pmkvq_offset(tv.center && !matrix, tv.offset_center);

    ggml_tensor * cur = pmkvq_build_merge(ctx, shared.get(), partial, sinks, device.t_transforms, back, layers[ikv].n_head_kv);

    nodes.push_back(partial);
    nodes.push_back(cur);

    if (!matrix) {
        return cur;
    }

    const int64_t d         = layers[ikv].head_dim_v;
    const int64_t n_head_kv = layers[ikv].n_head_kv;
    const int64_t n_rep     = cur->ne[0]/d/n_head_kv;
    const int64_t n_tokens  = cur->ne[1];

    ggml_tensor * out = mul_matrix(ctx, ggml_reshape_3d(ctx, cur, d, n_rep*n_head_kv, n_tokens), ikv, tv.offset_inverse, false);

    if (tv.center) {
        ggml_tensor * c = ggml_view_3d(ctx, device.t_transforms, d, 1, n_head_kv, d*sizeof(float), d*sizeof(float), tv.offset_center);

        out = ggml_add(ctx, ggml_reshape_4d(ctx, out, d, n_rep, n_head_kv, n_tokens), c);
    }

    return ggml_reshape_2d(ctx, out, d*n_rep*n_head_kv, n_tokens);
}
