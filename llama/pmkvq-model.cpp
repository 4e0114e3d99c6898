#include "pmkvq-model.h"

#include "llama.h"
#include "llama-impl.h"
#include "llama-model.h"

#include "ggml-cpp.h"
#include "gguf.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>

static thread_local pmkvq_probe * g_probe = nullptr;

pmkvq_probe * pmkvq_probe_current() {
    return g_probe;
}

void pmkvq_probe::finish(const llama_model & model, const std::vector<pmkvq_layer_desc> & layers) {
    const std::string arch = model.arch_name();

    const pmkvq_model_desc desc = {
        /*.arch        =*/ arch.c_str(),
        /*.name        =*/ model.name.c_str(),
        /*.n_ctx_train =*/ model.hparams.n_ctx_train,
        /*.n_layers    =*/ (uint32_t) layers.size(),
        /*.layers      =*/ layers.data(),
        /*.rope_type   =*/ llama_model_rope_type(&model),
        /*.n_devices   =*/ 0,
        /*.devices     =*/ nullptr,
    };

    callback(&desc, user_data);
    found = true;

    throw std::runtime_error("the layers are known");
}

// keeps the first and the last error, so that one can be given to the caller in place of the whole log
struct pmkvq_log_capture {
    std::string first;
    std::string error;

    ggml_log_callback prev;
    void * prev_data;

    pmkvq_log_capture() {
        llama_log_get(&prev, &prev_data);
        llama_log_set([](ggml_log_level level, const char * text, void * user_data) {
            if (level == GGML_LOG_LEVEL_ERROR) {
                auto * log = (pmkvq_log_capture *) user_data;
                log->error = text;
                if (log->first.empty()) {
                    log->first = text;
                }
            }
        }, this);
    }

    ~pmkvq_log_capture() {
        llama_log_set(prev, prev_data);
    }
};

int pmkvq_describe_model(const char * path, pmkvq_describe_callback callback, void * user_data, char * err, size_t n_err) {
    pmkvq_log_capture log;

    auto mparams = llama_model_default_params();
    mparams.no_alloc     = true; // metadata only
    mparams.load_mode    = LLAMA_LOAD_MODE_NONE; // a mapping is made even of what is not loaded
    mparams.n_gpu_layers = 0;

    llama_model * model = llama_model_load_from_file(path, mparams);
    if (!model) {
        // the first error is the reason, those after it say only that there was one
        snprintf(err, n_err, "%s: not a model that llama.cpp can load: %s", path, log.first.c_str());
        return -1;
    }

    pmkvq_probe probe = { callback, user_data };

    g_probe = &probe;

    auto cparams = llama_context_default_params();
    cparams.n_ctx           = 256;
    cparams.n_batch         = 256;
    cparams.n_ubatch        = 256;
    cparams.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    cparams.kv_unified      = true;

    log.error.clear();

    llama_context * ctx = llama_init_from_model(model, cparams);

    g_probe = nullptr;

    llama_free(ctx);
    llama_model_free(model);

    if (!probe.found) {
        // the reason, without what led to it and without a way out that is for the programs
        std::string reason = log.error;
        while (!reason.empty() && reason.back() == '\n') {
            reason.pop_back();
        }
        const size_t from = reason.find("pmkvq: ");
        reason.erase(0, from == std::string::npos ? 0 : from + 7);
        reason.erase(std::min(reason.size(), reason.find(": remove '--pmkvq-plan'")));
        snprintf(err, n_err, "%s: the model has no KV cache that a plan can apply to%s%s", path, reason.empty() ? "" : ": ", reason.c_str());
        return -1;
    }

    return 0;
}

int pmkvq_check_plan(const char * path_plan, const char * budget, const char * rule, const char * path_model, char * err, size_t n_err) {
    const auto * rt = pmkvq_get_runtime();
    if (!rt) {
        snprintf(err, n_err, "this program was built without the pmkvq runtime: use the programs that pmkvq builds");
        return -1;
    }

    pmkvq_plan * plan = nullptr;
    if (rt->plan_load(path_plan, budget, rule, &plan, err, n_err) != 0) {
        return -1;
    }

    int ret = 0;

    if (path_model && path_model[0]) {
        gguf_context_ptr gguf(gguf_init_from_file(path_model, { /*.no_alloc =*/ true, /*.ctx =*/ nullptr }));
        if (gguf) {
            const int64_t id_arch = gguf_find_key(gguf.get(), "general.architecture");
            if (id_arch >= 0 && gguf_get_kv_type(gguf.get(), id_arch) == GGUF_TYPE_STRING) {
                const std::string arch = gguf_get_val_str(gguf.get(), id_arch);

                uint32_t n_layer = 0;

                const int64_t id_layer = gguf_find_key(gguf.get(), (arch + ".block_count").c_str());
                if (id_layer >= 0 && gguf_get_kv_type(gguf.get(), id_layer) == GGUF_TYPE_UINT32) {
                    n_layer = gguf_get_val_u32(gguf.get(), id_layer);
                }

                ret = rt->plan_check(plan, arch.c_str(), n_layer, err, n_err);
            }
        }
    }

    rt->plan_free(plan);

    return ret;
}

uint32_t pmkvq_plan_n_ctx(const char * path_plan) {
    const auto * rt = pmkvq_get_runtime();

    pmkvq_plan * plan = nullptr;
    if (!rt || rt->plan_load(path_plan, nullptr, nullptr, &plan, nullptr, 0) != 0) {
        return 0;
    }

    const uint32_t res = rt->plan_n_ctx(plan);
    rt->plan_free(plan);

    return res;
}
