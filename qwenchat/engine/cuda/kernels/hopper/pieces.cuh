// A matrix of a tape by portions of a few inputs: how 16 rows of it come into shared memory, and from there
// as floats into the registers of a warpgroup's product.
//
// MATRIX: 0 is q, k, v; 1 the output projection; 2 up and gate; 3 down. Rows are counted by 16 in the order
// of the tape. A portion is a group of scales or half of one; in down, the 86 units of a block, which are 96
// inputs here, since the inputs' own last ten are zeros. It is made of pieces of 32 inputs (floats: 16),
// which are in an order of their own there (inputs.cu).
#pragma once
#include "barriers.cuh"

constexpr int PIECE = BITS == 16 ? 16 : 32, PIECES = 64 / PIECE;  // inputs of a piece; pieces of a step of 64
constexpr int UNITS_LAID = 96;
constexpr int ROW_BLOCKS = MATRIX == 0 ? BLOCKS * 6 : MATRIX == 2 ? BLOCKS * 11 : H / 16;
constexpr int INPUTS = MATRIX == 3 ? BLOCKS * UNITS_LAID : H;
constexpr int PORTION = MATRIX == 3 ? UNITS_LAID : BITS == 16 ? 64 : GROUP, OF_PORTION = PORTION / PIECE;
constexpr bool WHOLE = MATRIX % 2 == 0;
// Of 16 rows in shared memory: codes; scales and zero points, of two groups where a portion may cross their
// border.
constexpr int ROW_CODES = MATRIX == 3 ? Shape::DOWN_ROWS : 2 * BITS * PORTION,
              ROW_SCALES = BITS == 16    ? 0
                           : MATRIX == 3 ? (2 * Shape::SB + 15) / 16 * 16
                                         : 48;

struct Copy {
  const byte* from;
  int bytes;
};
// The last of a block's eleven row blocks of up and gate has only 12 rows.
__device__ __forceinline__ bool is_tail(int row_block) { return MATRIX == 2 && row_block % 11 == 10; }
// Where a tile of a whole input begins that has a portion.
__device__ __forceinline__ const byte* whole_tile(const byte* tape, int row_block, int portion) {
  constexpr int OF_BLOCK = MATRIX == 0 ? 6 : 11, FULL = MATRIX == 0 ? 6 : 10;
  int b = row_block / OF_BLOCK, rb = row_block % OF_BLOCK,
      tile = rb * Shape::KB + portion * PORTION / Shape::KT;
  return tape +
         ((u64)min(tile, FULL * Shape::KB) * Shape::TILE +
          (u64)max(tile - FULL * Shape::KB, 0) * Shape::TAIL) *
             BLOCKS +
         (u64)b * (is_tail(row_block) ? Shape::TAIL : Shape::TILE);
}
// Where a tile of columns begins that has a row block and a portion.
__device__ __forceinline__ const byte* column_tile(const byte* tape, int row_block, int portion) {
  constexpr int ALL = MATRIX == 1 ? Shape::O_N : Shape::D_N, BYTES = MATRIX == 1 ? Shape::TILE : Shape::DOWN;
  int b = MATRIX == 1 ? portion * PORTION / D * RANKS + row_block / 64 : portion;
  int tile = (MATRIX == 1 ? row_block % 64 : row_block) / Shape::RBT -
             (MATRIX == 1 ? Shape::o_tile(b, 0) : Shape::d_tile(b, 0));
  return tape + ((u64)((tile + ALL) % ALL) * BLOCKS + b) * BYTES;
}
__device__ __forceinline__ Copy codes_of(const byte* tape, int row_block, int portion) {
  if constexpr (WHOLE) {
    int chunk = portion * PORTION % Shape::KT / Shape::CHUNK, bytes = is_tail(row_block) ? 384 : 512;
    return {whole_tile(tape, row_block, portion) + chunk * bytes, bytes * (PORTION / Shape::CHUNK)};
  }
  const byte* at =
      column_tile(tape, row_block, portion) + row_block % Shape::RBT * (MATRIX == 1 ? 256 * BITS : ROW_CODES);
  return {at + (MATRIX == 1 ? portion * PORTION % D * (2 * BITS) : 0), ROW_CODES};
}
// Of whole inputs and the output projection, which of a tile's groups of scales.
__device__ __forceinline__ int group_of(int row_block, int portion) {
  return WHOLE ? portion * PORTION % Shape::KT / GROUP : row_block % Shape::RBT;
}
// How far its scales are from where their copy begins: groups may have 40 bytes, copies begin at multiples
// of 16.
__device__ __forceinline__ int scales_off(int row_block, int portion) {
  return MATRIX == 3 ? 0 : group_of(row_block, portion) * Shape::SB % 16;
}
__device__ __forceinline__ Copy scales_of(const byte* tape, int row_block, int portion) {
  if constexpr (MATRIX == 3)
    return {
        column_tile(tape, row_block, portion) + Shape::DOWN_CODES + row_block % Shape::RBT * 2 * Shape::SB,
        2 * Shape::SB};
  const byte* at = WHOLE ? whole_tile(tape, row_block, portion) : column_tile(tape, row_block, portion);
  at += (is_tail(row_block) ? Shape::TAIL_CODES : Shape::CODES) + group_of(row_block, portion) * Shape::SB;
  return {at - scales_off(row_block, portion), (Shape::SB + 15) / 16 * 16};
}

