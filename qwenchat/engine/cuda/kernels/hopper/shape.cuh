// A model's shapes, and how the matrices of a layer lie for 128 blocks of threads (tape.py lays them).
//
// H, HEADS, KEY_HEADS, F (the width, heads, heads with keys and values, the MLP's units), NORMED (queries and
// keys have norms), BITS (4, 8, or 16 for floats), ZEROS (zero points other than the middle), ORDERED
// (act-order), KV (16 or 8 bits) and BF16 come from whoever compiles.
//
// Four blocks share an attention head: block b belongs to head b / 4 and is its rank b % 4. It has 32 rows of
// q and the head's 128 columns of a quarter of the output projection's rows. Where heads leave four blocks
// for each head of keys and values, these have 32 rows of k and v each; else the blocks whose heads share
// keys and values have their rows, as many each. Every block has F / 128 units of the MLP: their rows of up
// and gate, and their columns of down. Its tiles lie in the order in which it needs them, those of all blocks
// side by side. In a tile 16 rows and a step of 32 inputs (4 bits: two steps in low and high halves; floats:
// a step of 16) are 512 bytes, 16 a lane, as the registers of an mma want them: of rows g and g + 8 (g = lane
// / 4) the inputs t * 8 ... t * 8 + 7 (t = lane % 4; floats: t * 4 ...), half of both rows in front.
#pragma once
typedef unsigned char byte;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int D = 128, BLOCKS = 128, RANKS = 4, GROUP = 128;
constexpr int SHARING = HEADS / KEY_HEADS;                       // heads with the same keys and values
constexpr int ASKING = HEADS * RANKS, ASKERS = SHARING * RANKS;  // blocks that have queries; of the same keys
constexpr bool APART = ASKING + KEY_HEADS * RANKS <= BLOCKS;     // keys and values have blocks of their own
constexpr int TELLING = APART ? KEY_HEADS * RANKS : 0, KEY_ROWS = APART ? 32 : 32 / SHARING;
constexpr int QKV = (HEADS + 2 * KEY_HEADS) * D;
constexpr int UNITS = F / BLOCKS, PADDED = (UNITS + 7) / 8 * 8;
constexpr int SPANS = UNITS > GROUP ? 3 : 2;  // groups of down's inputs that a block's may fall to
constexpr int PARTS = H / 512;                // warps of a team that a row's inputs are shared by

struct Shape {
  static constexpr int KT = PARTS * 1024 / BITS,
                       KB = H / KT;  // inputs of a tile of 16 rows; tiles of such rows
  static constexpr int SB = BITS == 16 ? 0 : 32 + (ZEROS ? 2 * BITS : 0);  // 16 rows' scales and zero points
  static constexpr int EVEN = 64 / BITS, QUARTER = H / 64;
  static constexpr int TAIL_ROWS = 2 * UNITS % 16;     // of a block's last rows of up and gate
  static constexpr int DOWN_ROWS = 2 * PADDED * BITS;  // bytes of 16 rows of down
  static constexpr int DOWN_SCALES = (SPANS * SB + 15) / 16 * 16;
  // Row blocks (of 16) in a tile of columns.
  static constexpr int O_RBT = QUARTER % EVEN ? 8 : EVEN,
                       D_RBT = EVEN * (DOWN_ROWS + DOWN_SCALES) > 17000 ? EVEN / 2 : EVEN;
  // Bytes of a tile, in front those of its codes.
  static constexpr int CODES = PARTS * 2048, TAIL_CODES = PARTS * 128 * TAIL_ROWS,
                       OUT_CODES = O_RBT * 256 * BITS, DOWN_CODES = D_RBT * DOWN_ROWS;
  static constexpr int TILE = CODES + KT / GROUP * SB, TAIL = TAIL_CODES + KT / GROUP * SB,
                       OUT = OUT_CODES + O_RBT * SB, DOWN = DOWN_CODES + D_RBT * DOWN_SCALES;
  // Row blocks of a block: of queries, and of keys and values if they are not apart; of those apart; of up
  // and gate without the last ones.
  static constexpr int A_RB = 2 + (APART ? 0 : KEY_ROWS / 8), K_RB = APART ? 4 : 0, G_RB = 2 * UNITS / 16;
  // Tiles of a block.
  static constexpr int A_N = A_RB * KB, K_N = K_RB * KB, O_N = QUARTER / O_RBT, G_N = G_RB * KB,
                       T_N = TAIL_ROWS ? KB : 0, D_N = H / 16 / D_RBT;
  // Where the matrices of all blocks begin.
  static constexpr u64 K_AT = (u64)ASKING * A_N * TILE, O_AT = K_AT + (u64)TELLING * K_N * TILE,
                       G_AT = O_AT + (u64)ASKING * O_N * OUT, T_AT = G_AT + (u64)BLOCKS * G_N * TILE,
                       D_AT = T_AT + (u64)BLOCKS * T_N * TAIL;
  static constexpr int CHUNK = 256 / BITS;  // inputs in 512 bytes of 16 rows
  // Which tile of columns a block's i-th is: blocks begin at different rows, or they would all add into the
  // same few words at a time.
  static __device__ int o_tile(int b, int i) { return (i + b / RANKS) % O_N; }
  static __device__ int d_tile(int b, int i) { return (i + b % 16 * D_N / 16) % D_N; }
};
static_assert(H % 512 == 0 && H == HEADS * D && PARTS <= 8 && F % BLOCKS == 0 && UNITS % 2 == 0,
              "other shapes");
static_assert(SHARING < 8 && ASKING <= BLOCKS && (APART || (ASKING == BLOCKS && KEY_ROWS * SHARING == 32)),
              "other heads");

// The block and the thread, as if asked for anew: what follows from them would else be kept in registers all
// the time, or worse, in local memory.
__device__ __forceinline__ int anew(int x) {
  int y;
  asm volatile("mov.u32 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
__device__ __forceinline__ int block() { return anew(blockIdx.x); }
__device__ __forceinline__ int thread() { return anew(threadIdx.x); }
// The first of the numbers of its head's that a block has rows of: of queries, of keys and values.
__device__ __forceinline__ int query_of(int b) { return b % RANKS * 32; }
__device__ __forceinline__ int key_of(int number) { return number * KEY_ROWS; }
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
