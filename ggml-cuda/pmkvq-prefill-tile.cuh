// pmkvq-prefill-tile.cuh - an item of 64 cells unpacked once into shared memory, for many query rows
//
// Codes become halves of value code * 2^-24 (no scale, no minimum: those are applied to scores and weights, as in decoding), 16-bit
// values stay what they are. Both stand in the order in which lanes take operands:
//   K   [64 cells][64 NS] halves: quads of 4 dimensions, 0 2 1 3. Pieces of 16 bytes: number ^ (cell/8)%8, against bank conflicts
//   V   [16 quads of cells][64 NV dimensions][4] halves: cells 0 2 1 3. Pieces: number ^ quad/4
//   params  of both sides and all groups: halves [min | max][64 cells]
// Global memory is read into registers first (fetch), and unpacked when the tile that is in use has been multiplied (put).

#pragma once

#include "pmkvq-prefill-rows.cuh"

// d0 and d1 of products in which all dimensions of a row take part, so that the compiler sees it: what lies beyond a row is zero in the
// queries, and never written in the output
#define PMKVQ_ALL (1 << 20)

// halves that are NaN or infinite: bytes of cells that nobody wrote; as values they would spoil sums that leave them out by a weight of 0
static __device__ __forceinline__ uint32_t pmkvq_finite_h2(uint32_t x) {
    const uint32_t lo = (x & 0x00007c00u) == 0x00007c00u ? 0 : 0x0000ffffu;
    const uint32_t hi = (x & 0x7c000000u) == 0x7c000000u ? 0 : 0xffff0000u;
    return x & (lo | hi);
}

template <int NS, int NV, int THREADS>
struct pmkvq_tile {
    static constexpr int K_ROW   = 8*NS;            // pieces of 16 bytes
    static constexpr int V_ROW   = 32*NV;
    static constexpr int K_BYTES = PMKVQ_ITEM*K_ROW*16;
    static constexpr int V_BYTES = PMKVQ_ITEM/4*V_ROW*16;

    // loads of a thread: of 16-bit cells, the most
    static constexpr int NK = (PMKVQ_ITEM*K_ROW + THREADS - 1)/THREADS;
    static constexpr int NVL = (PMKVQ_ITEM/4*8*NV + THREADS - 1)/THREADS; // of four pieces

    uint4 * k;
    uint4 * v;
    uint16_t * params_k; // [n_groups][min | max][64]
    uint16_t * params_v;

    static __host__ __device__ size_t bytes(int n_groups_k, int n_groups_v) {
        return K_BYTES + V_BYTES + (n_groups_k + n_groups_v)*2*PMKVQ_ITEM*sizeof(uint16_t);
    }

    __device__ __forceinline__ pmkvq_tile(uint8_t * smem, int n_groups_k) {
        k = (uint4 *) smem;
        v = (uint4 *) (smem + K_BYTES);
        params_k = (uint16_t *) (smem + K_BYTES + V_BYTES);
        params_v = params_k + n_groups_k*2*PMKVQ_ITEM;
    }

    __device__ __forceinline__ uint4 & k_piece(int cell, int piece) const { return k[cell*K_ROW + (piece ^ (cell/8)%8)]; }
    __device__ __forceinline__ uint4 & v_piece(int quad, int piece) const { return v[quad*V_ROW + (piece ^ quad/4)]; }
};

// an item of the cache on one side
struct pmkvq_source {
    const uint8_t     * pool;
    const pmkvq_block * table;
    int item;
    int width; // 0: there is nothing
    int head;
    int n_pages;
    int head_dim;

    __device__ __forceinline__ pmkvq_source(const uint8_t * pool, const pmkvq_block * table, int item, int group, int head, int n_pages, int head_dim)
        : pool(pool), table(table), item(item), head(head), n_pages(n_pages), head_dim(head_dim) {
        const int w = table[item/2].width;
        width = w == 16 || (group != 0 && (w == 8 || w == 4 || w == 2)) ? w : 0;
    }

    // bytes of subtile i of 4; those of page 0 where there is no page
    __device__ __forceinline__ const uint8_t * subtile(int i, bool & valid) const {
        const int s    = 4*(item%2) + i;
        const int page = width ? table[item/2].pages[s*width/16] : -1;
        const int per  = width ? 16/width : 1;
        valid = page >= 0 && page < n_pages;
        return pool + ((size_t) head*n_pages + (valid ? page : 0))*(32*head_dim) + s%per*(2*width*head_dim);
    }

    __device__ __forceinline__ const uint8_t * subtile(int i) const {
        bool valid;
        return subtile(i, valid);
    }
};

// registers between global and shared memory
template <int NS, int NV, int THREADS>
struct pmkvq_fetched {
    using tile = pmkvq_tile<NS, NV, THREADS>;
    uint4 k[tile::NK];
    uint4 v[4*tile::NVL];
};

