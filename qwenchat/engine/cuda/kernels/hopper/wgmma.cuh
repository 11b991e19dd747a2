// A warpgroup's product on the tensor cores: 64 rows in registers with NT columns in shared memory.
#pragma once
#include "shape.cuh"

// NT columns of 64 inputs of 16 bits in shared memory: 128 bytes a column, its pieces of 16 bytes by turns
// (swizzled), eight columns to 1,024 bytes. From an address there: the next 16 inputs are 32 bytes on.
__device__ __forceinline__ u64 columns_at(u32 address) {
  return (u64)((address & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_begun() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until all but the last so many groups of products are done.
template <int UNDER_WAY>
__device__ __forceinline__ void products_done() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(UNDER_WAY) : "memory");
}

#define TEN(n) "%" n "0,%" n "1,%" n "2,%" n "3,%" n "4,%" n "5,%" n "6,%" n "7,%" n "8,%" n "9,"
#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
#define SIXTY_FOUR(i) SIXTEEN(i), SIXTEEN(i + 16), SIXTEEN(i + 32), SIXTEEN(i + 48)
#define PRODUCT(n, names, a0, a1, a2, a3, b, ...)                                                        \
  asm volatile(                                                                                          \
      "{.reg .pred adds;.reg .b32 one;mov.b32 one,1;setp.ne.b32 adds,one,0;\n"                           \
      "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." FLOAT "." FLOAT " {" names "},{" a0 "," a1 "," a2 \
      "," a3 "}," b ",adds,1,1,0;}"                                                                      \
      : __VA_ARGS__                                                                                      \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_at))
#if BF16
#define FLOAT "bf16"
#else
#define FLOAT "f16"
#endif
// Adds 16 inputs' products. d: of rows g and g + 8 (g = lane / 4) the columns 8 i + 2 t and the next.
__device__ __forceinline__ void product(float (&d)[32], const u32* a, u64 b_at) {
  PRODUCT("64", TEN("") TEN("1") TEN("2") "%30,%31", "%32", "%33", "%34", "%35", "%36", SIXTEEN(0),
          SIXTEEN(16));
}
__device__ __forceinline__ void product(float (&d)[64], const u32* a, u64 b_at) {
  PRODUCT("128", TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5") "%60,%61,%62,%63", "%64", "%65", "%66",
          "%67", "%68", SIXTY_FOUR(0));
}
__device__ __forceinline__ void product(float (&d)[128], const u32* a, u64 b_at) {
  PRODUCT("256",
          TEN("") TEN("1") TEN("2") TEN("3") TEN("4") TEN("5") TEN("6") TEN("7") TEN("8") TEN("9") TEN("10")
              TEN("11") "%120,%121,%122,%123,%124,%125,%126,%127",
          "%128", "%129", "%130", "%131", "%132", SIXTY_FOUR(0), SIXTY_FOUR(64));
}
