// The cached positions of the heads that have the same keys, for all of these heads at once, on tensor cores.
//
// A factor of the tensor cores is short: a query, and the weights of an attention, are each the sum of two such
// numbers, the high ones of eight heads in the first rows of an mma and the low ones in the others. Of a cache in
// 8 bits the keys are multiplied as whole numbers.
#pragma once
#include "norm.cuh"

// A tile of CHUNK positions in the ring: keys, values, in boxes, and in 8 bits a float scale of each row.
struct Cache {
  static constexpr int CHUNK = KV == 16 ? 32 : 64, ROW = D * KV / 8, VALUES = CHUNK * ROW,
                       SCALES = 2 * VALUES;
  static constexpr int BOX = CHUNK * 128, BOXES = ROW / 128;  // of 128 bytes of each row
  static __device__ __forceinline__ int tiles(int positions) { return (positions + CHUNK - 1) / CHUNK; }
  // Tiles of one of the blocks, of so many positions.
  static __device__ __forceinline__ int tiles(int positions, int number) {
    int all = tiles(positions);
    return all > number ? (all - number + ASKERS - 1) / ASKERS : 0;
  }
  // The first row of a head's keys or values.
  static __device__ __forceinline__ u64 row(const Step& t, int layer, int head, int values) {
    return ((u64)(values * t.layers + layer) * KEY_HEADS + head) * t.capacity;
  }
};

// ---- the tensor cores' floats: the cache's own, or where it has 8 bits bfloat16, which those are exactly
constexpr bool SHORT = KV == 8 || BF16;                       // bfloat16
__device__ __forceinline__ u32 short_two(float a, float b) {  // the first in the lower 16 bits
  u32 w;
  if (SHORT)
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(w) : "f"(a), "f"(b));
  else
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(w) : "f"(a), "f"(b));
  return w;
}
__device__ __forceinline__ float short_float(u32 w) {
  return SHORT ? __uint_as_float(w << 16) : half_float(w);
}
__device__ __forceinline__ void split_two(float a, float b, u32& high, u32& low) {
  high = short_two(a, b);
  low = short_two(a - short_float(high & 0xffff), b - short_float(high >> 16));
}
__device__ __forceinline__ void mma_short(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  if (SHORT)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_whole(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four matrices of 8 rows of 16 bytes, a row's address a lane, turned over.
__device__ __forceinline__ void load_turned(u32 (&r)[4], const byte* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sm(at))
               : "memory");
}
// The greatest of a warp's numbers.
__device__ __forceinline__ float warp_most(float m) {
#pragma unroll
  for (int o = 16; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
  return m;
}
// A warp's query into the registers of mmas: head g in rows g and g + 8 (g = lane / 4), v: four of its
// numbers a lane. Of a key a lane of theirs has 16 bytes, and the same further on.
__device__ __forceinline__ void lay_query(Shared& s, const float4& v, int head) {
  int lane = threadIdx.x & 31;
  if constexpr (KV == 16) {
    uint4 x;
    split_two(v.x, v.y, x.x, x.y);
    split_two(v.z, v.w, x.z, x.w);
    s.query[lane / 8 * 2 + lane % 2][head * 4 + lane % 8 / 2] = x;
  } else {
    float most =
              fmaxf(warp_most(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)))), 1e-30f),
          factor = 32639.f / most;
    uint2 x = make_uint2(0, 0);
    digits_of(__float2int_rn(v.x * factor), x.x, x.y, 0);
    digits_of(__float2int_rn(v.y * factor), x.x, x.y, 1);
    digits_of(__float2int_rn(v.z * factor), x.x, x.y, 2);
    digits_of(__float2int_rn(v.w * factor), x.x, x.y, 3);
    ((uint2*)&s.query[lane / 16 * 2 + lane % 4 / 2][head * 4 + lane % 16 / 4])[lane % 2] = x;
    if (lane == 0) s.query_scales[head] = most * (1 / 32639.f);
  }
}
// The scores of positions `first` + 2 t and the next (t = lane % 4), of head g; w: the tile.
__device__ __forceinline__ void scores_of(float (&a)[2], const Shared& s, const byte* w, int first) {
  constexpr int RUNS = KV / 4;  // of 64 bytes in a key
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4;
  float f[2][4] = {};
  int n[2][4] = {};
#pragma unroll
  for (int run = 0; run < RUNS; run += 2) {
    // Every other row in the other order, for other banks.
    const byte* box = w + run / 2 * Cache::BOX;
    uint4 one = *(const uint4*)piece_of(box, first + g, g % 2 * 4 + t),
          two = *(const uint4*)piece_of(box, first + g, (1 - g % 2) * 4 + t);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      bool first_one = g % 2 == i;
      u32 k[4] = {first_one ? one.x : two.x, first_one ? one.y : two.y, first_one ? one.z : two.z,
                  first_one ? one.w : two.w};
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint4 q = s.query[(run + i) * 2 + half][lane];
        u32 x[4] = {q.x, q.y, q.z, q.w};
        if constexpr (KV == 16)
          mma_short(f[half], x, k[half * 2], k[half * 2 + 1]);
        else
          mma_whole(n[half], x, k[half * 2], k[half * 2 + 1]);
      }
    }
  }
  if constexpr (KV == 16) {
    a[0] = (f[0][0] + f[1][0]) + (f[0][2] + f[1][2]);
    a[1] = (f[0][1] + f[1][1]) + (f[0][3] + f[1][3]);
  } else {
    float2 scales = *(const float2*)(w + Cache::SCALES + (first + t * 2) * 4);
    float scale = s.query_scales[g];
    a[0] = (float)((n[0][0] + n[1][0]) * 256 + n[0][2] + n[1][2]) * (scale * scales.x);
    a[1] = (float)((n[0][1] + n[1][1]) * 256 + n[0][3] + n[1][3]) * (scale * scales.y);
  }
}

