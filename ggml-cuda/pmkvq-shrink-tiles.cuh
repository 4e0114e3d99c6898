// pmkvq-shrink-tiles.cuh - subtiles become narrower ones in shared memory
//
// Results are built in shared memory ("the stage"), pieces of 16 bytes in the order of the destination but for their places in
// groups of 32, which are such that lanes that write pieces of K side by side don't meet in a bank.

#pragma once

#include "pmkvq-fit.cuh"
#include "pmkvq-layout.cuh"

struct pmkvq_stage {
    uint4 * pieces;

    __device__ __forceinline__ uint4 & operator[](uint32_t i) const {
        return pieces[i ^ ((i >> 3) & 3)];
    }
};

// an operation as a CTA has it: one block of one head
struct pmkvq_job {
    const pmkvq_block_op * op;
    uint8_t  * pool;
    uint16_t * params;   // of group 0
    uint32_t   head;
    uint32_t   n_pages;
    uint32_t   head_dim;
    uint32_t   group;
    uint32_t   n_groups;
    uint32_t   present;  // bit s: subtile s is there

    __device__ __forceinline__ uint8_t * page(int page) const {
        return pmkvq_page(pool, head, n_pages, page, head_dim);
    }

    // a present subtile
    template <int width>
    __device__ __forceinline__ const uint8_t * subtile(uint32_t s) const {
        constexpr uint32_t in_page = 16/width;
        return page(op->src[s/in_page]) + s%in_page*(2*width*head_dim);
    }

    __device__ __forceinline__ bool has(uint32_t s) const {
        return (present >> s) & 1;
    }

    __device__ __forceinline__ uint16_t * plane(uint32_t g) const {
        return params + g*2*PMKVQ_BLOCK;
    }
};

// of four words of a lane and its neighbours (or'ed with those of lane^1, and of lane^2 if quads is 4) each lane keeps its part
template <int quads>
static __device__ __forceinline__ void pmkvq_share(uint32_t (&w)[4]) {
    const uint32_t lane = threadIdx.x%32;
    if (quads == 1) {
        return;
    }
    const bool odd = lane & 1;
    const uint32_t a = pmkvq_shfl_xor(odd ? w[0] : w[2], 1);
    const uint32_t b = pmkvq_shfl_xor(odd ? w[1] : w[3], 1);
    w[0] = (odd ? w[2] : w[0]) | a;
    w[1] = (odd ? w[3] : w[1]) | b;
    if (quads == 4) {
        const bool second = lane & 2;
        const uint32_t c = pmkvq_shfl_xor(second ? w[0] : w[1], 2);
        w[0] = (second ? w[1] : w[0]) | c;
    }
}

// f16 subtiles first .. first+n-1 into codes, and their parameters. A lane has a quad of dimensions of all 16 tokens, a group one
// to four times in a warp (pmkvq_lanes_of)
template <int to, bool is_v>
static __device__ void pmkvq_quantize_tiles(const pmkvq_job & job, const pmkvq_stage stage, uint32_t first, uint32_t n) {
    constexpr int quads = 8/to;
    const uint32_t lane   = threadIdx.x%32;
    const uint32_t lanes  = pmkvq_lanes_of(job.group);
    const uint32_t d_sub  = 4*(lane%lanes); // in the group
    const uint32_t d_in   = job.head_dim;
    const uint32_t in_row = is_v ? d_in/4 : 4;
    // of the four tokens of a tile this lane finds the scale of one
    const uint32_t mine   = 2*(lane & 1) + ((lane >> 1) & 1);

    for (uint32_t i0 = threadIdx.x/32*(32/lanes); i0 < n*job.n_groups; i0 += blockDim.x/32*(32/lanes)) {
        const uint32_t i  = i0 + lane/lanes;
        const uint32_t s  = first + i/job.n_groups;
        const uint32_t g  = i%job.n_groups;
        const uint32_t d  = g*job.group + d_sub;
        const bool     in = i < n*job.n_groups && d_sub < job.group && job.has(s);
        const uint8_t * src = in ? job.subtile<16>(s) + 2*d : nullptr;
        const uint32_t  out = (s - first)*to*d_in/8;
        uint32_t packed[4] = { 0, 0, 0, 0 }; // of V
        // NaN where there is nothing: it does not count
        const uint2 none = make_uint2(0x7e007e00, 0x7e007e00);
        uint2 next[4];
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            next[t] = in ? *(const uint2 *) (src + t*2*d_in) : none;
        }
#pragma unroll 1
        for (int q = 0; q < 4; ++q) {
            float x[4][4], least[4], most[4];
#pragma unroll
            for (int t = 0; t < 4; ++t) {
                const float2 a = pmkvq_unpack_h2(next[t].x), b = pmkvq_unpack_h2(next[t].y);
                next[t] = in && q < 3 ? *(const uint2 *) (src + (4*q + 4 + t)*2*d_in) : none;
                x[t][0] = a.x; x[t][1] = a.y; x[t][2] = b.x; x[t][3] = b.y;
                least[t] = fminf(fminf(a.x, a.y), fminf(b.x, b.y));
                most[t]  = fmaxf(fmaxf(a.x, a.y), fmaxf(b.x, b.y));
            }
            // four tokens in all lanes, then two in every second, then one in every fourth
            const bool odd = lane & 1, second = lane & 2;
            float low[2], high[2];
#pragma unroll
            for (int t = 0; t < 2; ++t) {
                low [t] = fminf(odd ? least[t + 2] : least[t], pmkvq_shfl_xor(odd ? least[t] : least[t + 2], 1));
                high[t] = fmaxf(odd ? most [t + 2] : most [t], pmkvq_shfl_xor(odd ? most [t] : most [t + 2], 1));
            }
            float l = fminf(second ? low [1] : low [0], pmkvq_shfl_xor(second ? low [0] : low [1], 2));
            float h = fmaxf(second ? high[1] : high[0], pmkvq_shfl_xor(second ? high[0] : high[1], 2));
            for (uint32_t m = 4; m < lanes; m *= 2) {
                l = fminf(l, pmkvq_shfl_xor(l, m));
                h = fmaxf(h, pmkvq_shfl_xor(h, m));
            }
            // +-inf are left where a group has no number: pmkvq_scale knows
            const pmkvq_scale own = pmkvq_scale::of(l, h);
            if (in && d_sub < 16) {
                uint16_t * plane = job.plane(g) + s*PMKVQ_SUBTILE + 4*q + mine;
                plane[0]           = pmkvq_f2h(own.min);
                plane[PMKVQ_BLOCK] = pmkvq_f2h(own.max);
            }
            uint32_t w[4];
#pragma unroll
            for (int t = 0; t < 4; ++t) {
                const int from = (lane & ~3) + (t >> 1) + 2*(t & 1);
                pmkvq_scale scale;
                scale.min     = pmkvq_shfl(own.min,     from);
                scale.max     = pmkvq_shfl(own.max,     from);
                scale.step    = pmkvq_shfl(own.step,    from);
                scale.inverse = pmkvq_shfl(own.inverse, from);
                const uint32_t c = pmkvq_bytes(scale.code(x[t][0]), scale.code(x[t][1]), scale.code(x[t][2]), scale.code(x[t][3]));
                w[t] = pmkvq_narrow8<to>(c);
            }
            if (is_v) {
                pmkvq_transpose(w);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    packed[j] = (q%quads == 0 ? 0 : packed[j]) | w[j] << to*(q%quads);
                }
                if (in && q%quads == quads - 1) {
                    stage[out + q/quads*in_row + d/4] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
                }
                continue;
            }
            const uint32_t piece = out + d/4/quads*in_row + q;
#pragma unroll
            for (int t = 0; t < 4; ++t) {
                w[t] <<= to*(d/4%quads);
            }
            pmkvq_share<quads>(w);
            if (in && quads == 1) {
                stage[piece] = make_uint4(w[0], w[1], w[2], w[3]);
            } else if (in && quads == 2) {
                ((uint2 *) &stage[piece])[lane & 1] = make_uint2(w[0], w[1]);
            } else if (in) {
                ((uint32_t *) &stage[piece])[mine] = w[0];
            }
        }
    }
}

