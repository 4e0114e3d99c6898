// pmkvq-prefill-items.cuh - what is known of an item before it is unpacked: who sees it, where it lies, its scales and minima

#pragma once

#include "pmkvq-prefill-tile.cuh"

// the items of a CTA: those of the cache and then those of the current batch, dealt to the chunks in turn
struct pmkvq_prefill_items {
    int chunk;
    int n_chunk;
    int n_cached; // of all chunks
    int n;        // of this one

    // cells of the current batch: first and last, and whether they follow one another
    int  first;
    int  last;
    bool run;

    __device__ __forceinline__ pmkvq_prefill_items(const pmkvq_op_attn & op, int chunk) : chunk(chunk), n_chunk(op.n_chunk), first(0), last(-1), run(true) {
        n_cached = min(2*(int) op.n_blocks, ((int) op.n_kv + PMKVQ_ITEM - 1)/PMKVQ_ITEM);
        const int all = n_cached + (op.k_cur ? ((int) op.n_tokens + PMKVQ_ITEM - 1)/PMKVQ_ITEM : 0);
        n = chunk < all ? (all - chunk + n_chunk - 1)/n_chunk : 0;
    }

    __device__ __forceinline__ bool cached(int i) const { return chunk + i*n_chunk < n_cached; }

    // of the cache, or of the current batch
    __device__ __forceinline__ int number(int i) const {
        const int x = chunk + i*n_chunk;
        return x < n_cached ? x : x - n_cached;
    }

    // extent of the batch's cells; places: an int4 for each warp, n_warp of them. Barriers stand within
    __device__ __forceinline__ void look_at_cells(const pmkvq_op_attn & op, int4 * places, int n_warp) {
        if (!op.k_cur) {
            return;
        }
        const int c0 = (int) op.cells[0];
        int lo = 0x7fffffff, hi = -1, jumps = 0;
        for (int i = threadIdx.x; i < (int) op.n_tokens; i += 32*n_warp) {
            const int c = (int) op.cells[i];
            lo = min(lo, c);
            hi = max(hi, c);
            jumps |= c != c0 + i;
        }
#pragma unroll
        for (int x = 16; x > 0; x /= 2) {
            const int lane = threadIdx.x%32;
            lo     = min(lo, pmkvq_shfl(lo, lane ^ x));
            hi     = max(hi, pmkvq_shfl(hi, lane ^ x));
            jumps |= pmkvq_shfl(jumps, lane ^ x);
        }
        if (threadIdx.x%32 == 0) {
            places[threadIdx.x/32] = make_int4(lo, hi, jumps, 0);
        }
        pmkvq_syncthreads();
        first = 0x7fffffff;
        for (int w = 0; w < n_warp; ++w) {
            const int4 x = places[w];
            first = min(first, x.x);
            last  = max(last,  x.y);
            run   = run && x.z == 0;
        }
    }

    // the cell of a token of the batch
    __device__ __forceinline__ int cell(const pmkvq_op_attn & op, int token) const { return run ? first + token : (int) op.cells[token]; }

