// What blocks tell one another: sums that all add to, and words with the turn that they belong to.
#pragma once
#include "ring.cuh"

// What one launch works on; step.py fills it.
struct Step {
  alignas(64) u64 boxes[16];  // a tensor map of the cache: its rows of D, in boxes of CHUNK rows of 128 bytes
  const u64* tapes;           // [layers] addresses, each [matrix][tile][block] as Shape has it
  const float* norms;         // [layers][2][H]
  const float* biases;        // [layers][QKV]
  const float* head_norms;    // [layers][2][D], of queries and of keys, or null
  const int* orders;          // [layers][2][H]: the input at each place of q, k, v and of up and gate
  const byte* embedding;      // [vocabulary][H] of the model's floats
  const long long* token;
  const int* position;
  byte* cache;                        // [2][layers][KEY_HEADS][capacity][D]
  float* cache_scales;                // [2][layers][KEY_HEADS][capacity]
  const float *cosine, *sine, *logn;  // [positions][D], the second half of sine as it is; [positions] or null
  u64* sums;                          // [2 turns][2 * layers][H]
  u64* mail;                          // [KEY_HEADS][MAIL]
  u32* turn;                          // tokens so far
  int* broken;                        // 1 once a number was none
  int* counter;                       // zeroed for the sampler
  float* out;                         // [H]
  int layers, capacity;
  int waiting_flight, flight;  // tiles under way at most: while blocks wait for one another, and else
  float eps;
};

// A stream of up to 2^27 in 56 bits, so that the order of the sums does not matter; the 8 bits below count
// who has added, so that a reader needs no flag beside them.
constexpr float FIXED = 1 << 28, MOST = 1 << 20;
// The words of the blocks that have the same keys: queries, key, value, and what each makes of every head.
constexpr int MAIL_K = SHARING * D, MAIL_V = MAIL_K + D, MAIL_PARTS = MAIL_V + D, MAIL_PART = D + 4,
              MAIL = MAIL_PARTS + ASKERS * SHARING * MAIL_PART;

// A number that is none, or too large to add: the token's logits will say so.
__device__ __forceinline__ void tell_broken(const Step& t) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], 1;" ::"l"(t.broken) : "memory");
  __threadfence();
}
__device__ __forceinline__ void check(const Step& t, float v) {
  if (!(fabsf(v) < MOST)) tell_broken(t);
}
__device__ __forceinline__ void add(const Step& t, u64* to, float v) {
  check(t, v);
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to),
               "l"((u64)(__float2ll_rn(v * FIXED) * 256 + 1))
               : "memory");
}
__device__ __forceinline__ u64 look(const u64* from) {
  u64 v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ ulonglong2 look_at_two(const u64* from) {
  ulonglong2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(v.x), "=l"(v.y) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ void post(u64* to, float v, u32 turn) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"((u64)turn << 32 | __float_as_uint(v))
               : "memory");
}
__device__ __forceinline__ bool is_late(u64 word, u32 turn) { return (int)((u32)(word >> 32) - turn) < 0; }
__device__ __forceinline__ bool is_late(const ulonglong2& words, u32 turn) {
  return is_late(words.x, turn) || is_late(words.y, turn);
}
__device__ __forceinline__ float value_of(u64 word) { return __uint_as_float((u32)word); }
__device__ __forceinline__ float collect(const u64* from, u32 turn) {
  u64 v;
  do v = look(from);
  while (is_late(v, turn));
  return value_of(v);
}
