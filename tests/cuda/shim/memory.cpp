// memory.cpp - device memory of the shim: allocations with guards, checks of addresses, and copies that take their time

#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <mutex>

namespace pmkvq_shim {

static const size_t  GUARD      = 4096;
static const uint8_t GUARD_BYTE = 0xA5;

struct Range {
    const uint8_t * begin, * end;
    void * shadow; // what check.cpp knows about the bytes
};

struct Allocation {
    size_t bytes;
    void * shadow;
};

static std::recursive_mutex lock;
static std::map<const uint8_t *, Allocation> allocations;
static Range latest; // that an address was found in

int alloc(void ** p, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const size_t size = (2*GUARD + bytes + 255)/256*256;
    uint8_t * base = (uint8_t *) aligned_alloc(256, size);
    if (!base) {
        return 2; // cudaErrorMemoryAllocation
    }
    memset(base, GUARD_BYTE, size);
    memset(base + GUARD, 0xFF, bytes);
    allocations[base + GUARD] = { bytes, nullptr };
    *p = base + GUARD;
    return OK;
}

// the guards of one allocation are whole again afterwards: an error is reported once
static void check_guard(const uint8_t * p, size_t bytes) {
    uint8_t * const sides[2] = { (uint8_t *) p - GUARD, (uint8_t *) p + bytes };
    for (int side = 0; side < 2; ++side) {
        for (size_t i = 0; i < GUARD; ++i) {
            if (sides[side][i] != GUARD_BYTE) {
                note(ILLEGAL_ADDRESS, "a write at offset %td of an allocation of %zu bytes (%p)", sides[side] + i - p, bytes, (const void *) p);
                memset(sides[side], GUARD_BYTE, GUARD);
                break;
            }
        }
    }
}

void check_guards() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    for (const auto & [p, a] : allocations) {
        check_guard(p, a.bytes);
    }
}

int release(void * p) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!p) {
        return OK;
    }
    const auto it = allocations.find((const uint8_t *) p);
    if (it == allocations.end()) {
        note(INVALID_VALUE, "%p was not allocated, or is freed twice", p);
        return INVALID_VALUE;
    }
    check_guard(it->first, it->second.bytes);
    memset(p, 0xFD, it->second.bytes);
    free(it->second.shadow);
    free((uint8_t *) p - GUARD);
    allocations.erase(it);
    latest = {};
    return OK;
}

bool is_global(const void * p, size_t n) {
    const uint8_t * b = (const uint8_t *) p;
    if (b >= latest.begin && b + n <= latest.end) {
        return true;
    }
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto it = allocations.upper_bound(b);
    if (it == allocations.begin() || b + n < b) {
        return false;
    }
    --it;
    if (b + n > it->first + it->second.bytes) {
        return false;
    }
    latest = { it->first, it->first + it->second.bytes, it->second.shadow };
    return true;
}

void * shadow(const void * p, size_t n, size_t size) {
    if (!is_global(p, n)) {
        return nullptr;
    }
    if (!latest.shadow) {
        Allocation & a = allocations[latest.begin];
        a.shadow = latest.shadow = calloc(a.bytes, size);
    }
    return (uint8_t *) latest.shadow + ((const uint8_t *) p - latest.begin)*size;
}

// where the nearest allocation is, for messages
static const char * describe(const void * p, char (&text)[128]) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const uint8_t * b = (const uint8_t *) p;
    auto it = allocations.upper_bound(b);
    text[0] = 0;
    if (it != allocations.begin()) {
        --it;
        snprintf(text, sizeof(text), " (offset %td from an allocation of %zu bytes)", b - it->first, it->second.bytes);
    }
    return text;
}

int check_span(const void * p, size_t n, const char * what) {
    if (n == 0 || is_global(p, n)) {
        return OK;
    }
    char text[128];
    note(INVALID_VALUE, "%s of %zu bytes at %p is not within an allocation%s", what, n, p, describe(p, text));
    return INVALID_VALUE;
}

void check_align(const void * p, size_t align, const char * what) {
    if ((uintptr_t) p % align) {
        fail(MISALIGNED, "%s at %p, which is not aligned to %zu bytes", what, p, align);
    }
}

void check_waited(const char * what) {
    if (current && current->waits) {
        fail(LAUNCH_FAILURE, "%s of device memory before pmkvq_wait_before()", what);
    }
}

void check_global(const void * p, size_t n, size_t align, const char * what) {
    check_align(p, align, what);
    check_waited(what);
    if (!is_global(p, n)) {
        char text[128];
        fail(ILLEGAL_ADDRESS, "%s of %zu bytes at %p is not within an allocation%s", what, n, p, describe(p, text));
    }
}

void check_any(const void * p, size_t n, size_t align, const char * what) {
    if (!is_shared(p, n)) {
        check_global(p, n, align, what);
    } else {
        check_align(p, align, what);
    }
}

//
// cp.async: the bytes arrive at the wait and not before, until then the destination is garbage
//

void copy_issue(void * dst, const void * src, uint32_t bytes, bool valid, const char * file, int line) {
    check_align(dst, bytes, "destination of cp_async");
    check_align(src, bytes, "source of cp_async");
    if (!is_shared(dst, bytes)) {
        fail(ILLEGAL_ADDRESS, "cp_async at %s:%d to %p, which is not shared memory", file, line, dst);
    }
    if (valid) {
        check_global(src, bytes, bytes, "source of cp_async");
    }
    check_access(dst, bytes, true, false, __builtin_return_address(0));
    memset(dst, 0xFF, bytes);
    current->copies.push_back({ dst, src, bytes, current->group, valid });
}

void copy_commit() {
    current->group++;
}

void copy_wait(uint32_t n) {
    auto & copies = current->copies;
    size_t i = 0;
    // groups are numbered in the order of their commits; one that was not committed is waited for by nobody
    for (; i < copies.size() && copies[i].group + n < current->group; ++i) {
        check_access(copies[i].dst, copies[i].bytes, true, false, __builtin_return_address(0));
        if (copies[i].valid) {
            check_access(copies[i].src, copies[i].bytes, false, false, __builtin_return_address(0));
            memcpy(copies[i].dst, copies[i].src, copies[i].bytes);
        } else {
            memset(copies[i].dst, 0, copies[i].bytes);
        }
    }
    copies.erase(copies.begin(), copies.begin() + i);
    yield();
}

} // namespace pmkvq_shim
