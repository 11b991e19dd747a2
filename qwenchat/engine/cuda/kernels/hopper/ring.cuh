// A ring of tiles in shared memory: one thread has them copied in, the others take them and give them back.
#pragma once
#include "barriers.cuh"

constexpr int WARPS = 16, CONSUMERS = WARPS * 32, THREADS = CONSUMERS + 32, STAGES = BITS == 16 ? 11 : 12,
              STAGE = 17024;
constexpr int TEAMS = 2, TEAM = WARPS / TEAMS;  // a team of warps has every other tile

struct Shared {
  u64 full[STAGES], empty[STAGES];
  volatile int flight;         // tiles under way at most
  alignas(16) float q[2 * D];  // the query, and behind it the key
  float scales[32], squares[WARPS], narrow_scale, most[4], own;
  int sums[128], narrow_sums[4][2];  // of the whole numbers: 32 inputs each; before and behind the border
  alignas(16) uint2 digits[2][BITS == 16 ? H / 4 : H / 8];  // of a whole input: the high and the low ones
  alignas(16) uint2 narrow[2][2][D / 8];  // of a block's own: before and behind the border; high and low
  alignas(16) float part[ORDERED ? H : 3648];
};

__device__ __forceinline__ void team_sync() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// Fewer tiles are under way while blocks wait for one another: words would queue behind them.
__device__ __forceinline__ void let_fly(Shared& s, int tiles) {
  if (threadIdx.x == 0) s.flight = tiles;
}

struct Slot {
  int stage;
  u32 parity;
  __device__ __forceinline__ void skip(int n) {  // less than a round of the ring
    stage += n;
    bool over = stage >= STAGES;
    stage -= over ? STAGES : 0;
    parity ^= over;
  }
  __device__ __forceinline__ void back(int n) {
    stage -= n;
    bool under = stage < 0;
    stage += under ? STAGES : 0;
    parity ^= under;
  }
  __device__ __forceinline__ void next() { skip(1); }
};
__device__ __forceinline__ const byte* take(Shared& s, const byte* ring, const Slot& slot) {
  bar_wait(&s.full[slot.stage], slot.parity);
  return ring + slot.stage * STAGE;
}
// A warp gives a slot back, then comes its team's next. Every lane's reads must be done before a bulk copy,
// which goes another way (the async proxy), may write there: an arrival by itself is not enough.
__device__ __forceinline__ void leave(Shared& s, Slot& slot) {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
  if ((threadIdx.x & 31) == 0) bar_arrive(&s.empty[slot.stage]);
  slot.skip(TEAMS);
}
