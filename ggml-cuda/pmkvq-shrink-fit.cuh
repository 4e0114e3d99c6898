// pmkvq-shrink-fit.cuh - a whole block at 4 bits in shared memory goes to 2 bits with new ranges

#pragma once

#include "pmkvq-shrink-tiles.cuh"

// eight 4-bit codes of a token from dimension d on, a multiple of 8
static __device__ __forceinline__ uint32_t pmkvq_eight(const pmkvq_stage stage, bool is_v, uint32_t head_dim, uint32_t token, uint32_t d) {
    const uint32_t tile = token/PMKVQ_SUBTILE*(head_dim/2);
    const uint32_t t    = token%PMKVQ_SUBTILE;
    if (!is_v) {
        return ((const uint32_t *) &stage[tile + d/8*4 + t/4])[t%4];
    }
    const uint4    a     = stage[tile + t/8*(head_dim/4) + d/4];
    const uint4    b     = stage[tile + t/8*(head_dim/4) + d/4 + 1];
    const uint32_t shift = 8*(t%4) + 4*(t/4%2);
    const uint32_t w[8]  = { a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w };
    uint32_t codes = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        codes |= ((w[i] >> shift) & 15) << 4*i;
    }
    return codes;
}

// each token's group: a new range and what becomes of its 4-bit codes, luts [n_groups][128]
static __device__ void pmkvq_fit_ranges(const pmkvq_job & job, bool is_v, const pmkvq_stage stage, uint32_t * luts) {
    for (uint32_t i = threadIdx.x; i < PMKVQ_BLOCK*job.n_groups; i += blockDim.x) {
        const uint32_t token = i%PMKVQ_BLOCK;
        const uint32_t g     = i/PMKVQ_BLOCK;
        if (!job.has(token/PMKVQ_SUBTILE)) {
            continue;
        }
        pmkvq_counts counts;
        for (uint32_t d = 0; d < job.group; d += 32) {
            // a group of 16 or 48, say, ends with half of the words; each has its codes in bits of its own
            uint32_t w[4] = { 0, 0, 0, 0 };
            const bool whole = d + 16 < job.group;
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                if (k < 2 || whole) {
                    w[k] = pmkvq_eight(stage, is_v, job.head_dim, token, g*job.group + d + 8*k);
                }
            }
            counts.add_words(w, whole ? 0xffffffff : 0x33333333);
        }
        const pmkvq_range range = pmkvq_range::best(counts);
        range.params(job.plane(g), token);
        luts[i] = range.codes();
    }
}

// two bytes of 4-bit codes, of quads 0 and 1, 2 and 3, to one of 2-bit codes, at the same place of the word
static __device__ __forceinline__ uint32_t pmkvq_byte2(uint32_t a, uint32_t b, int j, uint32_t l0, uint32_t l1, uint32_t l2, uint32_t l3) {
    const uint32_t c0 = (l0 >> (((a >> 8*j) << 1) & 30)) & 3, c1 = (l1 >> ((a >> (8*j + 3)) & 30)) & 3;
    const uint32_t c2 = (l2 >> (((b >> 8*j) << 1) & 30)) & 3, c3 = (l3 >> ((b >> (8*j + 3)) & 30)) & 3;
    return (c0 | c1 << 2 | c2 << 4 | c3 << 6) << 8*j;
}

static __device__ __forceinline__ uint32_t pmkvq_of4(const uint4 & v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// the page at 2 bits
template <bool is_v>
static __device__ void pmkvq_write_fitted(const pmkvq_job & job, const pmkvq_stage stage, const uint32_t * luts, uint4 * page) {
    const uint32_t in_row  = is_v ? job.head_dim/4 : 4;
    const uint32_t in_tile = job.head_dim/4;
    for (uint32_t i = threadIdx.x; i < PMKVQ_SUBTILES*in_tile; i += blockDim.x) {
        const uint32_t s  = i/in_tile;
        const uint32_t at = i%in_tile;
        uint4 out = make_uint4(0, 0, 0, 0);
        if (job.has(s)) {
            const uint32_t row = s*(job.head_dim/2) + at/in_row*2*in_row + at%in_row;
            const uint4 a = stage[row], b = stage[row + in_row];
            const uint32_t d = is_v ? 4*(at%in_row) : 16*(at/in_row);
            const uint4 * lut = (const uint4 *) (luts + d/job.group*PMKVQ_BLOCK + s*PMKVQ_SUBTILE);
            uint32_t w[4] = { 0, 0, 0, 0 };
            if (is_v) {
                // a byte is of tokens j, 4+j, 8+j, 12+j
                const uint4 l0 = lut[0], l1 = lut[1], l2 = lut[2], l3 = lut[3];
#pragma unroll
                for (int k = 0; k < 16; ++k) {
                    const int j = k%4;
                    w[k/4] |= pmkvq_byte2(pmkvq_of4(a, k/4), pmkvq_of4(b, k/4), j, pmkvq_of4(l0, j), pmkvq_of4(l1, j), pmkvq_of4(l2, j), pmkvq_of4(l3, j));
                }
            } else {
                const uint4 l = lut[at%in_row];
#pragma unroll
                for (int k = 0; k < 16; ++k) {
                    const uint32_t of = pmkvq_of4(l, k/4);
                    w[k/4] |= pmkvq_byte2(pmkvq_of4(a, k/4), pmkvq_of4(b, k/4), k%4, of, of, of, of);
                }
            }
            out = make_uint4(w[0], w[1], w[2], w[3]);
        }
        page[i] = out;
    }
}
