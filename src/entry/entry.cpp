// The entry functions of llama.cpp's programs (see upstream's app/llama.cpp), by names that Rust can call.

#define PMKVQ_ENTRY(name)                                    \
    int name(int argc, char ** argv);                        \
    extern "C" int pmkvq_entry_##name(int argc, char ** argv) { \
        return name(argc, argv);                             \
    }

PMKVQ_ENTRY(llama_server)
PMKVQ_ENTRY(llama_cli)
PMKVQ_ENTRY(llama_completion)
PMKVQ_ENTRY(llama_bench)
PMKVQ_ENTRY(llama_batched_bench)
PMKVQ_ENTRY(llama_fit_params)
PMKVQ_ENTRY(llama_quantize)
PMKVQ_ENTRY(llama_perplexity)
