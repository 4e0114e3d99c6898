// pmkvq-device.h - a device that layers of the progressive cache are on, and what lies in its memory

#pragma once

#include "pmkvq.h"
#include "pmkvq-outbox.h"

#include "ggml.h"
#include "ggml-backend.h"

#include <string>
#include <utility>
#include <vector>

// where a layer is
struct pmkvq_placement {
    ggml_backend_dev_t dev = nullptr; // NULL: the CPU

    // for tests: a number for what the CPU stands for, 0: itself
    int pretended = 0;

    bool operator==(const pmkvq_placement & other) const { return dev == other.dev && pretended == other.pretended; }
};

struct pmkvq_device {
    // block operations that are uploaded at a time
    static constexpr uint32_t MAX_OPS = 256;

    // bytes of their list, and of the counts of heads that they have converted, of which each pool has its own
    static constexpr size_t SIZE_OPS  = MAX_OPS*sizeof(pmkvq_block_op);
    static constexpr size_t SIZE_DONE = MAX_OPS*sizeof(uint32_t);

    pmkvq_placement            at;
    ggml_backend_buffer_type_t buft = nullptr;
    std::string                name;

    // the host writes tables where the kernels read them. Otherwise whatever changes is sent, in the order of the
    // backend's queue, and block operations are a node of the device
    bool direct = true;

    ggml_tensor * t_meta       = nullptr;
    ggml_tensor * t_transforms = nullptr; // NULL: the plan has none

    // unless direct
    ggml_tensor * t_sides = nullptr; // of the whole cache, as block operations number them
    ggml_tensor * t_ops   = nullptr;

    pmkvq_outbox outbox;

    explicit pmkvq_device(const pmkvq_placement & at);

    // what the operations of all layers in a context run on
    ggml_backend_t backend(ggml_backend_sched_t sched) const;

    // bytes that a tensor of so many takes in a buffer
    size_t padded(size_t size) const;
};

// where a layer's K and V would be in a plain cache whose layer is on dev
pmkvq_placement pmkvq_layer_placement(ggml_backend_dev_t dev);

// for tests: layer i of n on the CPU, by PMKVQ_FORCE_DEVICE_PATH: a list of numbers, each for as many layers (0: the CPU itself)
pmkvq_placement pmkvq_pretended_placement(size_t i, size_t n);

// whether the device has operations of the progressive cache at all
bool pmkvq_has_operations(ggml_backend_dev_t dev);

// and all that the layer needs
bool pmkvq_device_runs(
                   const pmkvq_device & device,
               const pmkvq_layer_desc & layer,
               const pmkvq_cache_desc & cache,
    const std::vector<pmkvq_pool_desc> & pools,
                const pmkvq_side_desc & side_k,
                const pmkvq_side_desc & side_v,
                             uint64_t   meta_bytes,
                             uint32_t   n_tokens);
