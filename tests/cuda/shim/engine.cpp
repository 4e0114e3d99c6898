#include "engine.h"
#include "switch.h"

#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include <map>
#include <mutex>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace pmkvq_shim {

Now       now;
Fiber   * current;
uint8_t * dynamic_shared;

static const size_t MAX_THREADS = 1024;
static const size_t STACK       = 256*1024;
static const size_t MAX_SHARED  = 227*1024;
static const size_t GUARD       = 4096; // after dynamic shared memory

// Shared variables are thread_local variables of this library (see __shared__), so that the linker puts them side by side.
// Nothing else here may be thread_local.
static thread_local char shared_anchor;

static struct Engine {
    std::recursive_mutex lock;
    uint64_t random = 0x9E3779B97F4A7C15;
    int      error      = OK; // of kernels, until sync
    int      last_error = OK; // of launches
    std::map<const void *, size_t> allowed; // dynamic shared memory

    // the kernel
    bool         early;
    const char * name;
    void      (* call)(void *);
    void       * arg;
    size_t       n_arg;
    uint32_t     time = 0;

    // the block
    uint32_t n_threads, n_warps;
    uint32_t n_barrier, n_exited;
    uint32_t ready; // warps with a lane that can go on
    uint32_t stay;  // how likely a warp is followed by itself, of 2^32
    bool     failed;
    void   * main;  // the stack that runs the kernel

    uint8_t * stacks = nullptr;
    Fiber     fibers[MAX_THREADS];
    Warp      warps [MAX_THREADS/32];

    uint8_t * tls_begin, * tls_end;
    uint8_t * shared_buffer = nullptr;
    size_t    shared_size;
} engine;

static uint32_t random32() {
    uint64_t & s = engine.random;
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return (uint32_t) (s >> 32);
}

void set_seed(uint64_t seed) {
    std::lock_guard<std::recursive_mutex> guard(engine.lock);
    uint64_t s = seed + 0x9E3779B97F4A7C15; // splitmix64
    s = (s ^ (s >> 30))*0xBF58476D1CE4E5B9;
    s = (s ^ (s >> 27))*0x94D049BB133111EB;
    s ^= s >> 31;
    engine.random = s ? s : 1;
}

//
// errors
//

static void print_thread() {
    fprintf(stderr, "pmkvq-shim: kernel %s, block (%u, %u, %u)", engine.name, blockIdx.x, blockIdx.y, blockIdx.z);
    if (current) {
        fprintf(stderr, ", thread (%u, %u, %u)", threadIdx.x, threadIdx.y, threadIdx.z);
    }
    fprintf(stderr, ": ");
}

static void record(int code) {
    if (engine.error == OK) {
        engine.error = code;
    }
}

// a line, and an error
static void tell(int code, const char * format, va_list args) {
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    record(code);
}

void fail(int code, const char * format, ...) {
    print_thread();
    va_list args;
    va_start(args, format);
    tell(code, format, args);
    va_end(args);
    engine.failed = true;
    void * gone;
    pmkvq_shim_switch(&gone, engine.main);
    __builtin_unreachable();
}

void note(int code, const char * format, ...) {
    fprintf(stderr, "pmkvq-shim: ");
    va_list args;
    va_start(args, format);
    tell(code, format, args);
    va_end(args);
}

static void on_signal(int sig, siginfo_t * info, void *) {
    if (current) {
        // leaves the handler for good: the fiber is not run again
        fail(ILLEGAL_ADDRESS, "%s at address %p (not mapped, not aligned, or the stack is used up)", strsignal(sig), info->si_addr);
    }
    signal(sig, SIG_DFL);
}

//
// the schedule
//

static uint32_t pick_bit(uint32_t mask) {
    const uint32_t r = random32() >> 27;
    const uint32_t m = (mask >> r) | (mask << ((32 - r) & 31));
    return (__builtin_ctz(m) + r) & 31;
}

// goes on with any thread that can; the running one has said before whether it can
static void schedule() {
    Fiber * from = current;
    void  * to;
    if (engine.ready == 0) {
        current = nullptr;
        to      = engine.main;
    } else {
        Warp   * w = from->warp;
        uint32_t i = (uint32_t) (w - engine.warps);
        if (w->ready == 0 || random32() >= engine.stay) {
            i = pick_bit(engine.ready);
            w = &engine.warps[i];
        }
        current = &engine.fibers[i*32 + pick_bit(w->ready)];
        if (current == from) {
            return;
        }
        threadIdx = current->index;
        to = current->sp;
    }
    pmkvq_shim_switch(&from->sp, to);
}

