// What blocks tell one another: sums that all add to, and words with the turn that they belong to.
#pragma once
#include "ring.cuh"

// What one launch works on; step.py fills it.
struct Step {
  const u64* tapes;       // [layers] addresses, each [tile][block] as Shape has it
  const float* norms;     // [layers][2][H]
  const float* biases;    // [layers][3][H], of q, k, v
  const int* orders;      // [layers][2][H]: the input at each place of q, k, v and of up and gate
  const byte* embedding;  // [vocabulary][H] of the model's floats
  const long long* token;
  const int* position;
  byte* cache;                        // [2][layers][HEADS][capacity][D]
  float* cache_scales;                // [2][layers][HEADS][capacity]
  const float *cosine, *sine, *logn;  // [positions][D], the second half of sine as it is; [positions] or null
  u64* sums;                          // [2 turns][2 * layers][H]
  u64* mail;                          // [HEADS][MAIL]
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
// The words of a head.
constexpr int MAIL_Q = 0, MAIL_K = 128, MAIL_V = 256, MAIL_MOST = 384, MAIL_PARTS = 512, MAIL_PART = 132,
              MAIL = 1152;

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
__device__ __forceinline__ void post(u64* to, float v, u32 turn) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"((u64)turn << 32 | __float_as_uint(v))
               : "memory");
}
__device__ __forceinline__ bool is_late(u64 word, u32 turn) { return (int)((u32)(word >> 32) - turn) < 0; }
__device__ __forceinline__ float value_of(u64 word) { return __uint_as_float((u32)word); }
__device__ __forceinline__ float collect(const u64* from, u32 turn) {
  u64 v;
  do v = look(from);
  while (is_late(v, turn));
  return value_of(v);
}