    // takes cells of the current batch out of the bits of 16 cells from `cell` of item `number`: they are not read from the cache
    template <int M>
    __device__ __forceinline__ void leave_out(const pmkvq_op_attn & op, int number, int cell, uint32_t (&vis)[M]) const {
        if (last < PMKVQ_ITEM*number || first >= PMKVQ_ITEM*(number + 1)) {
            return;
        }
        uint32_t out = 0;
        if (run) {
            const int lo = min(max(first - cell,    0), 16);
            const int hi = min(max(last + 1 - cell, 0), 16);
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
        const pmkvq_op_attn & op, const pmkvq_prefill_items & items, const uint16_t * row, int first, bool & values) {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const int cell = first + i < (int) op.n_tokens ? items.cell(op, first + i) : -1;
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

// (min, max) of two cells beside one another
struct pmkvq_range2 {
    float min[2];
    float range[2];

    // parameters of cells that were never written may be NaN: such a group is 0
    __device__ __forceinline__ pmkvq_range2(uint32_t mn, uint32_t mx) {
        const float2 lo = pmkvq_unpack_h2(mn);
        const float2 hi = pmkvq_unpack_h2(mx);
        const bool ok0 = (mn & 0x7fff) < 0x7c00 && (mx & 0x7fff) < 0x7c00;
        const bool ok1 = (mn >> 16 & 0x7fff) < 0x7c00 && (mx >> 16 & 0x7fff) < 0x7c00;
        min[0]   = ok0 ? lo.x : 0.0f;
        min[1]   = ok1 ? lo.y : 0.0f;
        range[0] = ok0 ? hi.x - lo.x : 0.0f;
        range[1] = ok1 ? hi.y - lo.y : 0.0f;
    }
};

// words of minima and maxima that a lane has: its cells are 2 lane and 2 lane + 1
static __device__ __forceinline__ uint2 pmkvq_ask_range(const uint16_t * params, int n_groups, int n_head_kv, int number, int head, int group, int lane) {
    const uint16_t * p = params + ((((size_t) number/2*n_head_kv + head)*n_groups + group)*2)*PMKVQ_BLOCK + PMKVQ_ITEM*(number%2) + 2*lane;
    return make_uint2(pmkvq_ldg4((const uint32_t *) p), pmkvq_ldg4((const uint32_t *) (p + PMKVQ_BLOCK)));
}

// e: all scales times 2^e are below 32, so that 1024 of one is a half, and minima have exponents up to `most`
static __device__ __forceinline__ int pmkvq_unit(float scale, float minimum, int most) {
#pragma unroll
    for (int x = 16; x > 0; x /= 2) {
        scale   = fmaxf(scale,   pmkvq_shfl_xor(scale, x));
        minimum = fmaxf(minimum, pmkvq_shfl_xor(minimum, x));
    }
    return min(max(min(4 - pmkvq_exponent(scale), most - pmkvq_exponent(minimum)), -14), 15);
}

// scales and columns of minima of an item's K, by one warp. ask(group): the lane's words; first: those of group 0.
// minima: [STEPS][64 rows][4 groups]; returns 2^-e
template <bool MULTI, typename ASK>
static __device__ __forceinline__ float pmkvq_scales_k(uint16_t * scales, uint2 * minima, int width, int n_groups, uint2 first, ASK && ask, int lane) {
    const float step = 1.0f/((1 << width) - 1);
    float scale = 0.0f, minimum = 0.0f;
#pragma unroll 4
    for (int g = 0; g < n_groups; ++g) {
        const uint2 w = !MULTI || g == 0 ? first : ask(g);
        const pmkvq_range2 r(w.x, w.y);
        scale   = fmaxf(scale,   fmaxf(fabsf(r.range[0]), fabsf(r.range[1]))*step);
        minimum = fmaxf(minimum, fmaxf(fabsf(r.min[0]), fabsf(r.min[1])));
    }
    // minima are kept 2^7 times larger: sums of queries would be too large
    const int   e    = pmkvq_unit(scale, minimum, 15 - 7);
    const float unit = pmkvq_pow2(e);
    const float mid  = ((1 << width) - 1)*0.5f;
    for (int g = 0; g < n_groups; ++g) {
        const uint2 w = !MULTI || g == 0 ? first : ask(g);
        const pmkvq_range2 r(w.x, w.y);
        uint32_t s[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float    exact = r.range[i]*(step*unit);
            const uint32_t mn    = pmkvq_f2h(r.min[i]*(128.0f*unit));
            s[i] = pmkvq_f2h(exact);
            // cell 16a + 4q + c has row 8(2q + c%2) + 2a + c/2, as in scores
            const int cell = 2*lane + i;
            const int row  = 8*(cell%16/4*2 + cell%2) + cell/16*2 + cell%4/2;
            minima[(g/4*PMKVQ_ITEM + row)*4 + g%4] = make_uint2(mn | mn << 16, pmkvq_f2h((exact - pmkvq_h2f((uint16_t) s[i]))*(128.0f*mid)));
        }
        ((uint32_t *) scales)[g*(PMKVQ_ITEM/2) + lane] = s[0] | s[1] << 16;
    }
    return pmkvq_pow2(-e);
}

// of its V: groups g0 .. g0 + n_groups; ones and minima: rows of V_STRIDE pieces. width: 16 or more if there are no codes
template <bool MULTI, int V_STRIDE, typename ASK>
static __device__ __forceinline__ float pmkvq_scales_v(uint16_t * scales, uint4 * rows, int width, int n_groups, uint2 first, ASK && ask, int lane) {
    const bool  codes = width < 16;
    const float step  = 1.0f/((1 << (codes ? width : 8)) - 1);
    const uint2 none  = make_uint2(0, 0);
    float scale = 0.0f, minimum = 0.0f;
#pragma unroll 4
    for (int g = 0; g < n_groups; ++g) {
        const uint2 w = !codes ? none : !MULTI || g == 0 ? first : ask(g);
        const pmkvq_range2 r(w.x, w.y);
        scale   = fmaxf(scale,   fmaxf(fabsf(r.range[0]), fabsf(r.range[1]))*step);
        minimum = fmaxf(minimum, fmaxf(fabsf(r.min[0]), fabsf(r.min[1])));
    }
    const int   e    = codes ? pmkvq_unit(scale, minimum, 15) : 0;
    const float unit = pmkvq_pow2(e);

    // cells 2 lane and 2 lane + 1 of a quad stand two places apart
    const int place = lane/2*4 + lane%2;
    const uint16_t one = pmkvq_f2h(unit);
    ((uint16_t *) rows)[place]     = one;
    ((uint16_t *) rows)[place + 2] = one;
    for (int g = 0; g < n_groups; ++g) {
        const uint2 w = !codes ? none : !MULTI || g == 0 ? first : ask(g);
        const pmkvq_range2 r(w.x, w.y);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            scales[g*PMKVQ_ITEM + place + 2*i] = pmkvq_f2h(r.range[i]*(step*unit));
            ((uint16_t *) (rows + (1 + g)*V_STRIDE))[place + 2*i] = pmkvq_f2h(r.min[i]*unit);
        }
    }
    return pmkvq_pow2(-e);
}
