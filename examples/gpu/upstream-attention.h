// Attention of one shape: caches, the graph of its layers, how long it takes, and whether it is right.

#pragma once

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace upstream {

constexpr int64_t D     = 128; // of a head
constexpr int64_t BLOCK = 128; // cells of a sequence in a row, unified

struct shape {
    int64_t   n_head, n_head_kv;
    int64_t   depth, n_seq, n_tok; // n_tok: of a sequence
    bool      unified;
    ggml_type type;

    int64_t n_stream()     const { return unified ? 1 : n_seq; }
    int64_t n_kv()         const { return unified ? n_seq*depth : depth; } // of a stream
    int64_t n_tok_stream() const { return unified ? n_seq*n_tok : n_tok; }
    int64_t width()        const { return D*n_head_kv; }
    size_t  side_bytes()   const { return ggml_row_size(type, width())*n_kv()*n_stream(); }
};

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] inline void fail(const std::string & message) {
    fprintf(stderr, "upstream: %s\n", message.c_str());
    exit(1);
}

inline void must(bool ok, const char * what) {
    if (!ok) {
        fail(what);
    }
}

// whether query t of a stream sees cell j
inline bool sees(const shape & s, int64_t t, int64_t j) {
    if (s.unified) {
        return j/BLOCK % s.n_seq == t/s.n_tok;
    }
    return j <= s.n_kv() - s.n_tok + t;
}

// A cache of each layer in one buffer, filled with values of one type again and again.
struct pool {
    ggml_backend_buffer_t buffer;
    ggml_type             type   = GGML_TYPE_COUNT;
    size_t                filled = 0;
    std::vector<uint8_t>  tile; // what is repeated

    pool(ggml_backend_t backend, size_t bytes) : buffer(ggml_backend_alloc_buffer(backend, bytes)) {
        must(buffer != nullptr, "no memory for the caches");
    }
    ~pool() { ggml_backend_buffer_free(buffer); }

    char * base() const { return (char *) ggml_backend_buffer_get_base(buffer); }

    void fill(ggml_type of, size_t bytes) {
        if (of == type && bytes <= filled) {
            return;
        }
        make_tile(of);
        ggml_init_params params = { 128*ggml_tensor_overhead(), nullptr, true };
        ggml_context * ctx = ggml_init(params);
        const auto part = [&](size_t at, size_t n) {
            ggml_tensor * t = ggml_new_tensor_1d(ctx, GGML_TYPE_I8, (int64_t) n);
            must(ggml_backend_tensor_alloc(buffer, t, base() + at) == GGML_STATUS_SUCCESS, "the caches can't be filled");
            return t;
        };
        filled = std::min(tile.size(), bytes);
        ggml_backend_tensor_set(part(0, filled), tile.data(), 0, filled);
        // the rest is copied on the device, twice as much each time
        while (filled < bytes) {
            const size_t n = std::min(filled, bytes - filled);
            ggml_backend_tensor_copy(part(0, n), part(filled, n));
            filled += n;
        }
        ggml_free(ctx);
    }

    void make_tile(ggml_type of) {
        if (of == type) {
            return;
        }
        constexpr int64_t n = 40*128*D;
        std::mt19937 rng(1);
        std::normal_distribution<float> normal;
        std::vector<float> x(n);
        for (float & v : x) {
            v = normal(rng);
        }
        tile.resize(ggml_row_size(of, n));
        if (ggml_is_quantized(of)) {
            ggml_quantize_chunk(of, x.data(), tile.data(), 0, 1, n, nullptr);
        } else {
            ggml_fp32_to_fp16_row(x.data(), (ggml_fp16_t *) tile.data(), n);
        }
        type = of;
    }
};

// The graph of a shape, and what it reads and writes but the caches.
struct attention {
    ggml_context *        ctx    = nullptr;
    ggml_backend_buffer_t buffer = nullptr;
    ggml_cgraph *         graph  = nullptr;
    std::vector<float>    q_data;
    ggml_tensor *         first  = nullptr; // the output of the first layer

