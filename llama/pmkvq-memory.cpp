// The memory of a cache: its tensors, what they hold at first, and how large they are.

#include "pmkvq-store.h"
#include "pmkvq-model.h"
#include "pmkvq-ops.h"

#include "llama-impl.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>
#include <stdexcept>

std::vector<std::pair<ggml_backend_buffer_type_t, ggml_context *>> pmkvq_store::init_tensors() {
    if (layers.empty()) {
        throw std::runtime_error("pmkvq: this model has no layer with a KV cache that a plan can apply to: remove '--pmkvq-plan'");
    }

    if (auto * probe = pmkvq_probe_current()) {
        probe->finish(*model, layers); // throws
    }

    place_layers();

    std::vector<std::pair<ggml_backend_buffer_type_t, ggml_context *>> res;

    t_pool.resize(desc.n_pools);
    t_shrink.resize(desc.n_pools);
    t_seen.resize(layers.size());

    for (uint32_t id = 0; id < devices.size(); ++id) {
        auto & device = devices[id];

        // one for each kind of buffer
        auto it = std::find_if(res.begin(), res.end(), [&](const auto & r) { return r.first == device.buft; });

        ggml_init_params params = {
            /*.mem_size   =*/ (devices.size()*(2*desc.n_pools + 4) + layers.size())*ggml_tensor_overhead(),
            /*.mem_buffer =*/ nullptr,
            /*.no_alloc   =*/ true,
        };

        ggml_context * ctx = it != res.end() ? it->second : ggml_init(params);
        if (!ctx) {
            throw std::runtime_error("failed to create ggml context for kv cache");
        }
        if (it == res.end()) {
            res.emplace_back(device.buft, ctx);
        }

        for (uint32_t i = 0; i < desc.n_pools; ++i) {
            if (pools[i].device == id) {
                t_pool[i] = ggml_new_tensor_3d(ctx, GGML_TYPE_I8, 32*pools[i].head_dim, pools[i].n_pages, pools[i].n_head_kv);
                ggml_format_name(t_pool[i], "cache_pmkvq_pool_%u", i);
            }
        }

        device.t_meta = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, rt->cache_meta_bytes(cache, id));
        ggml_set_name(device.t_meta, "cache_pmkvq_meta");

        if (desc.transform_bytes > 0) {
            device.t_transforms = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, desc.transform_bytes/sizeof(float));
            ggml_set_name(device.t_transforms, "cache_pmkvq_transforms");
        }

        if (device.direct) {
            continue;
        }

        device.t_sides = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, size_sides());
        ggml_set_name(device.t_sides, "cache_pmkvq_sides");

        device.t_ops = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, pmkvq_device::SIZE_OPS);
        ggml_set_name(device.t_ops, "cache_pmkvq_ops");

        for (size_t i = 0; has_seen() && i < layers.size(); ++i) {
            if (layers[i].device != id) {
                continue;
            }
            const size_t first = first_alike(i);
            if (first == i) {
                t_seen[i] = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, size_seen());
                ggml_format_name(t_seen[i], "cache_pmkvq_seen_%zu", i);
            }
            t_seen[i] = t_seen[first];
        }

        for (uint32_t i = 0; i < desc.n_pools; ++i) {
            if (pools[i].device == id) {
                t_shrink[i] = pmkvq_build_shrink(ctx, shared.get(), t_pool[i], device.t_meta, device.t_ops, device.t_sides, desc);
                ggml_format_name(t_shrink[i], "pmkvq_shrink_%u", i);
            }
        }
    }

    return res;
}

// Blocks lie anywhere in the pool, so attention jumps between pages of 4 KiB: a translation for each is slow. Ask for large ones.
static void pmkvq_use_huge_pages(void * data, size_t size) {
#if defined(__linux__)
    const size_t huge = 2u << 20;

    uint8_t * begin = (uint8_t *) (((uintptr_t) data + huge - 1)/huge*huge);
    uint8_t * end   = (uint8_t *) (((uintptr_t) data + size)/huge*huge);

    if (begin < end && madvise(begin, end - begin, MADV_HUGEPAGE) == 0) {
        // small pages are there already, with zeros in them: give them back, and touch the memory again
        if (madvise(begin, end - begin, MADV_DONTNEED) == 0) {
            memset(begin, 0, end - begin);
        }
    }
#else
    GGML_UNUSED(data);
    GGML_UNUSED(size);
#endif
}

void pmkvq_store::init_data() {
    for (auto * t : t_pool) {
        if (ggml_backend_buffer_is_host(t->buffer)) {
            pmkvq_use_huge_pages(t->data, ggml_nbytes(t));
        }
    }

    clear(false);

    if (desc.transform_bytes > 0) {
        std::vector<float> data(desc.transform_bytes/sizeof(float));
        if (rt->write_transforms(cache, data.data()) != 0) {
            throw std::runtime_error("pmkvq: the plan's transforms can't be set up");
        }
        for (auto & device : devices) {
            ggml_backend_tensor_set(device.t_transforms, data.data(), 0, ggml_nbytes(device.t_transforms));
        }
    }

    for (auto & device : devices) {
        if (!device.direct) {
            ggml_backend_tensor_set(device.t_sides, sides.data(), 0, ggml_nbytes(device.t_sides));
        }
    }

    build_graphs_shrink();
}

