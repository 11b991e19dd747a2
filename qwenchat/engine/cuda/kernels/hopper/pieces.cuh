// A matrix of a tape by portions of a few inputs: how 16 rows of it come into shared memory, and from there
// as floats into the registers of a warpgroup's product.
//
// MATRIX: 0 is q, k, v; 1 the output projection; 2 up and gate; 3 down. Rows are counted by 16 in the order
// of the tape. A portion is a group of scales or half of one; in down, the units of a block, filled up to
// UNITS_LAID inputs here, of which the last ones are zeros. It is made of pieces of 32 inputs (floats: 16),
// which are in an order of their own there (inputs.cu).
#pragma once
#include "barriers.cuh"

constexpr int PIECE = BITS == 16 ? 16 : 32, PIECES = 64 / PIECE;  // inputs of a piece; pieces of a step of 64
constexpr int UNITS_LAID = (UNITS + 31) / 32 * 32;
constexpr bool HAS_TAIL = MATRIX == 2 && Shape::TAIL_ROWS > 0;
// Row blocks of a block of threads, in front those of 16 rows.
constexpr int FULL = MATRIX == 0 ? Shape::A_RB : Shape::G_RB, OF_BLOCK = FULL + HAS_TAIL;
constexpr int ROW_BLOCKS = MATRIX == 0 ? QKV / 16 : MATRIX == 2 ? BLOCKS * OF_BLOCK : H / 16;
constexpr int INPUTS = MATRIX == 3 ? BLOCKS * UNITS_LAID : H;
constexpr int PORTION = MATRIX == 3 ? UNITS_LAID : BITS == 16 ? 64 : GROUP, OF_PORTION = PORTION / PIECE;
constexpr bool WHOLE = MATRIX % 2 == 0;
// Of 16 rows in shared memory: codes; scales and zero points, of two groups where a portion may cross their
// border.
constexpr int ROW_CODES = MATRIX == 3 ? Shape::DOWN_ROWS : 2 * BITS * PORTION,
              ROW_SCALES = BITS == 16    ? 0
                           : MATRIX == 3 ? Shape::DOWN_SCALES
                                         : 48;

