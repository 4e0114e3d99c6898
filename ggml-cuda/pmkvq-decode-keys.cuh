// pmkvq-decode-keys.cuh - keys of an item times queries, straight from codes
//
// Keys are operand A, 16 cells a tile; query rows are operand B (pmkvq-decode-queries.cuh). With g = lane/4 and t = lane%4, lane g has 8 cells
// of subtile g/2: of each quad of cells, numbers 2(g%2) and 2(g%2)+1. Tile q: rows g and g+8 are those two cells of quad q, so that
// the pairs of cells that values want come together when the weights are transposed.
//
// A quad's word is four bytes of operand A as it stands; at 4 and 2 bits one mask makes it so. 16-bit keys are halves.
//
// Keys are read in steps of 8 registers, and R steps are under way: when steps are multiplied, later ones take their place.
//   width  2, 4, 8: a step is a row of quads of 64 dimensions, W/2 of them: four loads of 8 bytes, for the quads of cells
//         16: a step is half of the 64 dimensions' share of a lane, 16 bytes, of the two cells of a quad

#pragma once

#include "pmkvq-decode-queries.cuh"

template <int W> static constexpr __host__ __device__ int pmkvq_k_steps(int NS) { return NS*W/2; }

// the bits of quad c of those that share a word
template <int W> static constexpr __host__ __device__ uint32_t pmkvq_quad_mask(int c) {
    return ((1u << W) - 1)*0x01010101u << pmkvq_quad_bit<W>(c);
}

// data: of this lane's subtile (g/2), at its first cell of quad 0
template <int W, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_load(uint32_t (&buf)[8], const uint8_t * data, int n, int D, int lane) {
    const int t = lane%4;
    if constexpr (W == 16) {
        // n = (s, quad of cells, half); beyond D: the cell's first dimensions serve, the queries are zero there. Other cells' may be NaN
        const int d = 64*(n/8) + 16*t + 8*(n%2);
        const uint8_t * p = data + 4*(n%8/2)*(2*D) + 2*(d < D ? d : 0);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint4 y = pmkvq_load16<SHARED>(p + i*(2*D));
            buf[4*i + 0] = y.x;
            buf[4*i + 1] = y.y;
            buf[4*i + 2] = y.z;
            buf[4*i + 3] = y.w;
        }
    } else {
        // n = (s, row); rows of quads beyond D: row 0 serves, the queries are zero there
        constexpr int rows = W/2;
        const int row = (4*(n/rows) + t)*rows + n%rows;
        const uint8_t * p = data + (row < D*W/32 ? row : 0)*64;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            const uint2 y = pmkvq_ldg8((const uint2 *) (p + 16*q));
            buf[2*q + 0] = y.x;
            buf[2*q + 1] = y.y;
        }
    }
}

// the first R steps from span s on, each where its number has its place
template <int W, int NS, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_first(uint32_t (&buf)[R][8], const uint8_t * data, int D, int lane, int s = 0) {
    constexpr int per = pmkvq_k_steps<W>(1);
#pragma unroll
    for (int i = 0; i < R; ++i) {
        const int n = (s*per + R - 1 - i)/R*R + i;
        if (n < pmkvq_k_steps<W>(NS)) {
            pmkvq_k_load<W, SHARED>(buf[i], data, n, D, lane);
        }
    }
}

// products of pair (s, h) of quads: w0 and w1 have them, in one word or in two. acc[b][q]: block b of rows, tile q of cells
template <int W, int NB>
static __device__ __forceinline__ void pmkvq_k_pair(
        int (&acc)[NB][4][4], const uint32_t (&w0)[8], const uint32_t (&w1)[8], const uint2 * queries, int pair, bool mine, int lane) {
    const uint32_t m0 = pmkvq_quad_mask<W>(2*(pair%2));
    const uint32_t m1 = pmkvq_quad_mask<W>(2*(pair%2) + 1);
    uint2 b[NB];
#pragma unroll
    for (int i = 0; i < NB; ++i) {
        b[i] = queries[(pair*NB + i)*32 + lane];
        b[i].x = mine ? b[i].x : 0;
        b[i].y = mine ? b[i].y : 0;
    }
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        const uint32_t a[4] = { w0[2*q] & m0, w0[2*q + 1] & m0, w1[2*q] & m1, w1[2*q + 1] & m1 };
#pragma unroll
        for (int i = 0; i < NB; ++i) {
            pmkvq_mma_s8(acc[i][q], a, b[i].x, b[i].y);
        }
    }
}

