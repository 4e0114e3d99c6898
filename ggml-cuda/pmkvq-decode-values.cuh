// pmkvq-decode-values.cuh - values of an item times weights, straight from codes
//
// Values are operand A: a tile of 16 dimensions, 16 cells a step; the weights of up to 8 query rows are operand B (two: 16). Step u:
// lane t has quad u of subtile t. Tile (span, j): rows g and g+8 are dimensions 64 span + 8g + 2j and the next.
// The products of an item are summed up on their own and then added to the output, 64 dimensions at a time: the matrix units cut off
// what they add to a large sum, and over a long context that would show.
//
// Steps of 8 registers, as for keys:
//   width  2, 4, 8: a step is a row of quads of a span, W/2 of them: two loads
//         16: a step is a quad of cells, half a lane's dimensions of a span: four loads of 8 bytes

#pragma once

#include "pmkvq-attn-common.cuh"

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

// products of a step. acc: of its span. all, keep: of 16-bit cells, those that somebody sees (bit 4u + i: cell i of quad u); the others'
// bytes may be NaN. mine: the lane's dimensions belong to the group
template <int W, int NT>
static __device__ __forceinline__ void pmkvq_v_mul(
        float (&acc)[NT][4][4], const uint32_t (&buf)[8], const uint32_t (&w)[NT][4][2], int n, bool mine, bool all, uint32_t keep) {
    if constexpr (W == 16) {
        const int u = n%8/2;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            uint32_t x[4] = { buf[j], buf[2 + j], buf[4 + j], buf[6 + j] };
            if (!all) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    x[i] = keep >> (4*u + i) & 1 ? x[i] : 0;
                }
            }
            const uint32_t a[4] = {
                pmkvq_perm(x[0], x[2], 0x5410), pmkvq_perm(x[0], x[2], 0x7632), pmkvq_perm(x[1], x[3], 0x5410), pmkvq_perm(x[1], x[3], 0x7632),
            };
#pragma unroll
            for (int i = 0; i < NT; ++i) {
                pmkvq_mma_f16(acc[i][2*(n%2) + j], a, w[i][u][0], w[i][u][1]);
            }
        }
    } else {
        constexpr int rows = W/2;
        constexpr int per  = 8/W;
#pragma unroll
        for (int x = 0; x < per; ++x) {
            const int u = n%rows*per + x;
            const int p = W*x;
            const uint32_t m    = W == 8 ? 0x00ff00ffu : W == 4 ? 0x000f000fu << p : 0x00030003u << p;
            const uint32_t mask = mine ? m : 0;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const uint32_t a[4] = { buf[2*j] & mask, buf[2*j + 1] & mask, buf[2*j] >> 8 & mask, buf[2*j + 1] >> 8 & mask };
#pragma unroll
                for (int i = 0; i < NT; ++i) {
                    pmkvq_mma_f16(acc[i][j], a, w[i][u][0], w[i][u][1]);
                }
            }
        }
    }
}

// the first R steps
template <int W, int NV, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_first(uint32_t (&buf)[R][8], const uint8_t * data, int D, int v0, int lane) {
#pragma unroll
    for (int n = 0; n < R && n < pmkvq_v_steps<W>(NV); ++n) {
        pmkvq_v_load<W, SHARED>(buf[n], data, n, D, v0, lane);
    }
}

// out = out*f + unit*(products), for all spans; the first steps are in buf already. f: of rows 2t and 2t+1
template <int W, int NV, int NT, int R, bool SHARED = false>
static __device__ __forceinline__ void pmkvq_v_item(
        float (&out)[NT][4*NV][4], uint32_t (&buf)[R][8], const uint8_t * data, const uint32_t (&w)[NT][4][2], const float (&f)[2*NT], float unit,
        int D, int v0, int lane, bool all, uint32_t keep, int d0, int d1) {
    constexpr int N   = pmkvq_v_steps<W>(NV);
    constexpr int per = W/2; // steps of a span
    const int g = lane/4;

    // most items bring no new maximum
    bool changed = false;
#pragma unroll
    for (int r = 0; r < 2*NT; ++r) {
        changed = changed || f[r] != 1.0f;
    }
    if (pmkvq_any(changed)) {
#pragma unroll
        for (int i = 0; i < NT; ++i) {
#pragma unroll
            for (int j = 0; j < 4*NV; ++j) {
                out[i][j][0] *= f[2*i];
                out[i][j][1] *= f[2*i + 1];
                out[i][j][2] *= f[2*i];
                out[i][j][3] *= f[2*i + 1];
            }
        }
    }

    float acc[NT][4][4];
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const int span = n/per;
        if (n%per == 0) {
#pragma unroll
            for (int i = 0; i < NT; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    acc[i][j][0] = acc[i][j][1] = acc[i][j][2] = acc[i][j][3] = 0.0f;
                }
            }
        }
        const int base = v0 + 64*span + 8*g;
        pmkvq_v_mul<W, NT>(acc, buf[n%R], w, n, base >= d0 && base < d1, all, keep);
        if (n + R < N) {
            pmkvq_v_load<W, SHARED>(buf[n%R], data, n + R, D, v0, lane);
        }
        if (n%per == per - 1) {
#pragma unroll
            for (int i = 0; i < NT; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float (&o)[4] = out[i][4*span + j];
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        o[e] += acc[i][j][e]*unit;
                    }
                }
            }
        }
    }
}