template <int W, int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_fetch_k(pmkvq_fetched<NS, NV, THREADS> & f, const pmkvq_source & src) {
    const int D     = src.head_dim;
    // pieces: 16 bits: [64 cells][D/8]; codes: [4 subtiles][rows][4 pieces of 4 cells]
    const int row   = W == 16 ? D/8 : 4;
    const int total = W == 16 ? PMKVQ_ITEM*row : 4*(D/4*W/8)*4;
#pragma unroll
    for (int i = 0; i < (W == 16 ? NS*PMKVQ_ITEM*8 : NS*PMKVQ_ITEM*W/2)/THREADS + ((W == 16 ? NS*PMKVQ_ITEM*8 : NS*PMKVQ_ITEM*W/2)%THREADS != 0); ++i) {
        const int n = i*THREADS + threadIdx.x;
        if (n < total) {
            const int per = total/4;
            f.k[i] = pmkvq_ldg((const uint4 *) (src.subtile(n/per) + 16*(n%per)));
        }
    }
}

template <int W, int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_put_k(const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_fetched<NS, NV, THREADS> & f, int D) {
    const int row   = W == 16 ? D/8 : 4;
    const int total = W == 16 ? PMKVQ_ITEM*row : 4*(D/4*W/8)*4;
#pragma unroll
    for (int i = 0; i < (W == 16 ? NS*PMKVQ_ITEM*8 : NS*PMKVQ_ITEM*W/2)/THREADS + ((W == 16 ? NS*PMKVQ_ITEM*8 : NS*PMKVQ_ITEM*W/2)%THREADS != 0); ++i) {
        const int n = i*THREADS + threadIdx.x;
        if (n >= total) {
            continue;
        }
        const uint4 x = f.k[i];
        if constexpr (W == 16) {
            tile.k_piece(n/row, n%row) = make_uint4(
                pmkvq_perm(x.x, x.y, 0x5410), pmkvq_perm(x.x, x.y, 0x7632), pmkvq_perm(x.z, x.w, 0x5410), pmkvq_perm(x.z, x.w, 0x7632));
        } else {
            constexpr int per = 8/W;
            const uint32_t mask = W == 8 ? 0x00ff00ffu : W == 4 ? 0x000f000fu : 0x00030003u;
            const int sub  = n/(total/4);
            const int r    = n%(total/4)/4;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int      cell = 16*sub + n%4*4 + j;
                const uint32_t w    = pmkvq_word(x, j);
                if constexpr (W == 8) {
                    // a quad is half a piece
                    ((uint2 *) &tile.k_piece(cell, r/2))[r%2] = make_uint2(w & mask, w >> 8 & mask);
                } else {
#pragma unroll
                    for (int y = 0; y < per/2; ++y) {
                        const uint32_t a = w >> (2*y*W);
                        const uint32_t b = w >> ((2*y + 1)*W);
                        tile.k_piece(cell, r*(per/2) + y) = make_uint4(a & mask, a >> 8 & mask, b & mask, b >> 8 & mask);
                    }
                }
            }
        }
    }
}

// dimensions v0 .. v0 + 64 NV
template <int W, int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_fetch_v(pmkvq_fetched<NS, NV, THREADS> & f, const pmkvq_source & src, int v0) {
    const int D = src.head_dim;
    if constexpr (W == 16) {
        // a quad of cells, 8 dimensions
#pragma unroll
        for (int i = 0; i < pmkvq_tile<NS, NV, THREADS>::NVL; ++i) {
            const int n = i*THREADS + threadIdx.x;
            const int q = n/(8*NV);
            const int d = v0 + n%(8*NV)*8;
            if (q < 16 && d < D) {
                const uint8_t * p = src.subtile(q/4);
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    f.v[4*i + c] = pmkvq_ldg((const uint4 *) (p + ((q%4*4 + c)*D + d)*2));
                }
            }
        }
    } else {
        // a row of quads, 4 dimensions
        constexpr int rows = 4*(W/2);
#pragma unroll
        for (int i = 0; i < (rows*16*NV + THREADS - 1)/THREADS; ++i) {
            const int n = i*THREADS + threadIdx.x;
            const int r = n/(16*NV);
            const int d = v0 + n%(16*NV)*4;
            if (r < rows && d < D) {
                f.v[i] = pmkvq_ldg((const uint4 *) (src.subtile(r/(W/2)) + (r%(W/2)*D + d)*4));
            }
        }
    }
}