    attention(ggml_backend_t backend, const pool & caches, const shape & s, int64_t n_layers, int64_t n_nodes) {
        const size_t n_tensors = 8*n_nodes + 16; // with the views of a node
        ggml_init_params params = { n_tensors*ggml_tensor_overhead() + ggml_graph_overhead_custom(n_tensors, false), nullptr, true };
        ctx   = ggml_init(params);
        graph = ggml_new_graph_custom(ctx, n_tensors, false);

        ggml_tensor * q    = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, D, s.n_head, s.n_tok_stream(), s.n_stream());
        ggml_tensor * mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, s.n_kv(), s.n_tok_stream(), 1, s.n_stream());
        for (int64_t i = 0; i < n_nodes; ++i) {
            char * at = caches.base() + 2*(i % n_layers)*s.side_bytes();
            ggml_tensor * k = side(caches, s, at);
            ggml_tensor * v = side(caches, s, at + s.side_bytes());
            ggml_tensor * out = ggml_flash_attn_ext(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), k, v, mask, 1.0f/sqrtf(D), 0.0f, 0.0f);
            ggml_prec_set_acc(out, GGML_PREC_F32); // as llama.cpp has it
            if (!ggml_backend_supports_op(backend, out)) {
                fail("the backend has no flash attention of this shape");
            }
            ggml_build_forward_expand(graph, out);
            first = first ? first : out;
        }
        buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);
        must(buffer != nullptr, "no memory for queries, mask and outputs");

        std::mt19937 rng(2);
        std::normal_distribution<float> normal;
        q_data.resize(ggml_nelements(q));
        for (float & x : q_data) {
            x = normal(rng);
        }
        ggml_backend_tensor_set(q, q_data.data(), 0, ggml_nbytes(q));
        set_mask(mask, s);
    }

    ~attention() {
        ggml_backend_buffer_free(buffer);
        ggml_free(ctx);
    }

    // K or V as llama_kv_cache has it: [width, cells, streams], seen as [D, cells, heads, streams]
    ggml_tensor * side(const pool & caches, const shape & s, char * at) const {
        ggml_tensor * all = ggml_new_tensor_3d(ctx, s.type, s.width(), s.n_kv(), s.n_stream());
        must(ggml_backend_tensor_alloc(caches.buffer, all, at) == GGML_STATUS_SUCCESS, "a cache can't be placed");
        ggml_tensor * heads = ggml_view_4d(ctx, all, D, s.n_head_kv, s.n_kv(), s.n_stream(), ggml_row_size(s.type, D), all->nb[1], all->nb[2], 0);
        return ggml_permute(ctx, heads, 0, 2, 1, 3);
    }

    static void set_mask(ggml_tensor * mask, const shape & s) {
        const ggml_fp16_t no = ggml_fp32_to_fp16(-INFINITY), yes = ggml_fp32_to_fp16(0.0f);
        std::vector<ggml_fp16_t> row(s.n_kv());
        for (int64_t stream = 0; stream < s.n_stream(); ++stream) {
            for (int64_t t = 0; t < s.n_tok_stream(); ++t) {
                for (int64_t j = 0; j < s.n_kv(); ++j) {
                    row[j] = sees(s, t, j) ? yes : no;
                }
                ggml_backend_tensor_set(mask, row.data(), stream*mask->nb[3] + t*mask->nb[1], row.size()*sizeof(row[0]));
            }
        }
    }
};

// seconds of a run of the graph: the median of rounds, each of several runs
inline double measure(ggml_backend_t backend, ggml_cgraph * graph, double budget) {
    const auto runs = [&](int n) {
        const double begun = now();
        for (int i = 0; i < n; ++i) {
            must(ggml_backend_graph_compute_async(backend, graph) == GGML_STATUS_SUCCESS, "the graph failed");
        }
        ggml_backend_synchronize(backend);
        return (now() - begun)/n;
    };
    runs(4); // direct, captured, and twice as a CUDA graph
    const double once = runs(1);
    const int n = std::clamp((int) (0.2*budget/once), 1, 10), rounds = std::clamp((int) (budget/(n*once)), 3, 15);
    std::vector<double> times;
    for (int i = 0; i < rounds; ++i) {
        times.push_back(runs(n));
    }
    std::sort(times.begin(), times.end());
    return times[rounds/2];
}

// the first layer's output against sums in double
inline void check(const attention & a, const pool & caches, const shape & s) {
    const auto * traits = ggml_get_type_traits(s.type);
    const int64_t n = s.width()*s.n_kv()*s.n_stream();
    std::vector<float> kv(2*n);
    for (int side = 0; side < 2; ++side) {
        // what fill() wrote there: the tile over and over
        std::vector<uint8_t> bytes(s.side_bytes());
        for (size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = caches.tile[(side*s.side_bytes() + i) % caches.tile.size()];
        }
        traits->to_float(bytes.data(), kv.data() + side*n, n);
    }
    std::vector<float> out(ggml_nelements(a.first));
    ggml_backend_tensor_get(a.first, out.data(), 0, ggml_nbytes(a.first));

    double error = 0, power = 0;
    std::vector<double> p(s.n_kv());
    for (int64_t row = 0; row < s.n_head*s.n_tok_stream()*s.n_stream(); ++row) {
        const int64_t h = row % s.n_head, t = row/s.n_head % s.n_tok_stream(), stream = row/(s.n_head*s.n_tok_stream());
        const float * q = a.q_data.data() + row*D;
        const float * k = kv.data() + (stream*s.n_kv()*s.n_head_kv + h/(s.n_head/s.n_head_kv))*D;
        double sum = 0;
        for (int64_t j = 0; j < s.n_kv(); ++j) {
            double dot = 0;
            for (int64_t d = 0; d < D; ++d) {
                dot += (double) q[d]*k[j*s.width() + d];
            }
            p[j] = sees(s, t, j) ? exp(dot/sqrt((double) D)) : 0; // scores of random vectors are small
            sum += p[j];
        }
        for (int64_t d = 0; d < D; ++d) {
            double want = 0;
            for (int64_t j = 0; j < s.n_kv(); ++j) {
                want += p[j]/sum*k[n + j*s.width() + d];
            }
            const double off = out[row*D + d] - want;
            error += off*off;
            power += want*want;
        }
    }
    // the bound of upstream's own tests; q8_0 and q4_0 take the queries at 8 bits on the CPU
    if (!(error <= 5e-4*power)) {
        fail("the attention of " + std::string(ggml_type_name(s.type)) + " is off by " + std::to_string(error/power));
    }
}

} // namespace upstream
