#include "pmkvq-device.h"
#include "pmkvq-nodes.h"
#include "pmkvq-ops.h"

#include "ggml-cpp.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

pmkvq_device::pmkvq_device(const pmkvq_placement & at) : at(at) {
    buft   = at.dev ? ggml_backend_dev_buffer_type(at.dev) : ggml_backend_cpu_buffer_type();
    name   = at.dev ? ggml_backend_dev_name(at.dev) : "CPU";
    direct = !at.dev && at.pretended == 0;

    if (at.pretended != 0) {
        name += " as device " + std::to_string(at.pretended);
    }
}

ggml_backend_t pmkvq_device::backend(ggml_backend_sched_t sched) const {
    const int n = ggml_backend_sched_get_n_backends(sched);

    for (int i = 0; at.dev && i < n; ++i) {
        ggml_backend_t backend = ggml_backend_sched_get_backend(sched, i);
        if (ggml_backend_get_device(backend) == at.dev) {
            return backend;
        }
    }

    // the CPU backend is the scheduler's last
    return at.dev ? nullptr : ggml_backend_sched_get_backend(sched, n - 1);
}

size_t pmkvq_device::padded(size_t size) const {
    return GGML_PAD(size, ggml_backend_buft_get_alignment(buft));
}

pmkvq_placement pmkvq_layer_placement(ggml_backend_dev_t dev) {
    return { dev && ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU ? dev : nullptr, 0 };
}

pmkvq_placement pmkvq_pretended_placement(size_t i, size_t n) {
    const char * list = getenv("PMKVQ_FORCE_DEVICE_PATH");

    std::vector<int> numbers;
    for (const char * at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        numbers.push_back(atoi(at));
    }

    return { nullptr, numbers.empty() ? 0 : numbers[i*numbers.size()/n] };
}

bool pmkvq_has_operations(ggml_backend_dev_t dev) {
    ggml_init_params params = {
        /*.mem_size   =*/ 8*ggml_tensor_overhead(),
        /*.mem_buffer =*/ nullptr,
        /*.no_alloc   =*/ true,
    };

    ggml_context_ptr ctx(ggml_init(params));
    if (!ctx) {
        return false;
    }

    ggml_tensor * merge = pmkvq_build_merge(ctx.get(), nullptr, ggml_new_tensor_4d(ctx.get(), GGML_TYPE_F32, 16 + 2, 1, 1, 1), nullptr, nullptr, {}, 1);
    if (!ggml_backend_dev_supports_op(dev, merge)) {
        return false;
    }

    // some backends (RPC) claim to run everything: what would they do with a node that makes no sense?
    memset((char *) merge->op_params + PMKVQ_PARAMS_OFFSET, 0, sizeof(pmkvq_op_params));

    return !ggml_backend_dev_supports_op(dev, merge);
}

bool pmkvq_device_runs(
                   const pmkvq_device & device,
               const pmkvq_layer_desc & layer,
               const pmkvq_cache_desc & cache,
    const std::vector<pmkvq_pool_desc> & pools,
                const pmkvq_side_desc & side_k,
                const pmkvq_side_desc & side_v,
                             uint64_t   meta_bytes,
                             uint32_t   n_tokens) {
    if (!device.at.dev) {
        return true;
    }

    ggml_init_params params = {
        /*.mem_size   =*/ 68*ggml_tensor_overhead(),
        /*.mem_buffer =*/ nullptr,
        /*.no_alloc   =*/ true,
    };

    ggml_context_ptr        ctx(ggml_init(params));
    ggml_backend_buffer_ptr buf(ggml_backend_buft_alloc_buffer(device.buft, 0));
    if (!ctx || !buf) {
        return false;
    }

    auto on_device = [&](ggml_tensor * t) {
        t->buffer = buf.get();
        return t;
    };
    auto pool = [&](const pmkvq_side_desc & side) {
        const auto & p = pools[side.pool];
        return on_device(ggml_new_tensor_3d(ctx.get(), GGML_TYPE_I8, 32*p.head_dim, p.n_pages, p.n_head_kv));
    };
    auto bytes = [&](int64_t n) {
        return on_device(ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I8, n));
    };
    auto rows = [&](uint32_t head_dim, uint32_t n_head) {
        return ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, head_dim, n_head, n_tokens);
    };

    ggml_tensor * pool_k = pool(side_k);
    ggml_tensor * pool_v = pool(side_v);
    ggml_tensor * meta   = bytes(meta_bytes);
    ggml_tensor * ops    = bytes(sizeof(pmkvq_block_op));
    ggml_tensor * sides  = bytes(cache.n_sides*sizeof(pmkvq_side_desc));
    ggml_tensor * seen   = bytes(1);
    ggml_tensor * idxs   = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I64, n_tokens);
    ggml_tensor * mask   = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, (int64_t) cache.n_blocks*PMKVQ_BLOCK, n_tokens);
    ggml_tensor * sinks  = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_F32, layer.n_head);
    ggml_tensor * k      = rows(layer.head_dim_k, layer.n_head_kv);
    ggml_tensor * v      = rows(layer.head_dim_v, layer.n_head_kv);
    ggml_tensor * q      = rows(layer.head_dim_k, layer.n_head);

    ggml_tensor * attn = pmkvq_build_attn(ctx.get(), nullptr, q, k, v, mask, idxs, pool_k, pool_v, meta, seen, { side_k, cache }, { side_v, cache }, PMKVQ_ROWS,
            layer.head_dim_v, 1.0f, 0.0f, 0.0f, false);

    // whatever the plan has: vectors and rotations
    ggml_tensor * transforms = on_device(ggml_new_tensor_1d(ctx.get(), GGML_TYPE_F32, 2*(int64_t) layer.n_head_kv*std::max(layer.head_dim_k, layer.head_dim_v)));

    const pmkvq_rows_params all = { 0, 0, 1 };

    ggml_tensor * rows_qkv[3] = { q, k, v };

    ggml_tensor * nodes[] = {
        attn,
        pmkvq_build_transform(ctx.get(), nullptr, rows_qkv, transforms, { all, all, all }, layer.n_head_kv),
        pmkvq_build_store (ctx.get(), nullptr, k, idxs, pool_k, meta, { side_k, cache }, 0),
        pmkvq_build_store (ctx.get(), nullptr, v, idxs, pool_v, meta, { side_v, cache }, 1),
        pmkvq_build_merge (ctx.get(), nullptr, attn, sinks, transforms, all, layer.n_head_kv),
        pmkvq_build_load  (ctx.get(), nullptr, layer.head_dim_k, idxs, pool_k, meta, { side_k, cache }, 0),
        pmkvq_build_shrink(ctx.get(), nullptr, pool_k, meta, ops, sides, cache),
        pmkvq_build_shrink(ctx.get(), nullptr, pool_v, meta, ops, sides, cache),
    };

    return std::all_of(std::begin(nodes), std::end(nodes), [&](const ggml_tensor * node) {
        return ggml_backend_dev_supports_op(device.at.dev, node);
    });
}
