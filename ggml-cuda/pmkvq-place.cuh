// pmkvq-place.cuh - where the row of a cell is

#pragma once

#include "pmkvq-layout.cuh"

struct pmkvq_place {
    int       width; // 0: nowhere
    uint32_t  block;
    uint32_t  at;    // cell in the block
    uint8_t * dst;   // its subtile
};

// of a token's row of a head. Op: one that names cells of one side
template <typename Op>
static __device__ __forceinline__ pmkvq_place pmkvq_place_of(const Op & a, uint32_t token, uint32_t head) {
    pmkvq_place p = { 0, 0, 0, nullptr };
    const int64_t cell = a.cells[token];
    if (cell < 0 || cell/PMKVQ_BLOCK >= a.n_blocks) {
        return p;
    }
    p.block = (uint32_t) (cell/PMKVQ_BLOCK);
    p.at    = (uint32_t) (cell%PMKVQ_BLOCK);
    const pmkvq_block * entry = a.table + p.block;
    const int width = entry->width;
    if (!pmkvq_width_valid(width, a.group)) {
        return p;
    }
    const uint32_t subtile = p.at/PMKVQ_SUBTILE;
    const uint32_t in_page = 16/width;
    const int      page    = entry->pages[subtile/in_page];
    if (page < 0 || (uint32_t) page >= a.n_pages) {
        return p;
    }
    p.width = width;
    p.dst   = pmkvq_page((uint8_t *) a.pool, head, a.n_pages, page, a.head_dim) + subtile%in_page*(2*width*a.head_dim);
    return p;
}
