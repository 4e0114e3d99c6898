#include "pmkvq-store.h"
#include "pmkvq-ops.h"
#include "pmkvq-model.h"
#include "pmkvq-nodes.h"

#include "llama-batch.h"
#include "llama-context.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cells.h"
#include "llama-model.h"

#include "ggml-cpp.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

//
// pmkvq_scope
//

static thread_local pmkvq_scope * g_scope = nullptr;

pmkvq_scope * pmkvq_scope::current() {
    return g_scope;
}

pmkvq_scope::pmkvq_scope(const llama_model & model, const llama_context_params & params) : prev(g_scope) {
    // a draft head has a cache of its own that the plan says nothing about
    if (params.pmkvq_plan && params.ctx_type == LLAMA_CONTEXT_TYPE_DEFAULT) {
        const auto * rt = pmkvq_get_runtime();
        if (!rt) {
            throw std::runtime_error("pmkvq: a plan was given, but this program was built without the pmkvq runtime: use the programs that pmkvq builds");
        }

        if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
            throw std::runtime_error("pmkvq: a plan needs flash attention: remove '-fa off', or the plan where llama.cpp itself switches it off for a model");
        }
        if (params.type_k != GGML_TYPE_F16 || params.type_v != GGML_TYPE_F16) {
            throw std::runtime_error("pmkvq: the plan sets the widths of the KV cache: remove '-ctk' and '-ctv'");
        }
        if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
            throw std::runtime_error("pmkvq: a plan does not work with tensor split mode: use '--split-mode layer'");
        }

        char err[PMKVQ_ERR_SIZE] = "";
        pmkvq_plan * p = nullptr;
        if (rt->plan_load(params.pmkvq_plan, params.pmkvq_budget, params.pmkvq_rule, &p, err, sizeof(err)) != 0) {
            throw std::runtime_error(std::string("pmkvq: ") + err);
        }
        plan = std::shared_ptr<pmkvq_plan>(p, [rt](pmkvq_plan * p) { rt->plan_free(p); });
    } else if (params.pmkvq_plan) {
        LLAMA_LOG_INFO("%s: the plan is for the main context, a draft context keeps its own KV cache types\n", __func__);
    }

    g_scope = this;
}

pmkvq_scope::~pmkvq_scope() {
    g_scope = prev;
}

uint32_t pmkvq_scope::n_ctx() const {
    return plan ? pmkvq_get_runtime()->plan_n_ctx(plan.get()) : 0;
}

void pmkvq_scope::check_used() const {
    if (!plan) {
        return;
    }
    if (n_used == 0) {
        throw std::runtime_error("pmkvq: this model has no KV cache that a plan can apply to: remove '--pmkvq-plan'");
    }
    if (n_used > 1) {
        throw std::runtime_error("pmkvq: this model has several KV caches of its own kind, which a plan can't describe: remove '--pmkvq-plan'");
    }
}

//
// pmkvq_store
//

std::shared_ptr<pmkvq_store> pmkvq_store::create(
        const llama_model   & model,
        const llama_hparams & hparams,
                   bool       v_trans,
                   bool       unified,
                   bool       windowed,
                   bool       shared,
                   uint32_t   kv_size,
                   uint32_t   n_seq_max) {
    auto * scope = pmkvq_scope::current();
    auto * probe = pmkvq_probe_current();

    if ((!scope || !scope->active()) && !probe) {
        return nullptr;
    }

    // the small cache of a sliding window stays as it is
    if (windowed) {
        return nullptr;
    }

    if (kv_size == 0) {
        throw std::runtime_error("pmkvq: a context of no tokens");
    }
    if (shared) {
        throw std::runtime_error("pmkvq: a plan can't be used by a context that reads another context's KV cache: remove '--pmkvq-plan'");
    }
    if (hparams.is_mla()) {
        throw std::runtime_error("pmkvq: multi-head latent attention (MLA) is not supported yet: remove '--pmkvq-plan'");
    }

    if (v_trans) {
        throw std::runtime_error("pmkvq: a plan needs flash attention, which this model or device can't use: remove '--pmkvq-plan'");
    }

    std::shared_ptr<pmkvq_store> res(new pmkvq_store());

    res->rt        = pmkvq_get_runtime();
    res->model     = &model;
    res->hparams   = &hparams;
    res->n_seq_max = n_seq_max;
    res->shared    = std::make_unique<pmkvq_shared>();

    if (probe) {
        res->n_ctx  = kv_size;
        res->n_cell = kv_size;
        return res;
    }

    scope->n_used++;
    scope->check_used();

    if (!unified) {
        throw std::runtime_error("pmkvq: a plan needs the unified KV cache ('--kv-unified')");
    }

    res->plan     = scope->plan;
    res->n_ctx    = kv_size;
    res->n_ubatch = scope->n_ubatch;
    res->n_cell   = res->rt->plan_n_cells(res->plan.get(), kv_size, n_seq_max);

    scope->store = res;

    return res;
}

