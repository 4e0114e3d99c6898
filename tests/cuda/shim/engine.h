// engine.h - runs CUDA kernels on the host: blocks one after another, the threads of a block as fibers
//
// Blocks run in a random order. A thread runs until it gives way: at a collective operation of its warp, a barrier, an atomic or a
// wait for copies; then any thread that can go on is next. All randomness comes from one seed.

#pragma once

#include <stddef.h>
#include <stdint.h>

#include <vector>

struct uint3 { unsigned int x, y, z; };

namespace pmkvq_shim {

// codes of cudaError_t
enum { OK = 0, INVALID_VALUE = 1, INVALID_CONFIGURATION = 9, ILLEGAL_ADDRESS = 700, TIMEOUT = 702, MISALIGNED = 716, LAUNCH_FAILURE = 719 };

enum Kind { NONE, SHFL, BALLOT, ANY, ALL, SYNCWARP, MMA, MMA_S8, MMA_U8 };

struct Warp {
    uint32_t present; // lanes: that exist, can go on, are in the collective operation, wait at a barrier, have ended
    uint32_t ready;
    uint32_t arrived;
    uint32_t barrier;
    uint32_t exited;
    Kind         kind; // of the operation, and where it stands
    const char * file;
    int          line;
    // operands and results of the lanes. A lane takes its result before it comes to the next operation, so that one set is enough
    uint32_t     in [10][32];
    uint32_t     out[4][32];
};

struct Copy {
    void       * dst;
    const void * src;
    uint32_t     bytes;
    uint32_t     group;
    bool         valid;
};

struct Fiber {
    void * sp;
    Warp * warp;
    uint32_t lane;
    uint32_t thread; // in the block
    uint3    index;
    bool     waits;  // has not waited for the kernels before: device memory is not its own yet
    uint32_t group;  // of copies that are being issued
    const char * file; // where it waits
    int          line;
    std::vector<Copy> copies; // under way
};

// times, which only grow: when this launch and this block began, and the latest barrier and syncwarp
struct Now {
    uint32_t launch, block, barrier;
    uint32_t warp[32];
};

extern Now     now;
extern Fiber * current;       // NULL: no kernel runs
extern uint8_t * dynamic_shared;

// reports an error of the running thread, and ends the kernel
[[noreturn]] void fail(int code, const char * format, ...) __attribute__((format(printf, 2, 3)));
// an error outside of kernels
void note(int code, const char * format, ...) __attribute__((format(printf, 2, 3)));

void collective(Kind kind, const char * file, int line);
void compute(Warp & w); // once all lanes have arrived
void barrier(const char * file, int line);
void yield();

void copy_issue(void * dst, const void * src, uint32_t bytes, bool valid, const char * file, int line);
void copy_commit();
void copy_wait(uint32_t n);

// whether [p, p + n) is shared memory of the block, or lies in an allocation; the checks fail if not
bool is_shared(const void * p, size_t n);
bool is_global(const void * p, size_t n);
void check_align (const void * p, size_t align, const char * what);
void check_waited(const char * what);
void check_global(const void * p, size_t n, size_t align, const char * what);
void check_any   (const void * p, size_t n, size_t align, const char * what);

// of check.cpp, which looks at accesses. whole_warp: all lanes read
void check_access(const void * p, size_t n, bool write, bool whole_warp, const void * pc);
void check_settle(); // before another thread goes on
bool is_stack(const void * p);                                    // of a fiber
bool is_argument(const void * p, size_t n);                       // of the kernel
bool shared_offset(const void * p, size_t n, size_t * offset);    // a place for what is known about shared memory, below 1 MiB
void * shadow(const void * p, size_t n, size_t size);             // size bytes about each byte of device memory, zeros at first

// runs a kernel: call(arg) for every thread. early: threads must wait for the kernels before
void run(bool early, const char * name, const void * kernel, uint3 grid, uint3 block, size_t shared, void (*call)(void *), void * arg, size_t n_arg);
int  allow_shared(const void * kernel, size_t bytes);
int  last_error(bool clear);

// what device.cu offers
void set_seed(uint64_t seed);
int  alloc(void ** p, size_t bytes);
int  release(void * p);
int  check_span(const void * p, size_t n, const char * what); // of a copy between host and device
int  sync();
void check_guards();

} // namespace pmkvq_shim
