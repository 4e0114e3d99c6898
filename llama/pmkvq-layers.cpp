// Which layers there are, the devices that they are on, and the cache that the runtime lays out for them.

#include "pmkvq-store.h"
#include "pmkvq-nodes.h"
#include "pmkvq-ops.h"

#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

void pmkvq_store::add_layer(int32_t il, bool offload) {
    placements.push_back(offload ? pmkvq_layer_placement(model->dev_layer(il)) : pmkvq_placement());

    layers.push_back({
        /*.il         =*/ (uint32_t) il,
        /*.n_head     =*/ hparams->n_head(il),
        /*.n_head_kv  =*/ hparams->n_head_kv(il),
        /*.head_dim_k =*/ hparams->n_embd_head_k(il),
        /*.head_dim_v =*/ hparams->n_embd_head_v(il),
        /*.device     =*/ 0,
    });
}

bool pmkvq_store::has_seen() const {
    return rows_most == PMKVQ_ROWS;
}

size_t pmkvq_store::first_alike(size_t i) const {
    auto alike = [&](const pmkvq_layer_desc & l) {
        const auto & o = layers[i];
        return l.device == o.device && l.n_head == o.n_head && l.n_head_kv == o.n_head_kv && l.head_dim_k == o.head_dim_k && l.head_dim_v == o.head_dim_v;
    };

    return std::find_if(layers.begin(), layers.end(), alike) - layers.begin();
}

size_t pmkvq_store::size_sides() const {
    return 2*layers.size()*sizeof(pmkvq_side_desc);
}

size_t pmkvq_store::size_seen() const {
    return pmkvq_seen_bytes(PMKVQ_FEW, PMKVQ_FEW, n_cell);
}

size_t pmkvq_store::size_lists(uint32_t id) const {
    const auto & device = devices[id];
    if (device.direct) {
        return 0;
    }

    std::set<std::pair<uint32_t, uint32_t>> shapes; // of pools
    size_t n_seen = 0;

    for (size_t i = 0; i < layers.size(); ++i) {
        const auto & l = layers[i];
        if (l.device == id) {
            shapes.insert({ l.n_head_kv, l.head_dim_k });
            shapes.insert({ l.n_head_kv, l.head_dim_v });
            n_seen += has_seen() && first_alike(i) == i;
        }
    }

    // tables and transforms end at multiples of 64, and what follows them may have to begin later
    const size_t gaps = 2*(device.padded(64) - 64);

    return device.padded(pmkvq_device::SIZE_OPS) + shapes.size()*device.padded(pmkvq_device::SIZE_DONE) + device.padded(size_sides()) +
        n_seen*device.padded(size_seen()) + gaps;
}

size_t pmkvq_store::count_scratch() const {
    std::vector<size_t> scratch(devices.size());
    for (const auto & l : layers) {
        const size_t row = sizeof(float)*(l.head_dim_v + 2)*l.n_head;

        for (int64_t n = 1; n <= (int64_t) std::min(n_ctx, n_ubatch); ++n) {
            const size_t rows = n*pmkvq_n_chunk(devices[l.device].direct ? 0 : rows_most, n, n_cell, l.n_head, l.n_head_kv);
            scratch[l.device] = std::max(scratch[l.device], row*rows);
        }
    }

    size_t res = 0;
    for (uint32_t id = 0; id < devices.size(); ++id) {
        res += scratch[id] + size_lists(id);
    }
    return res;
}

