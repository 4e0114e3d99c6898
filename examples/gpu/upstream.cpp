// Upstream's flash attention at the shapes of tests/cuda/bench: the kernels that the cache's own are held against.
//
// Every layer is a node of one ggml graph over a cache of its own, laid out as llama.cpp does; together the caches are larger than
// an L2. The backend runs the graph as it runs a model's: from the second time on as a CUDA graph. No clock of the device is needed,
// since several runs are queued before anything waits. A line is printed, and flushed, as soon as it is known.
//
// Several sequences are measured in llama.cpp's two ways: a stream for each ("streams", what its server does), and in one cache
// ("unified"), where blocks of 128 cells alternate, as in the benchmark of ours.

#include "upstream-attention.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace upstream;

namespace {

struct options {
    std::vector<std::string> heads  = { "32/8", "28/4", "40/8" };
    std::vector<int64_t>     depths = { 8192, 32768, 131072 };
    std::vector<int64_t>     seqs   = { 1, 4, 16 };
    std::vector<std::string> types  = { "f16", "q8_0", "q4_0" };
    int64_t tokens  = 1;    // queries of one sequence
    double  seconds = 0.15; // of a case
    bool    cpu     = false;
    bool    check   = false;
    size_t  rotate  = 256 << 20; // bytes that the layers' caches have at least
    size_t  repeat  = 1 << 30;   // that a run of the graph reads, about
};

ggml_type type_of(const std::string & name) {
    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
        if (name == ggml_type_name(type)) {
            return type;
        }
    }
    fail("no type '" + name + "'");
}

std::vector<shape> shapes(const options & o) {
    std::vector<shape> all;
    for (const std::string & heads : o.heads) {
        long long n_head = 0, n_head_kv = 0;
        if (sscanf(heads.c_str(), "%lld/%lld", &n_head, &n_head_kv) != 2 || n_head_kv <= 0 || n_head % n_head_kv != 0) {
            fail("heads are 'heads/KV heads', not '" + heads + "'");
        }
        for (int64_t n_seq : o.seqs) {
            for (int64_t depth : o.depths) {
                for (const std::string & type : o.types) {
                    for (bool unified : { false, true }) {
                        // a prefill is of one sequence
                        if ((n_seq > 1 || !unified) && (n_seq == 1 || o.tokens == 1)) {
                            all.push_back({ n_head, n_head_kv, depth, n_seq, o.tokens, unified, type_of(type) });
                        }
                    }
                }
            }
        }
    }
    return all;
}

template <typename T, typename F> std::vector<T> list(const std::string & text, F of) {
    std::vector<T> all;
    for (size_t at = 0; at <= text.size();) {
        const size_t end = std::min(text.find(',', at), text.size());
        all.push_back(of(text.substr(at, end - at)));
        at = end + 1;
    }
    return all;
}

int64_t number(const std::string & text) {
    char * end = nullptr;
    const long long n = strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end != 0 || n <= 0 || n > 1 << 24) {
        fail("'" + text + "' is no number from 1 on");
    }
    return n;
}

const char * const USAGE =
    "upstream [--heads 32/8,28/4,40/8] [--depths 8192,32768,131072] [--seqs 1,4,16] [--types f16,q8_0,q4_0] [--tokens N]\n"
    "         [--seconds S]   of a case (0.15)\n"
    "         [--cpu]         the CPU backend, not the best one\n"
    "         [--tiny]        few cells, one layer: whether everything runs\n"
    "         [--check]       compare with sums in double (slow: with --tiny)\n";

options parse(int argc, char ** argv) {
    options o;
    const auto same = [](const std::string & s) { return s; };
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        const auto value = [&] {
            if (i + 1 >= argc) {
                fail(flag + " needs a value");
            }
            return std::string(argv[++i]);
        };
        if      (flag == "--heads")   { o.heads   = list<std::string>(value(), same); }
        else if (flag == "--depths")  { o.depths  = list<int64_t>(value(), number); }
        else if (flag == "--seqs")    { o.seqs    = list<int64_t>(value(), number); }
        else if (flag == "--types")   { o.types   = list<std::string>(value(), same); }
        else if (flag == "--tokens")  { o.tokens  = number(value()); }
        else if (flag == "--seconds") { o.seconds = atof(value().c_str()); }
        else if (flag == "--cpu")     { o.cpu     = true; }
        else if (flag == "--check")   { o.check   = true; }
        else if (flag == "--tiny") {
            o.heads = { "4/2" }, o.depths = { 512 }, o.seqs = { 1, 2 }, o.seconds = 0.001, o.rotate = 1, o.repeat = 1;
        } else {
            fputs(USAGE, flag == "--help" ? stdout : stderr);
            exit(flag == "--help" ? 0 : 2);
        }
    }
    for (int64_t depth : o.depths) {
        must(depth % 256 == 0 && o.tokens <= depth, "depths are multiples of 256, as llama.cpp's, and no smaller than --tokens");
    }
    return o;
}

} // namespace

extern "C" int pmkvq_upstream_attention(int argc, char ** argv) {
    const options o = parse(argc, argv);
    std::vector<shape> all = shapes(o);

    ggml_backend_t backend = o.cpu ? ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr) : ggml_backend_init_best();
    must(backend != nullptr, "no backend");
    printf("upstream's FLASH_ATTN_EXT on %s\n\n", ggml_backend_dev_description(ggml_backend_get_device(backend)));
    printf("| heads | depth | sequences | tokens | layout | type | layers | MiB | us | GB/s |\n");
    printf("| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |\n");

    const auto n_layers = [&](const shape & s) { return (int64_t) ((o.rotate + 2*s.side_bytes() - 1)/(2*s.side_bytes())); };
    size_t bytes = 0;
    for (const shape & s : all) {
        bytes = std::max(bytes, 2*n_layers(s)*s.side_bytes());
    }
    {
        pool caches(backend, bytes);
        for (const shape & s : all) {
            const int64_t layers = n_layers(s);
            caches.fill(s.type, 2*layers*s.side_bytes());
            // a short graph would spend much of its time between two runs
            const int64_t nodes = layers*std::max<int64_t>(1, o.repeat/(2*layers*s.side_bytes()));
            attention a(backend, caches, s, layers, nodes);
            const double t = measure(backend, a.graph, o.seconds)/nodes;
            if (o.check) {
                check(a, caches, s);
            }
            const double read = 2.0*s.side_bytes();
            printf("| %d/%d | %d | %d | %d | %s | %s | %d | %.1f | %.1f | %.1f |\n", (int) s.n_head, (int) s.n_head_kv, (int) s.depth, (int) s.n_seq,
                (int) s.n_tok, s.n_seq == 1 ? "-" : s.unified ? "unified" : "streams", ggml_type_name(s.type), (int) layers, read/(1 << 20), t*1e6,
                read/t/1e9);
            fflush(stdout);
        }
    }
    ggml_backend_free(backend);
    return 0;
}
