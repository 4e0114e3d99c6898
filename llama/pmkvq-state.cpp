// States in and out: the runtime decides what is written, this file moves the bytes between files and devices.

#include "pmkvq-store.h"
#include "pmkvq-rows.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-io.h"
#include "llama-kv-cells.h"

#include <algorithm>
#include <exception>
#include <map>
#include <stdexcept>
#include <tuple>
#include <utility>

// what the runtime calls back. An exception can't pass through it, and is thrown again behind it
struct pmkvq_store::state_access {
    const pmkvq_store & store;

    llama_io_write_i * out = nullptr;
    llama_io_read_i  * in  = nullptr;

    std::exception_ptr failed;

    template <typename F>
    static int call(void * data, F && f) {
        auto & access = *(state_access *) data;
        try {
            f(access);
            return 0;
        } catch (...) {
            access.failed = std::current_exception();
            return -1;
        }
    }

    // of the devices that were needed so far
    std::map<uint32_t, pmkvq_rows> rows;

    // what the rows are of, pool UINT32_MAX: the meta buffer of the device
    template <typename F>
    void at(uint32_t pool, uint32_t device, F && f) {
        const bool meta = pool == UINT32_MAX;

        ggml_tensor * t = meta ? store.devices.at(device).t_meta : store.t_pool.at(pool);

        const uint32_t id = meta ? device : store.pools[pool].device;
        auto it = rows.find(id);
        if (it == rows.end()) {
            it = rows.emplace(std::piecewise_construct, std::forward_as_tuple(id), std::forward_as_tuple(store.devices[id], store.get_sched())).first;

            if (!store.devices[id].direct && store.lctx) {
                store.lctx->graph_reuse_reset();
            }
        }

        f(it->second, t, meta ? PMKVQ_META_ROW : (size_t) t->ne[0]);
    }

    // on the host a block is copied while it is in the processor's caches
    uint64_t in_hand() const {
        const bool direct = std::all_of(store.devices.begin(), store.devices.end(), [](const pmkvq_device & d) { return d.direct; });

        return direct ? 1 : pmkvq_rows::STAGE;
    }

    pmkvq_state_io io() {
        return {
            /*.data    =*/ this,
            /*.in_hand =*/ in_hand(),
            /*.write   =*/ [](void * data, const void * src, uint64_t size) {
                return call(data, [&](state_access & a) { a.out->write(src, size); });
            },
            /*.read    =*/ [](void * data, void * dst, uint64_t size) {
                return call(data, [&](state_access & a) { a.in->read(dst, size); });
            },
            /*.get     =*/ [](void * data, uint32_t pool, uint32_t device, const int32_t * rows, uint64_t n, void * dst) {
                return call(data, [&](state_access & a) {
                    a.at(pool, device, [&](pmkvq_rows & r, ggml_tensor * t, size_t size) { r.get(t, size, rows, n, dst); });
                });
            },
            /*.set     =*/ [](void * data, uint32_t pool, uint32_t device, const int32_t * rows, uint64_t n, const void * src) {
                return call(data, [&](state_access & a) {
                    a.at(pool, device, [&](pmkvq_rows & r, ggml_tensor * t, size_t size) { r.set(t, size, rows, n, src); });
                });
            },
        };
    }

    void check(int ret, const char * err) const {
        if (failed) {
            std::rethrow_exception(failed);
        }
        if (ret != 0) {
            throw std::runtime_error(std::string("pmkvq: ") + err);
        }
    }
};

void pmkvq_store::synchronize() const {
    if (auto * sched = get_sched()) {
        ggml_backend_sched_synchronize(sched);
    }
}

void pmkvq_store::state_write(llama_io_write_i & io, llama_seq_id seq_id, bool data) const {
    char err[PMKVQ_ERR_SIZE] = "";

    const auto view = cells_view();

    if (io.counts_only()) {
        uint64_t size_head = 0;
        uint64_t size_data = 0;
        if (rt->state_size(cache, &view, seq_id, &size_head, &size_data, err, sizeof(err)) != 0) {
            throw std::runtime_error(std::string("pmkvq: ") + err);
        }
        io.write(nullptr, data ? size_data : size_head);
        return;
    }

    // what was sent to a device is there
    synchronize();

    state_access access = { *this, &io, nullptr, {}, {} };

    const auto access_io = access.io();
    const int  ret       = rt->state_save(cache, &view, seq_id, data, &access_io, err, sizeof(err));

    access.check(ret, err);
}

uint32_t pmkvq_store::state_open(llama_io_read_i & io) {
    char err[PMKVQ_ERR_SIZE] = "";

    state_access access = { *this, nullptr, &io, {}, {} };

    uint32_t n_cells = 0;

    const auto access_io = access.io();
    const int  ret       = rt->state_open(cache, &access_io, &n_cells, err, sizeof(err));

    access.check(ret, err);

    state_cells = n_cells;

    return n_cells;
}

std::vector<uint32_t> pmkvq_store::state_place() {
    std::vector<uint32_t> res(state_cells);

    // cells that were given up since the last batch
    const auto view = cells_view();
    rt->observe(cache, &view);

    if (rt->state_place(cache, &view, res.data()) != 0) {
        return {};
    }

    return res;
}

bool pmkvq_store::state_read(llama_io_read_i & io) {
    char err[PMKVQ_ERR_SIZE] = "";

    const pmkvq_block_op * ops   = nullptr;
    uint32_t               n_ops = 0;

    const auto view = cells_view();
    if (rt->state_plan(cache, &view, &ops, &n_ops, err, sizeof(err)) != 0) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err);
        return false;
    }
    if (!run_and_commit(ops, n_ops)) {
        return false;
    }

    // pages that are written now may have been another block's until an operation that is still under way
    synchronize();

    state_access access = { *this, nullptr, &io, {}, {} };

    const auto access_io = access.io();
    const int  ret       = rt->state_restore(cache, &access_io, err, sizeof(err));

    if (ret != 0) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err);
    }

    return ret == 0;
}
