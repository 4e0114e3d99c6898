// pmkvq-seen.cu - the mask is looked at once, for all attentions that read it: items of 64 cells that a tile of query rows sees
//
// Sequences don't see each other's blocks. Without lists each warp of each layer asks for the mask of items that it then leaves
// alone, at a wait for memory each. A list also deals what is seen evenly, however the sequences' blocks lie.

#include "pmkvq-seen.cuh"

#define SEEN_WARPS 4

static __device__ __forceinline__ bool pmkvq_shows(const uint4 & m) {
    return ((m.x ^ 0xfc00fc00) | (m.y ^ 0xfc00fc00) | (m.z ^ 0xfc00fc00) | (m.w ^ 0xfc00fc00)) != 0;
}

// a warp makes a word: 2048 cells, 8 at a time and lane
static __global__ void __launch_bounds__(32*SEEN_WARPS) pmkvq_seen_bits(const uint16_t * mask, size_t nb_token, int n_kv, const pmkvq_seen seen) {
    pmkvq_start_next();
    pmkvq_wait_before();

    const int lane  = threadIdx.x;
    const int word  = blockIdx.x*SEEN_WARPS + threadIdx.y;
    const int token = blockIdx.y;
    if (word >= seen.n_words) {
        return;
    }
    const uint16_t * row = (const uint16_t *) ((const char *) mask + token*nb_token);
    const int cell = word*32*PMKVQ_ITEM + 8*lane;

    bool shows[8];
    if ((uintptr_t) row%16 == 0 && (word + 1)*32*PMKVQ_ITEM <= n_kv) {
        uint4 m[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            m[j] = pmkvq_ldg((const uint4 *) (row + cell + 256*j));
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            shows[j] = pmkvq_shows(m[j]);
        }
    } else {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            shows[j] = false;
            for (int i = cell + 256*j; i < min(cell + 256*j + 8, n_kv); ++i) {
                shows[j] = shows[j] || row[i] != 0xfc00;
            }
        }
    }
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        const uint32_t lanes = pmkvq_ballot(shows[j]);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            bits |= lanes >> 8*k & 0xff ? 1u << (4*j + k) : 0;
        }
    }
    if (lane == 0) {
        seen.bits[(size_t) token*seen.n_words + word] = bits;
    }
}

// by a warp: the list, and how long it is
static __device__ __forceinline__ int pmkvq_make_list(const pmkvq_seen & seen, int index, int n_tokens, int lane) {
    const int first = index*seen.tokens;
    const int last  = min(first + seen.tokens, n_tokens);
    uint32_t * list = seen.list + (size_t) index*seen.n_items;

    int total = 0;
    for (int base = 0; base < seen.n_words; base += 32) {
        const int word = base + lane;
        uint32_t bits = 0;
        for (int t = first; t < last; ++t) {
            bits |= word < seen.n_words ? seen.bits[(size_t) t*seen.n_words + word] : 0;
        }
        // where the lane's items go: behind those of the lanes before
        const int n = pmkvq_popc(bits);
        int end = n;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int before = pmkvq_shfl(end, max(lane - d, 0));
            end += lane >= d ? before : 0;
        }
        uint32_t * to = list + total + end - n;
        for (; bits != 0; bits &= bits - 1) {
            *to++ = 32*word + __ffs(bits) - 1;
        }
        total += pmkvq_shfl(end, 31);
    }
    return total;
}

// chunks of a tile that sees `count` items, if a warp has no more than so many rounds; one for what is not in the cache
static __device__ __forceinline__ int pmkvq_chunks_of(const pmkvq_seen & seen, int count, int rounds) {
    const int cta = rounds*PMKVQ_WARPS;
    return max(1, min(seen.n_chunk, (count + cta - 1)/cta));
}

static __device__ __forceinline__ int pmkvq_sum(int x) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        x += (int) pmkvq_shfl_xor((uint32_t) x, i);
    }
    return x;
}

