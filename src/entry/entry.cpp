// The entry functions of llama.cpp's programs (see upstream's app/llama.cpp), by names that Rust can call.

#include "log.h"

#include <cstdlib>

// the log is written by a thread of its own: without this a program that fails at once may end before its message is out
static void flush_log_at_exit() {
    common_log_main(); // made before, so destroyed after
    atexit([] { common_log_flush(common_log_main()); });
}

#define PMKVQ_ENTRY(name)                                       \
    int name(int argc, char ** argv);                           \
    extern "C" int pmkvq_entry_##name(int argc, char ** argv) { \
        flush_log_at_exit();                                    \
        return name(argc, argv);                                \
    }

PMKVQ_ENTRY(llama_server)
PMKVQ_ENTRY(llama_cli)
PMKVQ_ENTRY(llama_completion)
PMKVQ_ENTRY(llama_bench)
PMKVQ_ENTRY(llama_batched_bench)
PMKVQ_ENTRY(llama_fit_params)
PMKVQ_ENTRY(llama_quantize)
PMKVQ_ENTRY(llama_perplexity)
