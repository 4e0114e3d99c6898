// pmkvq.h - the interface between llama.cpp and the pmkvq runtime
//
// The decisions (plan, cell placement, which block shrinks) and the CPU kernels live in Rust. A program that wants them
// registers one table of functions at start. Without a table, or without a plan, llama.cpp is what it was upstream.
//
// Storage, as all sides agree on it (Rust: src/geometry.rs):
//   block    128 cells of one layer and side (K or V), with a width of 16, 8, 4 or 2 bits
//   page     what 128 tokens of one head take at 2 bits: 32*head_dim bytes
//   pool     [n_head_kv][n_pages][32*head_dim] bytes, one for each distinct (device, n_head_kv, head_dim)
//   meta     one for each device. For each side: a table of pmkvq_block, then the parameters (min, max) of its groups
//
// Every function returns 0 on success. On failure it writes a message that is fit for a user into err and changes nothing.

#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PMKVQ_ABI_VERSION 7

#define PMKVQ_BLOCK     128 // cells in a block
#define PMKVQ_MAX_PAGES 8   // pages of a block at 16 bits
#define PMKVQ_META_ROW  64  // bytes: tables and parameters in a meta buffer begin at multiples of it

// opaque, owned by the runtime
typedef struct pmkvq_plan  pmkvq_plan;
typedef struct pmkvq_cache pmkvq_cache;

// an entry of the table of a layer and side
typedef struct pmkvq_block {
    int32_t width;                  // 16, 8, 4, 2; 0: holds nothing
    int32_t pages[PMKVQ_MAX_PAGES]; // the first width/2 are used; -1: no token needs the page yet
} pmkvq_block;

// convert a block of one side to a narrower width, in place
typedef struct pmkvq_block_op {
    uint32_t side; // 2*layer + (0: K, 1: V)
    uint32_t block;
    int32_t  from;
    int32_t  to;
    int32_t  src[PMKVQ_MAX_PAGES];
    int32_t  dst[PMKVQ_MAX_PAGES];
} pmkvq_block_op;

// a layer that has K and V of its own in the progressive cache
typedef struct pmkvq_layer_desc {
    uint32_t il;
    uint32_t n_head;
    uint32_t n_head_kv;
    uint32_t head_dim_k;
    uint32_t head_dim_v;
    uint32_t device; // in pmkvq_model_desc
} pmkvq_layer_desc;

typedef struct pmkvq_model_desc {
    const char * arch;
    const char * name;
    uint32_t     n_ctx_train;
    uint32_t     n_layers;
    const pmkvq_layer_desc * layers;
    int32_t      rope_type; // enum llama_rope_type
    uint32_t     n_devices; // that the layers are on; 0: nobody has placed them
    const char * const * devices; // names
} pmkvq_model_desc;

// llama.cpp's cells: pos -1 is an empty cell, seq is a bit set of the sequences that use it
typedef struct pmkvq_cells {
    uint32_t          n;
    const int32_t   * pos;
    const uint64_t (* seq)[4];
} pmkvq_cells;

typedef struct pmkvq_pool_desc {
    uint32_t device;
    uint32_t n_head_kv;
    uint32_t head_dim;
    uint32_t n_pages;
} pmkvq_pool_desc;

typedef struct pmkvq_side_desc {
    uint32_t pool;
    uint32_t group;  // values along the head dimension that share (min, max); 0: the side stays at 16 bits
    uint32_t range;  // of a group, in the step to 2 bits. 0: it stays, 1: it is fitted
    uint64_t offset; // of the side's table in the meta buffer of its device, a multiple of 64; the parameters follow the table
} pmkvq_side_desc;

// entries of a table that changed
typedef struct pmkvq_table_change {
    const void * data;
    uint64_t     offset; // in the meta buffer
    uint64_t     size;
} pmkvq_table_change;

enum {
    PMKVQ_FACTOR_NONE   = 0,
    PMKVQ_FACTOR_SCALE  = 1, // [head_dim, n_head_kv]
    PMKVQ_FACTOR_MATRIX = 2, // [head_dim, head_dim, n_head_kv]
};

