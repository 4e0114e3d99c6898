// selftest.cu - proves that the shim finds what it is there for (python3 scripts/cuda_lib.py selftest)
//
// Kernels with a known mistake must end with the error that belongs to it, or give a wrong result; their right twins must not.

#include "pmkvq-device.cuh"
#include "selftest.h"

#include <stdio.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <string>

// f must end with the code, and the message must contain the word
static void expect_error(int code, const char * word, const char * what, const std::function<void()> & f) {
    int got = 0;
    const std::string text = messages([&] { f(); got = pmkvq_shim::sync(); });
    const bool ok = got == code && text.find(word) != std::string::npos;
    expect(ok, what);
    if (!ok) {
        printf("        code %d instead of %d, or no '%s' in: %s\n", got, code, word, text.c_str());
    }
}

template <typename T>
struct Array {
    T    * p;
    size_t n;
    explicit Array(size_t n) : n(n) { pmkvq_shim::alloc((void **) &p, n*sizeof(T)); }
    ~Array() { pmkvq_shim::release(p); }
    T & operator[](size_t i) { return p[i]; }
};

//
// barriers
//

template <bool with_barrier>
static __global__ void reverse_kernel(int * x) {
    __shared__ int row[128];
    row[threadIdx.x] = (int) threadIdx.x;
    if (with_barrier) {
        pmkvq_syncthreads();
    }
    x[blockIdx.x*128 + threadIdx.x] = row[127 - threadIdx.x];
}

static int count_wrong(Array<int> & x) {
    int n = 0;
    for (size_t i = 0; i < x.n; ++i) {
        n += x[i] != 127 - (int) (i%128);
    }
    return n;
}

static __global__ void half_barrier_kernel() {
    if (threadIdx.x < 64) {
        pmkvq_syncthreads();
    } else {
        pmkvq_ballot(threadIdx.x != 64 + 5); // all lanes come here, and then end
    }
    if (threadIdx.x == 3) {
        pmkvq_syncwarp();
    }
}

static __global__ void ended_barrier_kernel(int * x) {
    if (threadIdx.x >= 64) {
        return;
    }
    pmkvq_syncthreads();
    x[threadIdx.x] = 1;
}

static __global__ void deadlock_kernel() {
    if (threadIdx.x < 16) {
        pmkvq_syncthreads();
    } else {
        pmkvq_syncwarp();
    }
}

static void test_barriers() {
    Array<int> x(16*128);
    PMKVQ_LAUNCH(reverse_kernel<true>, 16, 128, 0, nullptr, x.p);
    expect(pmkvq_shim::sync() == 0 && count_wrong(x) == 0, "a barrier between writes and reads");

    int n_found = 0;
    for (int seed = 0; seed < 100; ++seed) {
        pmkvq_shim::set_seed(seed);
        messages([&] { PMKVQ_LAUNCH(reverse_kernel<false>, 1, 128, 0, nullptr, x.p); });
        x.n = 128;
        n_found += pmkvq_shim::sync() != 0 || count_wrong(x) != 0;
    }
    expect(n_found == 100, "a missing barrier gives a wrong result with each of 100 seeds");

    expect_error(cudaErrorLaunchFailure, " end", "a lane ends and others wait for it, or comes too late", [&] {
        PMKVQ_LAUNCH(half_barrier_kernel, 1, 128, 0, nullptr);
    });
    PMKVQ_LAUNCH(ended_barrier_kernel, 1, 128, 0, nullptr, x.p);
    expect(pmkvq_shim::sync() == 0 && x[63] == 1, "threads that have ended count at a barrier");
    expect_error(cudaErrorLaunchTimeout, "deadlock", "lanes of a warp at a barrier and in a collective operation", [&] {
        PMKVQ_LAUNCH(deadlock_kernel, 1, 32, 0, nullptr);
    });
}

//
// early launches
//

template <bool with_wait>
static __global__ void early_kernel(const uint32_t * x, int * y) {
    pmkvq_start_next();
    if (with_wait || threadIdx.x != 17) {
        pmkvq_wait_before();
    }
    y[threadIdx.x] = (int) pmkvq_ldg4(x + threadIdx.x);
}

