// pmkvq-attn.cuh - the kernels of attention by what they are for; pmkvq-attn.cu has the checks, and chooses

#pragma once

#include "pmkvq.h"

#include <stddef.h>

// up to PMKVQ_FEW tokens, or any number where prefill has no kernel; seen: lists (pmkvq-seen.cu) or NULL
int pmkvq_cuda_attn_decode       (const pmkvq_op_attn & op, const void * seen, void * stream);
int pmkvq_cuda_attn_decode_groups(const pmkvq_op_attn & op, const void * seen, void * stream);

// shared: bytes of shared memory that a CTA can have. cudaErrorInvalidConfiguration: it does not suffice
int pmkvq_cuda_attn_prefill       (const pmkvq_op_attn & op, size_t shared, void * stream);
int pmkvq_cuda_attn_prefill_groups(const pmkvq_op_attn & op, size_t shared, void * stream);
