#include "pmkvq-rows.h"

#include "ggml-cpp.h"
#include "llama-impl.h"

#include <algorithm>
#include <stdexcept>

pmkvq_rows::pmkvq_rows(const pmkvq_device & device, ggml_backend_sched_t sched) : sched(sched) {
    backend = device.direct || !sched ? nullptr : device.backend(sched);
    room    = backend ? ggml_backend_sched_get_buffer_size(sched, backend) : 0;
}

size_t pmkvq_rows::n_most(size_t size) const {
    const size_t align = 4096; // more than any backend's, for what is staged and the numbers of its rows

    return room > align ? std::min(STAGE/size, (room - align)/(size + sizeof(int32_t))) : 0;
}

// a graph of one node: rows of a tensor and those that are staged, as floats, whose bits nothing looks at
struct pmkvq_staged {
    ggml_context_ptr ctx;

    ggml_tensor * all  = nullptr;
    ggml_tensor * idxs = nullptr;

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

    void compute(ggml_backend_t backend) {
        if (ggml_backend_graph_compute_async(backend, gf) != GGML_STATUS_SUCCESS) {
            throw std::runtime_error("pmkvq: the device can't copy the KV cache");
        }
    }
};

bool pmkvq_rows::alloc(pmkvq_staged & graph) {
    ggml_backend_sched_reset(sched);

    for (int i = 0; i < ggml_graph_n_nodes(graph.gf); ++i) {
        ggml_tensor * node = ggml_graph_node(graph.gf, i);

        if (!ggml_backend_supports_op(backend, node)) {
            return false;
        }

        // not marked as inputs, of which a scheduler of several GPUs makes copies: in a graph of one node nothing takes their memory
        ggml_backend_sched_set_tensor_backend(sched, node, backend);
        for (auto * src : node->src) {
            if (src && src != graph.all) {
                ggml_backend_sched_set_tensor_backend(sched, src, backend);
            }
        }
    }

    const bool ok = ggml_backend_sched_alloc_graph(sched, graph.gf);

    if (ggml_backend_sched_get_buffer_size(sched, backend) > room) {
        LLAMA_LOG_WARN("%s: the compute buffer has become larger: %zu bytes instead of %zu\n", __func__,
                ggml_backend_sched_get_buffer_size(sched, backend), room);
    }

    return ok;
}

bool pmkvq_rows::get_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, void * data) {
    pmkvq_staged graph(t, size, n);

    ggml_tensor * staged = ggml_get_rows(graph.ctx.get(), graph.all, graph.idxs);
    ggml_build_forward_expand(graph.gf, staged);

    if (!alloc(graph)) {
        return false;
    }

    ggml_backend_tensor_set_async(backend, graph.idxs, rows, 0, n*sizeof(int32_t));
    graph.compute(backend);
    ggml_backend_tensor_get_async(backend, staged, data, 0, n*size);
    ggml_backend_synchronize(backend);

    return true;
}

bool pmkvq_rows::set_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data) {
    pmkvq_staged graph(t, size, n);

    ggml_tensor * staged = ggml_new_tensor_2d(graph.ctx.get(), GGML_TYPE_F32, graph.all->ne[0], n);
    ggml_build_forward_expand(graph.gf, ggml_set_rows(graph.ctx.get(), graph.all, staged, graph.idxs));

    if (!alloc(graph)) {
        return false;
    }

    ggml_backend_tensor_set_async(backend, graph.idxs, rows, 0, n*sizeof(int32_t));
    ggml_backend_tensor_set_async(backend, staged,     data, 0, n*size);
    graph.compute(backend);
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
        n_cur = std::min(n, std::max<size_t>(1, n_most(size)));

        if (n_cur > 1 && get_staged(t, size, rows, n_cur, data)) {
            continue;
        }
        pmkvq_for_runs(rows, n_cur, [&](size_t first, size_t n_run) {
            ggml_backend_tensor_get(t, (char *) data + first*size, rows[first]*size, n_run*size);
        });
    }
}

void pmkvq_rows::set(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data) {
    for (size_t n_cur; n > 0; rows += n_cur, n -= n_cur, data = (const char *) data + n_cur*size) {
        n_cur = std::min(n, std::max<size_t>(1, n_most(size)));

        if (n_cur > 1 && set_staged(t, size, rows, n_cur, data)) {
            continue;
        }
        pmkvq_for_runs(rows, n_cur, [&](size_t first, size_t n_run) {
            ggml_backend_tensor_set(t, (const char *) data + first*size, rows[first]*size, n_run*size);
        });
    }
}
