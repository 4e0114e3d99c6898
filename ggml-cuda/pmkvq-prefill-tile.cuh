// pmkvq-prefill-tile.cuh - where an item of 64 cells stands in shared memory when it is unpacked, and what else a CTA has there
//
//   K      [64 cells][64 NS] halves: quads of 4 dimensions, 0 2 1 3
//   V      [64 NV dimensions][64 cells] halves: quads of 4 cells, 0 2 1 3
// in pieces of 16 bytes, which are what a lane reads at a time. Rows have an odd number of pieces, and their order is such that eight
// lanes beside one another find eight different banks when they read (rows 2i and 2i+1) and when they write (four cells, or eight
// quads of dimensions, apart).
//
// With g = lane/4 and t = lane%4:
//   scores   tile j of 8: column c stands for cell 4(j/2) + j%2 + 2(c%2) of subtile c/2, so that lane t holds the cells of subtile t
//   output   tile j of 8: column c stands for dimension 32(j/4) + 4c + j%4
//
// Codes are signed in the tile: code - mid, mid the middle of the codes. In K they stand as they are, exactly, and a score is multiplied by its
// cell's scale (where a row has several groups: by the largest of them, and the codes by what theirs is of it). In V they are multiplied by
// their scale times 2^e, the same e for the item, such that no scale is subnormal: rounded twice, by 2^-12 of half the group's range. What is
// missing to the values, min + mid*scale and the rest of a rounding, is the same for a cell's whole group: columns of their own, in two
// halves (hi, lo).
//   K      more dimensions: (hi, hi, lo, 0) of a group against (hi, lo, hi, 0) of the sum of its queries
//   V      more rows: ones, whose product is the sum of the weights as they were rounded, then hi and lo of the slice's groups

#pragma once

#include "pmkvq-attn-common.cuh"

#define PMKVQ_CURRENT 32 // in place of a width: an item of the current batch

// what an item is made of
struct pmkvq_prefill_item {
    const uint8_t * base[8]; // subtiles of K, then of V
    int      width[2];       // of K and V; 0: there is nothing
    uint32_t valid;          // bits of subtiles whose pages exist on both sides
    uint32_t unused;
};

template <int NS, int NV, int THREADS>
struct pmkvq_tile {
    static constexpr int K_STRIDE = 8*NS + 1;
    static constexpr int V_STRIDE = PMKVQ_ITEM/8 + 1;
    static constexpr int K_PIECES = PMKVQ_ITEM*K_STRIDE;
    static constexpr int PIECES   = K_PIECES + 64*NV*V_STRIDE;

    uint4 * k;
    uint4 * v;

    __device__ __forceinline__ pmkvq_tile(uint4 * at) : k(at), v(at + K_PIECES) {}

    // a cell's row; those of cells c + 1, c + 2 and c + 3 of a quad lie 8, 1 and 9 behind it
    __device__ __forceinline__ uint4 * k_row(uint32_t cell) const { return k + (cell/16*16 + cell%2*8 + cell%16/4*2 + cell%4/2)*K_STRIDE; }

    // a dimension's; the next ones of its quad lie 8 behind one another
    __device__ __forceinline__ uint4 * v_row(uint32_t dim) const { return v + (dim/32*32 + dim%4*8 + dim%32/4)*V_STRIDE; }
};

// 16-byte pieces of a CTA's shared memory. Rings have as many places as there are items between the first write and the last read
template <int NS, int NV, int WARPS, int M, bool MULTI, int STAGED>
struct pmkvq_prefill_memory {
    static constexpr int THREADS = 32*WARPS;
    using tile = pmkvq_tile<NS, NV, THREADS>;

    static constexpr int GROUPS_K = MULTI ? 4*NS : 1;
    static constexpr int GROUPS_V = MULTI ? 4*NV : 1;           // of a slice
    static constexpr int BESIDE   = MULTI ? 4 : 1;              // groups that have a place in a row of middles of K
    static constexpr int STEPS    = (GROUPS_K + 3)/4;           // of 16 columns of middles of K
    static constexpr int SUMMED   = 8*BESIDE;                   // lanes that have sums of queries for them
    static constexpr int NX       = (2*GROUPS_V + 1 + 7)/8;     // tiles of 8 rows of ones and middles of V

    // of a thread
    static constexpr int TASKS_K = (128*NS + THREADS - 1)/THREADS;
    static constexpr int TASKS_V = (128*NV + THREADS - 1)/THREADS;