__device__ __forceinline__ float most_of_four(float m) {  // of the lanes of a head
  m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
  return fmaxf(m, __shfl_xor_sync(~0u, m, 2));
}
// The weights of eight positions of a tile, to its room; n: how many positions it has, barrier: of those who
// have the others.
__device__ __forceinline__ void weigh(Room& room, const Shared& s, const byte* w, int n, int barrier) {
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, eighth = threadIdx.x / 32 % SCORED,
      first = eighth * 8 + t * 2;
  bool mine = g < SHARING;
  float a[2];
  scores_of(a, s, w, eighth * 8);
  if (first >= n) a[0] = -1e30f;  // whatever lies there
  if (first + 1 >= n) a[1] = -1e30f;
  float most = most_of_four(fmaxf(a[0], a[1]));
  if (mine && t == 0) room.most[eighth][g] = most;
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(SCORED * 32) : "memory");
  if (!mine) return;
#pragma unroll
  for (int k = 0; k < SCORED; k++) most = fmaxf(most, room.most[k][g]);
#pragma unroll
  for (int j = 0; j < 2; j++) a[j] = a[j] > -1e30f ? exp2f(a[j] - most) : 0;
  float mass = a[0] + a[1];
  u32 lanes = 0xfu << (lane / 4 * 4);
  mass += __shfl_xor_sync(lanes, mass, 1);
  mass += __shfl_xor_sync(lanes, mass, 2);
  if (t == 0) {
    room.mass[eighth][g] = mass;
    if (eighth == 0) room.top[g] = most;
  }
  if (KV == 8) {  // what a scale is of that lies behind the last position nobody knows
    float2 scales = *(const float2*)(w + Cache::SCALES + (Cache::CHUNK + first) * 4);
    a[0] = a[0] > 0 ? a[0] * scales.x : 0;
    a[1] = a[1] > 0 ? a[1] * scales.y : 0;
  }
  uint2 x;
  split_two(a[0], a[1], x.x, x.y);
  ((uint2*)&room.weights[eighth / 2][g * 4 + t])[eighth % 2] = x;
}

