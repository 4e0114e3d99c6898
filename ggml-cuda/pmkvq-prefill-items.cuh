// pmkvq-prefill-items.cuh - what is known of an item before it is unpacked: who sees it, where it lies, its scales and minima

#pragma once

#include "pmkvq-prefill-tile.cuh"

// the items of a CTA: those of the cache and then those of the current batch, dealt to the chunks in turn
struct pmkvq_prefill_items {
    int chunk;
    int n_chunk;
    int n_cached; // of all chunks
    int n_cur;

    __device__ __forceinline__ pmkvq_prefill_items(const pmkvq_op_attn & op, int chunk) : chunk(chunk), n_chunk(op.n_chunk) {
        n_cached = min(2*(int) op.n_blocks, ((int) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM);
        n_cur    = op.k_cur ? ((int) op.n_tokens + PMKVQ_ITEM - 1)/PMKVQ_ITEM : 0;
    }

    // of this chunk
    __device__ __forceinline__ int count() const { return chunk < n_cached + n_cur ? (n_cached + n_cur - chunk + n_chunk - 1)/n_chunk : 0; }

    __device__ __forceinline__ bool cached(int i) const { return chunk + i*n_chunk < n_cached; }

    // of the cache, or of the current batch
    __device__ __forceinline__ int number(int i) const {
        const int x = chunk + i*n_chunk;
        return x < n_cached ? x : x - n_cached;
    }
};

// what a warp knows of masks: the tokens of its rows, and the cells of the current batch. In shared memory: registers are scarce
struct pmkvq_prefill_span {
    int token;  // the first
    int pieces; // of 16 bytes of their masks in an item
    int first;  // cell
    int last;   // twice the last cell, and 1 if they follow one another

    __device__ __forceinline__ bool run() const { return last & 1; }

    // places: one for each warp, n_warp of them. Barriers stand within
    static __device__ __forceinline__ void look_at_cells(const pmkvq_op_attn & op, pmkvq_prefill_span * places, int n_warp) {
        const int lane = threadIdx.x%32;
        const int c0   = op.k_cur ? (int) op.cells[0] : 0;
        int lo = 0x7fffffff, hi = -1, jumps = 0;
        for (int i = threadIdx.x; i < (op.k_cur ? (int) op.n_tokens : 0); i += 32*n_warp) {
            const int c = (int) op.cells[i];
            lo = min(lo, c);
            hi = max(hi, c);
            jumps |= c != c0 + i;
        }
#pragma unroll
        for (int x = 16; x > 0; x /= 2) {
            lo     = min(lo, pmkvq_shfl(lo, lane ^ x));
            hi     = max(hi, pmkvq_shfl(hi, lane ^ x));
            jumps |= pmkvq_shfl(jumps, lane ^ x);
        }
        if (lane == 0) {
            places[threadIdx.x/32] = { 0, jumps, lo, hi };
        }
        pmkvq_syncthreads();
        jumps = 0;
        for (int w = 0; w < n_warp; ++w) {
            const pmkvq_prefill_span x = places[w];
            jumps |= x.pieces;
            lo = min(lo, x.first);
            hi = max(hi, x.last);
        }
        pmkvq_syncthreads();
        if (lane == 0) {
            places[threadIdx.x/32] = { 0, 0, lo, 2*hi + (jumps == 0) };
        }
    }

    // the cell of a token of the batch
    __device__ __forceinline__ int cell(const pmkvq_op_attn & op, int token) const { return run() ? first + token : (int) op.cells[token]; }