__device__ __forceinline__ u32 half2_sub(u32 a, u32 b) {
  u32 d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
__device__ __forceinline__ u32 half2_mul(u32 a, u32 b) {
  u32 d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
// Two codes with a scale each: (code - zero) * scale, rounded once. The bytes of `codes` are those of halves
// of 1,024 and more, so that the difference is exact.
__device__ __forceinline__ u32 two_values(u32 codes, u32 zeros, u32 scales) {
  u32 whole = half2_sub(codes, zeros);
  if (!BF16) return half2_mul(whole, scales);
  float scale = half_float(scales & 0xffff);
  return narrow_two(half_float(whole & 0xffff) * scale, half_float(whole >> 16) * scale);
}
struct Rows {  // what is taken off the codes of rows g and g + 8, and what they are multiplied with
  u32 zeros[2], scales[2];
  __device__ __forceinline__ void read(const byte* at) {
    int g = (threadIdx.x & 31) / 4;
    u32 both = *(const u32*)(at + g * 4);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      scales[i] = __byte_perm(both, 0, i ? 0x3232 : 0x1010);
      zeros[i] = BITS == 4 ? 0x64086408 : 0x64806480;
      if (ZEROS) {
        u32 z = BITS == 4 ? at[32 + g] >> (i * 4) & 15 : at[32 + g * 2 + i] ^ 128;
        zeros[i] = __byte_perm(z, 0x64, 0x4040);
      }
    }
  }
};
struct Portion {  // what a lane needs of one besides its codes
  Rows first, later;
  int border;  // down: how many inputs from the lane's first are before the border of groups
  __device__ __forceinline__ void read(const byte* scales, int row_block, int portion) {
    if (BITS == 16) return;
    first.read(scales + scales_off(row_block, portion));
    if (MATRIX == 3) {
      later.read(scales + Shape::SB);
      border = first_part(portion) - threadIdx.x % 4 * 8;
    }
  }
};
// The codes of a portion's i-th piece as a lane has them: of rows g and g + 8 (g = lane / 4), by turns.
// `codes` is where those of the warp's 16 rows lie.
__device__ __forceinline__ uint4 words_of(const byte* codes, int row_block, int i) {
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, chunk = BITS == 4 ? i / 2 : i;
  if (MATRIX == 3 && i == OF_PORTION - 1) {
    const byte* at = codes + chunk * 512;
    if (BITS == 4) {
      uint2 u = t < 3 ? *(const uint2*)(at + (g * 3 + t) * 8) : make_uint2(0, 0);
      return make_uint4(u.x, u.y, u.x >> 4, u.y >> 4);
    }
    constexpr int LANES = BITS == 8 ? 3 : 2;
    return t < LANES ? *(const uint4*)(at + (g * LANES + t) * 16) : make_uint4(0, 0, 0, 0);
  }
  uint4 q;
  if (is_tail(row_block)) {
    const byte* at = codes + chunk * 384;
    uint2 e = *(const uint2*)(at + lane * 8),
          f = lane < 16 ? *(const uint2*)(at + 256 + lane * 8) : make_uint2(0, 0);
    q = make_uint4(e.x, f.x, e.y, f.y);
  } else {
    q = *(const uint4*)(codes + chunk * 512 + lane * 16);
  }
  return BITS == 4 && i % 2 ? make_uint4(q.x >> 4, q.y >> 4, q.z >> 4, q.w >> 4) : q;
}
// Its floats: of 16 inputs at a time the pairs of row g, g + 8, g and g + 8.
__device__ __forceinline__ void values_of(u32* out, const byte* codes, const Portion& p, int row_block,
                                          int i) {
  uint4 q = words_of(codes, row_block, i);
  u32 words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int j = 0; j < 4; j++) {  // four inputs of row g + 8 (j % 2), from 4 (j / 2) on
    if (BITS == 16) {
      out[j] = words[j];
      continue;
    }
    u32 w = BITS == 8 ? words[j] ^ 0x80808080 : words[j] & 0x0f0f0f0f;
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      bool later = MATRIX == 3 && p.border <= i * PIECE + j / 2 * 4 + pair * 2;
      out[j / 2 * 4 + pair * 2 + j % 2] = two_values(__byte_perm(w, 0x64646464, pair ? 0x4342 : 0x4140),
                                                     later ? p.later.zeros[j % 2] : p.first.zeros[j % 2],
                                                     later ? p.later.scales[j % 2] : p.first.scales[j % 2]);
    }
  }
}
