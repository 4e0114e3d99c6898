#include "pmkvq-backends.h"
#include "pmkvq-device.h"

#include "ggml-backend.h"

void pmkvq_describe_devices(pmkvq_devices_callback callback, void * user_data) {
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        ggml_backend_reg_t reg = ggml_backend_reg_get(i);

        pmkvq_backend_device device = {};
        device.backend = ggml_backend_reg_name(reg);

        const size_t n = ggml_backend_reg_dev_count(reg);
        if (n == 0) {
            callback(&device, user_data);
        }

        for (size_t j = 0; j < n; ++j) {
            ggml_backend_dev_t dev = ggml_backend_reg_dev_get(reg, j);

            size_t free  = 0;
            size_t total = 0;
            ggml_backend_dev_memory(dev, &free, &total);

            device.name        = ggml_backend_dev_name(dev);
            device.description = ggml_backend_dev_description(dev);
            device.memory      = total;
            device.accelerator = ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_ACCEL;
            device.operations  = !pmkvq_layer_placement(dev).dev || pmkvq_has_operations(dev);
            callback(&device, user_data);
        }
    }
}