    // takes cells of the current batch out of the bits of 16 cells from `cell` of item `number`: they are not read from the cache
    template <int M>
    __device__ __forceinline__ void leave_out(const pmkvq_op_attn & op, int number, int cell, uint32_t (&vis)[M]) const {
        const int end = (last >> 1) + 1;
        if (end <= PMKVQ_ITEM*number || first >= PMKVQ_ITEM*(number + 1)) {
            return;
        }
        uint32_t out = 0;
        if (run()) {
            const int lo = min(max(first - cell, 0), 16);
            const int hi = min(max(end - cell,   0), 16);
            out = (1u << hi) - (1u << lo);
        } else {
            const int lane = threadIdx.x%32;
            for (int base = 0; base < (int) op.n_tokens; base += 32) {
                const int c = base + lane < (int) op.n_tokens ? (int) op.cells[base + lane] : -1;
                uint32_t here = pmkvq_ballot(c >= 0 && c/PMKVQ_ITEM == number);
                while (here != 0) {
                    const int x = pmkvq_shfl(c, __ffs(here) - 1) - cell;
                    here &= here - 1;
                    out |= x >= 0 && x < 16 ? 1u << x : 0;
                }
            }
        }
#pragma unroll
        for (int m = 0; m < M; ++m) {
            vis[m] &= ~(out | out << 16);
        }
    }
};

// what a row sees of 16 tokens of the current batch from `first`; columns of the mask are the tokens' cells
static __device__ __forceinline__ uint32_t pmkvq_visible_tokens(
        const pmkvq_op_attn & op, const pmkvq_prefill_span & span, const uint16_t * row, int first, bool aligned, bool & values) {
    if (span.run() && first + 16 <= (int) op.n_tokens) {
        return pmkvq_visible16(row, span.first + first, op.n_kv, aligned && span.first%8 == 0, values);
    }
    uint32_t bits = 0;
#pragma unroll 4
    for (int i = 0; i < 16; ++i) {
        const int cell = first + i < (int) op.n_tokens ? span.cell(op, first + i) : -1;
        const uint16_t m   = cell >= 0 && cell < (int) op.n_kv ? row[cell] : 0xfc00;
        bits |= m != 0xfc00 ? 1u << i : 0;
        values = values || (m != 0xfc00 && (m & 0x7fff) != 0);
    }
    return bits;
}

// a word of the tables for each lane: 0..8 of K's entry, 16..24 of V's
static __device__ __forceinline__ int pmkvq_ask_entry(const pmkvq_op_attn & op, int number, int lane) {
    const pmkvq_block * entry = (lane < 16 ? op.table_k : op.table_v) + number/2;
    return lane%16 < 9 ? ((const int *) entry)[lane%16] : 0;
}

// by one warp
static __device__ __forceinline__ void pmkvq_describe_item(
        pmkvq_prefill_item & to, const pmkvq_op_attn & op, bool cached, int number, int head, int word, int lane) {
    int width[2] = { PMKVQ_CURRENT, PMKVQ_CURRENT };
    uint32_t valid = 0xf;
    if (cached) {
        width[0] = pmkvq_shfl(word, 0);
        width[1] = pmkvq_shfl(word, 16);
        const bool known[2] = { width[0] == 16 || (op.group_k != 0 && (width[0] == 8 || width[0] == 4 || width[0] == 2)),
                                width[1] == 16 || (op.group_v != 0 && (width[1] == 8 || width[1] == 4 || width[1] == 2)) };
        if (!known[0] || !known[1]) {
            width[0] = width[1] = 0;
        }
        // lanes 0..3: subtiles of K, 4..7: of V
        const bool of_v    = lane/4%2;
        const int  w       = of_v ? width[1] : width[0];
        const int  s       = 4*(number%2) + lane%4;
        const int  page    = pmkvq_shfl(word, 16*of_v + 1 + s*w/16);
        const int  n_pages = of_v ? op.n_pages_v : op.n_pages_k;
        const int  D       = of_v ? op.head_dim_v : op.head_dim_k;
        const bool there   = w != 0 && page >= 0 && page < n_pages;
        const uint32_t all = pmkvq_ballot(there);
        valid = all & all >> 4 & 0xf;
        if (lane < 8) {
            // page 0 where there is none
            to.base[lane] = (of_v ? op.pool_v : op.pool_k) + ((size_t) head*n_pages + (there ? page : 0))*(32*D) + (w ? s%(16/w)*(2*w*D) : 0);
        }
    }
    if (lane == 0) {
        to.width[0] = width[0];
        to.width[1] = width[1];
        to.valid    = valid;
    }
}

// a cell's group: what its codes are multiplied by, and what is added
struct pmkvq_cell_group {
    float min;
    float size;  // the larger of |min| and |max|
    float scale;

    // parameters of cells that were never written may be NaN: such a group is 0
    __device__ __forceinline__ pmkvq_cell_group(uint32_t mn, uint32_t mx, int half, float step) {
        const uint16_t lo = (uint16_t) (mn >> 16*half);
        const uint16_t hi = (uint16_t) (mx >> 16*half);
        const bool     ok = (lo & 0x7fff) < 0x7c00 && (hi & 0x7fff) < 0x7c00;
        min   = ok ? pmkvq_h2f(lo) : 0.0f;
        size  = ok ? fmaxf(fabsf(min), fabsf(pmkvq_h2f(hi))) : 0.0f;
        scale = ok ? (pmkvq_h2f(hi) - min)*step : 0.0f;
    }

