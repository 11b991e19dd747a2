// A ring of tiles in shared memory: one thread has them copied in, the others take them and give them back.
#pragma once
#include "barriers.cuh"

constexpr int WARPS = 16, CONSUMERS = WARPS * 32, THREADS = CONSUMERS + 128;
constexpr int TEAMS = 2, TEAM = WARPS / TEAMS;  // a team of warps has every other tile
constexpr int MOST_STAGES = 12;
constexpr int CACHE_TILE = 16384 + (KV == 8 ? 512 : 0);  // of keys and values
__host__ __device__ constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr int STAGE =
    (larger(larger(larger(Shape::TILE, Shape::OUT), larger(Shape::TAIL, Shape::DOWN)), CACHE_TILE) + 127) /
    128 * 128;
// What a tile's positions weigh, as the registers of mmas, by 16 positions; of each head the greatest score;
// of eight positions each greatest and mass.
constexpr int SCORED = (KV == 8 ? 64 : 32) / 8,
              BATCH = TEAM / SCORED;  // warps that a tile's scores take; tiles at a time
struct Room {
  uint4 weights[SCORED / 2][SHARING * 4];
  float top[SHARING], most[SCORED][SHARING], mass[SCORED][SHARING];
};
constexpr int ROOM = (sizeof(Room) + 15) / 16 * 4;
// Where in `part` what lies: shares of rows, of the later ones of attention; of attention itself the mixed
// values of its two teams and their rooms.
constexpr int STRIDE = 16 * (Shape::G_RB + 1), LATER = larger(TEAMS * PARTS * 64, 8 * (D + 4)),
              MIXED = LATER + TEAMS * PARTS * 32, MIX = D + 4, ROOMS = MIXED + TEAMS * SHARING * MIX,
              PART =
                  larger(larger(ROOMS + TEAMS * 2 * BATCH * ROOM, TEAMS * PARTS * STRIDE), ORDERED ? H : 0);
constexpr int NARROW = (larger(D, PADDED) + 31) / 32 * 32;  // inputs of a block's own

struct Shared {
  u64 full[MOST_STAGES], empty[MOST_STAGES];
  volatile int flight;                     // tiles under way at most
  alignas(16) float q[(SHARING + 1) * D];  // the queries, and behind them the key
  // The queries of eight heads as the registers of mmas, high and low; what whole numbers are multiplied
  // with.
  alignas(16) uint4 query[KV / 2][32];
  float query_scales[8];
  float scales[32], squares[WARPS], narrow_scale, most[NARROW / 32], value_most[4], own;
  int sums[128], narrow_sums[NARROW / 32][SPANS];           // of the whole numbers: 32 inputs each; by groups
  alignas(16) uint2 digits[2][BITS == 16 ? H / 4 : H / 8];  // of a whole input: the high and the low ones
  alignas(16) uint2 narrow[SPANS][2][NARROW / 8];           // of a block's own: by groups; high and low
  alignas(16) float part[PART];
};
constexpr int FITTING = (SHARED - (int)sizeof(Shared)) / STAGE,
              STAGES = FITTING < MOST_STAGES ? FITTING : MOST_STAGES;

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
