// States in and out: the runtime decides what is written, this file moves the bytes between files and devices.

#include "pmkvq-store.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-io.h"
#include "llama-kv-cells.h"

#include <exception>
#include <stdexcept>

// pieces that one copy may take: on CUDA they may be no more than 2 GiB apart, and the heads of a pool can be
static uint64_t pmkvq_n_at_once(uint64_t n, uint64_t stride) {
    return stride > INT32_MAX ? 1 : n;
}

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

    // pool UINT32_MAX: the meta buffer of the device
    ggml_tensor * tensor(uint32_t pool, uint32_t device) const {
        return pool == UINT32_MAX ? store.devices.at(device).t_meta : store.t_pool.at(pool);
    }

    pmkvq_state_io io() {
        return {
            /*.data  =*/ this,
            /*.write =*/ [](void * data, const void * src, uint64_t size) {
                return call(data, [&](state_access & a) { a.out->write(src, size); });
            },
            /*.read  =*/ [](void * data, void * dst, uint64_t size) {
                return call(data, [&](state_access & a) { a.in->read(dst, size); });
            },
            /*.get   =*/ [](void * data, uint32_t pool, uint32_t device, uint64_t offset, uint64_t size, uint64_t n, uint64_t stride, void * dst) {
                return call(data, [&](state_access & a) {
                    const uint64_t step = pmkvq_n_at_once(n, stride);
                    for (uint64_t i = 0; i < n; i += step) {
                        ggml_backend_tensor_get_2d(a.tensor(pool, device), (char *) dst + i*size, offset + i*stride, size, step, stride, size);
                    }
                });
            },
            /*.set   =*/ [](void * data, uint32_t pool, uint32_t device, uint64_t offset, uint64_t size, uint64_t n, uint64_t stride, const void * src) {
                return call(data, [&](state_access & a) {
                    const uint64_t step = pmkvq_n_at_once(n, stride);
                    for (uint64_t i = 0; i < n; i += step) {
                        ggml_backend_tensor_set_2d(a.tensor(pool, device), (const char *) src + i*size, offset + i*stride, size, step, stride, size);
                    }
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

    state_access access = { *this, &io, nullptr, {} };

    const auto access_io = access.io();
    const int  ret       = rt->state_save(cache, &view, seq_id, data, &access_io, err, sizeof(err));

    access.check(ret, err);
}

uint32_t pmkvq_store::state_open(llama_io_read_i & io) {
    char err[PMKVQ_ERR_SIZE] = "";

    state_access access = { *this, nullptr, &io, {} };

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

    state_access access = { *this, nullptr, &io, {} };

    const auto access_io = access.io();
    const int  ret       = rt->state_restore(cache, &access_io, err, sizeof(err));

    if (ret != 0) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err);
    }

    return ret == 0;
}
