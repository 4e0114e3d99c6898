// check.cpp - looks at every access to memory of the kernels: bounds, and races between threads
//
// Only with PMKVQ_SHIM_CHECK: the kernels are compiled with -fsanitize=thread, which calls a function for each access. These are
// ours. Two accesses to a byte, one of them a write, race if nothing orders their threads: a barrier for threads of a block, or
// pmkvq_syncwarp for lanes of a warp. Nothing orders blocks of a launch. Atomics are left out. Whether a race shows in the
// result of this run does not matter, which is the difference to running threads in random order.

#include "engine.h"

#ifdef PMKVQ_SHIM_CHECK

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

namespace pmkvq_shim {

// the latest accesses to a byte. Times are those of 'now', which only grow
struct Byte {
    uint32_t w_barrier, w_warp, w_where;
    uint32_t r_barrier, r_warp, r_where;
    uint32_t r_block;
    uint16_t w_thread;
    uint16_t r_thread;
    // more readers than the one above: in other blocks of the launch, other warps since the barrier, other lanes since syncwarp
    bool     r_blocks, r_warps, r_lanes;
};

static const uint32_t WHOLE_WARP  = 1024; // + warp: the thread of an access by all lanes
static const uint32_t OTHER_BLOCK = 0xffff;

static Byte * shared_bytes; // of TLS and dynamic shared memory: addresses are below 512 KiB apart in each
static const size_t MAX_BYTES = 512*1024;

// of this library
static uintptr_t image_base, image_begin, image_end;

static int find_image(dl_phdr_info * info, size_t, void *) {
    uintptr_t begin = ~(uintptr_t) 0, end = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) & p = info->dlpi_phdr[i];
        if (p.p_type == PT_LOAD) {
            const uintptr_t b = info->dlpi_addr + p.p_vaddr;
            begin = b < begin ? b : begin;
            end   = b + p.p_memsz > end ? b + p.p_memsz : end;
        }
    }
    if (begin <= (uintptr_t) &image_base && (uintptr_t) &image_base < end) {
        image_base  = info->dlpi_addr;
        image_begin = begin;
        image_end   = end;
        return 1;
    }
    return 0;
}

static uint32_t warp_of(uint32_t thread) {
    return thread >= WHOLE_WARP ? thread - WHOLE_WARP : thread/32;
}

// file and line of an address in this library
static const char * place(uint32_t where, char (&text)[512]) {
    char command[512];
    const char * file = "";
    Dl_info info;
    if (dladdr((void *) image_begin, &info) && info.dli_fname) {
        file = info.dli_fname;
    }
    snprintf(text, sizeof(text), "%s+0x%x", file, where);
    snprintf(command, sizeof(command), "addr2line -s -i -e '%s' 0x%x 2>/dev/null | tr '\\n' ' '", file, where - 1);
    if (FILE * pipe = popen(command, "r")) {
        char line[512];
        if (fgets(line, sizeof(line), pipe) && line[0] != '?') {
            snprintf(text, sizeof(text), "%s", line);
        }
        pclose(pipe);
    }
    return text;
}

[[noreturn]] static void race(const void * p, const char * what, uint32_t where, const char * what_before, uint32_t thread, uint32_t where_before) {
    char here[512], before[512];
    place(where, here);
    place(where_before, before);
    char who[64] = "another block";
    if (thread != OTHER_BLOCK) {
        snprintf(who, sizeof(who), thread >= WHOLE_WARP ? "warp %u" : "thread %u", thread >= WHOLE_WARP ? warp_of(thread) : thread);
    }
    fail(LAUNCH_FAILURE, "a race at %p (%s memory)\n  %s by thread %u (warp %u) at %s\n  and %s by %s at %s", p, is_shared(p, 1) ? "shared" : "device",
        what, current->thread, current->thread/32, here, what_before, who, before);
}

// Threads of a block may write the same value side by side, which can be told only once the write was made
struct Again {
    const uint8_t * p;
    uint8_t  before;
    uint16_t thread;
    uint32_t where, where_before;
};

static Again    agains[64]; // more than an access has bytes
static uint32_t n_agains, agains_launch;

void check_settle() {
    if (agains_launch != now.launch) {
        agains_launch = now.launch;
        n_agains = 0; // of a kernel that failed
    }
    for (uint32_t i = 0; i < n_agains; ++i) {
        const Again & a = agains[i];
        if (*a.p != a.before) {
            n_agains = 0;
            race(a.p, "a write", a.where, "a write of another value", a.thread, a.where_before);
        }
    }
    n_agains = 0;
}

// whether the thread's access at these times is ordered before one of thread u of the same block now
static bool ordered(uint32_t barrier, uint32_t warp_time, uint32_t thread, uint32_t u) {
    return barrier != now.barrier || (warp_of(thread) == warp_of(u) && warp_time != now.warp[warp_of(u)]);
}

