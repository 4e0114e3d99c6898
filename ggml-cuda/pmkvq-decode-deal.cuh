// pmkvq-decode-deal.cuh - which items a warp takes while decoding
//
// The warps of a tile's chunks take turns: in each round one item each, n_work in all. What is dealt is all items, or those of the
// tile's list (pmkvq-seen.cuh).

#pragma once

#include "pmkvq-seen.cuh"

// a CTA's part
struct pmkvq_part {
    int list;
    int tile;
    int chunk;
    int used; // chunks of the tile; 0: there is nothing to do
};

// without lists all tiles from first_tile on have as many chunks, with them as the lists say. By the whole warp
template <bool LISTED>
static __device__ __forceinline__ pmkvq_part pmkvq_part_of(const pmkvq_seen & seen, const pmkvq_tiling & tiling, int first_tile, int lane) {
    if constexpr (!LISTED) {
        return { 0, first_tile + (int) blockIdx.y, (int) blockIdx.x, (int) gridDim.x };
    }
    const int start = lane <= seen.n_lists ? (int) seen.start[pmkvq_opaque(lane)] : INT32_MAX;
    const int list  = pmkvq_popc(pmkvq_ballot(start <= (int) blockIdx.x)) - 1;
    const int first = pmkvq_shfl(start, list);
    const int next  = pmkvq_shfl(start, min(list + 1, seen.n_lists));
    return { list, list*tiling.parts + (int) blockIdx.y, (int) blockIdx.x - first, next - first };
}

template <bool LISTED>
struct pmkvq_deal;

// all items. What is counted are items
template <>
struct pmkvq_deal<false> {
    const pmkvq_seen & seen;
    int place; // in this round
    int start; // of this round

    __device__ __forceinline__ pmkvq_deal(const pmkvq_seen & seen, const pmkvq_tiling &, const pmkvq_part & part, int warp, int)
        : seen(seen), place(part.chunk*PMKVQ_WARPS + warp), start(0) {}

    // of a round; made anew, as all that follows from the grid: registers are scarce
    static __device__ __forceinline__ int n_work() {
        return (int) gridDim.x*PMKVQ_WARPS;
    }

    // blocks of several sequences follow a pattern that must not meet the warps': a warp's place moves by so much
    static __device__ __forceinline__ int turn() {
        return n_work() > 5 ? 5 : 1;
    }

    __device__ __forceinline__ int at() const {
        return start + place;
    }

    // whether there is one
    __device__ __forceinline__ bool here() const {
        return at() < seen.n_items;
    }

    // any item where there is none
    __device__ __forceinline__ int item() const {
        return here() ? at() : 0;
    }

    __device__ __forceinline__ void advance(int, int) {
        start += n_work();
        place += turn();
        place -= place >= n_work() ? n_work() : 0;
    }

    // at the end: whether what comes after the last item is this warp's
    __device__ __forceinline__ bool has_rest(int, int) const {
        return at() == seen.n_items;
    }

    // whether it is that of one of the CTA's warps: where place n of the turns began
    __device__ __forceinline__ bool has_rest(const pmkvq_part & part) const {
        const int n     = seen.n_items;
        const int first = (n - n/n_work()*(n_work() + turn()))%n_work();
        return (first < 0 ? first + n_work() : first)/PMKVQ_WARPS == part.chunk;
    }
};

// what the tile sees. What is counted are the warp's rounds; a lane has the item of one of the next 32. Where the list lies and which
// part of it is the warp's is asked again where it is needed: registers are scarce
template <>
struct pmkvq_deal<true> {
    const pmkvq_seen   & seen;
    const pmkvq_tiling & tiling;
    int n;
    int round;
    int entries;

    __device__ __forceinline__ pmkvq_deal(
            const pmkvq_seen & seen, const pmkvq_tiling & tiling, const pmkvq_part & part, int warp, int lane)
            : seen(seen), tiling(tiling), round(0) {
        // does not wait for the count: what lies beyond it is not used
        take(part, seen.n_items, warp, lane);
        entries = (int) min((uint32_t) entries, (uint32_t) seen.n_items - 1);
        const int count  = min((int) seen.count[part.list], seen.n_items);
        const int first  = part.chunk*PMKVQ_WARPS + warp;
        const int n_work = part.used*PMKVQ_WARPS;
        n = first < count ? (count - first + n_work - 1)/n_work : 0;
    }

    __device__ __forceinline__ void take(const pmkvq_part & part, int count, int warp, int lane) {
        const int i = ((round + lane)*part.used + part.chunk)*PMKVQ_WARPS + warp;
        entries = i < count ? (int) seen.list[(size_t) part.list*seen.n_items + i] : 0;
    }

    __device__ __forceinline__ bool here() const {
        return round < n;
    }

    // by the whole warp
    __device__ __forceinline__ int item() const {
        return pmkvq_shfl(entries, round%32);
    }

    __device__ __forceinline__ void advance(int warp, int lane) {
        if (++round%32 == 0) {
            const pmkvq_part part = pmkvq_part_of<true>(seen, tiling, 0, lane);
            take(part, (int) seen.count[part.list], warp, lane);
        }
    }

    __device__ __forceinline__ bool has_rest(int warp, int lane) const {
        const pmkvq_part part = pmkvq_part_of<true>(seen, tiling, 0, lane);
        return (round*part.used + part.chunk)*PMKVQ_WARPS + warp == (int) seen.count[part.list];
    }

    __device__ __forceinline__ bool has_rest(const pmkvq_part & part) const {
        return (int) seen.count[part.list]/PMKVQ_WARPS%part.used == part.chunk;
    }
};