    // s = f16(scale*unit), and the middle times unit, with what the rounding of (1024 + mid)*s leaves
    __device__ __forceinline__ uint16_t split(int mid, float unit, float & middle) const {
        const float    exact = scale*unit;
        const uint16_t s     = pmkvq_f2h(exact);
        const float    x     = pmkvq_h2f(s)*(1024 + mid); // exact
        middle = min*unit + (mid*exact + (pmkvq_h2f(pmkvq_f2h(x)) - x));
        return s;
    }
};

// words of minima and maxima that a lane has: its cells are 2 lane and 2 lane + 1
static __device__ __forceinline__ uint2 pmkvq_ask_range(const uint16_t * params, int n_groups, int n_head_kv, int number, int head, int group, int lane) {
    const uint16_t * p = params + ((((size_t) number/2*n_head_kv + head)*n_groups + group)*2)*PMKVQ_BLOCK + PMKVQ_ITEM*(number%2) + 2*lane;
    return make_uint2(pmkvq_ldg4((const uint32_t *) p), pmkvq_ldg4((const uint32_t *) (p + PMKVQ_BLOCK)));
}

// Of an item's K, by one warp: scales of groups in units of the cell's largest (with one group there is nothing to be told), columns of
// middles ([STEPS][64 rows][groups beside one another]) and the cells' units (pmkvq_prefill_scale), by which scores are multiplied. ask(group): the
// lane's words; first: those of group 0
template <bool MULTI, typename ASK>
static __device__ __forceinline__ void pmkvq_scales_k(
        uint16_t * scales, uint2 * middles, float * units, int width, int n_groups, uint2 first, ASK && ask, int lane) {
    const float step = 1.0f/((1 << width) - 1);
    const int   mid  = 1 << (width - 1);
    float unit[2], inverse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        float largest = 0.0f, size = 0.0f;
#pragma unroll 4
        for (int g = 0; g < n_groups; ++g) {
            const uint2 w = !MULTI || g == 0 ? first : ask(g);
            const pmkvq_cell_group x(w.x, w.y, i, step);
            largest = fmaxf(largest, fabsf(x.scale));
            size    = fmaxf(size, x.size);
        }
        // a middle is 2^19 units at most: also where all values are alike
        unit[i]    = fmaxf(largest, fmaxf(size*1.9073486e-6f, 1e-30f));
        inverse[i] = 1.0f/unit[i];
    }
    for (int g = 0; g < n_groups; ++g) {
        const uint2 w = !MULTI || g == 0 ? first : ask(g);
        uint32_t s[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const pmkvq_cell_group x(w.x, w.y, i, step);
            float middle = x.min*inverse[i] + mid;
            if (MULTI) {
                s[i] = x.split(mid, inverse[i], middle);
            }
            middle *= 1.0f/32; // the sums of queries are 32 times larger
            const uint32_t hi = pmkvq_f2h(middle);
            // cell 16a + 4q + c has row 8(2q + c%2) + 2a + c/2, as in scores
            const int cell = 2*lane + i;
            const int row  = 8*(cell%16/4*2 + cell%2) + cell/16*2 + cell%4/2;
            middles[MULTI ? (g/4*PMKVQ_ITEM + row)*4 + g%4 : row] = make_uint2(hi | hi << 16, pmkvq_f2h(middle - pmkvq_h2f((uint16_t) hi)));
        }
        if (MULTI) {
            ((uint32_t *) scales)[g*(PMKVQ_ITEM/2) + lane] = s[0] | s[1] << 16;
        }
    }
    // cells 2 lane and 2 lane + 1 of a quad stand two places apart
    const int quad = 4*(lane/2%4) + lane/8;
    units[4*quad + lane%2]     = unit[0];
    units[4*quad + lane%2 + 2] = unit[1];
}

// Of its V: scales times 2^e, and rows of V_STRIDE pieces: ones, then hi and lo of each group of the slice, all times 2^e. All scales are
// below 32, so that 1024 + 128 of one is a half. width: 16 or more if there are no codes. Returns 2^-e
template <bool MULTI, int V_STRIDE, typename ASK>
static __device__ __forceinline__ float pmkvq_scales_v(uint16_t * scales, uint4 * rows, int width, int n_groups, uint2 first, ASK && ask, int lane) {
    const bool  codes = width < 16;
    const float step  = 1.0f/((1 << (codes ? width : 8)) - 1);
    const int   mid   = 1 << ((codes ? width : 8) - 1);
    int e = 0;
    if (codes) {
        float largest = 0.0f, size = 0.0f;
#pragma unroll 4
        for (int g = 0; g < n_groups; ++g) {
            const uint2 w = !MULTI || g == 0 ? first : ask(g);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const pmkvq_cell_group x(w.x, w.y, i, step);
                largest = fmaxf(largest, fabsf(x.scale));
                size    = fmaxf(size, x.size);
            }
        }
#pragma unroll
        for (int x = 16; x > 0; x /= 2) {
            largest = fmaxf(largest, pmkvq_shfl_xor(largest, x));
            size    = fmaxf(size,    pmkvq_shfl_xor(size, x));
        }
        e = min(max(min(4 - pmkvq_exponent(largest), 14 - pmkvq_exponent(size)), -14), 15);
    }
    const int place = lane/2*4 + lane%2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        ((uint16_t *) rows)[place + 2*i] = pmkvq_f2h(pmkvq_pow2(e));
    }
    for (int g = 0; g < n_groups; ++g) {
        const uint2 w = !codes ? make_uint2(0, 0) : !MULTI || g == 0 ? first : ask(g);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float middle;
            const uint16_t s  = pmkvq_cell_group(w.x, w.y, i, step).split(mid, pmkvq_pow2(e), middle);
            const uint16_t hi = pmkvq_f2h(middle);
            scales[g*PMKVQ_ITEM + place + 2*i] = s;
            ((uint16_t *) (rows + (1 + 2*g)*V_STRIDE))[place + 2*i] = hi;
            ((uint16_t *) (rows + (2 + 2*g)*V_STRIDE))[place + 2*i] = pmkvq_f2h(middle - pmkvq_h2f(hi));
        }
    }
    return pmkvq_pow2(-e);
}