// The values that a warp mixes: 16 of their numbers, for the heads that are rows of an mma.
struct Mixed {
  static constexpr int STEPS = Cache::CHUNK / 16;
  float acc[2][4], most, mass;
  // A tile: its room, where it lies, how many positions it has.
  __device__ __forceinline__ void add(const Room& room, const byte* w, int n) {
    int lane = threadIdx.x & 31, g = lane / 4;
    bool mine = g < SHARING;
    float c[2][4] = {}, top = mine ? room.top[g] : -1e30f, now = fmaxf(most, top), f = exp2f(most - now),
          h = exp2f(top - now);
    u32 x[STEPS][4];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      uint4 q = mine ? room.weights[i][lane] : make_uint4(0, 0, 0, 0);
      x[i][0] = q.x, x[i][1] = q.y, x[i][2] = q.z, x[i][3] = q.w;
    }
    if constexpr (KV == 16)
      add_floats(c, x, w + Cache::VALUES, n);
    else
      add_codes(c, x, w + Cache::VALUES);
    most = now;
    mass *= f;
#pragma unroll
    for (int k = 0; k < SCORED; k++) mass = fmaf(mine ? room.mass[k][g] : 0, h, mass);
#pragma unroll
    for (int j = 0; j < 8; j++) acc[j / 4][j % 4] = fmaf(acc[j / 4][j % 4], f, c[j / 4][j % 4] * h);
  }
  // Numbers 2 t and the next of each half of the warp's 16.
  static __device__ __forceinline__ void add_floats(float (&c)[2][4], const u32 (&x)[STEPS][4],
                                                    const byte* values, int n) {
    int lane = threadIdx.x & 31, t = lane % 4, mine = threadIdx.x / 32 % TEAM;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      u32 v[4];
      load_turned(v, piece_of(values + mine / 4 * Cache::BOX, i * 16 + lane % 16, mine % 4 * 2 + lane / 16));
      if (n <
          Cache::CHUNK) {  // whatever lies behind the last position is none, times a weight of nothing too
#pragma unroll
        for (int j = 0; j < 4; j++) {
          int left = n - (i * 16 + j % 2 * 8 + t * 2);
          v[j] &= left > 1 ? ~0u : left > 0 ? 0xffffu : 0;
        }
      }
      mma_short(c[0], x[i], v[0], v[1]);
      mma_short(c[1], x[i], v[2], v[3]);
    }
  }
  static __device__ __forceinline__ u32 two_codes(u32 w, int which) {  // bytes `which` and `which` + 2
    float a = __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7440 + which)) - 8388736.f,
          b = __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7442 + which)) - 8388736.f;
    return short_two(a, b);
  }
  // Numbers 4 t and 4 t + 2, and those behind them. A row of the turned matrices has two bytes to a number.
  static __device__ __forceinline__ void add_codes(float (&c)[2][4], const u32 (&x)[STEPS][4],
                                                   const byte* values) {
    int lane = threadIdx.x & 31, mine = threadIdx.x / 32 % TEAM;
#pragma unroll
    for (int i = 0; i < STEPS / 2; i++) {
      u32 v[4];
      load_turned(v, piece_of(values, i * 32 + lane, mine));
#pragma unroll
      for (int j = 0; j < 4; j++) v[j] ^= 0x80808080u;
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int which = 0; which < 2; which++)
          mma_short(c[which], x[i * 2 + j], two_codes(v[j * 2], which), two_codes(v[j * 2 + 1], which));
    }
  }
  // To where a team's mixed values are, [SHARING][MIX]: its greatest score and mass behind them.
  __device__ __forceinline__ void write(float* part) {
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, mine = threadIdx.x / 32 % TEAM;
    if (g >= SHARING) return;
    part += g * MIX;
    float v[4];
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = acc[j / 2][j % 2] + acc[j / 2][j % 2 + 2];
    if (KV == 16) {
      *(float2*)(part + mine * 16 + t * 2) = make_float2(v[0], v[1]);
      *(float2*)(part + mine * 16 + 8 + t * 2) = make_float2(v[2], v[3]);
    } else {
      *(float4*)(part + mine * 16 + t * 4) = make_float4(v[0], v[2], v[1], v[3]);
    }
    if (mine == 0 && t == 0) part[D] = most, part[D + 1] = mass;
  }
};

// The cached positions of one of the blocks with the same keys: what each team makes of them to s.part. A
// team has BATCH tiles at a time: some of its warps weigh the positions of each, then all mix the values of
// all.
__device__ __forceinline__ void attend_cached(Shared& s, const byte* ring, Slot& slot, int past, int number) {
  int tid = thread(), mine = tid / 32 % TEAM, team = tid / 32 / TEAM, weighs = mine / SCORED,
      tiles = Cache::tiles(past, number), round = 0;
  Mixed mixed = {{}, -1e30f, 0};
  Room* rooms = (Room*)(s.part + ROOMS) + team * 2 * BATCH;
  Slot behind = slot;
  behind.skip(tiles % STAGES);
  if (tiles / STAGES & 1) behind.parity ^= 1;
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < tiles; i += TEAMS * BATCH, round ^= 1) {
    Room* here = rooms + round * BATCH;  // the next round's is another: a barrier a round is enough
    int left = past - (number + i * ASKERS) * Cache::CHUNK;  // positions from the first tile's on
    if (i + weighs * TEAMS < tiles) {
      Slot there = slot;
      there.skip(weighs * TEAMS);
      weigh(here[weighs], s, take(s, ring, there), left - weighs * TEAMS * ASKERS * Cache::CHUNK,
            5 + team * BATCH + weighs);
    }
    asm volatile("bar.sync %0, %1;" ::"r"(3 + team), "n"(TEAM * 32) : "memory");
#pragma unroll
    for (int j = 0; j < BATCH; j++)
      if (i + j * TEAMS < tiles) {
        mixed.add(here[j], take(s, ring, slot), left - j * TEAMS * ASKERS * Cache::CHUNK);
        leave(s, slot);
      }
  }
  slot = behind;
  mixed.write(s.part + MIXED + team * SHARING * MIX);
}

