// pmkvq-store.cuh - store a row of a batch's K or V: f16 in 16-bit blocks, codes in narrower ones
//
// A warp has a row, one token of one head. Tokens share bytes only in V at 4 and 2 bits; there each warp changes the bits of its
// own token, by atomic operations. A cell that has no place is skipped.

#pragma once

#include "pmkvq-fit.cuh"
#include "pmkvq-place.cuh"

static __device__ __forceinline__ float4 pmkvq_load4(const float * x, bool aligned) {
    return aligned ? *(const float4 *) x : make_float4(x[0], x[1], x[2], x[3]);
}

// first: this lane's four values of the first 128
static __device__ __forceinline__ void pmkvq_keep(const float * x, uint32_t n, float4 first, bool aligned, uint16_t * dst) {
    const uint32_t lane = threadIdx.x;
    if (n%4 != 0) {
        for (uint32_t i = lane; i < n; i += 32) {
            dst[i] = pmkvq_to_f16(x[i]);
        }
        return;
    }
    for (uint32_t i = 4*lane; i < n; i += 128) {
        const float4 v = i == 4*lane ? first : pmkvq_load4(x + i, aligned);
        *(uint2 *) (dst + i) = make_uint2(pmkvq_to_f16(v.x) | (uint32_t) pmkvq_to_f16(v.y) << 16, pmkvq_to_f16(v.z) | (uint32_t) pmkvq_to_f16(v.w) << 16);
    }
}

// four 8-bit codes of a lane become 2-bit ones in the range that suits the group; all lanes take part, and those of a group agree.
// in: this lane has codes
static __device__ __forceinline__ uint32_t pmkvq_fit_row(uint32_t codes, bool in, uint32_t lanes, uint16_t * plane, uint32_t at) {
    const uint32_t lane = threadIdx.x;
    const uint32_t c4   = pmkvq_shift8(codes);
    const uint32_t mine = (lanes == 32 ? 0xffffffff : (1u << lanes) - 1) << (lane & ~(lanes - 1));
    const uint32_t valid = pmkvq_ballot(in) & mine;
    pmkvq_counts counts;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        uint32_t p[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            p[k] = pmkvq_ballot((c4 >> (8*j + k)) & 1);
        }
        counts.add(p, valid);
    }
    const pmkvq_range range = pmkvq_range::best(counts);
    if (in && lane%lanes == 0) {
        range.params(plane, at);
    }
    const uint32_t lut = range.codes();
    uint32_t out = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        out |= ((lut >> 2*((c4 >> 8*j) & 15)) & 3) << 8*j;
    }
    return out;
}

// four codes of a lane, a byte each, from dimension d on, into a subtile. All lanes take part; in: this one has codes
static __device__ __forceinline__ void pmkvq_put_k(uint32_t w, bool in, int width, uint32_t d, uint32_t token, uint8_t * dst) {
    // a word takes four dimensions at 8 bits, 8 of two lanes at 4, 16 of four lanes at 2
    const uint32_t lane  = threadIdx.x;
    const uint32_t quads = 8/width;
    w <<= width*(lane%quads);
    if (width <= 4) {
        w |= pmkvq_shfl_xor(w, 1);
    }
    if (width == 2) {
        w |= pmkvq_shfl_xor(w, 2);
    }
    if (in && lane%quads == 0) {
        *(uint32_t *) (dst + d/(4*quads)*64 + 4*token) = w;
    }
}

static __device__ __forceinline__ void pmkvq_put_v(uint32_t w, bool in, int width, uint32_t d, uint32_t token, uint32_t head_dim, uint8_t * dst) {
    if (!in) {
        return;
    }
    const uint32_t quad  = token/4;
    const uint32_t quads = 8/width;
    const uint32_t shift = 8*(token%4) + width*(quad%quads);
    const uint32_t mask  = ((1u << width) - 1) << shift;
    uint32_t     * words = (uint32_t *) (dst + quad/quads*4*head_dim) + d;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const uint32_t code = (w >> 8*j) & 0xff;
        if (width == 8) {
            ((uint8_t *) (words + j))[token%4] = (uint8_t) code;
        } else {
            atomicAnd(words + j, ~mask);
            atomicOr (words + j, code << shift);
        }
    }
}

