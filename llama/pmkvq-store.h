// pmkvq-store.h - the storage behind a llama_kv_cache when a plan is active
//
// llama_kv_cache keeps its cells, sequences and masks. This class owns what is behind them (pools, tables, parameters),
// asks the runtime where tokens go and which blocks shrink, and builds the graph nodes that store and attend.

#pragma once

#include "pmkvq.h"
#include "pmkvq-device.h"

#include "ggml.h"
#include "ggml-backend.h"
#include "llama.h"

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

struct llama_cparams;
struct llama_hparams;
struct llama_ubatch;
class  llama_io_read_i;
class  llama_io_write_i;
class  llama_kv_cells;
class  pmkvq_store;
struct pmkvq_shared;

// one message of the runtime
static constexpr size_t PMKVQ_ERR_SIZE = 1024;

// the plan that applies to the caches that are being constructed on this thread
//
// The constructors of llama_kv_cache are reached through a dozen wrappers (iSWA, hybrid, ...) that know nothing of plans.
// llama_context holds a scope while it creates its memory, the first eligible cache takes the plan.
class pmkvq_scope {
public:
    // no plan in params: an inactive scope. Throws std::runtime_error for a plan that can't be used.
    pmkvq_scope(const llama_model & model, const llama_context_params & params);
    ~pmkvq_scope();

    pmkvq_scope(const pmkvq_scope &) = delete;
    pmkvq_scope & operator=(const pmkvq_scope &) = delete;

    bool active() const { return plan != nullptr; }

    // the context that the plan was made for
    uint32_t n_ctx() const;

    // throws if no cache took the plan
    void check_used() const;

    static pmkvq_scope * current();

    std::shared_ptr<pmkvq_plan> plan;

    // set by the context once it is final
    uint32_t n_ubatch = 0;

    // the caches that took the plan, and the last one's store
    int n_used = 0;
    std::shared_ptr<pmkvq_store> store;

private:
    pmkvq_scope * prev = nullptr;
};

class pmkvq_store {
public:
    // a store for the cache that is being constructed; NULL if no plan is active or the cache is not eligible
    static std::shared_ptr<pmkvq_store> create(
            const llama_model   & model,
            const llama_hparams & hparams,
                       bool       v_trans,
                       bool       unified,
                       bool       windowed, // sliding window
                       bool       shared,   // uses another cache's cells
                       uint32_t   kv_size,
                       uint32_t   n_seq_max);

    ~pmkvq_store();

    uint32_t n_cells() const;

    // the cells that a graph looks at when the last used one is used_max_p1 - 1
    uint32_t n_kv(uint32_t used_max_p1) const;

    // the cells that the storage belongs to; they must outlive it
    void set_cells(const llama_kv_cells * cells);

    // offload: the layer's K and V go where its weights are, if that device has the operations for it
    void add_layer(int32_t il, bool offload);

    // create the tensors, without allocating them: a context for each device
    std::vector<std::pair<ggml_backend_buffer_type_t, ggml_context *>> init_tensors();

    // the tensors were allocated (unless no_alloc)
    void init_data();

    void log_sizes(bool no_alloc) const;

    // the context that block operations run in
    void set_context(llama_context * lctx);

    // nodes of a graph that is computed next have not failed yet; whether any did, on the CPU
    void reset_failed();
    bool has_failed() const;

    // llama_decode() begins, or positions are to be shifted
    void begin_batch();

    // cells for a ubatch, empty if they don't fit
    std::vector<uint32_t> place(const llama_ubatch & ubatch) const;

    // the ubatch was entered in the cells: run the block operations it needs
    bool apply(const std::vector<uint32_t> & idxs);

    // all cells are empty; with data, what pools and parameters hold is zeroed too
    void clear(bool data);

    // what a sequence holds (-1: all of them): the head, which comes before llama.cpp's own data, or the data behind it.
    // Throws std::runtime_error.
    void state_write(llama_io_write_i & io, llama_seq_id seq_id, bool data) const;

    // reads a head and returns the number of cells that follow. Throws std::runtime_error for a state that does not fit here.
    uint32_t state_open(llama_io_read_i & io);

    // cells for them, empty if they don't fit
    std::vector<uint32_t> state_place();

    // they were entered in the cells: make room, and read the data. False: the cells must be given up
    bool state_read(llama_io_read_i & io);

    // see llama_pmkvq_describe()
    size_t describe(char * buf, size_t n) const;

    // graph: the current queries, K and V, each of which may be NULL, as they are stored and attended to
    // nodes: those that have to stay on the backend that owns the pool
    void build_transform(
            ggml_context * ctx,
             ggml_tensor *& q,
             ggml_tensor *& k,
             ggml_tensor *& v,
                uint32_t   ikv,
             std::vector<ggml_tensor *> & nodes) const;