// K and V of a side are stored as H*F*(x - c); queries become H*F^-T*q, the output of the attention F^-1*H*o + c
// offsets are bytes in the transforms, multiples of 64; all values are f32
typedef struct pmkvq_transform_desc {
    uint32_t hadamard; // rows of the orthonormal Hadamard matrix H, a power of two; 0: none
    uint32_t center;   // 1: there is a c, [head_dim, n_head_kv]
    uint32_t factor;   // what F is
    uint64_t offset_center;
    uint64_t offset_forward; // F
    uint64_t offset_inverse; // F^-T (K) or F^-1 (V)
} pmkvq_transform_desc;

typedef struct pmkvq_cache_desc {
    uint32_t n_blocks;
    uint32_t n_pools;
    uint32_t n_sides;     // 2 * layers
    uint64_t table_bytes; // of one side: its parameters start here
    uint64_t transform_bytes; // all transforms; every device has a copy
    uint32_t sink;        // first and latest tokens of a sequence that stay at 16 bits
    uint32_t window;
} pmkvq_cache_desc;

// store the K or V of a ubatch: rows of head_dim floats, one per KV head and token
typedef struct pmkvq_op_store {
    const float   * x;
    size_t          x_nb_head;  // bytes between heads
    size_t          x_nb_token; // bytes between tokens
    const int64_t * cells;      // [n_tokens]
    uint32_t        n_tokens;
    uint32_t        n_head_kv;
    uint32_t        head_dim;
    uint32_t        group;
    uint32_t        range;
    uint32_t        n_pages;
    uint32_t        n_blocks;
    uint32_t        side; // 0: K, 1: V
    uint8_t       * pool;
    const pmkvq_block * table;
    uint16_t      * params;
} pmkvq_op_store;

// run block operations of sides that live in one pool
typedef struct pmkvq_op_shrink {
    const pmkvq_block_op * ops;
    uint32_t      * done; // [n_ops], atomic: heads that were converted; an operation that ran to its end has n_head_kv
    uint32_t        n_ops;
    uint32_t        n_head_kv;
    uint32_t        head_dim;
    uint32_t        n_pages;
    uint32_t        n_blocks;
    uint8_t       * pool;
    uint8_t       * meta;
    const pmkvq_side_desc * sides; // [n_sides]
    uint32_t        n_sides;
    uint64_t        table_bytes;
} pmkvq_op_shrink;

// attention over the blocks and the current batch, partial results: [n_chunk][n_tokens][n_head][head_dim_v + 2]
typedef struct pmkvq_op_attn {
    const float   * q;
    size_t          q_nb_head;
    size_t          q_nb_token;
    const float   * k_cur; // NULL: the current tokens are read from the cache
    size_t          k_nb_head;
    size_t          k_nb_token;
    const float   * v_cur;
    size_t          v_nb_head;
    size_t          v_nb_token;
    const uint16_t * mask; // f16 [n_tokens][n_kv]
    size_t          mask_nb_token;
    const int64_t * cells; // [n_tokens], of the current batch; columns of the mask
    uint32_t        n_tokens;
    uint32_t        n_kv;
    uint32_t        n_head;
    uint32_t        n_head_kv;
    uint32_t        head_dim_k;
    uint32_t        head_dim_v;
    uint32_t        group_k;
    uint32_t        group_v;
    uint32_t        n_blocks;
    uint32_t        n_chunk;
    float           scale;
    float           softcap;
    float           max_bias;
    uint32_t        one_seq; // the tokens are of one sequence: they see much the same cells
    const uint8_t * pool_k;
    const uint8_t * pool_v;
    uint32_t        n_pages_k;
    uint32_t        n_pages_v;
    const pmkvq_block * table_k;
    const pmkvq_block * table_v;
    const uint16_t * params_k;
    const uint16_t * params_v;
    float         * dst;
    // counts the tasks that the threads take; 0 before and after. NULL: each thread has its share
    uint32_t      * next_task;
} pmkvq_op_attn;

// what is done to rows: H*F*(x - c), or on the way back F*H*x + c, F a value for each of a row
typedef struct pmkvq_row_transform {
    const float * center; // c, [n_head_kv][head_dim] or NULL
    const float * factor; // F, [n_head_kv][head_dim] or NULL
    uint32_t      hadamard; // rows of H, 0: none
} pmkvq_row_transform;