pmkvq_store::~pmkvq_store() {
    if (cache) {
        rt->cache_free(cache);
    }
    if (ctx_shrink) {
        ggml_free(ctx_shrink);
    }
}

uint32_t pmkvq_store::n_cells() const {
    return n_cell;
}

// With every new number of cells the graph is built anew, which takes as long as a quarter of a small model's step. So the
// steps are large, except on devices, where threads are there for each part of them. They end 8 cells early: a block's first
// token is what other blocks shrink for, and the two should not fall on the same step.
uint32_t pmkvq_store::n_kv(uint32_t used_max_p1) const {
    const bool direct = std::all_of(devices.begin(), devices.end(), [](const pmkvq_device & d) { return d.direct; });

    return std::min(n_cell, (uint32_t) GGML_PAD(used_max_p1 + 8, direct ? 1024u : 256u));
}

void pmkvq_store::set_cells(const llama_kv_cells * cells) {
    this->cells = cells;
}

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
    for (const size_t s : scratch) {
        res += s;
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

    // a plan that fits to the byte fits on every device, if need be with fewer parts
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
    for (size_t i = 0; i < placements.size(); ++i) {
        if (!placements[i].dev) {
            placements[i] = pmkvq_pretended_placement(i, placements.size());
        }
    }

    create_cache();

    // whether a device has the operations for a layer depends on the groups, which the cache was asked for; a layer that
    // moves changes the pools, so that it is asked again
    size_t n_moved = 0;
    std::string names;

    for (size_t i = 0; i < layers.size(); ++i) {
        const auto & device = devices[layers[i].device];

        bool ok = true;
        for (uint32_t n_tokens : { 1u, std::min(n_ctx, std::max(1u, n_ubatch)) }) {
            ok = ok && pmkvq_device_runs(device, layers[i], desc, pools, sides[2*i], sides[2*i + 1], rt->cache_meta_bytes(cache, layers[i].device), n_tokens);
        }
        if (!ok) {
            if (names.find(device.name) == std::string::npos) {
                names += (names.empty() ? "" : ", ") + device.name;
            }
            placements[i] = {};
            n_moved++;
        }
    }

    if (n_moved > 0) {
        LLAMA_LOG_WARN("%s: the progressive KV cache and the attention of %zu of %zu layers run on the CPU: this build has no operations for them on %s\n",
                __func__, n_moved, layers.size(), names.c_str());

        create_cache();
    }
}

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

    for (uint32_t id = 0; id < devices.size(); ++id) {
        auto & device = devices[id];

        // one for each kind of buffer
        auto it = std::find_if(res.begin(), res.end(), [&](const auto & r) { return r.first == device.buft; });

        ggml_init_params params = {
            /*.mem_size   =*/ devices.size()*(2*desc.n_pools + 4)*ggml_tensor_overhead(),
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

        device.t_sides = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, desc.n_sides*sizeof(pmkvq_side_desc));
        ggml_set_name(device.t_sides, "cache_pmkvq_sides");

        device.t_ops = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, pmkvq_device::MAX_OPS*sizeof(pmkvq_block_op));
        ggml_set_name(device.t_ops, "cache_pmkvq_ops");

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

