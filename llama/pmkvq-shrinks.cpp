// Block operations: what the runtime has planned runs, on the CPU or on a device, before the graph that needs it.

#include "pmkvq-shrinks.h"
#include "pmkvq-ops.h"

#include "llama-impl.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

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
