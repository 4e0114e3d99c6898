// pmkvq-model.h - what a plan has to know of a model, told by llama.cpp itself

#pragma once

#include "pmkvq.h"

#include <vector>

struct llama_model;

#ifdef __cplusplus
extern "C" {
#endif

// called with the layers that a progressive cache of the model would have
typedef void (*pmkvq_describe_callback)(const pmkvq_model_desc * model, void * user_data);

// read a GGUF's metadata (no weights) and describe its model. Returns 0, or writes a message into err.
int pmkvq_describe_model(const char * path, pmkvq_describe_callback callback, void * user_data, char * err, size_t n_err);

// does the header of the GGUF fit the plan? A quick check before any weights are loaded; files that it can't read are left to
// the loader. Returns 0, or writes a message into err.
int pmkvq_check_plan(const char * path_plan, const char * budget, const char * rule, const char * path_model, char * err, size_t n_err);

// the context that a plan was made for, 0 if it can't be read
uint32_t pmkvq_plan_n_ctx(const char * path_plan);

#ifdef __cplusplus
}

// stops the construction of a context at the point where the layers of its cache are known
struct pmkvq_probe {
    pmkvq_describe_callback callback;
    void * user_data;

    bool found = false;

    // throws
    [[noreturn]] void finish(const llama_model & model, const std::vector<pmkvq_layer_desc> & layers);
};

pmkvq_probe * pmkvq_probe_current();
#endif
