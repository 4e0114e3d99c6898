// pmkvq-decode-deal.cuh - which items a warp takes while decoding
//
// The warps of all chunks take turns: in each round one item each, n_work in all. What is dealt is all items, or those of the
// tile's list (pmkvq-seen.cuh).

#pragma once

#include "pmkvq-seen.cuh"

template <bool LISTED>
struct pmkvq_deal;

// all items
template <>
struct pmkvq_deal<false> {
    int n_items;
    int n_work;
    int turn;  // blocks of several sequences follow a pattern that must not meet the warps': a warp's place moves by so much
    int place; // in this round
    int start; // of this round

    __device__ __forceinline__ pmkvq_deal(
            const pmkvq_op_attn &, const pmkvq_tiling &, const pmkvq_seen &, int, int n_all, int first, int n_work, int)
        : n_items(n_all), n_work(n_work), turn(5%n_work), place(first), start(0) {}

    // of what is dealt; from n_items on there is none
    __device__ __forceinline__ int index() const {
        return start + place;
    }

    // any item where there is none
    __device__ __forceinline__ int item() const {
        return index() < n_items ? index() : 0;
    }

    __device__ __forceinline__ int advance(int) {
        start += n_work;
        place += turn;
        place -= place >= n_work ? n_work : 0;
        return index();
    }
};

// what the tile sees. A lane keeps one of its warp's next 32
template <>
struct pmkvq_deal<true> {
    const uint32_t * list;
    int n_items;
    int n_work;
    int at;      // index of the latest
    int entries;
    int round;

    __device__ __forceinline__ pmkvq_deal(
            const pmkvq_op_attn &, const pmkvq_tiling & tiling, const pmkvq_seen & seen, int tile, int n_all, int first, int n_work, int lane)
            : n_work(n_work), at(first), round(0) {
        const int i = tile/tiling.parts;
        list    = seen.list + (size_t) i*seen.n_items;
        // does not wait for the count: what lies beyond it is not used
        take(n_all, lane);
        entries = (int) min((uint32_t) entries, (uint32_t) n_all - 1);
        n_items = min((int) seen.count[i], n_all);
    }

    __device__ __forceinline__ void take(int n, int lane) {
        const int i = at + lane*n_work;
        entries = i < n ? (int) list[i] : 0;
    }

    __device__ __forceinline__ int index() const {
        return at;
    }

    // by the whole warp
    __device__ __forceinline__ int item() const {
        return pmkvq_shfl(entries, round%32);
    }

    __device__ __forceinline__ int advance(int lane) {
        at += n_work;
        if (++round%32 == 0) {
            take(n_items, lane);
        }
        return at;
    }
};
