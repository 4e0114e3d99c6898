#include "pmkvq-store.h"
#include "pmkvq-model.h"
#include "pmkvq-ops.h"
#include "pmkvq-shrinks.h"

#include "llama-batch.h"
#include "llama-context.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cells.h"

#include <algorithm>
#include <stdexcept>

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

size_t pmkvq_store::describe(char * buf, size_t n) const {
    const auto view = cells_view();
    return rt->describe(cache, &view, buf, n);
}
