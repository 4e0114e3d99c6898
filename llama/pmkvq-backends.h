// pmkvq-backends.h - what a build can run on, and where its cache would be

#pragma once

#include "pmkvq.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pmkvq_backend_device {
    const char * backend;     // "CUDA"
    const char * name;        // "CUDA0"; NULL: the backend has no device
    const char * description; // "NVIDIA H100 80GB HBM3"
    uint64_t     memory;      // bytes in all; 0 where the backend does not know
    uint8_t      accelerator; // no layer can be on it: it only helps the CPU
    uint8_t      operations;  // it has those of the progressive cache
} pmkvq_backend_device;

// called for each device of each backend, and once for a backend without one
typedef void (*pmkvq_devices_callback)(const pmkvq_backend_device * device, void * user_data);

void pmkvq_describe_devices(pmkvq_devices_callback callback, void * user_data);

#ifdef __cplusplus
}
#endif
