// switch.h - from one stack to another: what makes a fiber
//
// swapcontext would save the signal mask with a system call each time, which is too slow for a switch per lane and shuffle.

#pragma once

#include <stdint.h>
#include <string.h>

// All fibers wait at the same place mostly, so that the processor predicts the returns: a jump would be slower.

// saves the callee-saved registers on this stack and its pointer in *save, and goes on where 'load' was saved
extern "C" void pmkvq_shim_switch(void ** save, void * load);

#if defined(__x86_64__)

asm(R"(
    .text
    .p2align 4
    .globl  pmkvq_shim_switch
    .hidden pmkvq_shim_switch
    .type   pmkvq_shim_switch, @function
pmkvq_shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq  %rsp, (%rdi)
    movq  %rsi, %rsp
    popq  %r15
    popq  %r14
    popq  %r13
    popq  %r12
    popq  %rbx
    popq  %rbp
    ret
    .size pmkvq_shim_switch, .-pmkvq_shim_switch
)");

// a stack that starts in entry when it is switched to; top: aligned to 16
static inline void * pmkvq_shim_stack(void * top, void (*entry)()) {
    void ** s = (void **) top - 8; // six registers, entry, and a return address that nobody uses
    memset(s, 0, 8*sizeof(void *));
    s[6] = (void *) entry;
    return s;
}

#elif defined(__aarch64__)

asm(R"(
    .text
    .p2align 4
    .globl  pmkvq_shim_switch
    .hidden pmkvq_shim_switch
    .type   pmkvq_shim_switch, %function
pmkvq_shim_switch:
    stp x19, x20, [sp, #-160]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8,  d9,  [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8,  d9,  [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x19, x20, [sp], #160
    ret
    .size pmkvq_shim_switch, .-pmkvq_shim_switch
)");

static inline void * pmkvq_shim_stack(void * top, void (*entry)()) {
    void ** s = (void **) top - 20;
    memset(s, 0, 20*sizeof(void *));
    s[11] = (void *) entry; // x30
    return s;
}

#else
#error "the execution shim of the CUDA kernels knows x86-64 and aarch64 only: add pmkvq_shim_switch for this machine"
#endif