// More spans than two are a loop, over those that there are: in one piece it is too much code, of which the compiler would ask for so much
// at once that it spills
template <int NS> static constexpr __host__ __device__ bool pmkvq_k_loop() { return NS > 2; }

template <int NS>
static __device__ __forceinline__ int pmkvq_k_spans(int D) {
    return pmkvq_k_loop<NS>() ? (D + 63)/64 : NS;
}

// all products of an item's codes with the dimensions d0 .. d1 of a group. The first steps of span d0/64 are in buf already, and afterwards
// those of the span behind the group's last
template <int W, int NS, int NB, int R>
static __device__ __forceinline__ void pmkvq_k_codes(
        int (&acc)[NB][4][4], uint32_t (&buf)[R][8], const uint8_t * data, const uint2 * queries, int D, int lane, int d0, int d1) {
    static_assert(R%2 == 0, "at 8 bits the words of a pair are of two steps");
#pragma unroll
    for (int i = 0; i < NB; ++i) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            acc[i][q][0] = acc[i][q][1] = acc[i][q][2] = acc[i][q][3] = 0;
        }
    }
    constexpr int steps = W == 8 ? 2 : 1; // of a round
    constexpr int pairs = W == 2 ? 2 : 1;
    constexpr int per   = pmkvq_k_steps<W>(1);
    constexpr int spans = per < R ? R/per : 1; // of a turn, so that a step's place in buf is a constant
    static_assert(spans*per%R == 0, "all turns begin at the same place");

    constexpr bool loop  = pmkvq_k_loop<NS>();
    const     int  N     = pmkvq_k_spans<NS>(D)*per;
    const     int  first = loop ? d0/64/spans*spans : 0;
    const     int  end   = loop ? (d1 + 63)/64 : NS;
#pragma unroll (loop ? 1 : NS)
    for (int s = first; s < end; s += spans) {
#pragma unroll
        for (int i = 0; i < spans*per; i += steps) {
            const int n = s*per + i;
            const int d = 64*(n/per);
            if (n >= N || d + 64 <= d0 || d >= d1) {
                continue;
            }
            const bool mine = d + 16*(lane%4) >= d0 && d + 16*(lane%4) < d1;
#pragma unroll
            for (int x = 0; x < pairs; ++x) {
                pmkvq_k_pair<W, NB>(acc, buf[i%R], buf[(i + steps - 1)%R], queries, n/steps*pairs + x, mine, lane);
            }
#pragma unroll
            for (int j = 0; j < steps; ++j) {
                if (n + j + R < N) {
                    pmkvq_k_load<W>(buf[(i + j)%R], data, n + j + R, D, lane);
                }
            }
        }
    }
}

// all products of 16-bit keys. acc[q]: tile q of cells; columns 2t and 2t+1 are rows 2t and 2t+1, or row t and nothing
template <int NS, int NB, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_k_halves(
        float (&acc)[4][4], uint32_t (&buf)[R][8], const uint8_t * data, const uint2 * queries, int D, int lane) {
    const int  g     = lane/4;
    const int  t     = lane%4;
    const bool there = NB == 2 || g%2 == 0;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        acc[q][0] = acc[q][1] = acc[q][2] = acc[q][3] = 0.0f;
    }
    constexpr int per = pmkvq_k_steps<16>(1);
    static_assert(per%R == 0, "all spans begin at the same place");

    const int spans = pmkvq_k_spans<NS>(D);
#pragma unroll (pmkvq_k_loop<NS>() ? 1 : NS)
    for (int s = 0; s < spans; ++s) {
#pragma unroll
        for (int i = 0; i < per; ++i) {
            const int n = s*per + i;
            const uint32_t (&w)[8] = buf[i%R];
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const uint2 b = queries[((4*s + 2*(i%2) + c)*(4*NB) + g*NB/2)*4 + t];
                // two words of each cell, as pairs (0 2) and (1 3) of dimensions
                const uint32_t x0 = w[2*c],     x1 = w[2*c + 1];
                const uint32_t y0 = w[4 + 2*c], y1 = w[4 + 2*c + 1];
                const uint32_t a[4] = {
                    pmkvq_perm(x0, x1, 0x5410), pmkvq_perm(y0, y1, 0x5410), pmkvq_perm(x0, x1, 0x7632), pmkvq_perm(y0, y1, 0x7632),
                };
                pmkvq_mma_f16(acc[i/2], a, there ? b.x : 0, there ? b.y : 0);
            }
            if (n + R < spans*per) {
                pmkvq_k_load<16, SHARED>(buf[i%R], data, n + R, D, lane);
            }
        }
    }
}
