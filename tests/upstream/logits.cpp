// Decodes the same tokens with each KV cache type that llama.cpp itself has, and prints a hash of all logits. Built against the
// patched and against the pristine library (scripts/upstream_tests.py): without a plan they must print the same.
//
//   logits MODEL N_TOKENS

#include "llama.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct config {
    const char * name;
    ggml_type type;
    llama_flash_attn_type fa;
    bool unified;
    uint32_t n_seq_max;
};

static const config configs[] = {
    { "f16",           GGML_TYPE_F16,  LLAMA_FLASH_ATTN_TYPE_ENABLED,  false, 1 },
    { "f16 unified",   GGML_TYPE_F16,  LLAMA_FLASH_ATTN_TYPE_ENABLED,  true,  3 },
    { "f16 streams",   GGML_TYPE_F16,  LLAMA_FLASH_ATTN_TYPE_ENABLED,  false, 3 },
    { "f16, fa off",   GGML_TYPE_F16,  LLAMA_FLASH_ATTN_TYPE_DISABLED, false, 1 },
    { "q8_0",          GGML_TYPE_Q8_0, LLAMA_FLASH_ATTN_TYPE_ENABLED,  false, 1 },
    { "q4_0 unified",  GGML_TYPE_Q4_0, LLAMA_FLASH_ATTN_TYPE_ENABLED,  true,  3 },
};

static uint64_t hash_logits(llama_model * model, const config & cfg, int n_tokens) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx           = 768;
    params.n_batch         = 256;
    params.n_ubatch        = 64;
    params.n_seq_max       = cfg.n_seq_max;
    params.n_threads       = 2;
    params.n_threads_batch = 2;
    params.type_k          = cfg.type;
    params.type_v          = cfg.type;
    params.flash_attn_type = cfg.fa;
    params.kv_unified      = cfg.unified;

    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        return 0; // refused, which both libraries have to do
    }

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));

    uint64_t hash = 14695981039346656037u; // FNV-1a
    uint32_t rng  = 1;

    llama_batch batch = llama_batch_init(256, 0, 1);

    auto decode = [&](int n, const std::vector<int> & seqs, std::vector<llama_pos> & pos) {
        batch.n_tokens = 0;
        for (int i = 0; i < n; ++i) {
            for (int s : seqs) {
                rng = rng*1664525u + 1013904223u;
                const int j = batch.n_tokens++;
                batch.token[j]     = (rng >> 8) % n_vocab;
                batch.pos[j]       = pos[s]++;
                batch.n_seq_id[j]  = 1;
                batch.seq_id[j][0] = s;
                batch.logits[j]    = 1;
            }
        }
        const int ret = llama_decode(ctx, batch);
        hash = (hash ^ (uint64_t) ret)*1099511628211u;
        for (int j = 0; ret == 0 && j < batch.n_tokens; ++j) {
            const unsigned char * data = (const unsigned char *) llama_get_logits_ith(ctx, j);
            for (size_t k = 0; k < n_vocab*sizeof(float); ++k) {
                hash = (hash ^ data[k])*1099511628211u;
            }
        }
    };

    std::vector<llama_pos> pos(cfg.n_seq_max, 0);
    llama_memory_t mem = llama_get_memory(ctx);

    decode(n_tokens/2, { 0 }, pos);
    for (int i = 0; i < 8; ++i) {
        decode(1, { 0 }, pos);
    }
    if (cfg.n_seq_max > 1) {
        decode(20, { 0, 1, 2 }, pos);
        llama_memory_seq_rm(mem, 2, -1, -1);
        llama_memory_seq_cp(mem, 1, 2, -1, -1);
        pos[2] = pos[1];
        decode(5, { 1, 2 }, pos);
    }
    if (mem && llama_memory_seq_rm(mem, 0, pos[0] - 5, -1)) {
        pos[0] -= 5;
    }
    decode(20, { 0 }, pos);

    // a state that is saved and restored
    std::vector<uint8_t> state(llama_state_seq_get_size(ctx, 0));
    if (!state.empty()) {
        const size_t n = llama_state_seq_get_data(ctx, state.data(), state.size(), 0);
        hash = (hash ^ n)*1099511628211u;
        llama_state_seq_set_data(ctx, state.data(), n, 0);
        decode(3, { 0 }, pos);
    }

    llama_batch_free(batch);
    llama_free(ctx);

    return hash;
}

int main(int argc, char ** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL N_TOKENS\n", argv[0]);
        return 2;
    }

    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) {
            fputs(text, stderr);
        }
    }, nullptr);
    llama_backend_init();

    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        return 1;
    }

    for (const auto & cfg : configs) {
        printf("%-14s %016llx\n", cfg.name, (unsigned long long) hash_logits(model, cfg, atoi(argv[2])));
        fflush(stdout);
    }

    llama_model_free(model);

    return 0;
}
