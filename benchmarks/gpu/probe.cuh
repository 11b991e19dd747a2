// What the probes share: errors, weights from a hash, Hopper's bulk copies and barriers, the memory's speed,
// medians.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>
#define CK(x)                                                                 \
  do {                                                                        \
    cudaError_t e_ = (x);                                                     \
    if (e_ != cudaSuccess) {                                                  \
      printf("%s, %s line %d\n", cudaGetErrorString(e_), __FILE__, __LINE__); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

__host__ __device__ inline uint32_t mix(uint32_t h) {
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  h ^= h >> 16;
  return h;
}

__device__ __forceinline__ uint32_t sm(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void bar_init(uint64_t* b, int n) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sm(b)), "r"(n));
}
__device__ __forceinline__ void bars_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void bar_expect(uint64_t* b, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sm(b)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void bar_arrive(uint64_t* b) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(sm(b)) : "memory");
}
__device__ __forceinline__ bool bar_try(uint64_t* b, uint32_t parity) {
  uint32_t ok;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(ok)
      : "r"(sm(b)), "r"(parity)
      : "memory");
  return ok;
}
// Half a second of waiting is a fault of the probe: it ends then, with an error.
constexpr long long PATIENCE = 1000000000;
__device__ __forceinline__ void bar_wait(uint64_t* b, uint32_t parity) {
  if (bar_try(b, parity)) return;
  long long since = clock64();
  while (!bar_try(b, parity))
    if (clock64() - since > PATIENCE) __trap();
}
__device__ __forceinline__ void bulk(void* dst, const void* src, uint32_t bytes, uint64_t* b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          sm(dst)),
      "l"(src), "r"(bytes), "r"(sm(b))
      : "memory");
}
// A warp gives a ring's slot back. Its reads must be done before a bulk copy, which goes another way (the
// async proxy), may write there. Neither an arrival by itself nor an arrival that needs the values read
// (`seen`, made of them and never -1) was enough: log.md has the figures. FENCE and SEEN can be defined away
// to see it.
#ifndef FENCE
#define FENCE asm volatile("fence.proxy.async.shared::cta;" ::: "memory")
#endif
#ifndef SEEN
#define SEEN(x) ((x) != ~0u)
#endif
__device__ __forceinline__ void give_back(uint64_t* empty, uint32_t seen) {
  FENCE;
  __syncwarp();
  if ((threadIdx.x & 31) == 0 && SEEN(seen)) bar_arrive(empty);
}

__global__ void read_all(const uint4* p, size_t n, uint32_t* out) {
  uint32_t a = 0;
  size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x, st = (size_t)gridDim.x * blockDim.x;
  for (; i + 3 * st < n; i += 4 * st) {
    uint4 q = __ldcs(p + i), r = __ldcs(p + i + st), t = __ldcs(p + i + 2 * st), u = __ldcs(p + i + 3 * st);
    a ^= q.x ^ q.y ^ q.z ^ q.w ^ r.x ^ r.y ^ r.z ^ r.w ^ t.x ^ t.y ^ t.z ^ t.w ^ u.x ^ u.y ^ u.z ^ u.w;
  }
  if (a == 0x12345) *out = a;
}

// The median of `times` turns, each of `each` launches back to back; ms a launch.
template <class Go>
double median_ms(cudaStream_t st, int times, int each, Go go) {
  cudaEvent_t e0, e1;
  CK(cudaEventCreate(&e0));
  CK(cudaEventCreate(&e1));
  std::vector<float> all;
  for (int i = 0; i < 3; i++) go();
  for (int r = 0; r < times; r++) {
    float ms;
    CK(cudaEventRecord(e0, st));
    for (int i = 0; i < each; i++) go();
    CK(cudaEventRecord(e1, st));
    CK(cudaEventSynchronize(e1));
    CK(cudaEventElapsedTime(&ms, e0, e1));
    all.push_back(ms / each);
  }
  std::sort(all.begin(), all.end());
  CK(cudaEventDestroy(e0));
  CK(cudaEventDestroy(e1));
  return all[times / 2];
}
inline double memory_speed(cudaStream_t st, const void* p, size_t bytes, void* out) {  // GB/s
  double ms = median_ms(st, 7, 1, [&] {
    read_all<<<132 * 16, 512, 0, st>>>((const uint4*)p, bytes / 16, (uint32_t*)out);
    CK(cudaGetLastError());
  });
  return bytes / ms / 1e6;
}
template <class V>
V* upload(const std::vector<V>& v) {
  V* p;
  CK(cudaMalloc(&p, v.size() * sizeof(V)));
  CK(cudaMemcpy(p, v.data(), v.size() * sizeof(V), cudaMemcpyHostToDevice));
  return p;
}
template <class V>
std::vector<V> download(const V* p, size_t n) {
  std::vector<V> v(n);
  CK(cudaMemcpy(v.data(), p, n * sizeof(V), cudaMemcpyDeviceToHost));
  return v;
}