size_t pmkvq_store::size_transforms() const {
    return devices.size()*desc.transform_bytes;
}

size_t pmkvq_store::size_pool() const {
    size_t res = 0;
    for (const auto * t : t_pool) {
        res += ggml_nbytes(t);
    }
    return res;
}

size_t pmkvq_store::size_meta() const {
    size_t res = 0;
    for (const auto & device : devices) {
        res += ggml_nbytes(device.t_meta);
    }
    return res;
}

size_t pmkvq_store::size_buffers() const {
    std::set<ggml_backend_buffer_t> buffers;

    auto add = [&](const ggml_tensor * t) {
        if (t && buffers.insert(t->buffer).second) {
            return ggml_backend_buffer_get_size(t->buffer);
        }
        return (size_t) 0;
    };

    size_t res = 0;
    for (const auto * tensors : { &t_pool, &t_shrink, &t_seen }) {
        for (const auto * t : *tensors) {
            res += add(t);
        }
    }
    for (const auto & d : devices) {
        for (const auto * t : { d.t_meta, d.t_transforms, d.t_sides, d.t_ops }) {
            res += add(t);
        }
    }
    return res;
}

void pmkvq_store::log_sizes(bool no_alloc) const {
    const double mib = 1024.0*1024.0;

    size_t f16 = 0;
    for (const auto & l : layers) {
        f16 += (size_t) n_ctx*l.n_head_kv*(l.head_dim_k + l.head_dim_v)*2;
    }

    LLAMA_LOG_INFO("%s: size = %7.2f MiB (%6u cells, %3zu layers): pages %7.2f MiB, tables and parameters %7.2f MiB, scratch %7.2f MiB, transforms %7.2f MiB; f16 would need %7.2f MiB%s\n", __func__,
            (size_pool() + size_meta() + scratch_bytes + size_transforms())/mib, n_cell, layers.size(),
            size_pool()/mib, size_meta()/mib, scratch_bytes/mib, size_transforms()/mib, f16/mib, no_alloc ? " (not allocated)" : "");

    size_t counted = size_pool() + size_meta() + size_transforms();
    for (uint32_t id = 0; id < devices.size(); ++id) {
        counted += size_lists(id);
    }
    if (!no_alloc && size_buffers() > counted) {
        LLAMA_LOG_WARN("%s: buffers of %zu bytes, of which %zu count against the budget\n", __func__, size_buffers(), counted);
    }

    for (uint32_t id = 0; id < devices.size(); ++id) {
        if (devices.size() == 1 && devices[id].direct) {
            break; // everything is on the CPU
        }
        size_t pages = 0;
        for (uint32_t i = 0; i < desc.n_pools; ++i) {
            pages += pools[i].device == id ? ggml_nbytes(t_pool[i]) : 0;
        }
        const size_t n_layers = std::count_if(layers.begin(), layers.end(), [&](const pmkvq_layer_desc & l) { return l.device == id; });

        LLAMA_LOG_INFO("%s: %10s: %3zu layers: pages %7.2f MiB, tables and parameters %7.2f MiB, lists %7.2f MiB\n", __func__,
                devices[id].name.c_str(), n_layers, pages/mib, ggml_nbytes(devices[id].t_meta)/mib, size_lists(id)/mib);
    }

    // whole blocks are narrowed: the one that the window begins in waits for its newest token
    LLAMA_LOG_INFO("%s: of each sequence, the first %u and the latest %u to %u tokens stay at 16 bits\n", __func__,
            desc.sink, desc.window, desc.window + PMKVQ_BLOCK - 1);

    for (const auto & l : layers) {
        if (l.head_dim_k % 16 != 0 || l.head_dim_v % 16 != 0) {
            LLAMA_LOG_WARN("%s: layer %u: no group of values divides the head dimension (K: %u, V: %u), it stays at 16 bits\n", __func__,
                    l.il, l.head_dim_k, l.head_dim_v);
        }
    }
}

void pmkvq_store::clear(bool data) {
    if (devices.empty() || !devices[0].t_meta || !devices[0].t_meta->data) {
        return;
    }

    // for tests: what was never written must not matter
    static const bool poison = getenv("PMKVQ_POISON") != nullptr;
    if (data || poison) {
        // a batch that is still being computed keeps its data
        synchronize();

        auto fill = [](ggml_tensor * t) {
            ggml_backend_tensor_memset(t, poison ? 0xff : 0, 0, ggml_nbytes(t));
        };
        std::for_each(t_pool.begin(), t_pool.end(), fill);
        for (auto & device : devices) {
            fill(device.t_meta);
        }
    }

    rt->reset(cache);
    sync_tables();
}