// codes of a row at 4 bits, from two rows at 8
static __device__ __forceinline__ uint32_t pmkvq_join8(uint32_t a, uint32_t b) {
    return pmkvq_shift8(a) | pmkvq_shift8(b) << 4;
}

// codes of a row at 2 bits, from two rows at 4
static __device__ __forceinline__ uint32_t pmkvq_join4(uint32_t a, uint32_t b) {
    return pmkvq_shift4( a       & 0x0f0f0f0f)      | pmkvq_shift4((a >> 4) & 0x0f0f0f0f) << 2
         | pmkvq_shift4( b       & 0x0f0f0f0f) << 4 | pmkvq_shift4((b >> 4) & 0x0f0f0f0f) << 6;
}

// codes of subtiles first .. first+n-1: rows are joined byte by byte. to may be from: they are copied
template <int from, int to>
static __device__ void pmkvq_join(const pmkvq_job & job, bool is_v, const pmkvq_stage stage, uint32_t first, uint32_t n) {
    constexpr int ratio = from/to;
    const uint32_t in_row  = is_v ? job.head_dim/4 : 4;
    const uint32_t in_tile = to*job.head_dim/8;
    for (uint32_t i = threadIdx.x; i < n*in_tile; i += blockDim.x) {
        const uint32_t s = first + i/in_tile;
        if (!job.has(s)) {
            continue;
        }
        const uint32_t at  = i%in_tile;
        const uint4  * src = (const uint4 *) job.subtile<from>(s) + at/in_row*ratio*in_row + at%in_row;
        uint4 x[ratio];
#pragma unroll
        for (int k = 0; k < ratio; ++k) {
            x[k] = src[k*in_row];
        }
        if (ratio == 2) {
            uint4 & b = x[ratio/2];
            x[0] = from == 8 ? make_uint4(pmkvq_join8(x[0].x, b.x), pmkvq_join8(x[0].y, b.y), pmkvq_join8(x[0].z, b.z), pmkvq_join8(x[0].w, b.w))
                             : make_uint4(pmkvq_join4(x[0].x, b.x), pmkvq_join4(x[0].y, b.y), pmkvq_join4(x[0].z, b.z), pmkvq_join4(x[0].w, b.w));
        }
        if (ratio == 4) {
            uint4 & b = x[ratio/4], & c = x[ratio/2], & d = x[ratio - 1];
            x[0].x = pmkvq_join4(pmkvq_join8(x[0].x, b.x), pmkvq_join8(c.x, d.x));
            x[0].y = pmkvq_join4(pmkvq_join8(x[0].y, b.y), pmkvq_join8(c.y, d.y));
            x[0].z = pmkvq_join4(pmkvq_join8(x[0].z, b.z), pmkvq_join8(c.z, d.z));
            x[0].w = pmkvq_join4(pmkvq_join8(x[0].w, b.w), pmkvq_join8(c.w, d.w));
        }
        stage[i] = x[0];
    }
}