static void stop(Warp & w, uint32_t lane) {
    w.ready &= ~(1u << lane);
    if (w.ready == 0) {
        engine.ready &= ~(1u << (&w - engine.warps));
    }
}

static void release_barrier() {
    if (engine.n_barrier == 0 || engine.n_barrier + engine.n_exited < engine.n_threads) {
        return;
    }
    for (uint32_t i = 0; i < engine.n_warps; ++i) {
        Warp & w = engine.warps[i];
        if (w.barrier) {
            w.ready  |= w.barrier;
            w.barrier = 0;
            engine.ready |= 1u << i;
        }
    }
    engine.n_barrier = 0;
    now.barrier      = ++engine.time;
}

void yield() {
    if (current) {
        check_settle();
        schedule();
    }
}

void barrier(const char * file, int line) {
    check_settle();
    Fiber * f = current;
    f->file = file;
    f->line = line;
    f->warp->barrier |= 1u << f->lane;
    stop(*f->warp, f->lane);
    engine.n_barrier++;
    release_barrier();
    schedule();
}

static const char * kind_name(Kind kind) {
    static const char * const names[] = { "nothing", "shfl", "ballot", "any", "all", "syncwarp", "mma", "mma of signed bytes", "mma of bytes" };
    static_assert(sizeof(names)/sizeof(names[0]) == MMA_U8 + 1, "a name for each");
    return names[kind];
}

void collective(Kind kind, const char * file, int line) {
    check_settle();
    Fiber * f = current;
    Warp  & w = *f->warp;
    if (w.present != 0xffffffff) {
        fail(LAUNCH_FAILURE, "%s at %s:%d in a warp of less than 32 threads", kind_name(kind), file, line);
    }
    if (w.exited) {
        fail(LAUNCH_FAILURE, "%s at %s:%d, but lanes 0x%08x of the warp have ended", kind_name(kind), file, line, w.exited);
    }
    if (w.arrived == 0) {
        w.kind = kind;
        w.file = file;
        w.line = line;
    } else if (w.kind != kind || w.line != line || (w.file != file && strcmp(w.file, file) != 0)) {
        fail(LAUNCH_FAILURE, "the warp has diverged: this lane comes to %s at %s:%d, but lanes 0x%08x wait in %s at %s:%d",
            kind_name(kind), file, line, w.arrived, kind_name(w.kind), w.file, w.line);
    }
    w.arrived |= 1u << f->lane;
    if (w.arrived == 0xffffffff) {
        compute(w);
        if (kind == SYNCWARP) {
            now.warp[&w - engine.warps] = ++engine.time;
        }
        w.arrived = 0;
        w.ready   = 0xffffffff;
        engine.ready |= 1u << (&w - engine.warps);
    } else {
        stop(w, f->lane);
    }
    schedule();
}

static void fiber_main() {
    engine.call(engine.arg);
    check_settle();

    Fiber * f = current;
    Warp  & w = *f->warp;
    if (w.arrived) {
        fail(LAUNCH_FAILURE, "the thread ends, but lanes 0x%08x of its warp wait for it in %s at %s:%d", w.arrived, kind_name(w.kind), w.file, w.line);
    }
    w.exited |= 1u << f->lane;
    stop(w, f->lane);
    engine.n_exited++;
    release_barrier();
    schedule();
    __builtin_unreachable();
}

static void report_deadlock() {
    print_thread();
    fprintf(stderr, "deadlock, no thread can go on\n");
    for (uint32_t i = 0; i < engine.n_warps; ++i) {
        const Warp & w = engine.warps[i];
        fprintf(stderr, "pmkvq-shim:   warp %u: lanes ended 0x%08x", i, w.exited);
        if (w.arrived) {
            fprintf(stderr, ", in %s at %s:%d 0x%08x", kind_name(w.kind), w.file, w.line, w.arrived);
        }
        if (w.barrier) {
            const Fiber & f = engine.fibers[i*32 + __builtin_ctz(w.barrier)];
            fprintf(stderr, ", at a barrier 0x%08x (%s:%d)", w.barrier, f.file, f.line);
        }
        fputc('\n', stderr);
    }
    record(TIMEOUT);
}