struct Copy {
  const byte* from;
  int bytes;
};
// Blocks whose rows are keys and values alone come last.
__device__ __forceinline__ bool is_apart(int row_block) {
  return MATRIX == 0 && APART && row_block >= ASKING * FULL;
}
// The last of a block's row blocks of up and gate may have fewer rows.
__device__ __forceinline__ bool is_tail(int row_block) { return HAS_TAIL && row_block % OF_BLOCK == FULL; }
// Where a tile of a whole input begins that has a portion.
__device__ __forceinline__ const byte* whole_tile(const byte* tape, int row_block, int portion) {
  int along = portion * PORTION / Shape::KT;
  if (is_apart(row_block)) {
    row_block -= ASKING * FULL;
    int tile = row_block % 4 * Shape::KB + along;
    return tape + Shape::K_AT + ((u64)tile * TELLING + row_block / 4) * Shape::TILE;
  }
  int b = row_block / OF_BLOCK, tile = row_block % OF_BLOCK * Shape::KB + along;
  constexpr int OF = MATRIX == 0 ? ASKING : BLOCKS;
  return is_tail(row_block) ? tape + (Shape::T_AT - Shape::G_AT) + ((u64)along * OF + b) * Shape::TAIL
                            : tape + ((u64)tile * OF + b) * Shape::TILE;
}
// Where a tile of columns begins that has a row block and a portion.
__device__ __forceinline__ const byte* column_tile(const byte* tape, int row_block, int portion) {
  constexpr int ALL = MATRIX == 1 ? Shape::O_N : Shape::D_N, BYTES = MATRIX == 1 ? Shape::OUT : Shape::DOWN,
                OF = MATRIX == 1 ? ASKING : BLOCKS, RBT = MATRIX == 1 ? Shape::O_RBT : Shape::D_RBT;
  int b = MATRIX == 1 ? portion * PORTION / D * RANKS + row_block / Shape::QUARTER : portion;
  int tile = (MATRIX == 1 ? row_block % Shape::QUARTER : row_block) / RBT -
             (MATRIX == 1 ? Shape::o_tile(b, 0) : Shape::d_tile(b, 0));
  return tape + ((u64)((tile + ALL) % ALL) * OF + b) * BYTES;
}
__device__ __forceinline__ Copy codes_of(const byte* tape, int row_block, int portion) {
  if constexpr (WHOLE) {
    int chunk = portion * PORTION % Shape::KT / Shape::CHUNK,
        bytes = is_tail(row_block) ? 32 * Shape::TAIL_ROWS : 512;
    return {whole_tile(tape, row_block, portion) + chunk * bytes, bytes * (PORTION / Shape::CHUNK)};
  }
  const byte* at = column_tile(tape, row_block, portion);
  if (MATRIX == 3) return {at + row_block % Shape::D_RBT * ROW_CODES, ROW_CODES};
  return {at + row_block % Shape::O_RBT * (256 * BITS) + portion * PORTION % D * (2 * BITS), ROW_CODES};
}
// Of whole inputs and the output projection, which of a tile's groups of scales.
__device__ __forceinline__ int group_of(int row_block, int portion) {
  return WHOLE ? portion * PORTION % Shape::KT / GROUP : row_block % Shape::O_RBT;
}
// How far its scales are from where their copy begins: groups may have 40 bytes, copies begin at multiples
// of 16.
__device__ __forceinline__ int scales_off(int row_block, int portion) {
  return MATRIX == 3 ? 0 : group_of(row_block, portion) * Shape::SB % 16;
}
__device__ __forceinline__ Copy scales_of(const byte* tape, int row_block, int portion) {
  if constexpr (MATRIX == 3)
    return {column_tile(tape, row_block, portion) + Shape::DOWN_CODES +
                row_block % Shape::D_RBT * Shape::DOWN_SCALES,
            Shape::DOWN_SCALES};
  const byte* at = WHOLE ? whole_tile(tape, row_block, portion) : column_tile(tape, row_block, portion);
  at += (MATRIX == 1          ? Shape::OUT_CODES
         : is_tail(row_block) ? Shape::TAIL_CODES
                              : Shape::CODES) +
        group_of(row_block, portion) * Shape::SB;
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
  Rows first, later, last;
  int border;  // down: how many inputs from the lane's first are before the border of groups
  __device__ __forceinline__ void read(const byte* scales, int row_block, int portion) {
    if (BITS == 16) return;
    first.read(scales + scales_off(row_block, portion));
    if (MATRIX == 3) {
      later.read(scales + Shape::SB);
      if (SPANS > 2) last.read(scales + 2 * Shape::SB);
      border = first_part(portion) - threadIdx.x % 4 * 8;
    }
  }
};
// The codes of a portion's i-th piece as a lane has them: of rows g and g + 8 (g = lane / 4), by turns.
// `codes` is where those of the warp's 16 rows lie.
__device__ __forceinline__ uint4 words_of(const byte* codes, int row_block, int i) {
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, chunk = BITS == 4 ? i / 2 : i;
  uint4 none = make_uint4(0, 0, 0, 0);
  if (MATRIX == 3 && chunk >= PADDED / Shape::CHUNK) {  // steps by themselves, the last one in fewer lanes
    constexpr int FIRST = PADDED / Shape::CHUNK * (BITS == 4 ? 2 : 1), LEFT = PADDED - FIRST * PIECE;
    const byte* at = codes + FIRST * PIECE * (2 * BITS) + (i - FIRST) * PIECE * (2 * BITS);
    int lanes = min(LEFT - (i - FIRST) * PIECE, PIECE) / (PIECE / 4);  // none behind the last
    if (BITS == 4) {
      uint2 u = t < lanes ? *(const uint2*)(at + (g * lanes + t) * 8) : make_uint2(0, 0);
      return make_uint4(u.x, u.y, u.x >> 4, u.y >> 4);
    }
    return t < lanes ? *(const uint4*)(at + (g * lanes + t) * 16) : none;
  }
  uint4 q;
  if (is_tail(row_block)) {
    const byte* at = codes + chunk * (32 * Shape::TAIL_ROWS);
    uint2 e = g < Shape::TAIL_ROWS ? *(const uint2*)(at + lane * 8) : make_uint2(0, 0),
          f = g + 8 < Shape::TAIL_ROWS ? *(const uint2*)(at + 256 + lane * 8) : make_uint2(0, 0);
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
      int input = i * PIECE + j / 2 * 4 + pair * 2;
      bool later = MATRIX == 3 && p.border <= input,
           last = MATRIX == 3 && SPANS > 2 && p.border + GROUP <= input;
      u32 zeros = later ? p.later.zeros[j % 2] : p.first.zeros[j % 2],
          scales = later ? p.later.scales[j % 2] : p.first.scales[j % 2];
      if (last) zeros = p.last.zeros[j % 2], scales = p.last.scales[j % 2];
      out[j / 2 * 4 + pair * 2 + j % 2] =
          two_values(__byte_perm(w, 0x64646464, pair ? 0x4342 : 0x4140), zeros, scales);
    }
  }
}
