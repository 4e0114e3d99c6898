#include "pmkvq-store.h"

#include "llama-impl.h"
#include "llama-model.h"

#include <stdexcept>

static thread_local pmkvq_scope * g_scope = nullptr;

pmkvq_scope * pmkvq_scope::current() {
    return g_scope;
}

pmkvq_scope::pmkvq_scope(const llama_model & model, const llama_context_params & params) : prev(g_scope) {
    // a draft head has a cache of its own that the plan says nothing about
    if (params.pmkvq_plan && params.ctx_type == LLAMA_CONTEXT_TYPE_DEFAULT) {
        const auto * rt = pmkvq_get_runtime();
        if (!rt) {
            throw std::runtime_error("pmkvq: a plan was given, but this program was built without the pmkvq runtime: use the programs that pmkvq builds");
        }

        if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
            throw std::runtime_error("pmkvq: a plan needs flash attention: remove '-fa off', or the plan where llama.cpp itself switches it off for a model");
        }
        if (params.type_k != GGML_TYPE_F16 || params.type_v != GGML_TYPE_F16) {
            throw std::runtime_error("pmkvq: the plan sets the widths of the KV cache: remove '-ctk' and '-ctv'");
        }
        if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
            throw std::runtime_error("pmkvq: a plan does not work with tensor split mode: use '--split-mode layer'");
        }

        char err[PMKVQ_ERR_SIZE] = "";
        pmkvq_plan * p = nullptr;
        if (rt->plan_load(params.pmkvq_plan, params.pmkvq_budget, params.pmkvq_rule, &p, err, sizeof(err)) != 0) {
            throw std::runtime_error(std::string("pmkvq: ") + err);
        }
        plan = std::shared_ptr<pmkvq_plan>(p, [rt](pmkvq_plan * p) { rt->plan_free(p); });
    } else if (params.pmkvq_plan) {
        LLAMA_LOG_INFO("%s: the plan is for the main context, a draft context keeps its own KV cache types\n", __func__);
    }

    g_scope = this;
}

pmkvq_scope::~pmkvq_scope() {
    g_scope = prev;
}

uint32_t pmkvq_scope::n_ctx() const {
    return plan ? pmkvq_get_runtime()->plan_n_ctx(plan.get()) : 0;
}

void pmkvq_scope::check_used() const {
    if (!plan) {
        return;
    }
    if (n_used == 0) {
        throw std::runtime_error("pmkvq: this model has no KV cache that a plan can apply to: remove '--pmkvq-plan'");
    }
    if (n_used > 1) {
        throw std::runtime_error("pmkvq: this model has several KV caches of its own kind, which a plan can't describe: remove '--pmkvq-plan'");
    }
}
