// selftest.cu - proves that the stand-in for a GPU finds what it is there for (python3 scripts/cuda_lib.py selftest --arch 90)
//
// Kernels with a known mistake must end with the error that belongs to it; their right twins must not.

#include "pmkvq-device.cuh"
#include "selftest.h"

#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

extern "C" void ptx_seed(uint64_t seed);
extern "C" int  ptx_arch();

// f must end with the code, and the message must contain the word and name this file
static void expect_error(int code, const char * word, const char * what, const std::function<void()> & f) {
    int got = 0;
    const std::string text = messages([&] { f(); got = cudaDeviceSynchronize(); cudaGetLastError(); });
    const bool ok = got == code && text.find(word) != std::string::npos && text.find("selftest.cu:") != std::string::npos;
    expect(ok, what);
    if (!ok) {
        printf("        code %d instead of %d, or no '%s' in: %s\n", got, code, word, text.c_str());
    }
}

static bool runs() {
    const cudaError_t ended = cudaDeviceSynchronize();
    return cudaGetLastError() == cudaSuccess && ended == cudaSuccess;
}

template <typename T>
struct Array {
    T      * p = nullptr;
    size_t   n;
    explicit Array(size_t n) : n(n) { cudaMalloc((void **) &p, n*sizeof(T)); cudaMemset(p, 0, n*sizeof(T)); }
    explicit Array(const std::vector<T> & v) : Array(v.size()) { cudaMemcpy(p, v.data(), n*sizeof(T), cudaMemcpyHostToDevice); }
    ~Array() { cudaFree(p); }
    std::vector<T> get() const {
        std::vector<T> v(n);
        cudaMemcpy(v.data(), p, n*sizeof(T), cudaMemcpyDeviceToHost);
        return v;
    }
};

//
// barriers and shared memory
//

enum Mistake { NONE, NO_BARRIER, UNWRITTEN, OVERWRITTEN };

template <int mistake>
static __global__ void reverse_kernel(int * x) {
    __shared__ int row[128];
    const int i = (int) threadIdx.x;
    if (mistake != UNWRITTEN || i != 77) {
        row[i] = i;
    }
    if (mistake != NO_BARRIER) {
        __syncthreads();
    }
    const int y = row[127 - i];
    if (mistake == OVERWRITTEN) {
        row[i] = -i; // others may not have read it yet
    }
    x[blockIdx.x*128 + i] = y;
}

static __global__ void shared_bounds_kernel(int * x, int at) {
    extern __shared__ int bytes[];
    bytes[at] = 1;
    x[0] = bytes[at];
}

static __global__ void half_barrier_kernel() {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncwarp(0xffffffff);
    }
}

static __global__ void never_barrier_kernel(volatile int * x) {
    if (threadIdx.x < 32) {
        asm volatile("bar.sync 1, 64;" : : : "memory");
    } else {
        asm volatile("bar.sync 2, 64;" : : : "memory");
    }
    x[threadIdx.x] = 1;
}

static __global__ void ended_kernel(int * x) {
    if (threadIdx.x >= 64) {
        return;
    }
    __syncthreads();
    x[threadIdx.x] = 1;
}

static __global__ void lost_lane_kernel(int * x) {
    if (threadIdx.x == 9) {
        return;
    }
    x[threadIdx.x] = __shfl_xor_sync(0xffffffff, (int) threadIdx.x, 1);
}