template <int W, int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_put_v(const pmkvq_tile<NS, NV, THREADS> & tile, const pmkvq_fetched<NS, NV, THREADS> & f, int D, int v0) {
    if constexpr (W == 16) {
#pragma unroll
        for (int i = 0; i < pmkvq_tile<NS, NV, THREADS>::NVL; ++i) {
            const int n = i*THREADS + threadIdx.x;
            const int q = n/(8*NV);
            const int p = n%(8*NV);
            if (q < 16 && v0 + 8*p < D) {
                const uint4 * x = &f.v[4*i];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    uint32_t w[4];
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        w[c] = pmkvq_finite_h2(pmkvq_word(x[c], j));
                    }
                    tile.v_piece(q, 4*p + j) = make_uint4(
                        pmkvq_perm(w[0], w[2], 0x5410), pmkvq_perm(w[1], w[3], 0x5410), pmkvq_perm(w[0], w[2], 0x7632), pmkvq_perm(w[1], w[3], 0x7632));
                }
            }
        }
    } else {
        constexpr int rows = 4*(W/2);
        constexpr int per  = 8/W;
        const uint32_t mask = W == 8 ? 0x00ff00ffu : W == 4 ? 0x000f000fu : 0x00030003u;
#pragma unroll
        for (int i = 0; i < (rows*16*NV + THREADS - 1)/THREADS; ++i) {
            const int n = i*THREADS + threadIdx.x;
            const int r = n/(16*NV);
            const int p = n%(16*NV);
            if (r < rows && v0 + 4*p < D) {
#pragma unroll
                for (int y = 0; y < per; ++y) {
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        const uint32_t a = pmkvq_word(f.v[i], 2*j)     >> (y*W);
                        const uint32_t b = pmkvq_word(f.v[i], 2*j + 1) >> (y*W);
                        tile.v_piece(r*per + y, 2*p + j) = make_uint4(a & mask, a >> 8 & mask, b & mask, b >> 8 & mask);
                    }
                }
            }
        }
    }
}

// operand A of step (s, c); zero for lanes without a dimension of the group
static __device__ __forceinline__ void pmkvq_tile_queries(uint32_t (&a)[4], const uint32_t * q, int step, bool mine, int lane) {
    const uint4 f = ((const uint4 *) q)[step*32 + lane];
    a[0] = mine ? f.x : 0;
    a[1] = mine ? f.y : 0;
    a[2] = mine ? f.z : 0;
    a[3] = mine ? f.w : 0;
}

// products of a warp's queries with all keys of the tile, for the dimensions d0 .. d1
template <int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_tile_scores(
        float (&acc)[8][4], const pmkvq_tile<NS, NV, THREADS> & tile, const uint32_t * q, int lane, int d0, int d1) {
    const int g = lane/4;
    const int t = lane%4;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0.0f;
    }
#pragma unroll
    for (int s = 0; s < NS; ++s) {
        if (64*s + 64 <= d0 || 64*s >= d1) {
            continue;
        }
        const int  d    = 64*s + 16*t;
        const bool mine = d >= d0 && d < d1;
#pragma unroll
        for (int x = 0; x < 2; ++x) {
            uint32_t a[2][4];
            pmkvq_tile_queries(a[0], q, 4*s + 2*x,     mine, lane);
            pmkvq_tile_queries(a[1], q, 4*s + 2*x + 1, mine, lane);
            uint4 b[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                b[i] = tile.k_piece(8*g + i, 8*s + 2*t + x);
                pmkvq_mma_f16(acc[i], a[0], b[i].x, b[i].y);
            }
            // not right after one another: the second waits for the first
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                pmkvq_mma_f16(acc[i], a[1], b[i].z, b[i].w);
            }
        }
    }
}

template <int NS, int NV, int THREADS>
static __device__ __forceinline__ void pmkvq_tile_values(
        float (&out)[8*NV][4], const pmkvq_tile<NS, NV, THREADS> & tile, const uint32_t (&w)[4][4], int v0, int lane, int d0, int d1) {
    const int g = lane/4;
    const int t = lane%4;
#pragma unroll
    for (int i = 0; i < NV; ++i) {
        const int base = v0 + 64*i;
        if (base + 64 <= d0 || base >= d1) {
            continue;
        }
        const bool mine = base + 8*g >= d0 && base + 8*g < d1;
        // added to the output at the end: the matrix units cut off what they add to a large sum
        float acc[8][4] = {};
#pragma unroll
        for (int u = 0; u < 4; ++u) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                uint4 b = tile.v_piece(4*t + u, 32*i + 4*g + j);
                if (!mine) {
                    b = make_uint4(0, 0, 0, 0);
                }
                pmkvq_mma_f16(acc[2*j],     w[u], b.x, b.y);
                pmkvq_mma_f16(acc[2*j + 1], w[u], b.z, b.w);
            }
        }
#pragma unroll
        for (int x = 0; x < 8; ++x) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                out[8*i + x][e] += acc[x][e];
            }
        }
    }
}
