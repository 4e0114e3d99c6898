// pmkvq-decode-values.cuh - values of an item times weights, straight from codes
//
// Values are operand A, 16 dimensions a tile; weights are operand B (pmkvq-decode-rows.cuh). Lane t has quads of subtile t. Tile (span, j):
// rows g and g+8 are dimensions 64 span + 8g + 2j and the next. Codes are bytes of operand A where they stand, as with keys: two quads
// of cells, 32 cells of the four subtiles, a product.
// Products of an item are integers, or sums of their own where values are halves: the matrix units cut off what they add to a large sum, and
// over a long context that would show.
//
// Steps of 8 registers, as for keys:
//   width  2, 4, 8: a step is a row of quads of a span, W/2 of them: two loads
//         16: a step is a quad of cells, half a lane's dimensions of a span: four loads of 8 bytes

#pragma once

#include "pmkvq-decode-keys.cuh"
#include "pmkvq-decode-rows.cuh"

template <int W> static constexpr __host__ __device__ int pmkvq_v_steps(int NV) { return NV*W/2; }

// data: of this lane's subtile (t). v0: first dimension of the output's spans
template <int W, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_load(uint32_t (&buf)[8], const uint8_t * data, int n, int D, int v0, int lane) {
    const int g = lane/4;
    // rows beyond D are not written at the end: any address serves
    if constexpr (W == 16) {
        // n = (span, quad, half)
        const int d = v0 + 64*(n/8) + 8*g;
        const uint8_t * p = data + 4*(n%8/2)*(2*D) + 2*(d < D ? d : 0) + 8*(n%2);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint2 y = pmkvq_load8<SHARED>(p + i*(2*D));
            buf[2*i + 0] = y.x;
            buf[2*i + 1] = y.y;
        }
    } else {
        // n = (span, row)
        constexpr int rows = W/2;
        const int d = v0 + 64*(n/rows) + 8*g;
        const uint8_t * p = data + 4*(d < D ? d : 0) + n%rows*(4*D);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const uint4 y = pmkvq_load16<SHARED>(p + 16*i);
            buf[4*i + 0] = y.x;
            buf[4*i + 1] = y.y;
            buf[4*i + 2] = y.z;
            buf[4*i + 3] = y.w;
        }
    }
}

// the first R steps from a span on
template <int W, int NV, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_first(uint32_t (&buf)[R][8], const uint8_t * data, int D, int v0, int lane, int span = 0) {
#pragma unroll
    for (int i = 0; i < R && i < pmkvq_v_steps<W>(NV); ++i) {
        pmkvq_v_load<W, SHARED>(buf[i], data, span*pmkvq_v_steps<W>(1) + i, D, v0, lane);
    }
}

// products of quads 2h and 2h+1 of cells: w0 and w1 have them, in one word or in two. mine: the lane's dimensions belong to the group
template <int W, int NB>
static __device__ __forceinline__ void pmkvq_v_pair(
        int (&acc)[NB][4][4], const uint32_t (&w0)[8], const uint32_t (&w1)[8], const uint32_t (&weights)[NB][4], int h, bool mine) {
    const uint32_t m0 = mine ? pmkvq_quad_mask<W>(2*h)     : 0;
    const uint32_t m1 = mine ? pmkvq_quad_mask<W>(2*h + 1) : 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const uint32_t a[4] = { w0[2*j] & m0, w0[2*j + 1] & m0, w1[2*j] & m1, w1[2*j + 1] & m1 };
#pragma unroll
        for (int i = 0; i < NB; ++i) {
            pmkvq_mma_u8(acc[i][j], a, weights[i][2*h], weights[i][2*h + 1]);
        }
    }
}

