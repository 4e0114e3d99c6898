// pmkvq-device.h - a device that layers of the progressive cache are on, and what lies in its memory

#pragma once

#include "pmkvq.h"

#include "ggml.h"
#include "ggml-backend.h"

#include <string>
#include <utility>
#include <vector>

struct pmkvq_device {
    // block operations that are uploaded at a time. Their buffer is small, and does not count against the budget: a plan
    // that fits to the byte fits on every device
    static constexpr uint32_t MAX_OPS = 256;

    ggml_backend_dev_t         dev  = nullptr; // NULL: the CPU
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

    explicit pmkvq_device(ggml_backend_dev_t dev);

    // what the operations of all layers in a context run on
    ggml_backend_t backend(ggml_backend_sched_t sched) const;

    // bytes that block operations take, with n_sides sides
    size_t size_ops(uint32_t n_sides) const;
};

// where a layer's K and V would be in a plain cache, NULL for the CPU
ggml_backend_dev_t pmkvq_layer_device(ggml_backend_dev_t dev);

// whether the device has all operations that the layer needs
bool pmkvq_device_runs(
                   const pmkvq_device & device,
               const pmkvq_layer_desc & layer,
               const pmkvq_cache_desc & cache,
    const std::vector<pmkvq_pool_desc> & pools,
                const pmkvq_side_desc & side_k,
                const pmkvq_side_desc & side_v,
                             uint64_t   meta_bytes,
                             uint32_t   n_tokens);
