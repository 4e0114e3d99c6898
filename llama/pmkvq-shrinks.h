// pmkvq-shrinks.h - the block operations of a pool, and the graph that they run in

#pragma once

#include "pmkvq-store.h"

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