// out += unit*(products) for the codes of a group's spans. The first steps of its first span are in buf already, and afterwards those of the span
// behind its last. unit: of the lane's rows
template <int W, int NV, int NB, int R>
static __device__ __forceinline__ void pmkvq_v_codes(
        pmkvq_rows<NV, NB> & rows, uint32_t (&buf)[R][8], const uint8_t * data, const uint32_t (&weights)[NB][4], const float (&unit)[NB],
        int D, int v0, int lane, int d0, int d1) {
    static_assert(R%2 == 0, "at 8 bits the words of a pair are of two steps");
    constexpr int N     = pmkvq_v_steps<W>(NV);
    constexpr int steps = W == 8 ? 2 : 1; // of a round
    constexpr int pairs = W == 2 ? 2 : 1;
    constexpr int per   = pmkvq_v_steps<W>(1);

#pragma unroll
    for (int span = 0; span < NV; ++span) {
        if (v0 + 64*span + 64 <= d0 || v0 + 64*span >= d1) {
            continue;
        }
        int acc[NB][4][4];
#pragma unroll
        for (int i = 0; i < NB; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                acc[i][j][0] = acc[i][j][1] = acc[i][j][2] = acc[i][j][3] = 0;
            }
        }
        const int  d    = v0 + 64*span + 8*(lane/4);
        const bool mine = d >= d0 && d < d1;
#pragma unroll
        for (int n = span*per; n < (span + 1)*per; n += steps) {
#pragma unroll
            for (int x = 0; x < pairs; ++x) {
                pmkvq_v_pair<W, NB>(acc, buf[n%R], buf[(n + steps - 1)%R], weights, n%per/steps*pairs + x, mine);
            }
#pragma unroll
            for (int i = n; i < n + steps; ++i) {
                if (i + R < N) {
                    pmkvq_v_load<W>(buf[i%R], data, i + R, D, v0, lane);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < NB; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    rows.out[i][4*span + j][e] += (float) (acc[i][j][2*e]*256 + acc[i][j][2*e + 1])*unit[i];
                }
            }
        }
    }
}

// the same for values of 16 bits. w: weights of a quad's cells (0 2) and (1 3). ALL, keep: cells that somebody sees (bit 4u + i: cell i
// of quad u); the others' bytes may be NaN
template <bool ALL, int NV, int NB, int R, bool SHARED>
static __device__ __forceinline__ void pmkvq_v_halves(
        pmkvq_rows<NV, NB> & rows, uint32_t (&buf)[R][8], const uint8_t * data, const uint32_t (&w)[4][2], float unit,
        int D, int v0, int lane, uint32_t keep) {
    constexpr int N = pmkvq_v_steps<16>(NV);

    float acc[4][4];
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const int span = n/8;
        const int u    = n%8/2;
        if (n%8 == 0) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                acc[j][0] = acc[j][1] = acc[j][2] = acc[j][3] = 0.0f;
            }
        }
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const uint32_t (&y)[8] = buf[n%R];
            uint32_t x[4] = { y[j], y[2 + j], y[4 + j], y[6 + j] };
            if (!ALL) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    x[i] = keep >> (4*u + i) & 1 ? x[i] : 0;
                }
            }
            const uint32_t a[4] = {
                pmkvq_perm(x[0], x[2], 0x5410), pmkvq_perm(x[0], x[2], 0x7632), pmkvq_perm(x[1], x[3], 0x5410), pmkvq_perm(x[1], x[3], 0x7632),
            };
            pmkvq_mma_f16(acc[2*(n%2) + j], a, w[u][0], w[u][1]);
        }
        if (NB == 2 && n%4 == 3) {
            pmkvq_syncwarp(); // the compiler would ask for all of it at once, and spill
        }
        if (n + R < N) {
            pmkvq_v_load<16, SHARED>(buf[n%R], data, n + R, D, v0, lane);
        }
        if (n%8 == 7) {
#pragma unroll
            for (int i = 0; i < NB; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        rows.out[i][4*span + j][e] += acc[j][2*e + i]*unit;
                    }
                }
            }
        }
    }
}