static void test_barriers() {
    Array<int> x(4*128);
    bool found = true;
    for (int seed = 0; seed < 20; ++seed) {
        ptx_seed(seed);
        reverse_kernel<NONE><<<4, 128>>>(x.p);
        found &= runs();
        const std::vector<int> got = x.get();
        for (int i = 0; i < 4*128; ++i) {
            found &= got[i] == 127 - i%128;
        }
    }
    expect(found, "a barrier between writes and reads");
    found = true;
    for (int seed = 0; seed < 20; ++seed) {
        ptx_seed(seed);
        messages([&] { reverse_kernel<NO_BARRIER><<<1, 128>>>(x.p); found &= !runs(); });
    }
    expect(found, "a missing barrier is found with each of 20 seeds");
    expect_error(cudaErrorLaunchFailure, "never written", "shared memory that was not written", [&] { reverse_kernel<UNWRITTEN><<<1, 128>>>(x.p); });
    expect_error(cudaErrorLaunchFailure, "a race", "shared memory written while others read", [&] { reverse_kernel<OVERWRITTEN><<<1, 128>>>(x.p); });
    expect_error(cudaErrorIllegalAddress, "shared memory", "after the end of shared memory", [&] { shared_bounds_kernel<<<1, 1, 64>>>(x.p, 16); });
    expect_error(cudaErrorLaunchTimeout, "deadlock", "lanes of a warp at a barrier and in a collective operation", [&] { half_barrier_kernel<<<1, 32>>>(); });
    expect_error(cudaErrorLaunchTimeout, "never come", "warps at different barriers", [&] { never_barrier_kernel<<<1, 64>>>(x.p); });
    expect_error(cudaErrorLaunchTimeout, "0x200 have ended", "a lane that others wait for has ended", [&] { lost_lane_kernel<<<1, 32>>>(x.p); });
    ended_kernel<<<1, 128>>>(x.p);
    expect(runs() && x.get()[63] == 1, "warps that have ended count at a barrier");
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

static __global__ void atomic_kernel(uint32_t * x) {
    atomicAdd(x, 1u);
    atomicMax(x + 1, threadIdx.x);
}

static void test_addresses() {
    Array<uint32_t> dst(32);
    Array<uint4>    src(32);
    atomic_kernel<<<3, 96>>>(dst.p);
    expect(runs() && dst.get()[0] == 288 && dst.get()[1] == 95, "atomics");
    load_kernel<<<1, 32>>>(dst.p, (const uint8_t *) src.p, 0);
    expect(runs(), "loads");
    for (const int64_t offset : { -16, 16, 1 << 30 }) {
        expect_error(cudaErrorIllegalAddress, "not within an allocation", "a load from outside", [&] {
            load_kernel<<<1, 32>>>(dst.p, (const uint8_t *) src.p, offset);
        });
    }
    expect_error(cudaErrorMisalignedAddress, "not aligned", "a load that is not aligned", [&] { load_kernel<<<1, 16>>>(dst.p, (const uint8_t *) src.p, 8); });
    for (const int64_t at : { -1, 512 }) {
        expect_error(cudaErrorIllegalAddress, "not within an allocation", "a write outside", [&] { write_kernel<<<1, 1>>>((uint8_t *) src.p, at); });
    }
    int host = 0;
    expect_error(cudaErrorIllegalAddress, "not within an allocation", "a write to the host's memory", [&] { write_kernel<<<1, 1>>>((uint8_t *) &host, 0); });
    messages([&] { shared_bounds_kernel<<<1, 1, 60*1024>>>((int *) dst.p, 0); });
    const bool refused = cudaGetLastError() == cudaErrorInvalidValue;
    pmkvq_allow_shared(shared_bounds_kernel, 60*1024);
    shared_bounds_kernel<<<1, 1, 60*1024>>>((int *) dst.p, 0);
    expect(refused && runs(), "much shared memory only if it is asked for");
    messages([&] { write_kernel<<<0, 1>>>((uint8_t *) src.p, 0); });
    expect(cudaGetLastError() == cudaErrorInvalidConfiguration, "an empty grid");
}

//
// copies
//

template <int n_waits, bool with_barrier>
static __global__ void copy_kernel(uint32_t * dst, const uint4 * src) {
    extern __shared__ uint4 row[];
    const uint32_t i = threadIdx.x;
    pmkvq_cp_async_16(row + i, src + i, i != 17);
    pmkvq_cp_async_commit();
    pmkvq_cp_async_16(row + 128 + i, src + 128 + i, true);
    pmkvq_cp_async_commit();
    if (n_waits == 1) { pmkvq_cp_async_wait<1>(); }
    if (n_waits == 2) { pmkvq_cp_async_wait<0>(); }
    if (with_barrier) { __syncthreads(); }
    dst[i]       = row[(i + 1) % 128].x;
    dst[i + 128] = row[(i + 1) % 128 + 128].w;
}

static void test_copies() {
    std::vector<uint4> values(256);
    for (uint32_t i = 0; i < 256; ++i) {
        values[i] = make_uint4(i, 0, 0, i);
    }
    Array<uint4>    src(values);
    Array<uint32_t> dst(256);
    copy_kernel<2, true><<<1, 128, 4096>>>(dst.p, src.p);
    bool ok = runs();
    const std::vector<uint32_t> got = dst.get();
    for (uint32_t i = 0; i < 256; ++i) {
        const uint32_t from = (i + 1) % 128 + i/128*128;
        ok &= got[i] == (from == 17 ? 0 : from);
    }
    expect(ok, "copies after a wait and a barrier, and zeros where not valid");
    expect_error(cudaErrorIllegalAddress, "not within an allocation", "a copy from outside", [&] { copy_kernel<2, true><<<1, 128, 4096>>>(dst.p, src.p + 1); });
    expect_error(cudaErrorIllegalAddress, "shared memory", "a copy to after the end of shared memory", [&] { copy_kernel<2, true><<<1, 128, 4096 - 16>>>(dst.p, src.p); });
    if (ptx_arch() >= 80) {
        expect_error(cudaErrorLaunchFailure, "before the copy", "a wait for all but one group", [&] { copy_kernel<1, true><<<1, 128, 4096>>>(dst.p, src.p); });
        expect_error(cudaErrorLaunchFailure, "before the copy", "a missing wait", [&] { copy_kernel<0, true><<<1, 128, 4096>>>(dst.p, src.p); });
    }
    bool found = true;
    for (int seed = 0; seed < 20; ++seed) {
        ptx_seed(seed);
        messages([&] { copy_kernel<2, false><<<1, 128, 4096>>>(dst.p, src.p); found &= !runs(); });
    }
    expect(found, "a wait without a barrier");
}

//
// early launches
//

enum Early { WAITS, READS, NEVER, CONSTANT };

template <int what>
static __global__ void early_kernel(const uint32_t * x, uint32_t * y) {
    pmkvq_start_next();
    if (what == NEVER) {
        return;
    }
    if (what != READS || threadIdx.x != 17) {
        pmkvq_wait_before();
    }
    y[threadIdx.x] = what == CONSTANT ? __ldg(x + threadIdx.x) : pmkvq_ldg4(x + threadIdx.x);
}

static void test_early() {
    Array<uint32_t> x(std::vector<uint32_t>(32, 3)), y(32);
    PMKVQ_LAUNCH_EARLY(early_kernel<WAITS>, 1, 32, 0, nullptr, x.p, y.p);
    expect(runs() && y.get()[17] == 3, "an early kernel that waits for the one before");
    early_kernel<READS><<<1, 32>>>(x.p, y.p);
    expect(runs(), "nobody has to wait after a plain launch");
    const bool plain = ptx_arch() < 90; // not launched early, which is as it should be
    if (plain) {
        PMKVQ_LAUNCH_EARLY(early_kernel<READS>, 1, 32, 0, nullptr, x.p, y.p);
        expect(runs(), "code for an older GPU is launched plainly");
        return;
    }
    expect_error(cudaErrorLaunchFailure, "before griddepcontrol.wait", "a thread that reads before it has waited", [&] {
        PMKVQ_LAUNCH_EARLY(early_kernel<READS>, 1, 32, 0, nullptr, x.p, y.p);
    });
    expect_error(cudaErrorLaunchFailure, "must not change", "a load of what must not change while the kernel is on the device", [&] {
        PMKVQ_LAUNCH_EARLY(early_kernel<CONSTANT>, 1, 32, 0, nullptr, x.p, y.p);
    });
    const std::string text = messages([&] { PMKVQ_LAUNCH_EARLY(early_kernel<NEVER>, 1, 32, 0, nullptr, x.p, y.p); });
    expect(!runs() && text.find("without griddepcontrol.wait") != std::string::npos, "a CTA that never waits");
}

//
// lanes and matrices
//

// without the syncwarp a lane may read before another has written
template <bool with_sync>
static __global__ void neighbours_kernel(int * x, int n) {
    __shared__ int row[32];
    const int lane = (int) threadIdx.x;
    row[lane] = -1;
    __syncwarp();
    int sum = 0;
    for (int i = 0; i < n; ++i) {
        row[lane] = lane + i;
        if (with_sync) { __syncwarp(); }
        sum += row[lane ^ 1] == (lane ^ 1) + i;
        if (with_sync) { __syncwarp(); }
    }
    x[lane] = sum;
}

// all halves to floats and back
static __global__ void halves_kernel(float * f, uint16_t * h) {
    const uint32_t i = blockIdx.x*256 + threadIdx.x;
    f[i] = pmkvq_h2f((uint16_t) i);
    h[i] = pmkvq_f2h(f[i]*1.0001f);
}

// products with a number of the text, which nvcc writes with a sign
static __global__ void products_kernel(uint32_t * x) {
    const uint16_t a = (uint16_t) (blockIdx.x*256 + threadIdx.x);
    uint16_t hi;
    uint32_t wide;
    asm("mul.hi.u16 %0, %1, -21845;" : "=h"(hi) : "h"(a));
    asm("mul.wide.u16 %0, %1, -21845;" : "=r"(wide) : "h"(a));
    x[a] = wide >> 16 == hi ? wide : 1;
}

static __global__ void lanes_kernel(int * x) {
    const uint32_t lane = threadIdx.x;
    const float    up   = pmkvq_shfl((float) lane, (int) (lane + 1) % 32);
    const uint32_t flip = pmkvq_shfl_xor(lane, 5);
    const uint32_t odd  = pmkvq_ballot(lane & 1);
    int n = 0;
    for (uint32_t i = 0; i < lane; ++i) { // of different length in each lane
        n += i & 1 ? 3 : -1;
    }
    pmkvq_syncwarp();
    x[lane] = up == (float) ((lane + 1) % 32) && flip == (lane ^ 5) && odd == 0xAAAAAAAA && n == (int) (lane/2)*3 - (int) ((lane + 1)/2)
        && pmkvq_any(lane == 7) && !pmkvq_any(lane > 31) && pmkvq_all(lane < 32) && !pmkvq_all(lane != 7);
}

// d [16][8] = a [16][16] b [16][8]; and transposed by movmatrix: the first 8x8 of a
static __global__ void mma_kernel(float * d, const uint16_t * a, const uint16_t * b, uint32_t * moved) {
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
    moved[lane] = pmkvq_movmatrix_trans(x[0]);
}

// c [16][8] += a [16][32] b [32][8], signed bytes
static __global__ void bytes_kernel(int * d, const uint32_t * a, const uint32_t * b) {
#if __CUDA_ARCH__ >= 800
    const uint32_t g = threadIdx.x/4, t = threadIdx.x%4;
    int c[4] = { 1, 2, 3, 4 };
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[g*8 + t]), "r"(a[(g + 8)*8 + t]), "r"(a[g*8 + t + 4]), "r"(a[(g + 8)*8 + t + 4]), "r"(b[g*8 + t]), "r"(b[g*8 + t + 4]));
    for (int i = 0; i < 4; ++i) {
        d[(g + i/2*8)*8 + 2*t + i%2] = c[i] - i - 1;
    }