// rows of one kind
typedef struct pmkvq_transform_rows {
    const float   * x;
    size_t          x_nb_head;
    size_t          x_nb_token;
    uint32_t        n_head; // 0: there are none
    uint32_t        head_dim;
    pmkvq_row_transform of;
    float         * dst; // [n_tokens][n_head][head_dim]
} pmkvq_transform_rows;

// transform queries, K and V of a ubatch, or some of them
typedef struct pmkvq_op_transform {
    pmkvq_transform_rows rows[3];
    uint32_t        n_tokens;
    uint32_t        n_head_kv;
} pmkvq_op_transform;

// merge partial results: out [n_tokens][n_head][head_dim_v]
typedef struct pmkvq_op_merge {
    const float   * partial;
    const float   * sinks; // [n_head] or NULL
    uint32_t        n_tokens;
    uint32_t        n_head;
    uint32_t        head_dim_v;
    uint32_t        n_chunk;
    uint32_t        n_head_kv;
    pmkvq_row_transform back; // what was done to V before it was stored, undone
    float         * dst;
} pmkvq_op_merge;

// read rows back as f32: [n_tokens][n_head_kv][head_dim]
typedef struct pmkvq_op_load {
    const int64_t * cells; // [n_tokens]
    uint32_t        n_tokens;
    uint32_t        n_head_kv;
    uint32_t        head_dim;
    uint32_t        group;
    uint32_t        n_pages;
    uint32_t        n_blocks;
    uint32_t        side; // 0: K, 1: V
    const uint8_t * pool;
    const pmkvq_block * table;
    const uint16_t * params;
    float         * dst;
} pmkvq_op_load;

// a state that is saved or restored, and the cache's memory. Callbacks return 0, or anything else to stop
// get and set: rows of a pool (pages of a head, head*n_pages + page) or, with pool UINT32_MAX, of the meta buffer of a device
// (PMKVQ_META_ROW bytes each). In dst and src they lie one behind the other
typedef struct pmkvq_state_io {
    void * data;
    uint64_t in_hand; // bytes of blocks that get or set is asked for at a time: many where a copy takes long, else a block
    int (*write)(void * data, const void * src, uint64_t size);
    int (*read) (void * data,       void * dst, uint64_t size);
    int (*get)  (void * data, uint32_t pool, uint32_t device, const int32_t * rows, uint64_t n,       void * dst);
    int (*set)  (void * data, uint32_t pool, uint32_t device, const int32_t * rows, uint64_t n, const void * src);
} pmkvq_state_io;