// a warp for each list; the first one then finds the smallest number of rounds that the CTAs suffice for, and gives each tile its share
static __global__ void __launch_bounds__(32*PMKVQ_FEW) pmkvq_seen_lists(const pmkvq_seen seen, int n_tokens) {
    __shared__ int s_count[PMKVQ_FEW];

    pmkvq_start_next();
    pmkvq_wait_before();

    const int lane = threadIdx.x;
    const int warp = threadIdx.y;

    const int total = pmkvq_make_list(seen, warp, n_tokens, lane);
    if (lane == 0) {
        seen.count[warp] = total;
        s_count[warp] = total;
    }
    pmkvq_syncthreads();
    if (warp > 0) {
        return;
    }

    const bool mine  = lane < seen.n_lists;
    const int  count = mine ? s_count[lane] : 0;
    int few  = 1; // rounds: not fewer
    int many = (seen.n_items + PMKVQ_WARPS - 1)/PMKVQ_WARPS; // enough: then each tile has one CTA
    while (few < many) {
        const int rounds = (few + many)/2;
        if (pmkvq_sum(mine ? pmkvq_chunks_of(seen, count, rounds) : 0) <= seen.n_ctas) {
            many = rounds;
        } else {
            few = rounds + 1;
        }
    }
    const int n = mine ? pmkvq_chunks_of(seen, count, few) : 0;
    int end = n;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const int before = pmkvq_shfl(end, max(lane - d, 0));
        end += lane >= d ? before : 0;
    }
    if (lane <= seen.n_lists) {
        seen.start[lane] = end - n;
    }
}

size_t pmkvq_cuda_seen_bytes(const pmkvq_op_attn * op) {
    if (!op || !pmkvq_cuda_supports_attn(op->n_head, op->n_head_kv, op->head_dim_k, op->head_dim_v, op->group_k, op->group_v) || op->n_head > UINT16_MAX
            || op->n_tokens == 0 || op->n_tokens > PMKVQ_FEW || op->n_kv == 0 || op->n_kv > INT32_MAX || op->n_chunk == 0 || op->n_chunk > UINT16_MAX) {
        return 0;
    }
    return pmkvq_seen_bytes(op->n_tokens, pmkvq_seen::of(*op, nullptr).n_lists, op->n_kv);
}

// What lists can save is rounds of the warps; what they cost is an access to memory before the first item. Several tokens are mostly of
// several sequences, a single one mostly sees all
int pmkvq_cuda_seen_pays(const pmkvq_op_attn * op) {
    if (pmkvq_cuda_seen_bytes(op) == 0) {
        return 0;
    }
    const pmkvq_seen seen = pmkvq_seen::of(*op, nullptr);
    return seen.n_items > (op->n_tokens > 1 ? 3 : 4)*(seen.n_ctas/seen.n_lists)*PMKVQ_WARPS;
}

int pmkvq_cuda_op_seen(const pmkvq_op_attn * op, void * memory, void * stream_) {
    cudaStream_t stream = (cudaStream_t) stream_;

    if (pmkvq_cuda_seen_bytes(op) == 0 || !op->mask || !memory || (uintptr_t) memory%4 != 0 || ((uintptr_t) op->mask | op->mask_nb_token)%2 != 0) {
        return cudaErrorInvalidValue;
    }
    const pmkvq_seen seen = pmkvq_seen::of(*op, memory);

    const dim3 grid((seen.n_words + SEEN_WARPS - 1)/SEEN_WARPS, op->n_tokens);
    PMKVQ_LAUNCH_EARLY(pmkvq_seen_bits, grid, dim3(32, SEEN_WARPS), 0, stream, op->mask, op->mask_nb_token, (int) op->n_kv, seen);
    const cudaError_t err = cudaGetLastError();
    if (err != cudaSuccess) {
        return err;
    }
    PMKVQ_LAUNCH_EARLY(pmkvq_seen_lists, dim3(1), dim3(32, seen.n_lists), 0, stream, seen, (int) op->n_tokens);
    return cudaGetLastError();
}