// since: accesses before are of no interest
static void look(Byte & b, const void * p, uint32_t since, bool write, uint32_t u, uint32_t where) {
    const char * what = write ? "a write" : "a read";
    if (b.w_barrier >= since) {
        if (b.w_barrier < now.block) {
            race(p, what, where, "a write", OTHER_BLOCK, b.w_where);
        }
        if (b.w_thread != u && !ordered(b.w_barrier, b.w_warp, b.w_thread, u)) {
            if (!write) {
                race(p, what, where, "a write", b.w_thread, b.w_where);
            }
            n_agains -= n_agains == 64;
            agains[n_agains++] = { (const uint8_t *) p, *(const uint8_t *) p, b.w_thread, where, b.w_where };
        }
    }
    const uint32_t warp_time = now.warp[warp_of(u)];
    if (write) {
        if (b.r_block >= since) {
            if (b.r_blocks || b.r_block != now.block) {
                race(p, what, where, "a read", OTHER_BLOCK, b.r_where);
            }
            const bool others = b.r_warps || warp_of(b.r_thread) != warp_of(u) || (b.r_warp == warp_time && (b.r_lanes || b.r_thread != u));
            if (b.r_barrier == now.barrier && others) {
                race(p, what, where, "a read", b.r_thread, b.r_where);
            }
        }
        b.w_barrier = now.barrier;
        b.w_warp    = warp_time;
        b.w_thread  = (uint16_t) u;
        b.w_where   = where;
        return;
    }
    if (b.r_block < since) {
        b.r_blocks = false;
    } else if (b.r_block != now.block) {
        b.r_blocks = true;
    }
    if (b.r_barrier != now.barrier) {
        b.r_warps = b.r_lanes = false;
    } else if (warp_of(b.r_thread) != warp_of(u)) {
        b.r_warps = true;
    } else {
        b.r_lanes = b.r_warp == warp_time && (b.r_lanes || b.r_thread != u);
    }
    b.r_block   = now.block;
    b.r_barrier = now.barrier;
    b.r_warp    = warp_time;
    b.r_thread  = (uint16_t) u;
    b.r_where   = where;
}

static void access(const void * p, size_t n, bool write, uint32_t u, uintptr_t pc) {
    if (is_stack(p)) {
        return;
    }
    check_settle();
    if (!image_end) {
        dl_iterate_phdr(find_image, nullptr);
        shared_bytes = (Byte *) calloc(2*MAX_BYTES, sizeof(Byte));
    }
    const uint32_t where = (uint32_t) (pc - image_base);
    Byte   * bytes;
    size_t   offset;
    uint32_t since = now.launch;
    if (shared_offset(p, n, &offset)) {
        bytes = shared_bytes + offset;
        since = now.block;
    } else if (!(bytes = (Byte *) shadow(p, n, sizeof(Byte)))) {
        if (is_argument(p, n) || (image_begin <= (uintptr_t) p && (uintptr_t) p + n <= image_end)) {
            return;
        }
        char text[512];
        fail(ILLEGAL_ADDRESS, "a %s of %zu bytes at %p, which is no device memory, at %s", write ? "write" : "read", n, p, place(where, text));
    } else if (current->waits) {
        char text[512];
        fail(LAUNCH_FAILURE, "a %s of device memory before pmkvq_wait_before(), at %s", write ? "write" : "read", place(where, text));
    }
    for (size_t i = 0; i < n; ++i) {
        look(bytes[i], (const uint8_t *) p + i, since, write, u, where);
    }
}

void check_access(const void * p, size_t n, bool write, bool whole_warp, const void * pc) {
    access(p, n, write, whole_warp ? WHOLE_WARP + current->thread/32 : current->thread, (uintptr_t) pc);
}

} // namespace pmkvq_shim

using namespace pmkvq_shim;

// what the compiler calls
#define ACCESS(name, n, write) \
    extern "C" void __tsan_##name(void * p) { \
        if (current) { \
            if (n > 1) { check_align_of(p, n, write, __builtin_return_address(0)); } \
            access(p, n, write, current->thread, (uintptr_t) __builtin_return_address(0)); \
        } \
    }
#define UNALIGNED(name, n, write) \
    extern "C" void __tsan_unaligned_##name(void * p) { \
        if (current) { access(p, n, write, current->thread, (uintptr_t) __builtin_return_address(0)); } \
    }
#define BOTH(n) \
    ACCESS(read##n, n, false) ACCESS(write##n, n, true) UNALIGNED(read##n, n, false) UNALIGNED(write##n, n, true)

static void check_align_of(const void * p, size_t n, bool write, const void * pc) {
    if ((uintptr_t) p % n) {
        char text[512];
        fail(MISALIGNED, "a %s of %zu bytes at %p, which is not aligned, at %s", write ? "write" : "read", n, p,
            place((uint32_t) ((uintptr_t) pc - image_base), text));
    }
}

BOTH(1) BOTH(2) BOTH(4) BOTH(8) BOTH(16)

extern "C" void __tsan_read_range(void * p, size_t n) {
    if (current) { access(p, n, false, current->thread, (uintptr_t) __builtin_return_address(0)); }
}

extern "C" void __tsan_write_range(void * p, size_t n) {
    if (current) { access(p, n, true, current->thread, (uintptr_t) __builtin_return_address(0)); }
}

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void *, void *) {}
extern "C" void __tsan_vptr_read(void *) {}

#else

void pmkvq_shim::check_access(const void *, size_t, bool, bool, const void *) {}
void pmkvq_shim::check_settle() {}

#endif // PMKVQ_SHIM_CHECK