void pmkvq_store::log_sizes(bool no_alloc) const {
    const double mib = 1024.0*1024.0;

    size_t f16 = 0;
    for (const auto & l : layers) {
        f16 += (size_t) n_ctx*l.n_head_kv*(l.head_dim_k + l.head_dim_v)*2;
    }

    LLAMA_LOG_INFO("%s: size = %7.2f MiB (%6u cells, %3zu layers): pages %7.2f MiB, tables and parameters %7.2f MiB, attention scratch %7.2f MiB, transforms %7.2f MiB; f16 would need %7.2f MiB%s\n", __func__,
            (size_pool() + size_meta() + scratch_bytes + size_transforms())/mib, n_cell, layers.size(),
            size_pool()/mib, size_meta()/mib, scratch_bytes/mib, size_transforms()/mib, f16/mib, no_alloc ? " (not allocated)" : "");

    for (uint32_t id = 0; id < devices.size(); ++id) {
        if (devices.size() == 1 && devices[id].direct) {
            break; // everything is on the CPU
        }
        size_t pages = 0;
        for (uint32_t i = 0; i < desc.n_pools; ++i) {
            pages += pools[i].device == id ? ggml_nbytes(t_pool[i]) : 0;
        }
        const size_t n_layers = std::count_if(layers.begin(), layers.end(), [&](const pmkvq_layer_desc & l) { return l.device == id; });

        LLAMA_LOG_INFO("%s: %10s: %3zu layers: pages %7.2f MiB, tables and parameters %7.2f MiB, lists of block operations %7.2f MiB\n", __func__,
                devices[id].name.c_str(), n_layers, pages/mib, ggml_nbytes(devices[id].t_meta)/mib, devices[id].size_ops(desc.n_sides)/mib);
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

pmkvq_cells pmkvq_store::cells_view() const {
    static_assert(sizeof(llama_kv_cells::seq_set_t) == 4*sizeof(uint64_t), "a cell's sequences are read as four words");

    return {
        /*.n   =*/ cells->size(),
        /*.pos =*/ cells->pos_data(),
        /*.seq =*/ reinterpret_cast<const uint64_t (*)[4]>(cells->seq_data()),
    };
}

void pmkvq_store::set_context(llama_context * lctx) {
    this->lctx = lctx;
}

ggml_backend_sched_t pmkvq_store::get_sched() const {
    return lctx ? lctx->get_sched() : nullptr;
}

void pmkvq_store::reset_failed() {
    // a batch that was aborted, or failed, leaves them anywhere
    shared->next_task.store(0);
    shared->failed.store(false);
}

bool pmkvq_store::has_failed() const {
    return shared->failed.load();
}

void pmkvq_store::begin_batch() {
    const auto view = cells_view();
    rt->observe(cache, &view);
}

std::vector<uint32_t> pmkvq_store::place(const llama_ubatch & ubatch) const {
    std::vector<int32_t> seq(ubatch.n_tokens);
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        seq[i] = ubatch.seq_id[i][0];
    }

    std::vector<uint32_t> res(ubatch.n_tokens);

    const auto view = cells_view();
    if (rt->place(cache, &view, ubatch.n_tokens, ubatch.pos, seq.data(), res.data()) != 0) {
        return {};
    }

    return res;
}

bool pmkvq_store::apply(const std::vector<uint32_t> & idxs) {
    reset_failed();

    const pmkvq_block_op * ops   = nullptr;
    uint32_t               n_ops = 0;

    char err[PMKVQ_ERR_SIZE] = "";

    const auto view = cells_view();
    if (rt->plan_ubatch(cache, &view, idxs.size(), idxs.data(), &ops, &n_ops, err, sizeof(err)) != 0) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err);
        return false;
    }

    return run_and_commit(ops, n_ops);
}

bool pmkvq_store::run_and_commit(const pmkvq_block_op * ops, uint32_t n_ops) {
    std::vector<uint8_t> done(n_ops);
    if (!run_block_ops(ops, n_ops, done)) {
        // the blocks whose operation ran are where it put them
        rt->commit_partly(cache, done.data(), n_ops);
        sync_tables();
        return false;
    }

    rt->commit(cache);
    sync_tables();

    return true;
}