#endif
}

static void test_lanes() {
    Array<int> x(32);
    lanes_kernel<<<1, 32>>>(x.p);
    bool ok = runs();
    for (int v : x.get()) {
        ok &= v == 1;
    }
    expect(ok, "shuffles, votes, and loops of different length");

    const auto all = [&](int n) {
        ok = runs();
        for (int v : x.get()) {
            ok &= v == n;
        }
        return ok;
    };
    neighbours_kernel<true><<<1, 32>>>(x.p, 1000);
    expect(all(1000), "lanes that read what others wrote before a syncwarp");
    expect_error(cudaErrorLaunchFailure, "a race", "a missing syncwarp", [&] { neighbours_kernel<false><<<1, 32>>>(x.p, 1000); });

    Array<uint32_t> products(65536);
    products_kernel<<<256, 256>>>(products.p);
    ok = runs();
    const std::vector<uint32_t> wide = products.get();
    for (uint32_t i = 0; i < 65536; ++i) {
        ok &= wide[i] == i*43691u;
    }
    expect(ok, "products of 16 bits");

    Array<float>    f(65536);
    Array<uint16_t> h(65536);
    halves_kernel<<<256, 256>>>(f.p, h.p);
    ok = runs();
    const std::vector<float>    floats = f.get();
    const std::vector<uint16_t> halves = h.get();
    for (uint32_t i = 0; i < 65536; ++i) {
        const float want = __half2float(__ushort_as_half((uint16_t) i));
        ok &= want != want ? floats[i] != floats[i] : floats[i] == want && halves[i] == __half_as_ushort(__float2half_rn(want*1.0001f));
    }
    expect(ok, "halves to floats and back");

    std::vector<uint16_t> a(256), b(128);
    for (int i = 0; i < 256; ++i) { a[i] = __half_as_ushort(__float2half_rn((float) (i*37 % 41 - 20)/8)); }
    for (int i = 0; i < 128; ++i) { b[i] = __half_as_ushort(__float2half_rn((float) (i*53 % 43 - 21)/4)); }
    Array<uint16_t> da(a), db(b);
    Array<float>    d(128);
    Array<uint32_t> moved(32);
    mma_kernel<<<1, 32>>>(d.p, da.p, db.p, moved.p);
    ok = runs();
    const std::vector<float>    got   = d.get();
    const std::vector<uint32_t> turned = moved.get();
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 8; ++j) {
            float sum = 0;
            for (int k = 0; k < 16; ++k) {
                sum += (float) (((16*i + k)*37 % 41 - 20)*((8*k + j)*53 % 43 - 21))/32;
            }
            ok &= got[8*i + j] == sum; // exact: small multiples of 1/32
        }
    }
    expect(ok, "mma is a matrix product");
    ok = true;
    for (int i = 0; i < 32; ++i) {
        ok &= turned[i] == (a[16*(2*(i%4)) + i/4] | (uint32_t) a[16*(2*(i%4) + 1) + i/4] << 16);
    }
    expect(ok, "movmatrix");

    if (ptx_arch() >= 80) {
        std::vector<uint32_t> wa(128), wb(64);
        std::vector<int>      ba(512), bb(256);
        for (int i = 0; i < 512; ++i) { ba[i] = i*91 % 255 - 127; wa[i/4] |= (uint32_t) (ba[i] & 0xff) << i%4*8; }
        for (int i = 0; i < 256; ++i) { bb[i] = i*77 % 253 - 128; wb[i/4] |= (uint32_t) (bb[i] & 0xff) << i%4*8; }
        Array<uint32_t> pa(wa), pb(wb);
        Array<int>      pd(128);
        bytes_kernel<<<1, 32>>>(pd.p, pa.p, pb.p);
        ok = runs();
        const std::vector<int> sums = pd.get();
        for (int i = 0; i < 128; ++i) {
            int sum = 0;
            for (int k = 0; k < 32; ++k) {
                sum += ba[i/8*32 + k]*bb[i%8*32 + k];
            }
            ok &= sums[i] == sum;
        }
        expect(ok, "products of bytes");
    }
}

int main() {
    test_barriers();
    test_addresses();
    test_copies();
    test_early();
    test_lanes();
    printf(n_failed ? "%d of the stand-in's tests failed\n" : "the stand-in finds what it should\n", n_failed);
    return n_failed != 0;
}
