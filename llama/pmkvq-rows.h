// pmkvq-rows.h - rows that lie anywhere in a tensor, between the host and a device, in few copies
//
// A copy to or from a device takes as long as some hundred KiB of it do. So rows are gathered on the device first (or spread
// there, on the way back), by operations that its backend has anyway, in memory that is there for as long as this object.

#pragma once

#include "pmkvq-device.h"

#include "ggml-cpp.h"

class pmkvq_rows {
public:
    // sched: NULL before there is one, then rows are copied as they lie
    pmkvq_rows(const pmkvq_device & device, ggml_backend_sched_t sched);

    // n rows of size bytes (a multiple of 4), in data one behind the other. What the device was told to do before is done before, and
    // what comes after finds them. Throws std::runtime_error if the device fails
    void get(ggml_tensor * t, size_t size, const int32_t * rows, size_t n,       void * data);
    void set(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data);

    // bytes that cross at a time. They do not count against the budget: where a device does not have them, rows are copied as they lie
    static constexpr size_t STAGE = 8u << 20;

private:
    ggml_backend_t          backend = nullptr;
    ggml_backend_buffer_ptr stage; // NULL: there is none

    // one copy; false if the backend has no operation for it
    bool get_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n,       void * data);
    bool set_staged(ggml_tensor * t, size_t size, const int32_t * rows, size_t n, const void * data);
};