void pmkvq_store::write(pmkvq_device & device, ggml_tensor * t, const void * data, size_t offset, size_t size) const {
    ggml_backend_t backend = get_sched() ? device.backend(get_sched()) : nullptr;

    if (backend) {
        device.outbox.send(backend, t, data, offset, size);
    } else {
        ggml_backend_tensor_set(t, data, offset, size);
    }
}

void pmkvq_store::sync_tables() {
    for (uint32_t id = 0; id < devices.size(); ++id) {
        auto & device = devices[id];

        if (device.direct) {
            rt->sync_table(cache, id, (uint8_t *) device.t_meta->data);
            continue;
        }

        const pmkvq_table_change * changes = nullptr;

        const uint32_t n = rt->table_changes(cache, id, &changes);
        for (uint32_t i = 0; i < n; ++i) {
            write(device, device.t_meta, changes[i].data, changes[i].offset, changes[i].size);
        }

        // operations of the same ubatch went before
        if (ggml_backend_t backend = get_sched() ? device.backend(get_sched()) : nullptr) {
            device.outbox.close(backend);
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

size_t pmkvq_store::describe(char * buf, size_t n) const {
    const auto view = cells_view();
    return rt->describe(cache, &view, buf, n);
}

//
// block operations
//

struct pmkvq_store::shrink_args {
    const pmkvq_runtime * rt;

    pmkvq_op_shrink op;
    ggml_cgraph   * gf;

    std::vector<pmkvq_block_op> ops;
    std::vector<uint32_t>       idx;  // of each operation in the ubatch's list
    std::vector<uint32_t>       done; // heads that each operation has converted

    static void compute(ggml_tensor * dst, int ith, int nth, void * userdata) {
        auto * args = (shrink_args *) userdata;

        // whether all went well is seen in args->done
        args->rt->op_shrink(&args->op, ith, nth);

        GGML_UNUSED(dst);
    }
};

void pmkvq_store::build_graphs_shrink() {
    const size_t n_graph = 8; // a node and its sources

    ggml_init_params params = {
        /*.mem_size   =*/ desc.n_pools*(ggml_tensor_overhead() + 64 + ggml_graph_overhead_custom(n_graph, false)),
        /*.mem_buffer =*/ nullptr,
        /*.no_alloc   =*/ false,
    };

    ctx_shrink = ggml_init(params);
    if (!ctx_shrink) {
        throw std::runtime_error("pmkvq: failed to create the graphs of the block operations");
    }

    for (uint32_t i = 0; i < desc.n_pools; ++i) {
        auto args = std::make_unique<shrink_args>();

        args->rt = rt;
        args->gf = ggml_new_graph_custom(ctx_shrink, n_graph, false);

        ggml_tensor * node = t_shrink[i];

        if (!node) {
            args->op = {
                /*.ops         =*/ nullptr,
                /*.done        =*/ nullptr,
                /*.n_ops       =*/ 0,
                /*.n_head_kv   =*/ pools[i].n_head_kv,
                /*.head_dim    =*/ pools[i].head_dim,
                /*.n_pages     =*/ pools[i].n_pages,
                /*.n_blocks    =*/ desc.n_blocks,
                /*.pool        =*/ (uint8_t *) t_pool[i]->data,
                /*.meta        =*/ (uint8_t *) devices[pools[i].device].t_meta->data,
                /*.sides       =*/ sides.data(),
                /*.n_sides     =*/ desc.n_sides,
                /*.table_bytes =*/ desc.table_bytes,
            };

            node = ggml_custom_4d(ctx_shrink, GGML_TYPE_I32, 1, 1, 1, 1, nullptr, 0, shrink_args::compute, GGML_N_TASKS_MAX, args.get());
            ggml_format_name(node, "pmkvq_shrink_%u", i);
        }

        ggml_build_forward_expand(args->gf, node);

        args_shrink.push_back(std::move(args));
    }
}

void pmkvq_store::run_on_host(shrink_args & args) const {
    args.op.ops   = args.ops.data();
    args.op.done  = args.done.data();
    args.op.n_ops = args.ops.size();

    auto * sched = get_sched();

    // an abort callback stops a graph after a node, so that this one, of one node, always runs to its end. The graph
    // of the model, which comes next, is what is aborted then
    ggml_backend_graph_compute(ggml_backend_sched_get_backend(sched, ggml_backend_sched_get_n_backends(sched) - 1), args.gf);
}

// The table and the pages that the operations change are read by what is computed next on the same backend, in the order in
// which it was told to: nothing waits here, and an operation that was accepted is done.
void pmkvq_store::run_on_device(shrink_args & args, uint32_t pool) {
    auto & device = devices[pools[pool].device];

    ggml_backend_t backend = device.backend(get_sched());
    ggml_tensor  * node    = t_shrink[pool];

    for (size_t first = 0; backend && first < args.ops.size(); first += pmkvq_device::MAX_OPS) {
        const uint32_t n = std::min<size_t>(args.ops.size() - first, pmkvq_device::MAX_OPS);

        write(device, device.t_ops, args.ops.data() + first, 0, n*sizeof(pmkvq_block_op));
        pmkvq_set_shrink(node, n);

        const bool counted = ggml_backend_buffer_is_host(node->buffer);
        if (counted) {
            memset(node->data, 0, ggml_nbytes(node));
        }

        if (ggml_backend_graph_compute_async(backend, args.gf) != GGML_STATUS_SUCCESS) {
            break;
        }

        for (uint32_t i = 0; i < n; ++i) {
            args.done[first + i] = counted ? ((const uint32_t *) node->data)[i] : pools[pool].n_head_kv;
        }
    }
}

bool pmkvq_store::run_block_ops(const pmkvq_block_op * ops, uint32_t n_ops, std::vector<uint8_t> & done) {
    if (n_ops == 0) {
        return true;
    }
    if (!get_sched()) {
        LLAMA_LOG_ERROR("%s: no context to run block operations in\n", __func__);
        return false;
    }

    // for measuring: waits for the device before and after
    static const bool timed = getenv("PMKVQ_TIME_SHRINKS") != nullptr;

    if (timed) {
        synchronize();
    }
    const int64_t t_start = ggml_time_us();

    for (auto & args : args_shrink) {
        args->ops.clear();
        args->idx.clear();
    }

    for (uint32_t i = 0; i < n_ops; ++i) {
        auto & args = args_shrink[sides[ops[i].side].pool];
        args->ops.push_back(ops[i]);
        args->idx.push_back(i);
    }

    uint32_t n_done = 0;

    for (uint32_t pool = 0; pool < args_shrink.size(); ++pool) {
        auto & args = *args_shrink[pool];
        if (args.ops.empty()) {
            continue;
        }

        args.done.assign(args.ops.size(), 0);

        if (t_shrink[pool]) {
            run_on_device(args, pool);
        } else {
            run_on_host(args);
        }

        for (size_t i = 0; i < args.ops.size(); ++i) {
            done[args.idx[i]] = args.done[i] == pools[pool].n_head_kv;
            n_done += done[args.idx[i]];
        }
    }

    if (timed) {
        synchronize();
        LLAMA_LOG_INFO("%s: %u block operations in %.3f ms\n", __func__, n_ops, (ggml_time_us() - t_start)/1000.0);
    }

    if (n_done < n_ops) {
        LLAMA_LOG_ERROR("%s: %u of %u block operations did not complete\n", __func__, n_ops - n_done, n_ops);
    }

    return n_done == n_ops;
}

//
// graph
//

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
            { sk, desc }, { sv, desc }, device.direct ? 0 : rows_most, layers[ikv].head_dim_v, kq_scale, softcap, max_bias);

    ggml_tensor * cur = pmkvq_build_merge(ctx, shared.get(), partial, sinks);

    nodes.push_back(partial);
    nodes.push_back(cur);

    const int64_t d = layers[ikv].head_dim_v;

    ggml_tensor * out = build_transform(ctx, ggml_reshape_3d(ctx, cur, d, cur->ne[0]/d, cur->ne[1]), ikv, 1, TRANSFORM_OUTPUT);

    return ggml_reshape_2d(ctx, out, cur->ne[0], cur->ne[1]);
}