//
// shared memory
//

static int find_tls(dl_phdr_info * info, size_t, void *) {
    uint8_t * begin = (uint8_t *) info->dlpi_tls_data;
    for (int i = 0; begin && i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) & p = info->dlpi_phdr[i];
        if (p.p_type == PT_TLS && begin <= (uint8_t *) &shared_anchor && (uint8_t *) &shared_anchor < begin + p.p_memsz) {
            engine.tls_begin = begin;
            engine.tls_end   = begin + p.p_memsz;
            return 1;
        }
    }
    return 0;
}

bool is_shared(const void * p, size_t n) {
    const uint8_t * b = (const uint8_t *) p;
    return (b >= dynamic_shared   && b + n <= dynamic_shared + engine.shared_size) ||
           (b >= engine.tls_begin && b + n <= engine.tls_end);
}

bool shared_offset(const void * p, size_t n, size_t * offset) {
    const uint8_t * b = (const uint8_t *) p;
    *offset = b >= dynamic_shared && b < dynamic_shared + engine.shared_size ? b - dynamic_shared : (size_t) (b - engine.tls_begin) + 512*1024;
    return is_shared(p, n);
}

bool is_stack(const void * p) {
    return (const uint8_t *) p - engine.stacks < (ptrdiff_t) (MAX_THREADS*STACK) && (const uint8_t *) p >= engine.stacks;
}

bool is_argument(const void * p, size_t n) {
    return p >= engine.arg && (const uint8_t *) p + n <= (const uint8_t *) engine.arg + engine.n_arg;
}

// garbage that is NaN in some blocks and a large number in others: a maximum would swallow a NaN
static void poison_shared() {
    static const uint8_t bytes[4] = { 0xFF, 0x7B, 0xFF, 0xFB };
    const uint8_t byte = bytes[random32() >> 30];
    memset(engine.tls_begin, byte, engine.tls_end - engine.tls_begin);
    memset(dynamic_shared, byte, engine.shared_size);
}

static void check_shared_guard() {
    for (size_t i = 0; i < GUARD; ++i) {
        if (dynamic_shared[engine.shared_size + i] != 0xA5) {
            print_thread();
            fprintf(stderr, "a write %zu bytes after the end of dynamic shared memory (%zu bytes)\n", i, engine.shared_size);
            record(ILLEGAL_ADDRESS);
            memset(dynamic_shared + engine.shared_size, 0xA5, GUARD);
            return;
        }
    }
}

int allow_shared(const void * kernel, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(engine.lock);
    if (bytes > MAX_SHARED) {
        return INVALID_VALUE;
    }
    size_t & allowed = engine.allowed[kernel];
    allowed = allowed > bytes ? allowed : bytes;
    return OK;
}

//
// kernels
//

static void run_block() {
    engine.n_barrier = 0;
    engine.n_exited  = 0;
    engine.failed    = false;
    now.block        = now.barrier = ++engine.time;
    engine.n_warps   = (engine.n_threads + 31)/32;
    engine.ready     = engine.n_warps == 32 ? 0xffffffff : (1u << engine.n_warps) - 1;

    // some blocks let their warps run side by side, in others one runs far ahead of the rest
    static const uint32_t stay[4] = { 0, 0xC0000000, 0xF8000000, 0xffffffff };
    engine.stay = stay[random32() >> 30];

    for (uint32_t i = 0; i < engine.n_warps; ++i) {
        Warp & w = engine.warps[i];
        const uint32_t n = engine.n_threads - 32*i;
        w.present = n >= 32 ? 0xffffffff : (1u << n) - 1;
        w.ready   = w.present;
        w.arrived = w.barrier = w.exited = 0;
        w.kind    = NONE;
    }
    for (uint32_t i = 0; i < engine.n_threads; ++i) {
        Fiber & f = engine.fibers[i];
        f.warp    = &engine.warps[i/32];
        f.lane    = i%32;
        f.thread  = i;
        f.index.x = i % blockDim.x;
        f.index.y = i / blockDim.x % blockDim.y;
        f.index.z = i / blockDim.x / blockDim.y;
        f.group   = 0;
        f.waits   = engine.early;
        f.copies.clear();
        // the tops differ in their low bits: otherwise all stacks would compete for the same cache lines
        f.sp = pmkvq_shim_stack(engine.stacks + (i + 1)*STACK - i*320 % 32768, fiber_main);
    }

    poison_shared();
    const uint32_t first = pick_bit(engine.ready);
    current   = &engine.fibers[32*first + pick_bit(engine.warps[first].ready)];
    threadIdx = current->index;
    pmkvq_shim_switch(&engine.main, current->sp);
    current = nullptr;

    if (!engine.failed) {
        if (engine.n_exited < engine.n_threads) {
            report_deadlock();
        }
        check_shared_guard();
    }
}