    // graph: store K or V (side 0, 1) as build_transform() returned it
    ggml_tensor * build_store(ggml_context * ctx, ggml_tensor * cur, ggml_tensor * idxs, uint32_t ikv, int side) const;

    // graph: K as it was before it was stored, [head_dim_k, n_head_kv, n_tokens] f32, of the cells in idxs
    ggml_tensor * build_loaded_k(ggml_context * ctx, ggml_tensor * idxs, uint32_t ikv, std::vector<ggml_tensor *> & nodes) const;

    // graph: attention over the blocks and the current batch, as build_transform() returned it; k_cur and v_cur are NULL where a layer reads another one's.
    // Returns [head_dim_v*n_head, n_tokens]. one_seq: the tokens are of one sequence. nodes: those that have to stay on the backend that owns the pool.
    ggml_tensor * build_attn(
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
                    bool   one_seq,
                uint32_t   ikv,
             std::vector<ggml_tensor *> & nodes) const;

    // graph: the backend that the nodes of a layer have to stay on
    ggml_backend_t backend(ggml_backend_sched_t sched, uint32_t ikv) const;

    // bytes
    size_t size_pool() const;
    size_t size_meta() const;
    size_t size_transforms() const;
    size_t size_buffers() const; // of all that is allocated for it, but the attention's partial results

private:
    pmkvq_store() = default;

    const pmkvq_runtime * rt = nullptr;

    std::shared_ptr<pmkvq_plan> plan;

    const llama_model   * model   = nullptr;
    const llama_hparams * hparams = nullptr;

    llama_context * lctx = nullptr;

    const llama_kv_cells * cells = nullptr;

    pmkvq_cells cells_view() const;

    // NULL before there is one
    ggml_backend_sched_t get_sched() const;

    // waits for what was sent to devices
    void synchronize() const;

    struct state_access;
    uint32_t state_cells = 0; // of the state that is being restored

    uint32_t n_ctx     = 0;
    uint32_t n_ubatch  = 0;
    uint32_t n_seq_max = 0;
    uint32_t n_cell    = 0;

    size_t   scratch_bytes = 0; // the attention's partial results and the lists, on all devices
    uint32_t rows_most     = 0; // of partial results on a device, see pmkvq-chunks.h

    std::vector<pmkvq_layer_desc>   layers;
    std::vector<pmkvq_placement>    placements; // of the layers
    std::vector<pmkvq_device>       devices;    // that layers are on

    pmkvq_cache * cache = nullptr;

    pmkvq_cache_desc             desc = {};
    std::vector<pmkvq_pool_desc> pools;
    std::vector<pmkvq_side_desc> sides;
    std::vector<pmkvq_transform_desc> transforms;

    std::vector<ggml_tensor *> t_pool;
    std::vector<ggml_tensor *> t_seen;   // of each layer, the lists of what is seen of its device; NULL: there are none
    std::vector<ggml_tensor *> t_shrink; // of each pool, the node that runs block operations on a device; NULL where the host does

    // the prebuilt graphs of block operations, one per pool, each of one node, and their inputs
    struct shrink_args;
    std::vector<std::unique_ptr<shrink_args>> args_shrink;
    ggml_context * ctx_shrink = nullptr;

    std::unique_ptr<pmkvq_shared> shared;

    // the layers' devices, and the cache that is laid out for them
    void place_layers();
    void create_cache();

    // the largest partial results that attention nodes can have, and the lists, on all devices
    size_t count_scratch() const;

    // whether devices have lists of what is seen, and the layer that layer i shares them with: the first one on its device with such an attention
    bool   has_seen() const;
    size_t first_alike(size_t i) const;

    // bytes: of all sides' descriptions, of lists of what is seen, and of all lists on a device: these, block operations and their counts
    size_t size_sides() const;
    size_t size_seen() const;
    size_t size_lists(uint32_t id) const;

    // the tables as they are now, on their way to the devices
    void sync_tables();

    // write to a tensor of a device in the order of what is computed there; at once before the first batch
    void write(pmkvq_device & device, ggml_tensor * t, const void * data, size_t offset, size_t size) const;

    // x: [head_dim, n_head, n_tokens], n_head a multiple of the matrices at offset in the transforms
    ggml_tensor * mul_matrix(ggml_context * ctx, ggml_tensor * x, uint32_t ikv, uint64_t offset, bool transposed) const;

    void build_graphs_shrink();

    // the operations of what the runtime has planned, and the tables behind them
    bool run_and_commit(const pmkvq_block_op * ops, uint32_t n_ops);

    // done[i]: operation i ran to its end. Returns false if any did not
    bool run_block_ops(const pmkvq_block_op * ops, uint32_t n_ops, std::vector<uint8_t> & done);
    void run_on_host  (shrink_args & args) const;
    void run_on_device(shrink_args & args, uint32_t pool);
};
