// The stream, its norm, and inputs in two digits: the bytes of whole numbers of 16 bits, or a float and what
// it leaves.
#pragma once
#include "words.cuh"

__device__ __forceinline__ void digits_of(int q, u32& hi, u32& lo, int at) {
  hi |= (u32)(((q + 128) >> 8) & 255) << (8 * at);
  lo |= (u32)(q & 255) << (8 * at);
}
__device__ __forceinline__ void load_eight(const float* from, float (&w)[8]) {
  float4 a = __ldg((const float4*)from), b = __ldg((const float4*)from + 1);
  w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w, w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
}
constexpr int LOADING = H / 8;  // threads that have eight numbers of the stream each
__device__ __forceinline__ void load_norm(const float* norm, float (&w)[8]) {
#pragma unroll
  for (int j = 0; j < 8; j++) w[j] = 0;
  if (threadIdx.x < LOADING) load_eight(norm + threadIdx.x * 8, w);
}
// A thread's eight numbers of the token's embedding.
__device__ __forceinline__ void embed(const Step& t, float (&x)[8]) {
  if (threadIdx.x >= LOADING) {
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = 0;
    return;
  }
  uint4 row = __ldg((const uint4*)(t.embedding + (u64)*t.token * H * 2) + threadIdx.x);
  u32 w[4] = {row.x, row.y, row.z, row.w};
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = wide_float(w[j / 2] >> (16 * (j % 2)) & 0xffff);
}
// The next phase's norms on their way to the L2 cache: a line a block.
__device__ __forceinline__ void bring_nearer(const Step& t, int phase) {
  int b = blockIdx.x;
  if (threadIdx.x || phase == 2 * t.layers) return;
  const float* norm = t.norms + (u64)phase * H + b * 32;
  if (b < H / 32) asm volatile("prefetch.global.L2 [%0];" ::"l"(norm));
  if (NORMED && phase % 2 == 0 && b < 2 * D / 32)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(t.head_norms + phase * D + b * 32));
}
// Waits until all blocks have added a phase's sums, and takes them.
__device__ __forceinline__ void take_sums(const u64* sums, u32 all, float (&x)[8]) {
  constexpr int LOOKING = 4;  // warps
  int tid = thread();
  // A few words first: all of them at a time, again and again, would stand in the others' way.
  if (tid < LOOKING * 32)
    while ((look(sums + (tid / 32 + 1) * (H / LOOKING) - 1) & 255) != all) continue;
  team_sync();
  if (tid >= LOADING) return;
  const u64* mine = sums + tid * 8;
  ulonglong2 v[4];
  bool ok;
  do {
    ok = true;
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = look_at_two(mine + 2 * j);
#pragma unroll
    for (int j = 0; j < 4; j++) ok = ok && (v[j].x & 255) == all && (v[j].y & 255) == all;
  } while (!ok);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    x[2 * j] += (float)((double)((long long)v[j].x >> 8) * (1.0 / FIXED));
    x[2 * j + 1] += (float)((double)((long long)v[j].y >> 8) * (1.0 / FIXED));
  }
}
__device__ __forceinline__ void digits_of(float v, u32& hi, u32& lo, int at) {  // at: 0 or 1
  u32 h = narrow_float(v);
  hi |= h << (16 * at);
  lo |= narrow_float(v - wide_float(h)) << (16 * at);
}
__device__ __forceinline__ float root(const Step& t, Shared& s, float squares) {
  if (threadIdx.x % 32 == 0) s.squares[threadIdx.x / 32] = squares;
  team_sync();
  float total = 0;
#pragma unroll
  for (int j = 0; j < WARPS; j++) total += s.squares[j];
  return rsqrtf(total / H + t.eps);
}
// Lays the norm's output down as digits, a scale for 128; what its sums are multiplied with at last.
__device__ __forceinline__ float lay_normed(const Step& t, Shared& s, const float (&x)[8], float (&w)[8],
                                            const int (&order)[8]) {
  int tid = thread(), lane = tid & 31;
  float squares = 0, most = 0, none = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    squares = fmaf(x[j], x[j], squares);
    w[j] *= x[j];
    none = fmaf(w[j], 0.f, none);  // 0, or none if one of them is
  }
  check(t, none);
  if (ORDERED) {
#pragma unroll
    for (int j = 0; j < 8 && tid < LOADING; j++) s.part[tid * 8 + j] = w[j];
    team_sync();
#pragma unroll
    for (int j = 0; j < 8 && tid < LOADING; j++) w[j] = s.part[order[j]];
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
  if constexpr (BITS == 16) {
    float rms = root(t, s, squares);
    u32 hi[4] = {}, lo[4] = {};
#pragma unroll
    for (int j = 0; j < 8; j++) digits_of(w[j] * rms, hi[j / 2], lo[j / 2], j % 2);
    if (tid < LOADING) {
      ((uint4*)s.digits[0])[tid] = make_uint4(hi[0], hi[1], hi[2], hi[3]);
      ((uint4*)s.digits[1])[tid] = make_uint4(lo[0], lo[1], lo[2], lo[3]);
    }
    team_sync();
    return 1;
  }
#pragma unroll
  for (int j = 0; j < 8; j++) most = fmaxf(most, fabsf(w[j]));
#pragma unroll
  for (int o = 8; o; o >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
  most = fmaxf(most, 1e-30f);
  float inverse = 32639.f / most;
  u32 hi[2] = {0, 0}, lo[2] = {0, 0};
  int sum = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    int q = __float2int_rn(w[j] * inverse);
    digits_of(q, hi[j / 4], lo[j / 4], j % 4);
    sum += q;
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (tid < LOADING) {
    s.digits[0][tid] = make_uint2(hi[0], hi[1]);
    s.digits[1][tid] = make_uint2(lo[0], lo[1]);
    if (lane % 16 == 0) s.scales[tid / 16] = most * (1 / 32639.f);
    if (lane % 4 == 0) s.sums[tid / 4] = sum;
  }
  return root(t, s, squares);
}
// The first N (a multiple of 32) threads' numbers as digits with one scale; those from `border` on apart, and
// those from a group behind it on.
template <int N>
__device__ __forceinline__ void lay_narrow(const Step& t, Shared& s, float v, int border) {
  int tid = thread(), warp = tid / 32;
  float m = fabsf(v);
  check(t, v);
#pragma unroll
  for (int k = 16; k; k >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, k));
  if (tid % 32 == 0) s.most[warp] = m;
  asm volatile("bar.sync 2, %0;" ::"n"(N) : "memory");
  m = 1e-30f;
#pragma unroll
  for (int k = 0; k < N / 32; k++) m = fmaxf(m, s.most[k]);
  if constexpr (BITS == 16) {
    u32 hi = 0, lo = 0;
    digits_of(v / m, hi, lo, 0);
    ((unsigned short*)s.narrow[0])[tid] = (unsigned short)hi;
    ((unsigned short*)s.narrow[1])[tid] = (unsigned short)lo;
    if (tid == 0) s.narrow_scale = m;
    return;
  }
  int q = __float2int_rn(v * (32639.f / m)), mine = (tid >= border) + (tid >= border + GROUP);
#pragma unroll
  for (int part = 0; part < SPANS; part++) {
    int w = mine == part ? q : 0, sum = __reduce_add_sync(~0u, w);
    ((signed char*)s.narrow[part][0])[tid] = (signed char)((w + 128) >> 8);
    ((signed char*)s.narrow[part][1])[tid] = (signed char)w;
    if (tid % 32 == 0) s.narrow_sums[warp][part] = sum;
  }
  if (tid == 0) s.narrow_scale = m * (1 / 32639.f);
}
