// warp.cpp - what the collective operations of a warp compute

#include "pmkvq-shim.h"

#include <stdlib.h>

#include <algorithm>
#include <cmath>

namespace pmkvq_shim {

// d += a*b for a row of d. Products of halves are exact in a float. What a matrix unit adds up is aligned with the largest of it, and what
// lies below the 24 bits that it keeps then is cut off, of the sum, too. (From sm_80 on it keeps a bit more, from sm_90 on two.)
static void mma_row(float (&d)[8], const float (&a)[16], const float (&b)[16][8]) {
    float p[16][8], most[8], scale[8], back[8], none[8] = {};
    int   sum[8];
    for (uint32_t j = 0; j < 8; ++j) {
        most[j] = fabsf(d[j]);
    }
    for (uint32_t k = 0; k < 16; ++k) {
        for (uint32_t j = 0; j < 8; ++j) {
            p[k][j] = a[k]*b[k][j];
            most[j] = std::max(most[j], fabsf(p[k][j]));
            none[j] += 0.0f*p[k][j]; // NaN if anything is not finite
        }
    }
    bool finite = true;
    for (uint32_t j = 0; j < 8; ++j) {
        // the largest becomes an integer of 24 bits; what is smaller than 2^-100 counts as nothing
        const int e = std::max((__float_as_int(most[j]) >> 23 & 0xff) - 127, -100);
        finite   = finite && std::isfinite(d[j] + none[j]) && e < 100;
        scale[j] = __int_as_float((127 + 23 - e) << 23);
        back [j] = __int_as_float((127 - 23 + e) << 23);
    }
    if (!finite) {
        for (uint32_t k = 0; k < 16; ++k) {
            for (uint32_t j = 0; j < 8; ++j) {
                d[j] += p[k][j];
            }
        }
        return;
    }
    for (uint32_t j = 0; j < 8; ++j) {
        sum[j] = (int) (d[j]*scale[j]);
    }
    for (uint32_t k = 0; k < 16; ++k) {
        for (uint32_t j = 0; j < 8; ++j) {
            sum[j] += (int) (p[k][j]*scale[j]);
        }
    }
    for (uint32_t j = 0; j < 8; ++j) {
        const int   bits = 31 - __builtin_clz((uint32_t) abs(sum[j]) | 1);
        const int   rest = bits < 24 ? 0 : bits - 23;
        const float cut  = (float) (abs(sum[j]) >> rest << rest);
        d[j] = (sum[j] < 0 ? -cut : cut)*back[j];
    }
}

// see pmkvq_mma_f16 in pmkvq-device.cuh
static void mma(Warp & w) {
    float a[16][16], b[16][8], d[16][8];
    for (uint32_t lane = 0; lane < 32; ++lane) {
        const uint32_t g = lane/4;
        const uint32_t t = 2*(lane%4);
        for (uint32_t r = 0; r < 4; ++r) {
            const float2 x = pmkvq_unpack_h2(w.in[r][lane]);
            a[g + r%2*8][t + r/2*8    ] = x.x;
            a[g + r%2*8][t + r/2*8 + 1] = x.y;
            d[g + r/2*8][t + r%2] = __int_as_float((int) w.in[6 + r][lane]);
        }
        for (uint32_t r = 0; r < 2; ++r) {
            const float2 x = pmkvq_unpack_h2(w.in[4 + r][lane]);
            b[t + r*8    ][g] = x.x;
            b[t + r*8 + 1][g] = x.y;
        }
    }
    for (uint32_t i = 0; i < 16; ++i) {
        mma_row(d[i], a[i], b);
    }
    for (uint32_t lane = 0; lane < 32; ++lane) {
        for (uint32_t r = 0; r < 4; ++r) {
            w.out[r][lane] = (uint32_t) __float_as_int(d[lane/4 + r/2*8][2*(lane%4) + r%2]);
        }
    }
}

// see pmkvq_mma_s8 and pmkvq_mma_u8 in pmkvq-device.cuh
static void mma_bytes(Warp & w, bool sign) {
    int a[16][32], b[32][8], d[16][8];
    for (uint32_t lane = 0; lane < 32; ++lane) {
        const uint32_t g = lane/4;
        const uint32_t t = lane%4;
        for (uint32_t i = 0; i < 4; ++i) {
            for (uint32_t r = 0; r < 4; ++r) {
                a[g + r%2*8][4*t + r/2*16 + i] = (uint8_t) (w.in[r][lane] >> 8*i);
            }
            for (uint32_t r = 0; r < 2; ++r) {
                const uint8_t x = (uint8_t) (w.in[4 + r][lane] >> 8*i);
                b[4*t + r*16 + i][g] = sign ? (int8_t) x : x;
            }
            d[g + i/2*8][2*t + i%2] = (int) w.in[6 + i][lane];
        }
    }
    for (uint32_t i = 0; i < 16; ++i) {
        for (uint32_t k = 0; k < 32; ++k) {
            for (uint32_t j = 0; j < 8; ++j) {
                d[i][j] += a[i][k]*b[k][j];
            }
        }
    }
    for (uint32_t lane = 0; lane < 32; ++lane) {
        for (uint32_t r = 0; r < 4; ++r) {
            w.out[r][lane] = (uint32_t) d[lane/4 + r/2*8][2*(lane%4) + r%2];
        }
    }
}

void compute(Warp & w) {
    switch (w.kind) {
        case SHFL:
            for (uint32_t lane = 0; lane < 32; ++lane) {
                w.out[0][lane] = w.in[0][w.in[1][lane]];
            }
            break;
        case BALLOT:
        case ANY:
        case ALL:
            w.out[0][0] = 0;
            for (uint32_t lane = 0; lane < 32; ++lane) {
                w.out[0][0] |= (uint32_t) (w.in[0][lane] != 0) << lane;
            }
            break;
        case MMA:    mma(w); break;
        case MMA_S8: mma_bytes(w, true);  break;
        case MMA_U8: mma_bytes(w, false); break;
        case SYNCWARP:
        case NONE:
            break;
    }
}

} // namespace pmkvq_shim