typedef struct pmkvq_runtime {
    uint32_t abi_version;
    uint32_t size; // of this struct

    // budget ("2GiB") and rule ("block", "layer") override the plan's where they are not NULL
    int      (*plan_load) (const char * path, const char * budget, const char * rule, pmkvq_plan ** plan, char * err, size_t n_err);
    void     (*plan_free) (pmkvq_plan * plan);
    uint32_t (*plan_n_ctx)(const pmkvq_plan * plan);
    // what can be said from a GGUF's header alone
    int      (*plan_check)(const pmkvq_plan * plan, const char * arch, uint32_t n_layer, char * err, size_t n_err);

    // cells for a context of n_ctx tokens (a multiple of PMKVQ_BLOCK): the sink block and partly filled blocks need slack
    uint32_t (*plan_n_cells)(const pmkvq_plan * plan, uint32_t n_ctx, uint32_t n_seq_max);

    // scratch_bytes: of the attention's partial results, and of lists on devices, which count against the budget
    // estimate: a budget that is too small for n_ctx is enlarged instead of refused (memory fitting runs trial contexts)
    int  (*cache_new) (const pmkvq_plan * plan, const pmkvq_model_desc * model, uint32_t n_ctx, uint32_t n_seq_max,
            uint64_t scratch_bytes, int estimate, pmkvq_cache ** cache, char * err, size_t n_err);
    void (*cache_free)(pmkvq_cache * cache);
    void (*cache_desc)(const pmkvq_cache * cache, pmkvq_cache_desc * desc);
    // tables and parameters on a device
    uint64_t (*cache_meta_bytes)(const pmkvq_cache * cache, uint32_t device);
    int  (*cache_pool)(const pmkvq_cache * cache, uint32_t pool, pmkvq_pool_desc * desc);
    int  (*cache_side)(const pmkvq_cache * cache, uint32_t side, pmkvq_side_desc * desc);
    int  (*cache_transform) (const pmkvq_cache * cache, uint32_t side, pmkvq_transform_desc * desc);
    int  (*write_transforms)(const pmkvq_cache * cache, float * out); // transform_bytes

    // a look at the cells before a batch is placed: blocks that became empty start anew
    void (*observe)    (pmkvq_cache * cache, const pmkvq_cells * cells);
    // cells for the tokens of a ubatch; changes nothing; non-zero if they don't fit
    int  (*place)      (const pmkvq_cache * cache, const pmkvq_cells * cells, uint32_t n_tokens, const int32_t * pos, const int32_t * seq, uint32_t * out);
    // the block operations that must run before the ubatch in new_cells is computed (ops: valid until commit or rollback)
    int  (*plan_ubatch)(pmkvq_cache * cache, const pmkvq_cells * cells, uint32_t n_tokens, const uint32_t * new_cells,
            const pmkvq_block_op ** ops, uint32_t * n_ops, char * err, size_t n_err);
    void (*commit)       (pmkvq_cache * cache); // all operations ran
    void (*commit_partly)(pmkvq_cache * cache, const uint8_t * done, uint32_t n_ops); // those with done[i] != 0 ran, in the order of ops
    void (*rollback)     (pmkvq_cache * cache); // none ran
    void (*reset)      (pmkvq_cache * cache); // the cache was cleared
    // the table entries of a device that changed since the last call of either: copied into its meta buffer,
    void (*sync_table) (pmkvq_cache * cache, uint32_t device, uint8_t * meta);
    // or listed, for a buffer that the host can't write to. Returns their number; valid until the next call with the cache
    uint32_t (*table_changes)(pmkvq_cache * cache, uint32_t device, const pmkvq_table_change ** changes);

    // states: what a sequence holds (seq), or all of them (-1). A head says which blocks, the data are their bytes
    int (*state_size)(const pmkvq_cache * cache, const pmkvq_cells * cells, int32_t seq, uint64_t * head, uint64_t * data, char * err, size_t n_err);
    // data 0: the head, 1: the data
    int (*state_save)(const pmkvq_cache * cache, const pmkvq_cells * cells, int32_t seq, int data, const pmkvq_state_io * io, char * err, size_t n_err);
    // reads a head; the cells that follow in llama.cpp's own data
    int (*state_open)(pmkvq_cache * cache, const pmkvq_state_io * io, uint32_t * n_cells, char * err, size_t n_err);
    // cells for them, in their order; changes nothing; non-zero if they don't fit
    int (*state_place)(pmkvq_cache * cache, const pmkvq_cells * cells, uint32_t * out);
    // the block operations that must run first, once the cells are entered; as plan_ubatch
    int (*state_plan)(pmkvq_cache * cache, const pmkvq_cells * cells, const pmkvq_block_op ** ops, uint32_t * n_ops, char * err, size_t n_err);
    // reads the data, after commit
    int (*state_restore)(pmkvq_cache * cache, const pmkvq_state_io * io, char * err, size_t n_err);

    // what is held now, as JSON; returns the length without the terminator, and writes no more than n bytes
    size_t (*describe) (const pmkvq_cache * cache, const pmkvq_cells * cells, char * buf, size_t n);

    // kernels, called by every thread ith of nth
    int (*op_store) (const pmkvq_op_store  * op, int ith, int nth);
    int (*op_shrink)(const pmkvq_op_shrink * op, int ith, int nth);
    int (*op_attn)  (const pmkvq_op_attn   * op, int ith, int nth);
    int (*op_merge) (const pmkvq_op_merge  * op, int ith, int nth);
    int (*op_load)  (const pmkvq_op_load   * op, int ith, int nth);
    int (*op_transform)(const pmkvq_op_transform * op, int ith, int nth);
} pmkvq_runtime;

// register the runtime's table; to be called before a context with a plan is created. The table must outlive the contexts.
// Returns 0, or -1 if the table is of another version.
int pmkvq_register(const pmkvq_runtime * runtime);

// NULL if no runtime was registered
const pmkvq_runtime * pmkvq_get_runtime(void);

#ifdef __cplusplus
}
#endif