    // queries of 16 rows
    static constexpr int FRAG   = 0;                            // [4 NS][32 lanes]: operand A (pmkvq-prefill-queries.cuh)
    static constexpr int SUMS   = FRAG + 4*NS*32;               // [STEPS][SUMMED lanes]
    static constexpr int INV    = SUMS + STEPS*SUMMED;          // [16] floats: what takes a sum of products to log2 units
    static constexpr int SLOPE  = INV + 4;                      // [16] floats, times log2(e)
    static constexpr int TOKEN  = SLOPE + 4;                    // [16] ints, -1: no such row
    static constexpr int HEAD   = TOKEN + 4;                    // [16] ints, of all query heads
    static constexpr int QUERY  = HEAD + 4;

    static constexpr int QUERIES = 0;                           // [WARPS M]
    static constexpr int STAGE   = QUERIES + WARPS*M*QUERY;     // [task][STAGED][THREADS]: as it comes from the cache
    static constexpr int SCALE_K = STAGE + STAGED*(TASKS_K + TASKS_V)*THREADS; // 2 places: [group][64 cells] halves
    static constexpr int SCALE_V = SCALE_K + 2*GROUPS_K*8;      // 2 places: [group][64 cells in the tile's order] halves
    static constexpr int MID_K   = SCALE_V + 2*GROUPS_V*8;      // 3 places: [STEPS][64 rows][BESIDE] of four halves
    static constexpr int MID_V   = MID_K + 3*STEPS*32*BESIDE;       // 3 places: NX tiles
    static constexpr int UNIT_K  = MID_V + 3*NX*8*tile::V_STRIDE; // 3 places: [4 quads][4 subtiles][4 cells] floats
    static constexpr int VISIBLE = UNIT_K + 3*16;               // 4 places: [warp][m][lane] bits of cells
    static constexpr int STATE   = VISIBLE + 4*WARPS*M*8;       // 4 places: [warp], 1: the mask has values, 2: sees something
    static constexpr int ITEMS   = STATE + 4*2;                 // 4 places
    static constexpr int UNIT_V  = ITEMS + 4*5;                 // 3 floats: 2^-e
    static constexpr int FLAGS   = UNIT_V + 1;                  // 3 ints: somebody sees something
    static constexpr int SPANS   = FLAGS + 1;                   // [warp]
    static constexpr int TILES   = SPANS + WARPS;

    static __host__ __device__ constexpr size_t bytes(int stages) { return 16*((size_t) TILES + stages*tile::PIECES); }
};
static_assert(sizeof(pmkvq_prefill_item) == 5*16);

// A thread's part of what comes from the cache: copied to shared memory ahead of time, or loaded when it is unpacked. STAGED: pieces that a
// task has room for there. Codes take two at most and cells of 16 bits four, so that 4 is all, 2 codes only, and 0 nothing
template <int STAGED, int THREADS>
struct pmkvq_raw {
    uint4 * slots; // of this thread, THREADS apart

    template <int W> static __device__ constexpr bool staged() { return STAGED >= (W == 16 ? 4 : 2); }

    __device__ __forceinline__ uint4 * slot(int task, int piece) const { return slots + (STAGED*task + piece)*THREADS; }

    template <int W>
    __device__ __forceinline__ void ask(int task, int piece, const uint8_t * p) const {
        if constexpr (staged<W>()) {
            pmkvq_cp_async_16(slot(task, piece), p, true);
        }
    }

    template <int W>
    __device__ __forceinline__ void ask_half(int task, int piece, int half, const uint8_t * p) const {
        if constexpr (staged<W>()) {
            pmkvq_cp_async_8((uint2 *) slot(task, piece) + half, p, true);
        }
    }

    template <int W>
    __device__ __forceinline__ uint4 get(int task, int piece, const uint8_t * p) const {
        if constexpr (staged<W>()) {
            return *slot(task, piece);
        } else {
            return pmkvq_ldg((const uint4 *) p);
        }
    }

    // two halves of 8 bytes
    template <int W>
    __device__ __forceinline__ uint4 get_halves(int task, int piece, const uint8_t * p0, const uint8_t * p1) const {
        if constexpr (staged<W>()) {
            return *slot(task, piece);
        } else {
            const uint2 a = pmkvq_ldg8((const uint2 *) p0);
            const uint2 b = pmkvq_ldg8((const uint2 *) p1);
            return make_uint4(a.x, a.y, b.x, b.y);
        }
    }

    template <int W>
    __device__ __forceinline__ uint2 get_half(int task, const uint8_t * p) const {
        if constexpr (staged<W>()) {
            return *(const uint2 *) slot(task, 0);
        } else {
            return pmkvq_ldg8((const uint2 *) p);
        }
    }
};
