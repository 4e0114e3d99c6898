// pmkvq-rows.h - rows that lie anywhere in a tensor, between the host and a device, in few copies
//
// A copy to or from a device takes as long as some hundred KiB of it do. So rows are gathered on the device first (or spread
// there, on the way back), by operations that its backend has anyway. In between they lie in the scheduler's compute buffer: it
// is there, and nothing is computed meanwhile.

#pragma once

#include "pmkvq-device.h"

struct pmkvq_staged;

class pmkvq_rows {
public:
    // sched: nothing of it is under way, and no graph that it has allocated is used again. NULL before there is one, then rows are
    // copied as they lie
    pmkvq_rows(const pmkvq_device & device, ggml_backend_sched_t sched);

    pmkvq_rows(const pmkvq_rows &) = delete;
    pmkvq_rows & operator=(const pmkvq_rows &) = delete;

    // n rows of size bytes (a multiple of 4), in data one behind the other. What the device was told to do before is done before, and
    // what comes after finds them. Throws std::runtime_error if the device fails
    void get(ggml_tensor * t, size_t size, const int32_t * rows, size_t n,       void * data);
    void set(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data);

    // the most bytes that cross at a time
    static constexpr size_t STAGE = 8u << 20;

private:
    ggml_backend_sched_t sched   = nullptr;
    ggml_backend_t       backend = nullptr;

    // bytes of the compute buffer
    size_t room = 0;

    // rows of size bytes that it has room for; 0: none can be staged
    size_t n_most(size_t size) const;

    // memory for the graph, false if there is none
    bool alloc(pmkvq_staged & graph);

    // one copy; false if the backend has no operation for it, or there is no memory
    bool get_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n,       void * data);
    bool set_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data);
};
