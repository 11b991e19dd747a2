// The shapes of a 7B, and how the matrices of a layer lie for 128 blocks of threads (tape.py lays them).
//
// BITS (4, 8, or 16 for floats), ZEROS (zero points other than the middle), ORDERED (act-order), KV (16 or 8
// bits) and BF16 come from whoever compiles.
//
// Four blocks share an attention head: block b belongs to head b / 4 and is its rank b % 4. It has 96 rows of
// q, k, v; the head's 128 columns of 1,024 rows of the output projection; 86 units of the MLP: their rows of
// up and gate, and their columns of down. Its tiles lie in the order in which it needs them, those of all
// blocks side by side. In a tile 16 rows and a step of 32 inputs (4 bits: two steps in low and high halves;
// floats: a step of 16) are 512 bytes, 16 a lane, as the registers of an mma want them: of rows g and g + 8
// (g = lane / 4) the inputs t * 8 ... t * 8 + 7 (t = lane % 4; floats: t * 4 ...), half of both rows in
// front.
#pragma once
typedef unsigned char byte;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int H = 4096, HEADS = 32, D = 128, F = 11008, BLOCKS = 128, RANKS = 4, UNITS = 86;
constexpr int GROUP = 128;

struct Shape {
  static constexpr int KT = 8192 / BITS, KB = H / KT;  // inputs of a tile of 16 rows; tiles of such rows
  static constexpr int SB = BITS == 16 ? 0 : 32 + (ZEROS ? 2 * BITS : 0);  // 16 rows' scales and zero points
  static constexpr int RBT = 64 / BITS;  // row blocks (of 16) in a tile of columns
  static constexpr int CODES = 16384, TAIL_CODES = 12288, DOWN_CODES = 11264;  // bytes of a tile
  static constexpr int TILE = CODES + KT / GROUP * SB, TAIL = TAIL_CODES + KT / GROUP * SB,
                       DOWN = DOWN_CODES + RBT * 2 * SB;
  // Tiles of a block: q, k, v; output projection; up and gate, and their last 12 rows; down.
  static constexpr int A_N = 6 * KB, O_N = 64 / RBT, G_N = 10 * KB, T_N = KB, D_N = 256 / RBT;
  static constexpr int WHOLE = A_N + O_N + G_N, TILES = WHOLE + T_N + D_N;
  static constexpr int CHUNK = 256 / BITS;      // inputs in 512 bytes of 16 rows
  static constexpr int DOWN_ROWS = 176 * BITS;  // bytes of 16 rows of down: 86 inputs and two that are zero
  // Which tile of columns a block's i-th is: blocks begin at different rows, or they would all add into the
  // same few words at a time.
  static __device__ int o_tile(int b, int i) { return (i + b / RANKS) % O_N; }
  static __device__ int d_tile(int b, int i) { return (i + b % 16 * (D_N / 16)) % D_N; }
  static __device__ int bytes(int i) { return i < WHOLE ? TILE : i < WHOLE + T_N ? TAIL : DOWN; }
};
// A block has both numbers of a head that are turned together: of its 32 rows the first 16 are of the head's
// first half.
__device__ __forceinline__ int number_of(int rank, int n) { return n / 16 * 64 + rank * 16 + n % 16; }
// Of a block's units those before a border between groups of down's inputs.
__device__ __forceinline__ int first_part(int b) {
  int n = GROUP - b * UNITS % GROUP;
  return n < UNITS ? n : UNITS;
}

// ---- float16 and bfloat16, without headers
__device__ __forceinline__ float half_float(u32 w) {  // of the lower 16 bits
  float f;
  asm("{.reg .b16 h, u;\nmov.b32 {h, u}, %1;\ncvt.f32.f16 %0, h;}" : "=f"(f) : "r"(w));
  return f;
}
__device__ __forceinline__ float wide_float(u32 w) {  // of the lower 16 bits, as the model's floats are
  return BF16 ? __uint_as_float(w << 16) : half_float(w);
}
__device__ __forceinline__ u32 narrow_float(float f) {
  unsigned short h;
  if (BF16)
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f));
  else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
__device__ __forceinline__ u32 narrow_two(float a, float b) {  // the first in the lower 16 bits
  u32 w;
  if (BF16)
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(w) : "f"(a), "f"(b));
  else
    asm("cvt.rn.f16x2.f32 %0, %2, %1;" : "=r"(w) : "f"(a), "f"(b));
  return w;
}
