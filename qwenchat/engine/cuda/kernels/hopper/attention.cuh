// Attention of the heads that have the same keys by the blocks that have these: each looks at a share of the
// tiles of cached positions (cached.cuh); then its two teams of warps meet, and then the blocks of a head.
#pragma once
#include "cached.cuh"

// A number of a row as the cache holds it; `most`: the row's greatest.
__device__ __forceinline__ float stored(float v, float most, u32& code) {
  if (KV == 16) {
    code = narrow_float(v);
    return wide_float(code);
  }
  float scale = most / 127;
  int c = __float2int_rn(v / fmaxf(scale, 1e-30f));
  code = (u32)c & 255;
  return (float)c * scale;
}
// One warp: the token's own key goes into the cache, and its score with the block's head to s.own.
__device__ __forceinline__ void own_key(const Step& t, Shared& s, int layer, int head, int number, int past) {
  int lane = threadIdx.x & 31;
  float4 k = *(const float4*)(s.q + SHARING * D + lane * 4),
         q = *(const float4*)(s.q + head % SHARING * D + lane * 4);
  float kv[4] = {k.x, k.y, k.z, k.w}, qv[4] = {q.x, q.y, q.z, q.w}, a = 0, most = 0;
  if (KV == 8) most = warp_most(fmaxf(fmaxf(fabsf(k.x), fabsf(k.y)), fmaxf(fabsf(k.z), fabsf(k.w))));
  u32 code[4];
#pragma unroll
  for (int j = 0; j < 4; j++) a = fmaf(stored(kv[j], most, code[j]), qv[j], a);
#pragma unroll
  for (int o = 16; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
  if (lane == 0) s.own = a;
  if (number) return;
  u64 row = Cache::row(t, layer, head / SHARING, 0) + past;
  if (KV == 16) {
    ((uint2*)(t.cache + row * Cache::ROW))[lane] =
        make_uint2(code[0] | code[1] << 16, code[2] | code[3] << 16);
  } else {
    ((u32*)(t.cache + row * Cache::ROW))[lane] = code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24;
    if (lane == 0) t.cache_scales[row] = most / 127;
  }
}
// What a block makes of its cached positions, for each head: told to the head's blocks.
__device__ __forceinline__ void tell_mixed(const Step& t, Shared& s, u64* parts, int number, u32 turn) {
  parts += number * SHARING * MAIL_PART;
#pragma unroll
  for (int i = thread(); i < SHARING * D; i += CONSUMERS) {
    int d = i % D;
    const float *a = s.part + MIXED + i / D * MIX, *b = a + SHARING * MIX;
    u64* to = parts + i / D * MAIL_PART + d;
    float top = fmaxf(a[D], b[D]), x = exp2f(a[D] - top), y = exp2f(b[D] - top);
    post(to, x * a[d] + y * b[d], turn);
    if (d < 2) post(to + D, d ? x * a[D + 1] + y * b[D + 1] : top, turn);
  }
}
// Of a head the parts of all blocks that have any; an eighth of them an eighth of the threads. What these
// make of them to s.part.
__device__ __forceinline__ void take_mixed(Shared& s, const u64* parts, int head, int used, u32 turn) {
  constexpr int EACH = (ASKERS + 7) / 8;
  int tid = thread(), d = tid % (D / 2) * 2, eighth = tid / (D / 2);
  parts += head % SHARING * MAIL_PART;
  // Few words first: all of them again and again would stand in the others' way.
  if (tid < used)
    while (is_late(look(parts + tid * SHARING * MAIL_PART + D + 1), turn)) continue;
  team_sync();
  ulonglong2 mixed[EACH], of[EACH];
  bool late;
  do {
    late = false;
#pragma unroll
    for (int e = 0; e < EACH; e++)
      if (eighth + e * 8 < used) {
        const u64* from = parts + (eighth + e * 8) * SHARING * MAIL_PART;
        mixed[e] = look_at_two(from + d);
        of[e] = look_at_two(from + D);
      }
#pragma unroll
    for (int e = 0; e < EACH; e++)
      if (eighth + e * 8 < used) late = late || is_late(mixed[e], turn) || is_late(of[e], turn);
  } while (late);
  float top = -1e30f, mass = 0, x = 0, y = 0;
#pragma unroll
  for (int e = 0; e < EACH; e++)
    if (eighth + e * 8 < used) top = fmaxf(top, value_of(of[e].x));
#pragma unroll
  for (int e = 0; e < EACH; e++)
    if (eighth + e * 8 < used) {
      float f = exp2f(value_of(of[e].x) - top);
      x = fmaf(f, value_of(mixed[e].x), x);
      y = fmaf(f, value_of(mixed[e].y), y);
      mass = fmaf(f, value_of(of[e].y), mass);
    }
  float* to = s.part + eighth * MIX;
  *(float2*)(to + d) = make_float2(x, y);
  if (d == 0) *(float2*)(to + D) = make_float2(top, mass);
}
// The first 128 threads: a number of the head's each, of the cached positions and the token's own value.
__device__ __forceinline__ float with_own(const Step& t, Shared& s, float value, int layer, int head,
                                          int number, int past) {
  int d = thread();
  float most = 0;
  u32 code;
  if (KV == 8) {
    most = warp_most(fabsf(value));
    if (d % 32 == 0) s.value_most[d / 32] = most;
    asm volatile("bar.sync 2, %0;" ::"n"(D) : "memory");
    most = fmaxf(fmaxf(s.value_most[0], s.value_most[1]), fmaxf(s.value_most[2], s.value_most[3]));
  }
  value = stored(value, most, code);
  if (number == 1) {
    u64 row = Cache::row(t, layer, head / SHARING, 1) + past;
    if (KV == 16)
      ((unsigned short*)(t.cache + row * Cache::ROW))[d] = (unsigned short)code;
    else
      t.cache[row * Cache::ROW + d] = (byte)code;
    if (KV == 8 && d == 0) t.cache_scales[row] = most / 127;
  }
  constexpr int EIGHTHS = ASKERS < 8 ? ASKERS : 8;  // that there are parts of
  float own = s.own, top = own;
#pragma unroll
  for (int k = 0; k < EIGHTHS; k++) top = fmaxf(top, s.part[k * MIX + D]);
  float all = exp2f(own - top), sum = all * value;
#pragma unroll
  for (int k = 0; k < EIGHTHS; k++) {
    float e = exp2f(s.part[k * MIX + D] - top);
    sum = fmaf(e, s.part[k * MIX + d], sum);
    all = fmaf(e, s.part[k * MIX + D + 1], all);
  }
  return sum / all;
}
