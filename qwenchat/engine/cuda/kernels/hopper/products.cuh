// Products with tensor cores. A token fills two of an mma's eight columns, the high and the low digits of its
// inputs. So four parts of its inputs have two columns each, zeros in the others' steps: lane % 4 then has
// the sums of a part of its own, and scales it, where else three lanes of four would stand idle four times as
// often. In 4 bits the high nibbles are multiplied where they stand, sixteen times as large, and a group is
// two parts, so that only scales know of it. Floats have digits of their own kind and no scales.
#pragma once
#include "norm.cuh"

__device__ __forceinline__ void mma(float (&c)[4], const uint4& a, const uint2& b) {
  if (BF16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ void mma(int (&c)[4], const uint4& a, const uint2& b) {
  if (BITS == 8)
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
  else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ uint4 masked(const uint4& q, u32 m) {
  return make_uint4(q.x & m, q.y & m, q.z & m, q.w & m);
}
__device__ __forceinline__ uint4 nibbles(const uint4& q, int shift) {
  return masked(make_uint4(q.x >> shift, q.y >> shift, q.z >> shift, q.w >> shift), 0x0f0f0f0f);
}
// A step of inputs in the two columns of `pair`.
__device__ __forceinline__ uint2 only(const uint2& x, int pair) {
  return (threadIdx.x & 31) / 8 == pair ? x : make_uint2(0, 0);
}
__device__ __forceinline__ uint2 column(const uint2* hi, const uint2* lo, int step) {
  int lane = threadIdx.x & 31;
  return (lane / 4 % 2 ? lo : hi)[step * 4 + lane % 4];
}
__device__ __forceinline__ uint2 columns(const uint2* hi, const uint2* lo, int step, int pair) {
  return only(column(hi, lo, step), pair);
}
struct Scales {  // a group's, of rows g and g + 8, and their zero points
  u32 both, zeros;
};
__device__ __forceinline__ Scales scales_at(const byte* at) {
  int g = (threadIdx.x & 31) / 4;
  u32 zeros = 0;
  if (BITS == 16) return {0, 0};
  if (ZEROS) zeros = BITS == 4 ? at[32 + g] : *(const unsigned short*)(at + 32 + g * 2);
  return {*(const u32*)(at + g * 4), zeros};
}
// Sums of rows g and g + 8, scaled; `sum`: of the inputs themselves.
__device__ __forceinline__ void scaled(float (&acc)[2], const float (&c)[4], const Scales&, float scale,
                                       int) {
  acc[0] = (c[0] + c[1]) * scale;
  acc[1] = (c[2] + c[3]) * scale;
}
__device__ __forceinline__ void scaled(float (&acc)[2], const int (&c)[4], const Scales& s, float scale,
                                       int sum) {
  int v0 = c[0] * 256 + c[1], v1 = c[2] * 256 + c[3];
  if (BITS == 4) {
    v0 -= (ZEROS ? (int)(s.zeros & 15) : 8) * sum;
    v1 -= (ZEROS ? (int)(s.zeros >> 4) : 8) * sum;
  } else if (ZEROS) {
    v0 -= (int)(signed char)s.zeros * sum;
    v1 -= (int)(signed char)(s.zeros >> 8) * sum;
  }
  acc[0] = (float)v0 * (half_float(s.both & 0xffff) * scale);
  acc[1] = (float)v1 * (half_float(s.both >> 16) * scale);
}
// The sum over a row's four lanes: an even lane's is row g, an odd one's row g + 8.
__device__ __forceinline__ float row_of_lane(const float (&acc)[2]) {
  bool odd = threadIdx.x & 1;
  float v = (odd ? acc[1] : acc[0]) + __shfl_xor_sync(~0u, odd ? acc[0] : acc[1], 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}

#if BITS == 16
typedef float Sum;
#else
typedef int Sum;
#endif
struct Whole {                                    // a warp's part of a whole input
  static constexpr int MINE = Shape::KB / TEAMS;  // tiles of a row block that are a team's
  static constexpr int STEP = BITS == 16 ? 16 : 32, K = Shape::KT / PARTS, STEPS = K / STEP,
                       CHUNKS = K / Shape::CHUNK;
  static constexpr int GROUPS = BITS == 16 ? 1 : K / GROUP, HALVES = BITS == 4 ? 2 : 1;
  static_assert(BITS == 16 || MINE * GROUPS * HALVES <= 4, "a part needs two columns");
  uint2 x[MINE][BITS == 16 ? STEPS / 4 : STEPS];  // floats: every fourth step, in the lane's own columns
  float scale;                                    // of the lane's own part
  int sum;
  static __device__ __forceinline__ int number() { return threadIdx.x / 32 % TEAM; }
  static __device__ __forceinline__ int team() { return threadIdx.x / 32 / TEAM; }
  static __device__ __forceinline__ bool works() { return PARTS == TEAM || number() < PARTS; }
  static __device__ __forceinline__ int kb(int i) { return team() + i * TEAMS; }
  __device__ __forceinline__ void load(const Shared& s) {
    int mine = threadIdx.x % 4, half = mine % HALVES, group = mine / HALVES;
    scale = BITS == 16 ? 1 : 0;
    sum = 0;
    if (!works()) return;
    if constexpr (BITS == 16) {
#pragma unroll
      for (int i = 0; i < MINE; i++)
        x[i][0] = column(s.digits[0], s.digits[1],
                         (kb(i) * Shape::KT + number() * K) / STEP + (threadIdx.x & 31) / 8);
      static_assert(BITS != 16 || STEPS == 4, "a step for each pair of columns");
      return;
    }
    if (group < MINE * GROUPS) {
      group = (kb(group / GROUPS) * Shape::KT + number() * K) / GROUP + group % GROUPS;
      scale = half ? s.scales[group] / 16 : s.scales[group];
      const int* of = s.sums + group * 4;
      sum = BITS == 4 ? (of[half] + of[half + 2]) * (half ? 16 : 1) : of[0] + of[1] + of[2] + of[3];
    }
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
      for (int j = 0; j < STEPS; j++)
        x[i][j] = columns(s.digits[0], s.digits[1], (kb(i) * Shape::KT + number() * K) / 32 + j,
                          (i * GROUPS + j / 4) * HALVES + j % HALVES);
  }
  // The products of a tile of 16 rows (512 bytes of 32 inputs), or of the last ones.
  template <bool TAIL>
  __device__ __forceinline__ void tile(Sum (&c)[4], Scales& scales, const byte* at, int i) const {
    int lane = threadIdx.x & 31, group = lane % 4 / HALVES;
    uint4 q[CHUNKS];
#pragma unroll
    for (int j = 0; j < CHUNKS; j++) {
      const byte* p = at + (number() * CHUNKS + j) * (TAIL ? 32 * Shape::TAIL_ROWS : 512);
      if (TAIL) {
        uint2 none = make_uint2(0, 0), e = lane / 4 < Shape::TAIL_ROWS ? *(const uint2*)(p + lane * 8) : none,
              f = lane / 4 + 8 < Shape::TAIL_ROWS ? *(const uint2*)(p + 256 + lane * 8) : none;
        q[j] = make_uint4(e.x, f.x, e.y, f.y);
      } else {
        q[j] = *(const uint4*)(p + lane * 16);
      }
    }
    if constexpr (BITS == 16) {
#pragma unroll
      for (int j = 0; j < STEPS; j++) mma(c, q[j], only(x[i][0], j));
      return;
    }
    Scales here = scales_at(at + (TAIL ? Shape::TAIL_CODES : Shape::CODES) +
                            (number() * GROUPS + group % GROUPS) * Shape::SB);
    if (i == 0 || group / GROUPS == i) scales = here;
#pragma unroll
    for (int j = 0; j < STEPS; j++)
      mma(c, BITS == 8 ? q[j] : masked(q[j / 2], j % 2 ? 0xf0f0f0f0u : 0x0f0f0f0fu), x[i][j]);
  }
  // Blocks of 16 rows (and the last ones behind, if `tail`), AT_ONCE at a time: a warp's share of its rows to
  // part.
  template <int AT_ONCE>
  __device__ __forceinline__ void rows(Shared& s, const byte* ring, Slot& slot, int blocks, bool tail,
                                       float* part, int stride) const {
    int lane = threadIdx.x & 31, half = lane % 2;
    part += (team() * PARTS + number()) * stride;
    slot.skip(team());
#pragma unroll 1
    for (int rb = 0; rb < blocks + tail; rb += AT_ONCE) {
      Sum c[AT_ONCE][4] = {};
      Scales scales[AT_ONCE] = {};
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++)
#pragma unroll
        for (int i = 0; i < MINE; i++) {
          const byte* at = take(s, ring, slot);
          if (works()) {
            if (AT_ONCE > 1 || rb < blocks)
              tile<false>(c[k], scales[k], at, i);
            else
              tile<true>(c[k], scales[k], at, i);
          }
          leave(s, slot);
        }
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        float acc[2];
        scaled(acc, c[k], scales[k], scale, sum);
        float v = row_of_lane(acc);
        if (works() && lane % 4 < 2 && (AT_ONCE > 1 || rb < blocks || half * 8 + lane / 4 < Shape::TAIL_ROWS))
          part[(rb + k) * 16 + half * 8 + lane / 4] = v;
      }
    }
    slot.back(team());
  }
  // The sum of all shares of a row.
  static __device__ __forceinline__ float row(const float* part, int stride, int n) {
    float v = 0;
#pragma unroll 4
    for (int k = 0; k < TEAMS * PARTS; k++) v += part[k * stride + n];
    return v;
  }
};

// Adds the sums of rows g and g + 8: over the first two lanes, or over all.
template <bool ALL>
__device__ __forceinline__ void add_rows(const Step& step, u64* to, const float (&acc)[2]) {
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4;
  float v = (t & 1 ? acc[1] : acc[0]) + __shfl_xor_sync(~0u, t & 1 ? acc[0] : acc[1], 1);
  if (ALL) v += __shfl_xor_sync(~0u, v, 2);
  if (t < 2) add(step, to + g + t * 8, v);
}
// Of a tile of columns a warp has EACH blocks of 16 rows; where there are fewer than warps some have none.
template <int BLOCKS_OF_TILE>
struct Share {
  static constexpr int EACH = BLOCKS_OF_TILE > TEAM ? BLOCKS_OF_TILE / TEAM : 1,
                       WORKERS = BLOCKS_OF_TILE / EACH;
};
// The head's columns of the output projection.
__device__ __forceinline__ void projection(const Step& step, Shared& s, const byte* ring, Slot& slot,
                                           u64* sums) {
  constexpr int STEPS = D / Whole::STEP, EACH = Share<Shape::O_RBT>::EACH,
                WORKERS = Share<Shape::O_RBT>::WORKERS;
  int b = block(), tid = thread(), lane = tid & 31, number = tid / 32 % TEAM, team = tid / 32 / TEAM;
  uint2 x[STEPS];
#pragma unroll
  for (int i = 0; i < STEPS; i++)
    x[i] = columns(s.narrow[0][0], BITS == 16 ? s.narrow[1][0] : s.narrow[0][1], i, 0);
  float scale = lane % 4 ? 0 : s.narrow_scale;
  int sum = s.narrow_sums[0][0] + s.narrow_sums[1][0] + s.narrow_sums[2][0] + s.narrow_sums[3][0];
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < Shape::O_N; i += TEAMS) {
    const byte* at = take(s, ring, slot);
    float acc[EACH][2] = {};
#pragma unroll
    for (int e = 0; e < EACH && number < WORKERS; e++) {
      int rb = number * EACH + e;
      Sum c[4] = {0, 0, 0, 0};
#pragma unroll
      for (int j = 0; j < BITS / 2; j++) {
        uint4 q = *(const uint4*)(at + rb * (256 * BITS) + j * 512 + lane * 16);
        if constexpr (BITS >= 8) {
          mma(c, q, x[j]);
        } else {
          mma(c, nibbles(q, 0), x[j * 2]);
          mma(c, nibbles(q, 4), x[j * 2 + 1]);
        }
      }
      scaled(acc[e], c, scales_at(at + Shape::OUT_CODES + rb * Shape::SB), scale, sum);
    }
    leave(s, slot);
#pragma unroll
    for (int e = 0; e < EACH && number < WORKERS; e++)
      add_rows<false>(
          step,
          sums + b % RANKS * (H / RANKS) + (Shape::o_tile(b, i) * Shape::O_RBT + number * EACH + e) * 16,
          acc[e]);
  }
  slot.back((Shape::O_N + team) % TEAMS);
}
// A block of 16 rows of down, the units in steps; the last step may be in fewer lanes than four.
__device__ __forceinline__ void down_rows(Sum (&c)[4], const byte* p,
                                          const uint2 (&x)[(PADDED + Whole::STEP - 1) / Whole::STEP]) {
  constexpr int LANES = PADDED % Whole::STEP / (BITS == 16 ? 4 : 8), FULL = PADDED / Shape::CHUNK;
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4;
  uint4 none = make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int j = 0; j < FULL; j++) {
    uint4 q = *(const uint4*)(p + j * 512 + lane * 16);
    if constexpr (BITS >= 8) {
      mma(c, q, x[j]);
    } else {
      mma(c, nibbles(q, 0), x[j * 2]);
      mma(c, nibbles(q, 4), x[j * 2 + 1]);
    }
  }
  p += FULL * 512;
  if constexpr (BITS >= 8) {
    if (LANES) mma(c, t < LANES ? *(const uint4*)(p + (g * LANES + t) * 16) : none, x[LANES ? FULL : 0]);
  } else {
    constexpr int HALF = PADDED % 64 / 32;  // a step without its other half
    uint2 u;
    if (HALF) {
      u = *(const uint2*)(p + lane * 8);
      mma(c, masked(make_uint4(u.x, u.y, u.x >> 4, u.y >> 4), 0x0f0f0f0f), x[HALF ? FULL * 2 : 0]);
    }
    if (LANES) {
      u = t < LANES ? *(const uint2*)(p + HALF * 256 + (g * LANES + t) * 8) : make_uint2(0, 0);
      mma(c, masked(make_uint4(u.x, u.y, u.x >> 4, u.y >> 4), 0x0f0f0f0f), x[LANES ? FULL * 2 + HALF : 0]);
    }
  }
}
// The units' columns of down; those of each group in columns of their own.
__device__ __forceinline__ void down(const Step& step, Shared& s, const byte* ring, Slot& slot, u64* sums) {
  constexpr int STEPS = (PADDED + Whole::STEP - 1) / Whole::STEP, EACH = Share<Shape::D_RBT>::EACH,
                WORKERS = Share<Shape::D_RBT>::WORKERS;
  int b = block(), tid = thread(), lane = tid & 31, number = tid / 32 % TEAM, team = tid / 32 / TEAM,
      t = lane % 4, part = t < SPANS ? t : 0, pair = lane / 8;
  uint2 x[STEPS];
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    if (BITS == 16) {
      x[i] = columns(s.narrow[0][0], s.narrow[1][0], i, 0);
    } else {
      const uint2(*of)[NARROW / 8] = s.narrow[pair < SPANS ? pair : 0];
      x[i] = columns(of[0], of[1], i, pair < SPANS ? pair : -1);
    }
  }
  float scale = t < SPANS ? s.narrow_scale : 0;
  int sum = 0;
#pragma unroll
  for (int k = 0; k < (UNITS + 31) / 32; k++) sum += s.narrow_sums[k][part];
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < Shape::D_N; i += TEAMS) {
    const byte* at = take(s, ring, slot);
    float acc[EACH][2] = {};
#pragma unroll
    for (int e = 0; e < EACH && number < WORKERS; e++) {
      int rb = number * EACH + e;
      Sum c[4] = {0, 0, 0, 0};
      down_rows(c, at + rb * Shape::DOWN_ROWS, x);
      scaled(acc[e], c, scales_at(at + Shape::DOWN_CODES + rb * Shape::DOWN_SCALES + part * Shape::SB), scale,
             sum);
    }
    leave(s, slot);
#pragma unroll
    for (int e = 0; e < EACH && number < WORKERS; e++)
      add_rows<(SPANS > 2)>(step, sums + (Shape::d_tile(b, i) * Shape::D_RBT + number * EACH + e) * 16,
                            acc[e]);
  }
  slot.back((Shape::D_N + team) % TEAMS);
}