static __device__ __forceinline__ void pmkvq_quantize_row(const pmkvq_op_store & a, const float * x, bool aligned, uint32_t head, const pmkvq_place & p) {
    const uint32_t lane     = threadIdx.x;
    const uint32_t lanes    = pmkvq_lanes_of(a.group);
    const uint32_t n_groups = a.head_dim/a.group;
    const uint32_t token    = p.at%PMKVQ_SUBTILE;
    const uint32_t i        = lane%lanes;
    for (uint32_t first = 0; first < n_groups; first += 32/lanes) {
        const uint32_t g  = first + lane/lanes;
        const uint32_t d  = g*a.group + 4*i;
        const bool     in = g < n_groups && 4*i < a.group;
        float least = INFINITY;
        float most  = -INFINITY;
        float v[4] = { 0, 0, 0, 0 };
        if (in) {
            const float4 f = pmkvq_load4(x + d, aligned);
            v[0] = f.x; v[1] = f.y; v[2] = f.z; v[3] = f.w;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                v[j]  = pmkvq_h2f(pmkvq_to_f16(v[j]));
                least = fminf(least, v[j]);
                most  = fmaxf(most,  v[j]);
            }
        }
        for (uint32_t m = 1; m < lanes; m *= 2) {
            least = fminf(least, pmkvq_shfl_xor(least, m));
            most  = fmaxf(most,  pmkvq_shfl_xor(most,  m));
        }
        const pmkvq_scale scale = pmkvq_scale::of(least, most);
        uint16_t * plane = pmkvq_plane(a.params, p.block, a.n_head_kv, head, n_groups, in ? g : 0);
        if (in && i == 0) {
            plane[p.at]               = pmkvq_f2h(scale.min);
            plane[PMKVQ_BLOCK + p.at] = pmkvq_f2h(scale.max);
        }
        uint32_t w = pmkvq_bytes(scale.code(v[0]), scale.code(v[1]), scale.code(v[2]), scale.code(v[3]));
        if (p.width == 2 && a.range == 1) {
            w = pmkvq_fit_row(w, in, lanes, plane, p.at);
        } else {
            w = p.width == 8 ? w : p.width == 4 ? pmkvq_narrow8<4>(w) : pmkvq_narrow8<2>(w);
        }
        if (a.side == 0) {
            pmkvq_put_k(w, in, p.width, d, token, p.dst);
        } else {
            pmkvq_put_v(w, in, p.width, d, token, a.head_dim, p.dst);
        }
    }
}

// one side, or K and V of a layer
struct pmkvq_stores {
    pmkvq_op_store op[2];
    bool           aligned[2];
    uint32_t       n;
    uint32_t       rows; // at most, of a side

    // false: something makes no sense
    bool add(const pmkvq_op_store * side) {
        if (!valid(side)) {
            return false;
        }
        const uint32_t mine = side->n_tokens*side->n_head_kv;
        op[n]      = *side;
        aligned[n] = ((uintptr_t) side->x | side->x_nb_head | side->x_nb_token)%16 == 0;
        rows       = mine > rows ? mine : rows;
        n++;
        return true;
    }

    static bool valid(const pmkvq_op_store * op) {
        if (!op || !op->x || !op->cells || !op->pool || !op->table || (op->group != 0 && !op->params)) {
            return false;
        }
        if (op->n_head_kv == 0 || op->n_pages == 0 || op->n_blocks == 0 || op->head_dim == 0 || op->head_dim > PMKVQ_MAX_HEAD_DIM
                || !pmkvq_group_valid(op->group, op->head_dim) || op->side > 1 || op->range > 1) {
            return false;
        }
        if (((uintptr_t) op->x | op->x_nb_head | op->x_nb_token | (uintptr_t) op->table)%4 != 0 || (uintptr_t) op->pool%16 != 0
                || (uintptr_t) op->params%2 != 0 || (uintptr_t) op->cells%8 != 0) {
            return false;
        }
        return (uint64_t) op->n_tokens*op->n_head_kv <= INT32_MAX;
    }
};

// by a warp
static __device__ __forceinline__ void pmkvq_store_row(const pmkvq_stores & stores, uint32_t side, uint32_t row) {
    const pmkvq_op_store & a = stores.op[side];
    const bool aligned = stores.aligned[side];
    if (row >= a.n_tokens*a.n_head_kv) {
        return;
    }
    const uint32_t token = row/a.n_head_kv;
    const uint32_t head  = row%a.n_head_kv;
    const float * x = (const float *) ((const uint8_t *) a.x + token*a.x_nb_token + head*a.x_nb_head);
    // on its way while the place is looked up
    const bool   some  = a.head_dim%4 == 0 && 4*threadIdx.x < a.head_dim;
    const float4 first = some ? pmkvq_load4(x + 4*threadIdx.x, aligned) : make_float4(0, 0, 0, 0);
    const pmkvq_place p = pmkvq_place_of(a, token, head);
    if (p.width == 16) {
        pmkvq_keep(x, a.head_dim, first, aligned, (uint16_t *) p.dst + p.at%PMKVQ_SUBTILE*a.head_dim);
    } else if (p.width != 0) {
        pmkvq_quantize_row(a, x, aligned, head, p);
    }
}
