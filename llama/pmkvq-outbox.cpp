#include "pmkvq-outbox.h"

pmkvq_outbox::~pmkvq_outbox() {
    for (auto & batch : batches) {
        batch.wait(nullptr);
    }
}

// until the copies are not needed any more
void pmkvq_outbox::batch::wait(ggml_backend_t backend) {
    if (copies.empty()) {
        return;
    }
    if (passed) {
        ggml_backend_event_synchronize(passed.get());
    } else if (backend) {
        ggml_backend_synchronize(backend);
    }
    copies.clear();
}

void pmkvq_outbox::send(ggml_backend_t backend, ggml_tensor * t, const void * data, size_t offset, size_t size) {
    auto & copies = batches[at].copies;

    copies.emplace_back((const uint8_t *) data, (const uint8_t *) data + size);

    ggml_backend_tensor_set_async(backend, t, copies.back().data(), offset, size);
}

void pmkvq_outbox::close(ggml_backend_t backend) {
    auto & batch = batches[at];
    if (batch.copies.empty()) {
        return;
    }

    if (!batch.passed) {
        batch.passed.reset(ggml_backend_event_new(ggml_backend_get_device(backend)));
    }
    if (batch.passed) {
        ggml_backend_event_record(batch.passed.get(), backend);
    }

    at = (at + 1)%batches.size();
    batches[at].wait(backend);
}