static void test_early() {
    Array<uint32_t> x(32);
    Array<int>      y(32);
    x[17] = 3;
    PMKVQ_LAUNCH_EARLY(early_kernel<true>, 1, 32, 0, nullptr, x.p, y.p);
    expect(pmkvq_shim::sync() == 0 && y[17] == 3, "an early kernel that waits for the one before");
    PMKVQ_LAUNCH(early_kernel<false>, 1, 32, 0, nullptr, x.p, y.p);
    expect(pmkvq_shim::sync() == 0, "nobody has to wait after a plain launch");
    expect_error(cudaErrorLaunchFailure, "before pmkvq_wait_before", "a thread that reads before it has waited", [&] {
        PMKVQ_LAUNCH_EARLY(early_kernel<false>, 1, 32, 0, nullptr, x.p, y.p);
    });
}

//
// collective operations
//

static __global__ void shuffle_kernel(int * x) {
    const uint32_t lane = threadIdx.x;
    const float    up   = pmkvq_shfl((float) lane, (int) (lane + 1) % 32);
    const uint32_t flip = pmkvq_shfl_xor(lane, 5);
    const uint32_t odd  = pmkvq_ballot(lane & 1);
    x[lane] = up == (float) ((lane + 1) % 32) && flip == (lane ^ 5) && odd == 0xAAAAAAAA
        && pmkvq_any(lane == 7) && !pmkvq_any(lane > 31) && pmkvq_all(lane < 32) && !pmkvq_all(lane != 7);
}

static __global__ void diverged_kernel(float * x) {
    float y;
    if (threadIdx.x < 7) {
        y = pmkvq_shfl_xor(1.0f, 1);
    } else {
        y = pmkvq_shfl_xor(2.0f, 1);
    }
    x[threadIdx.x] = y;
}

static __global__ void kinds_kernel() {
    if (threadIdx.x == 9) { pmkvq_syncwarp(); } else { pmkvq_any(true); }
}

static __global__ void part_kernel() {
    pmkvq_syncwarp();
}

static void test_collectives() {
    Array<int> x(32);
    PMKVQ_LAUNCH(shuffle_kernel, 1, 32, 0, nullptr, x.p);
    bool ok = pmkvq_shim::sync() == 0;
    for (int i = 0; i < 32; ++i) {
        ok &= x[i] == 1;
    }
    expect(ok, "shuffles and votes");
    expect_error(cudaErrorLaunchFailure, "diverged", "a shuffle on two sides of a branch", [&] {
        PMKVQ_LAUNCH(diverged_kernel, 1, 32, 0, nullptr, (float *) x.p);
    });
    expect_error(cudaErrorLaunchFailure, "diverged", "two operations at once", [&] { PMKVQ_LAUNCH(kinds_kernel, 1, 32, 0, nullptr); });
    expect_error(cudaErrorLaunchFailure, "less than 32", "an operation of a part of a warp", [&] { PMKVQ_LAUNCH(part_kernel, 1, 40, 0, nullptr); });
}

//
// copies
//

// groups of 16 bytes per thread, each read by the next lane
template <int n_waits, bool with_barrier>
static __global__ void copy_kernel(uint32_t * dst, const uint4 * src) {
    PMKVQ_DYNAMIC_SHARED(smem);
    uint4 * row = (uint4 *) smem;
    const uint32_t i = threadIdx.x;
    pmkvq_cp_async_16(row + i, src + i, i != 17);
    pmkvq_cp_async_commit();
    pmkvq_cp_async_16(row + 128 + i, src + 128 + i, true);
    pmkvq_cp_async_commit();
    if (n_waits == 1) { pmkvq_cp_async_wait<1>(); }
    if (n_waits == 2) { pmkvq_cp_async_wait<0>(); }
    if (with_barrier) { pmkvq_syncthreads(); }
    dst[i]       = row[(i + 1) % 128].x;
    dst[i + 128] = row[(i + 1) % 128 + 128].w;
}

