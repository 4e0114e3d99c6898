// pmkvq-outbox.h - what is on its way to a device
//
// A write in the order of a device's queue may read its source long after the call: CUDA promises nothing else, whether memory is pinned or
// not. The tables are the runtime's, and change with the next ubatch. So copies are sent, and kept until the device has come past them.

#pragma once

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <array>
#include <cstdint>
#include <vector>

class pmkvq_outbox {
public:
    pmkvq_outbox() = default;
    ~pmkvq_outbox();

    pmkvq_outbox(pmkvq_outbox &&) = default;
    pmkvq_outbox & operator=(pmkvq_outbox &&) = delete;

    void send(ggml_backend_t backend, ggml_tensor * t, const void * data, size_t offset, size_t size);

    // what was sent since the last call belongs to one ubatch
    void close(ggml_backend_t backend);

private:
    struct batch {
        std::vector<std::vector<uint8_t>> copies;
        ggml_backend_event_ptr            passed; // NULL: the device has no events

        void wait(ggml_backend_t backend);
    };

    // as many ubatches as upstream's scheduler has under way, so that nobody waits here longer than there
    std::array<batch, 4> batches;
    size_t at = 0;
};