static void prepare() {
    if (!engine.stacks) {
        engine.stacks = (uint8_t *) mmap(nullptr, MAX_THREADS*STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        engine.shared_buffer = (uint8_t *) aligned_alloc(1024, 512*1024);
        if (engine.stacks == MAP_FAILED || !engine.shared_buffer) {
            fprintf(stderr, "pmkvq-shim: no memory for the stacks\n");
            abort();
        }
        for (size_t i = 0; i < MAX_THREADS; ++i) {
            mprotect(engine.stacks + i*STACK, 4096, PROT_NONE);
        }
    }
    *(volatile char *) &shared_anchor = 0; // the storage of this thread is made at the first use
    dl_iterate_phdr(find_tls, nullptr);
    // 16-byte aligned, and not more
    dynamic_shared = engine.shared_buffer + 16;
    memset(dynamic_shared + engine.shared_size, 0xA5, GUARD);
}

static int check_launch(const void * kernel, uint3 g, uint3 b, size_t shared) {
    const uint64_t n = (uint64_t) b.x*b.y*b.z;
    if (n == 0 || n > MAX_THREADS || b.z > 64 || g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535) {
        return INVALID_CONFIGURATION;
    }
    const auto allowed = engine.allowed.find(kernel);
    return shared > 48*1024 && (allowed == engine.allowed.end() || shared > allowed->second) ? INVALID_VALUE : OK;
}

void run(bool early, const char * name, const void * kernel, uint3 grid, uint3 block, size_t shared, void (*call)(void *), void * arg, size_t n_arg) {
    std::lock_guard<std::recursive_mutex> guard(engine.lock);
    if (engine.error != OK) {
        engine.last_error = engine.error; // as on a GPU: nothing works until the error was seen
        return;
    }
    const int code = check_launch(kernel, grid, block, shared);
    if (code != OK) {
        fprintf(stderr, "pmkvq-shim: kernel %s can't be launched: grid (%u, %u, %u), block (%u, %u, %u), %zu bytes of shared memory\n",
            name, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared);
        engine.last_error = code;
        return;
    }
    engine.early = early;
    engine.name = name;
    engine.call = call;
    engine.arg  = arg;
    engine.n_arg = n_arg;
    now.launch   = ++engine.time;
    engine.n_threads   = block.x*block.y*block.z;
    engine.shared_size = shared;
    gridDim  = grid;
    blockDim = block;
    prepare();

    struct sigaction action = {}, old_segv, old_bus;
    action.sa_sigaction = on_signal;
    action.sa_flags     = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &old_segv);
    sigaction(SIGBUS,  &action, &old_bus);
#if defined(__SSE__)
    const unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); // fast-math flushes subnormal floats to zero
#endif

    std::vector<uint32_t> order(grid.x*(size_t) grid.y*grid.z);
    for (size_t i = 0; i < order.size(); ++i) {
        order[i] = (uint32_t) i;
    }
    for (size_t i = 0; i < order.size() && engine.error == OK; ++i) {
        std::swap(order[i], order[i + random32() % (order.size() - i)]);
        blockIdx.x = order[i] % grid.x;
        blockIdx.y = order[i] / grid.x % grid.y;
        blockIdx.z = order[i] / grid.x / grid.y;
        run_block();
    }

#if defined(__SSE__)
    _mm_setcsr(mode);
#endif
    sigaction(SIGSEGV, &old_segv, nullptr);
    sigaction(SIGBUS,  &old_bus,  nullptr);
}

int last_error(bool clear) {
    std::lock_guard<std::recursive_mutex> guard(engine.lock);
    const int code = engine.last_error;
    if (clear) {
        engine.last_error = OK;
    }
    return code;
}

int sync() {
    std::lock_guard<std::recursive_mutex> guard(engine.lock);
    check_guards();
    const int code = engine.error;
    engine.error = engine.last_error = OK;
    return code;
}

} // namespace pmkvq_shim