static void test_copies() {
    Array<uint4>    src(256);
    Array<uint32_t> dst(256);
    for (uint32_t i = 0; i < 256; ++i) {
        src[i] = make_uint4(i, 0, 0, i);
    }
    const auto wrong = [&](size_t begin) {
        int n = 0;
        for (size_t i = 0; i < 128; ++i) {
            const uint32_t from = (i + 1) % 128 + begin;
            n += dst[begin + i] != (from == 17 ? 0 : from);
        }
        return n;
    };
    PMKVQ_LAUNCH((copy_kernel<2, true>), 1, 128, 4096, nullptr, dst.p, src.p);
    expect(pmkvq_shim::sync() == 0 && wrong(0) == 0 && wrong(128) == 0, "copies after a wait and a barrier, and zeros where not valid");
    PMKVQ_LAUNCH((copy_kernel<1, true>), 1, 128, 4096, nullptr, dst.p, src.p);
    expect(pmkvq_shim::sync() == 0 && wrong(0) == 0 && wrong(128) == 128, "a wait for all but one group: only the first has arrived");
    PMKVQ_LAUNCH((copy_kernel<0, true>), 1, 128, 4096, nullptr, dst.p, src.p);
    expect(pmkvq_shim::sync() == 0 && wrong(0) == 128 && wrong(128) == 128, "a missing wait");
    messages([&] { PMKVQ_LAUNCH((copy_kernel<2, false>), 1, 128, 4096, nullptr, dst.p, src.p); });
    expect(pmkvq_shim::sync() != 0 || wrong(0) + wrong(128) > 0, "a wait without a barrier");
    expect_error(cudaErrorIllegalAddress, "source of cp_async", "a copy from outside", [&] {
        PMKVQ_LAUNCH((copy_kernel<2, true>), 1, 128, 4096, nullptr, dst.p, (const uint4 *) (src.p + 1));
    });
    expect_error(cudaErrorIllegalAddress, "not shared memory", "a copy to after the end of shared memory", [&] {
        PMKVQ_LAUNCH((copy_kernel<2, true>), 1, 128, 4096 - 16, nullptr, dst.p, src.p);
    });
}

//
// addresses
//

static __global__ void load_kernel(uint32_t * dst, const uint8_t * src, int64_t offset) {
    dst[threadIdx.x] = pmkvq_ldg((const uint4 *) (src + offset + 16*threadIdx.x)).y;
}

static __global__ void write_kernel(uint8_t * dst, int64_t at) {
    dst[at] = 1;
}

static __global__ void write_shared_kernel(int at) {
    PMKVQ_DYNAMIC_SHARED(smem);
    smem[at] = 1;
}

static __global__ void atomic_kernel(uint32_t * x) {
    atomicAdd(x, 1u);
    atomicMax(x + 1, threadIdx.x);
}

static void test_addresses() {
    Array<uint4>    src(32);
    Array<uint32_t> dst(32);
    dst[0] = dst[1] = 0;
    PMKVQ_LAUNCH(atomic_kernel, 3, 96, 0, nullptr, dst.p);
    expect(pmkvq_shim::sync() == 0 && dst[0] == 288 && dst[1] == 95, "atomics");
    PMKVQ_LAUNCH(load_kernel, 1, 32, 0, nullptr, dst.p, (const uint8_t *) src.p, (int64_t) 0);
    expect(pmkvq_shim::sync() == 0, "loads");
    for (const int64_t offset : { -16, 16, 1 << 30 }) {
        expect_error(cudaErrorIllegalAddress, "not within an allocation", "a load from outside", [&] {
            PMKVQ_LAUNCH(load_kernel, 1, 32, 0, nullptr, dst.p, (const uint8_t *) src.p, offset);
        });
    }
    expect_error(cudaErrorMisalignedAddress, "not aligned", "a load that is not aligned", [&] {
        PMKVQ_LAUNCH(load_kernel, 1, 16, 0, nullptr, dst.p, (const uint8_t *) src.p, (int64_t) 8);
    });
    for (const int64_t at : { -1, -4000, 512, 4000 }) {
        expect_error(cudaErrorIllegalAddress, "", "a write outside", [&] { PMKVQ_LAUNCH(write_kernel, 1, 1, 0, nullptr, (uint8_t *) src.p, at); });
    }
    expect_error(cudaErrorIllegalAddress, "", "a write to nowhere", [&] { PMKVQ_LAUNCH(write_kernel, 1, 1, 0, nullptr, (uint8_t *) nullptr, 8); });
    expect_error(cudaErrorIllegalAddress, "", "a write after the end of shared memory", [&] { PMKVQ_LAUNCH(write_shared_kernel, 1, 1, 100, nullptr, 100); });

    messages([&] { PMKVQ_LAUNCH(write_shared_kernel, 1, 1, 64*1024, nullptr, 1); });
    const bool refused = cudaGetLastError() == cudaErrorInvalidValue;
    const bool allowed = pmkvq_allow_shared(write_shared_kernel, 64*1024) == cudaSuccess;
    PMKVQ_LAUNCH(write_shared_kernel, 1, 1, 64*1024, nullptr, 1);
    expect(refused && allowed && cudaGetLastError() == cudaSuccess && pmkvq_shim::sync() == 0, "much shared memory only if it is asked for");
    messages([&] { PMKVQ_LAUNCH(write_shared_kernel, 0, 1, 64, nullptr, 1); });
    expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "an empty grid");
}

