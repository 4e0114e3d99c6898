#include "pmkvq.h"

static const pmkvq_runtime * g_runtime = nullptr;

int pmkvq_register(const pmkvq_runtime * runtime) {
    if (!runtime || runtime->abi_version != PMKVQ_ABI_VERSION || runtime->size != sizeof(pmkvq_runtime)) {
        return -1;
    }

    g_runtime = runtime;

    return 0;
}

const pmkvq_runtime * pmkvq_get_runtime(void) {
    return g_runtime;
}

// Rust's side of the structs has a test for the same numbers (src/capi/tests.rs)
static_assert(sizeof(void *) != 8 || (
    sizeof(pmkvq_block)      ==  36 && sizeof(pmkvq_block_op)   == 80 && sizeof(pmkvq_layer_desc) == 24 &&
    sizeof(pmkvq_model_desc) ==  48 && sizeof(pmkvq_cells)      == 24 && sizeof(pmkvq_pool_desc)  == 16 &&
    sizeof(pmkvq_side_desc)  ==  24 && sizeof(pmkvq_cache_desc) == 40 && sizeof(pmkvq_op_store)   == 88 &&
    sizeof(pmkvq_op_shrink)  ==  80 && sizeof(pmkvq_op_attn)    == 224 && sizeof(pmkvq_op_merge)  == 72 &&
    sizeof(pmkvq_runtime)    == 288 && sizeof(pmkvq_transform_desc) == 40 && sizeof(pmkvq_row_transform) == 24 &&
    sizeof(pmkvq_transform_rows) == 64 && sizeof(pmkvq_op_transform) == 200 &&
    sizeof(pmkvq_table_change) == 24 && sizeof(pmkvq_op_load) == 72 && sizeof(pmkvq_state_io) == 48), "the structs of pmkvq.h and src/capi/types.rs have to agree");
