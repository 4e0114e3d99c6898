// pmkvq-fit.cuh - the step to 2 bits with a new range for each group (docs/layout.md, src/kernels/range.rs)

#pragma once

#include "pmkvq-layout.cuh"

// how often each 4-bit code occurs in a group
struct pmkvq_counts {
    uint32_t n[16];

    __device__ __forceinline__ pmkvq_counts() {
#pragma unroll
        for (int c = 0; c < 16; ++c) {
            n[c] = 0;
        }
    }

    // up to 32 codes: bit i of plane p[k] is bit k of code i; those marked in valid count
    __device__ __forceinline__ void add(const uint32_t (&p)[4], uint32_t valid) {
        const uint32_t low[4]  = { ~p[1] & ~p[0],         ~p[1] & p[0],         p[1] & ~p[0],         p[1] & p[0]         };
        const uint32_t high[4] = { ~p[3] & ~p[2] & valid, ~p[3] & p[2] & valid, p[3] & ~p[2] & valid, p[3] & p[2] & valid };
#pragma unroll
        for (int c = 0; c < 16; ++c) {
            n[c] += pmkvq_popc(low[c%4] & high[c/4]);
        }
    }

    // 32 codes, eight in a word
    __device__ __forceinline__ void add_words(const uint32_t (&w)[4], uint32_t valid) {
        uint32_t p[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            p[k] = 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                p[k] |= (i < k ? w[i] >> (k - i) : w[i] << (i - k)) & (0x11111111u << i);
            }
        }
        add(p, valid);
    }
};

// the 2-bit code of a 4-bit one in a range
static __host__ __device__ constexpr int pmkvq_code2(int c, int low, int high) {
    return c <= low ? 0 : (6*(c - low) + high - low)/(2*(high - low)) > 3 ? 3 : (6*(c - low) + high - low)/(2*(high - low));
}

// its squared error in ninths of a squared step
static __host__ __device__ constexpr uint32_t pmkvq_error2(int c, int low, int high) {
    return (3*(c - low) - pmkvq_code2(c, low, high)*(high - low))*(3*(c - low) - pmkvq_code2(c, low, high)*(high - low));
}

struct pmkvq_range {
    int low;
    int high;

    // of least squared error; of equal ones the lowest low, then the highest high
    static __device__ __forceinline__ pmkvq_range best(const pmkvq_counts & counts) {
        uint32_t least = 0xffffffff; // the error, and in the last 6 bits which one
#pragma unroll
        for (int low = 0; low < 7; ++low) {
            uint32_t below = 0;
#pragma unroll
            for (int c = 0; c < low; ++c) {
                below += counts.n[c]*(9*(low - c)*(low - c));
            }
#pragma unroll
            for (int i = 0; i < 7; ++i) {
                const int high = 15 - i;
                uint32_t error = below;
#pragma unroll
                for (int c = low + 1; c < 16; ++c) {
                    if (pmkvq_error2(c, low, high) != 0) {
                        error += counts.n[c]*pmkvq_error2(c, low, high);
                    }
                }
                const uint32_t key = error*64 + 7*low + i;
                least = key < least ? key : least;
            }
        }
        const int found = least & 63;
        pmkvq_range r;
        r.low  = found/7;
        r.high = 15 - found%7;
        return r;
    }

    // 2-bit codes of all 4-bit codes: a code is the number of borders that it reaches
    __device__ __forceinline__ uint32_t codes() const {
        const int      n    = high - low;
        const uint32_t ones = 0x55555555;
        return (ones << 2*(low + (n + 5)/6)) + (ones << 2*(low + (n + 1)/2)) + (ones << 2*(low + (5*n + 5)/6));
    }

    // (min, max) of a token's group, which is at most a 4-bit step from where it was
    __device__ __forceinline__ void params(uint16_t * plane, uint32_t token) const {
        const float min   = pmkvq_h2f(plane[token]);
        const float scale = pmkvq_div_rn(pmkvq_add_rn(pmkvq_h2f(plane[PMKVQ_BLOCK + token]), -min), 15.0f);
        plane[token]               = pmkvq_to_f16(pmkvq_add_rn(min, pmkvq_mul_rn((float) low,  scale)));
        plane[PMKVQ_BLOCK + token] = pmkvq_to_f16(pmkvq_add_rn(min, pmkvq_mul_rn((float) high, scale)));
    }
};