//
// matrices
//

// d [16][8] = a [16][16] b [16][8]
static __global__ void mma_kernel(float * d, const uint16_t * a, const uint16_t * b) {
    const uint32_t lane = threadIdx.x, g = lane/4, t = lane%4;
    auto pair_of_a = [&](uint32_t row, uint32_t column) { return a[16*row + column] | (uint32_t) a[16*row + column + 1] << 16; };
    auto pair_of_b = [&](uint32_t row) { return b[8*row + g] | (uint32_t) b[8*(row + 1) + g] << 16; };
    const uint32_t x[4] = { pair_of_a(g, 2*t), pair_of_a(g + 8, 2*t), pair_of_a(g, 2*t + 8), pair_of_a(g + 8, 2*t + 8) };
    float sum[4] = { 1, 2, 3, 4 };
    pmkvq_mma_f16(sum, x, pair_of_b(2*t), pair_of_b(2*t + 8));
    d[ g     *8 + 2*t]     = sum[0] - 1;
    d[ g     *8 + 2*t + 1] = sum[1] - 2;
    d[(g + 8)*8 + 2*t]     = sum[2] - 3;
    d[(g + 8)*8 + 2*t + 1] = sum[3] - 4;
}

// 16 products of 1.5 and what is given
static __global__ void sum_kernel(float * d, float start) {
    const uint32_t ones = 0x3c003c00, halves = 0x3e003e00, a[4] = { halves, halves, halves, halves };
    float sum[4] = { start, start, start, start };
    pmkvq_mma_f16(sum, a, ones, ones);
    d[threadIdx.x] = sum[threadIdx.x%4];
}

static void test_matrices() {
    Array<uint16_t> a(256), b(128);
    Array<float>    d(128);
    for (int i = 0; i < 256; ++i) { a[i] = pmkvq_f2h((float) (i*37 % 41 - 20)/8); }
    for (int i = 0; i < 128; ++i) { b[i] = pmkvq_f2h((float) (i*53 % 43 - 21)/4); }
    PMKVQ_LAUNCH(mma_kernel, 1, 32, 0, nullptr, d.p, a.p, b.p);
    bool ok = pmkvq_shim::sync() == 0;
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 8; ++j) {
            float sum = 0;
            for (int k = 0; k < 16; ++k) {
                sum += pmkvq_h2f(a[16*i + k])*pmkvq_h2f(b[8*k + j]);
            }
            ok &= d[8*i + j] == sum; // exact: small multiples of 1/32
        }
    }
    expect(ok, "mma is a matrix product");

    const float large = 16777216; // of 24 bits the last is 2
    auto sums_to = [&](float start, float sum) {
        PMKVQ_LAUNCH(sum_kernel, 1, 32, 0, nullptr, d.p, start);
        return pmkvq_shim::sync() == 0 && std::all_of(d.p, d.p + 32, [&](float x) { return x == sum; });
    };
    expect(sums_to(4, 28) && sums_to(large, large) && sums_to(-large, -large) && sums_to(large/2, large/2 + 16), "what is added to a large sum is cut off");
    expect(sums_to(INFINITY, INFINITY), "an infinite sum");
}

//
// numbers
//

// the nearest half to x, ties to even, found by looking at all of them
static uint16_t nearest_half(double x) {
    uint16_t best = 0;
    for (uint32_t h = 1; h < 0x7c00; ++h) {
        const double d = fabs(pmkvq_h2f((uint16_t) h) - x) - fabs(pmkvq_h2f(best) - x);
        best = d < 0 || (d == 0 && h%2 == 0) ? (uint16_t) h : best;
    }
    return x >= 65520 ? 0x7c00 : best;
}

