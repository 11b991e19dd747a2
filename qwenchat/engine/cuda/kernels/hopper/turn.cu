// Rotary positions for prefill: queries turned, by heads, and keys turned and values into the KV cache,
// behind their norms where they have them. A block a token, 16 threads a head, which have four numbers of its
// first half and the four that these are turned with.
#include "barriers.cuh"

typedef unsigned short half_word;

struct Turn {
  const half_word* qkv;               // [tokens][HEADS + 2 * KEY_HEADS][D]
  const float *cosine, *sine, *logn;  // [tokens][D], the first half of sine negated; [tokens] or null
  const half_word *q_norm, *k_norm;   // [D] or null
  half_word* query;                   // [HEADS][tokens][D]
  byte *keys, *values;                // [KEY_HEADS][capacity][D], from position `start` on
  float *key_scales, *value_scales;   // [KEY_HEADS][capacity] in 8 bits, else null
  int tokens, start, capacity;
  float eps;
};

__device__ __forceinline__ void load_four(const half_word* from, float (&x)[8], int at) {
  uint2 q = __ldg((const uint2*)from);
  x[at] = wide_float(q.x & 0xffff), x[at + 1] = wide_float(q.x >> 16);
  x[at + 2] = wide_float(q.y & 0xffff), x[at + 3] = wide_float(q.y >> 16);
}
__device__ __forceinline__ void load_four(const float* from, float (&x)[8], int at) {
  float4 f = __ldg((const float4*)from);
  x[at] = f.x, x[at + 1] = f.y, x[at + 2] = f.z, x[at + 3] = f.w;
}
template <typename T>
__device__ __forceinline__ void load_both(const T* row, float (&x)[8]) {
  int d = threadIdx.x % 16 * 4;
  load_four(row + d, x, 0);
  load_four(row + D / 2 + d, x, 4);
}
__device__ __forceinline__ void store_both(half_word* row, const float (&x)[8]) {
  int d = threadIdx.x % 16 * 4;
  *(uint2*)(row + d) = make_uint2(narrow_two(x[0], x[1]), narrow_two(x[2], x[3]));
  *(uint2*)(row + D / 2 + d) = make_uint2(narrow_two(x[4], x[5]), narrow_two(x[6], x[7]));
}
// Rounded as the model's floats are, and so before and behind what follows.
__device__ __forceinline__ void turned(float (&x)[8], const float (&c)[8], const float (&s)[8],
                                       float factor) {
  float y[8];
#pragma unroll
  for (int j = 0; j < 8; j++) y[j] = wide_float(narrow_float(x[j] * c[j] + x[j ^ 4] * s[j]));
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = y[j] * factor;
}
__device__ __forceinline__ void keep(byte* rows, float* scales, u64 row, const float (&x)[8], bool mine) {
  if (!scales) {
    if (mine) store_both((half_word*)rows + row * D, x);
    return;
  }
  float most = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) most = fmaxf(most, fabsf(x[j]));
#pragma unroll
  for (int o = 8; o; o >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
  float scale = most / 127;
  u32 w[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float n = x[j] / fmaxf(scale, 1e-30f);
    w[j / 4] |= ((u32)(int)(n + (n < 0 ? -0.5f : 0.5f)) & 255) << (j % 4 * 8);
  }
  if (!mine) return;
  u32* to = (u32*)(rows + row * D) + threadIdx.x % 16;
  to[0] = w[0];
  to[D / 8] = w[1];
  if (threadIdx.x % 16 == 0) scales[row] = scale;
}

// A head behind its norm, rounded as the model's floats are.
__device__ __forceinline__ void normed(float (&x)[8], const half_word* norm, float eps) {
  float w[8], sum = 0;
  load_both(norm, w);
#pragma unroll
  for (int j = 0; j < 8; j++) sum = fmaf(x[j], x[j], sum);
#pragma unroll
  for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  float rms = rsqrtf(sum / D + eps);
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = wide_float(narrow_float(x[j] * rms * w[j]));
}

extern "C" __global__ void __launch_bounds__(HEADS * 16) turn(const __grid_constant__ Turn m) {
  // Threads of a warp stay together: those of heads without keys do again what another's do.
  int token = blockIdx.x, head = threadIdx.x / 16, key_head = head % KEY_HEADS;
  const half_word* row = m.qkv + ((u64)token * (HEADS + 2 * KEY_HEADS)) * D;
  float c[8], s[8], q[8], k[8], v[8];
  load_both(m.cosine + (u64)token * D, c);
  load_both(m.sine + (u64)token * D, s);
  float factor = m.logn ? m.logn[token] : 1;
  start_next();
  wait_for_previous();
  load_both(row + head * D, q);
  load_both(row + (HEADS + key_head) * D, k);
  load_both(row + (HEADS + KEY_HEADS + key_head) * D, v);
  if (NORMED) {
    normed(q, m.q_norm, m.eps);
    normed(k, m.k_norm, m.eps);
  }
  turned(q, c, s, factor);
  store_both(m.query + ((u64)head * m.tokens + token) * D, q);
  turned(k, c, s, 1);
  u64 at = (u64)key_head * m.capacity + m.start + token;
  if (head / 2 * 2 >= KEY_HEADS) return;  // a warp has two heads
  keep(m.keys, m.key_scales, at, k, head < KEY_HEADS);
  keep(m.values, m.value_scales, at, v, head < KEY_HEADS);
}
