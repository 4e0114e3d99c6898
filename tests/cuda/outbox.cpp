// A device that makes its copies as late as it may, and llama/pmkvq-outbox.cpp before it: what arrives is what was sent, whatever became of
// the source. Compiled and run by scripts/test_cuda_scripts.py; what is used of ggml is defined here.

#include "pmkvq-outbox.h"

#include <cstdio>
#include <cstring>
#include <deque>

struct ggml_backend_event {
    int number; // of steps that the device has to have made
};

struct copy {
    uint8_t       * to;
    const uint8_t * from;
    size_t          size;
};

static std::deque<copy> queue;
static uint8_t memory[64];
static int n_queued = 0, n_made = 0, n_events = 0, n_waits = 0;
static bool has_events = true;

static void make(int n) {
    for (; n_made < n; ++n_made) {
        memcpy(queue.front().to, queue.front().from, queue.front().size);
        queue.pop_front();
    }
}

void ggml_backend_tensor_set_async(ggml_backend_t, ggml_tensor *, const void * data, size_t offset, size_t size) {
    queue.push_back({ memory + offset, (const uint8_t *) data, size });
    n_queued++;
}

void ggml_backend_synchronize(ggml_backend_t) {
    n_waits++;
    make(n_queued);
}

ggml_backend_dev_t ggml_backend_get_device(ggml_backend_t) { return nullptr; }

ggml_backend_event_t ggml_backend_event_new(ggml_backend_dev_t) {
    n_events += has_events;
    return has_events ? new ggml_backend_event { 0 } : nullptr;
}

void ggml_backend_event_free(ggml_backend_event_t event) {
    n_events--;
    delete event;
}

void ggml_backend_event_record(ggml_backend_event_t event, ggml_backend_t) { event->number = n_queued; }

void ggml_backend_event_synchronize(ggml_backend_event_t event) {
    n_waits++;
    make(event->number);
}

// other parts of ggml that ggml-cpp.h names
void ggml_free(ggml_context *) {}
void gguf_free(gguf_context *) {}
void ggml_gallocr_free(ggml_gallocr_t) {}
void ggml_backend_free(ggml_backend_t) {}
void ggml_backend_buffer_free(ggml_backend_buffer_t) {}
void ggml_backend_sched_free(ggml_backend_sched_t) {}

static bool run(bool events) {
    has_events = events;
    memset(memory, 0, sizeof(memory));
    auto backend = (ggml_backend_t) memory;
    uint8_t source[16];
    uint8_t want[64] = {};
    {
        pmkvq_outbox outbox;
        for (int i = 0; i < 50; ++i) {
            for (int k = 0; k < i%4; ++k) {
                const size_t offset = (i*7 + k*16)%49;
                memset(source, 1 + i*4 + k, sizeof(source));
                outbox.send(backend, nullptr, source, offset, 15);
                memcpy(want + offset, source, 15);
                memset(source, 0xee, sizeof(source));
            }
            outbox.close(backend);
            // what waits is bounded
            if (n_queued - n_made > 4*3) {
                return false;
            }
        }
        pmkvq_outbox other(std::move(outbox));
        if (!events) {
            ggml_backend_synchronize(backend);
        }
    }
    make(n_queued);
    return memcmp(memory, want, sizeof(want)) == 0 && n_events == 0;
}

int main() {
    const bool ok = run(true) && run(false);
    printf("%s\n", ok ? "ok" : "not what was sent");
    return ok ? 0 : 1;
}
