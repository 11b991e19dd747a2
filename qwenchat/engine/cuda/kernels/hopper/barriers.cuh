// Barriers in shared memory that count arrivals and bytes, and copies that tell them.
#pragma once
#include "shape.cuh"

__device__ __forceinline__ u32 sm(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void bar_init(u64* b, int n) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sm(b)), "r"(n));
}
__device__ __forceinline__ void bars_ready() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void bar_expect(u64* b, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sm(b)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void bar_arrive(u64* b) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(sm(b)) : "memory");
}
__device__ __forceinline__ bool bar_try(u64* b, u32 parity) {
  u32 ok;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(ok)
      : "r"(sm(b)), "r"(parity)
      : "memory");
  return ok;
}
__device__ __forceinline__ void bar_wait(u64* b, u32 parity) {
  while (!bar_try(b, parity)) continue;
}
__device__ __forceinline__ void bulk(void* dst, const void* src, u32 bytes, u64* b) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          sm(dst)),
      "l"(src), "r"(bytes), "r"(sm(b))
      : "memory");
}
// A box of a tensor of two dimensions, its first element at (x, y): rows of 128 bytes, their pieces of 16
// bytes by turns, as piece_of finds them. What is outside of the tensor is zero.
__device__ __forceinline__ void bulk_box(void* dst, const void* map, int x, int y, u64* b) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3}], "
      "[%4];" ::"r"(sm(dst)),
      "l"(map), "r"(x), "r"(y), "r"(sm(b))
      : "memory");
}
__device__ __forceinline__ const byte* piece_of(const byte* box, int row, int piece) {
  return box + row * 128 + ((piece ^ ((sm(box) >> 7) + row & 7)) << 4);
}
// A kernel may start while the one before it still runs: it waits for that one here, before it reads what
// that wrote or writes anything itself, and lets the next one start.
__device__ __forceinline__ void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ __forceinline__ void start_next() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