void pmkvq_store::create_cache() {
    devices.clear();

    for (size_t i = 0; i < layers.size(); ++i) {
        auto it = std::find_if(devices.begin(), devices.end(), [&](const pmkvq_device & d) { return d.at == placements[i]; });
        layers[i].device = it - devices.begin();
        if (it == devices.end()) {
            devices.emplace_back(placements[i]);
        }
    }

    const std::string arch = model->arch_name();

    std::vector<const char *> names;
    for (const auto & d : devices) {
        names.push_back(d.name.c_str());
    }

    const pmkvq_model_desc desc_model = {
        /*.arch        =*/ arch.c_str(),
        /*.name        =*/ model->name.c_str(),
        /*.n_ctx_train =*/ hparams->n_ctx_train,
        /*.n_layers    =*/ (uint32_t) layers.size(),
        /*.layers      =*/ layers.data(),
        /*.rope_type   =*/ llama_model_rope_type(model),
        /*.n_devices   =*/ (uint32_t) names.size(),
        /*.devices     =*/ names.data(),
    };

    if (cache) {
        rt->cache_free(cache);
        cache = nullptr;
    }

    // where the budget has no room for more, fewer parts, and no lists of what is seen
    for (uint32_t rows : { (uint32_t) PMKVQ_ROWS, std::min(n_ctx, (uint32_t) PMKVQ_ROWS_LEAST) }) {
        rows_most     = rows;
        scratch_bytes = count_scratch();

        char err[PMKVQ_ERR_SIZE] = "";
        if (rt->cache_new(plan.get(), &desc_model, n_ctx, n_seq_max, scratch_bytes, hparams->no_alloc, &cache, err, sizeof(err)) == 0) {
            break;
        }
        if (rows != PMKVQ_ROWS) {
            throw std::runtime_error(std::string("pmkvq: ") + err);
        }
    }

    rt->cache_desc(cache, &desc);

    pools.resize(desc.n_pools);
    for (uint32_t i = 0; i < desc.n_pools; ++i) {
        rt->cache_pool(cache, i, &pools[i]);
    }

    sides.resize(desc.n_sides);
    transforms.resize(desc.n_sides);
    for (uint32_t i = 0; i < desc.n_sides; ++i) {
        rt->cache_side(cache, i, &sides[i]);
        rt->cache_transform(cache, i, &transforms[i]);
    }
}

void pmkvq_store::place_layers() {
    // of the layers that move to the CPU
    struct moved_layers {
        size_t n = 0;
        std::set<std::string> devices;
    };

    moved_layers without; // the device has no operations
    moved_layers refused; // it has, but not for these layers

    auto to_cpu = [&](size_t i, moved_layers & moved) {
        moved.devices.insert(ggml_backend_dev_name(placements[i].dev));
        moved.n++;
        placements[i] = {};
    };

    for (size_t i = 0; i < placements.size(); ++i) {
        if (!placements[i].dev) {
            placements[i] = pmkvq_pretended_placement(i, placements.size());
        } else if (!pmkvq_has_operations(placements[i].dev)) {
            // before a budget is divided among devices, each with its own scratch
            to_cpu(i, without);
        }
    }

    // whether a device has the operations for a layer depends on groups and pools, which the cache is asked for; a layer that moves
    // leaves its part of the budget to other pools, so that all layers are asked again
    for (bool again = true; again;) {
        create_cache();
        again = false;

        for (size_t i = 0; i < layers.size(); ++i) {
            const auto & device = devices[layers[i].device];

            bool ok = true;
            for (uint32_t n_tokens : { 1u, std::min(n_ctx, std::max(1u, n_ubatch)) }) {
                ok = ok && pmkvq_device_runs(device, layers[i], desc, pools, sides[2*i], sides[2*i + 1], rt->cache_meta_bytes(cache, layers[i].device), n_tokens);
            }
            if (!ok) {
                to_cpu(i, refused);
                again = true;
            }
        }
    }

    const char * func = __func__;

    auto log_moved = [&](const moved_layers & moved, const char * before, const char * after) {
        std::string list;
        for (const auto & name : moved.devices) {
            list += (list.empty() ? "" : ", ") + name;
        }
        if (moved.n > 0) {
            LLAMA_LOG_WARN("%s: the progressive KV cache and the attention of %zu of %zu layers run on the CPU: %s%s%s\n",
                    func, moved.n, layers.size(), before, list.c_str(), after);
        }
    };

    log_moved(without, "this build has no operations for them on ", "");
    log_moved(refused, "the operations on ", " do not take their heads and groups, or a pool of more than 32 GiB");
}