static void test_numbers() {
    bool ok = true;
    for (uint32_t h = 0; h < 0x10000; ++h) {
        const float x = pmkvq_h2f((uint16_t) h);
        ok &= x != x || pmkvq_f2h(x) == h;
    }
    ok &= pmkvq_h2f(1) == 5.9604644775390625e-8f && pmkvq_h2f(0x3c00) == 1 && pmkvq_h2f(0xfbff) == -65504;
    for (int i = 0; i < 300; ++i) {
        const float x = ldexpf((float) (i*7919 % 16384 + 1), i%40 - 38);
        ok &= pmkvq_f2h(x) == nearest_half(x);
    }
    expect(ok, "floats to halves and back");

    ok = true;
    for (uint32_t i = 0; i < 300; ++i) {
        const uint16_t a = (uint16_t) (i*40503 % 0x5000), b = (uint16_t) (i*30011 % 0x5000);
        const double   p = (double) pmkvq_h2f(a)*pmkvq_h2f(b);
        ok &= pmkvq_mul_h2(a, b) == nearest_half(p);
    }
    expect(ok, "products of halves");

    ok = pmkvq_exp2(3) == 8 && pmkvq_exp2(-INFINITY) == 0 && pmkvq_exp2(-127) == 0 && pmkvq_exp2(-126) > 0 && pmkvq_exp2(1e-40f) == 1;
    ok &= pmkvq_perm(0x33221100, 0x77665544, 0x7410) == 0x77441100;
    ok &= pmkvq_div_rn(1, 49) == 1.0f/49 && min(-1, 2u) == 2u && max(3, 4) == 4;
    expect(ok, "2^x, byte permutations, division");
}

//
// what only the build with PMKVQ_SHIM_CHECK sees: mistakes that need not show in the result
//

#ifdef PMKVQ_SHIM_CHECK

// what = 0: right, 1: no barrier, 2: no syncwarp, 3: written again without a barrier, 4: read from outside, 5: blocks share, 6: writes
static __global__ void check_kernel(int * x, int what) {
    __shared__ __align__(16) int row[512];
    const int i = (int) threadIdx.x;
    row[i] = i;
    row[i + 128] = 0;
    if (what == 1) { pmkvq_syncwarp(); } else { pmkvq_syncthreads(); }
    int sum = row[i ^ 64];
    if (what == 3) { row[i ^ 32] = 1; }
    if (what != 3) { pmkvq_syncthreads(); }
    row[i + 256] = sum;
    if (what != 2) { pmkvq_syncwarp(); }
    sum += row[(i ^ 1) + 256];
    if (what == 4) { sum += x[-5]; }
    if (what == 6) { row[3] = i/64; }
    if (i%32 == 0) { row[2] = 5; } // the same value from all
    x[i + (what == 5 ? 0 : 128*(int) blockIdx.x)] = sum;
}

static void test_check() {
    Array<int> x(256);
    const char * const names[] = { "", "a missing barrier between warps", "a missing syncwarp", "a write that has not waited for the readers",
        "a plain read from outside", "blocks that write the same bytes", "writes of other values" };
    PMKVQ_LAUNCH(check_kernel, 2, 128, 0, nullptr, x.p, 0);
    expect(pmkvq_shim::sync() == 0, "accesses in order");
    for (int what = 1; what < 7; ++what) {
        expect_error(what == 4 ? cudaErrorIllegalAddress : cudaErrorLaunchFailure, what == 4 ? "no device memory" : "a race", names[what], [&] {
            PMKVQ_LAUNCH(check_kernel, 2, 128, 0, nullptr, x.p, what);
        });
    }
}

#else

static void test_check() {}

#endif

//
// speed
//

static __global__ void work_kernel(float * x) {
    float    d[4] = {};
    uint32_t a[4] = {};
    float    y    = 0;
    for (int i = 0; i < 300; ++i) {
        pmkvq_mma_f16(d, a, 0, 0);
        y += pmkvq_shfl_xor(y, 1);
        if (i%10 == 0) {
            pmkvq_syncthreads();
        }
    }
    x[128*blockIdx.x + threadIdx.x] = d[0] + y;
}

static void test_speed() {
    Array<float> x(10*128);
    const clock_t start = clock();
    PMKVQ_LAUNCH(work_kernel, 10, 128, 0, nullptr, x.p);
    const double ms = 1e3*(double) (clock() - start)/CLOCKS_PER_SEC/10;
    printf("        4 warps, 600 collective operations each: %.2f ms a block\n", ms);
    expect(pmkvq_shim::sync() == 0, "many operations");
}

int main() {
    test_barriers();
    test_early();
    test_collectives();
    test_copies();
    test_addresses();
    test_matrices();
    test_numbers();
    test_check();
    test_speed();
    printf(n_failed ? "%d of the shim's tests failed\n" : "the shim finds what it should\n", n_failed);
    return n_failed != 0;
}
