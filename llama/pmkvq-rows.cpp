#include "pmkvq-rows.h"

#include <algorithm>
#include <stdexcept>

// the smallest rows, for the numbers of those that are staged
static constexpr size_t PMKVQ_ROW_MIN = PMKVQ_META_ROW;

pmkvq_rows::pmkvq_rows(const pmkvq_device & device, ggml_backend_sched_t sched) {
    if (device.direct || !sched) {
        return;
    }

    backend = device.backend(sched);
    if (backend) {
        stage.reset(ggml_backend_buft_alloc_buffer(device.buft, STAGE + STAGE/PMKVQ_ROW_MIN*sizeof(int32_t)));
    }
}

namespace {

// a graph of one node: rows of a tensor and those that are staged, as floats, whose bits nothing looks at
struct pmkvq_staged {
    ggml_context_ptr ctx;

    ggml_tensor * all    = nullptr;
    ggml_tensor * staged = nullptr;
    ggml_tensor * idxs   = nullptr;

    ggml_cgraph * gf = nullptr;

    static constexpr size_t N_NODES = 8; // the node and its sources

    pmkvq_staged(ggml_tensor * t, size_t size, size_t n) {
        ggml_init_params params = {
            /*.mem_size   =*/ 8*ggml_tensor_overhead() + ggml_graph_overhead_custom(N_NODES, false),
            /*.mem_buffer =*/ nullptr,
            /*.no_alloc   =*/ true,
        };

        ctx.reset(ggml_init(params));
        if (!ctx) {
            throw std::runtime_error("pmkvq: no memory for a graph");
        }

        all  = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, size/sizeof(float), ggml_nbytes(t)/size);
        idxs = ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I32, n);
        gf   = ggml_new_graph_custom(ctx.get(), N_NODES, false);

        ggml_backend_tensor_alloc(t->buffer, all, t->data);
    }

    void place(ggml_backend_buffer_t buffer, size_t offset_idxs) {
        char * base = (char *) ggml_backend_buffer_get_base(buffer);

        ggml_backend_tensor_alloc(buffer, staged, base);
        ggml_backend_tensor_alloc(buffer, idxs,   base + offset_idxs);
    }

    void compute(ggml_backend_t backend, ggml_tensor * node) {
        ggml_build_forward_expand(gf, node);

        if (ggml_backend_graph_compute_async(backend, gf) != GGML_STATUS_SUCCESS) {
            throw std::runtime_error("pmkvq: the device can't copy the KV cache");
        }
    }
};

} // namespace

bool pmkvq_rows::get_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, void * data) {
    pmkvq_staged graph(t, size, n);

    graph.staged = ggml_get_rows(graph.ctx.get(), graph.all, graph.idxs);
    graph.place(stage.get(), STAGE);

    if (!ggml_backend_supports_op(backend, graph.staged)) {
        return false;
    }

    ggml_backend_tensor_set_async(backend, graph.idxs, rows, 0, n*sizeof(int32_t));
    graph.compute(backend, graph.staged);
    ggml_backend_tensor_get_async(backend, graph.staged, data, 0, n*size);
    ggml_backend_synchronize(backend);

    return true;
}

bool pmkvq_rows::set_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data) {
    pmkvq_staged graph(t, size, n);

    graph.staged = ggml_new_tensor_2d(graph.ctx.get(), GGML_TYPE_F32, graph.all->ne[0], n);
    graph.place(stage.get(), STAGE);

    ggml_tensor * node = ggml_set_rows(graph.ctx.get(), graph.all, graph.staged, graph.idxs);
    ggml_backend_view_init(node);

    if (!ggml_backend_supports_op(backend, node)) {
        return false;
    }

    ggml_backend_tensor_set_async(backend, graph.idxs,   rows, 0, n*sizeof(int32_t));
    ggml_backend_tensor_set_async(backend, graph.staged, data, 0, n*size);
    graph.compute(backend, node);
    ggml_backend_synchronize(backend);

    return true;
}

// rows that follow each other in both are one copy
template <typename F>
static void pmkvq_for_runs(const int32_t * rows, size_t n, F && f) {
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && rows[end] == rows[end - 1] + 1;) {
            ++end;
        }
        f(first, end - first);
    }
}

void pmkvq_rows::get(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, void * data) {
    for (size_t n_cur; n > 0; rows += n_cur, n -= n_cur, data = (char *) data + n_cur*size) {
        n_cur = std::min(n, STAGE/size);

        if (stage && get_staged(t, size, rows, n_cur, data)) {
            continue;
        }
        pmkvq_for_runs(rows, n_cur, [&](size_t first, size_t n_run) {
            ggml_backend_tensor_get(t, (char *) data + first*size, rows[first]*size, n_run*size);
        });
    }
}

void pmkvq_rows::set(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data) {
    for (size_t n_cur; n > 0; rows += n_cur, n -= n_cur, data = (const char *) data + n_cur*size) {
        n_cur = std::min(n, STAGE/size);

        if (stage && set_staged(t, size, rows, n_cur, data)) {
            continue;
        }
        pmkvq_for_runs(rows, n_cur, [&](size_t first, size_t n_run) {
            ggml_backend_tensor_set(t, (const char *) data + first*size, rows[first]*size, n_run*size);
        });
    }
}
