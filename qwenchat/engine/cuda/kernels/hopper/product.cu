// Products of many tokens with a matrix of a tape, for prefill: the weights become floats in the registers
// that the tensor cores read them from, and are in no memory as floats.
//
// out [tokens][rows] = x [tokens][inputs] * matrix [rows][inputs]. Two warpgroups of four warps multiply 64
// rows each, with NT tokens. Other warps have both copied into rings (inputs.cu has laid the tokens so);
// while a step is multiplied, the weights of the next become floats. A block of threads goes from one such
// tile to the next: those of all tokens first, so that the weights come from the L2 cache. Where tiles are
// few they are split along their inputs, and the sums are left apart, for inputs.cu.
#include "pieces.cuh"
#include "wgmma.cuh"

struct Product {
  const byte* tape;             // the matrix
  const byte* x;                // [INPUTS / 64][padded][64]
  const unsigned short* bias;   // [QKV]
  const unsigned short* added;  // [tokens][H], or null: what a product with H rows is added to
  unsigned short* out;          // [tokens][q, k, v: QKV; up and gate: ROW_BLOCKS * 16, else H]
  float* parts;                 // or, of H rows: [splits][H / 16][tokens][16]
  int tokens, padded, splits;
};

constexpr int CONSUMERS = 256, THREADS = CONSUMERS + 128;
constexpr int MEETING = 64;  // tokens of a warp that are turned round at a time
// Two rings: of the tokens by steps of 64 inputs, of the matrix by portions.
constexpr int X = NT * 128, CODES = 8 * (ROW_CODES + ROW_SCALES),
              PORTIONS = CODES > 26000   ? 2
                         : CODES > 20000 ? 3
                                         : 4 - (BITS == 8 && WHOLE),
              LEFT = SHARED - PORTIONS * CODES - 8 * MEETING * 32 - 256, STEPS = LEFT / X < 8 ? LEFT / X : 8;
// Steps until a portion ends with one again, an even number.
constexpr int HALVES_OF_STEPS = PORTION / 32, AROUND = MATRIX != 3                ? 2
                                                       : HALVES_OF_STEPS % 4 == 0 ? HALVES_OF_STEPS / 2
                                                       : HALVES_OF_STEPS % 2 == 0 ? HALVES_OF_STEPS
                                                                                  : HALVES_OF_STEPS * 2;

struct Memory {
  alignas(1024) byte x[STEPS][X];
  alignas(128) byte codes[PORTIONS][CODES];
  alignas(16) byte meet[8][MEETING * 32];
  u64 x_full[STEPS], x_empty[STEPS], codes_full[PORTIONS], codes_empty[PORTIONS];
};
static_assert(STEPS >= 4 && sizeof(Memory) <= SHARED, "no room for the rings");

struct Tile {
  int row_tile, token, split, begin, end;  // of steps
};
__device__ __forceinline__ int tiles_of(const Product& m) {
  return ROW_BLOCKS / 8 * ((m.tokens + NT - 1) / NT) * m.splits;
}
__device__ __forceinline__ Tile tile_of(const Product& m, int i) {
  int along = (m.tokens + NT - 1) / NT, steps = INPUTS / 64 / m.splits;
  Tile t;
  t.token = i % along * NT;
  t.row_tile = i / along % (ROW_BLOCKS / 8);
  t.split = i / along / (ROW_BLOCKS / 8);
  t.begin = t.split * steps;
  t.end = t.begin + steps;
  return t;
}
template <int STAGES>
struct Turn {
  int stage;
  u32 parity;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// One lane: the tokens' steps.
__device__ void fetch_tokens(const Product& m, Memory& s) {
  Turn<STEPS> turn = {0, 1};
  for (int i = blockIdx.x; i < tiles_of(m); i += gridDim.x) {
    Tile t = tile_of(m, i);
    int bytes = min(NT, m.padded - t.token) * 128;
    for (int k = t.begin; k < t.end; k++, turn.next()) {
      bar_wait(&s.x_empty[turn.stage], turn.parity);
      bar_expect(&s.x_full[turn.stage], bytes);
      bulk(s.x[turn.stage], m.x + ((u64)k * m.padded + t.token) * 128, bytes, &s.x_full[turn.stage]);
    }
  }
}
// Two warps: a lane has the codes of a row block, or its scales.
__device__ void fetch_codes(const Product& m, Memory& s, int warp) {
  int lane = threadIdx.x % 32, row = warp * 4 + lane % 4, kind = lane / 4;
  Turn<PORTIONS> turn = {0, 1};
  for (int i = blockIdx.x; i < tiles_of(m); i += gridDim.x) {
    Tile t = tile_of(m, i);
    int row_block = t.row_tile * 8 + row;
    for (int p = t.begin * 64 / PORTION; p < t.end * 64 / PORTION; p++, turn.next()) {
      Copy copy = {nullptr, 0};
      if (kind == 0) copy = codes_of(m.tape, row_block, p);
      if (kind == 1 && BITS < 16) copy = scales_of(m.tape, row_block, p);
      int to = kind ? 8 * ROW_CODES + row * ROW_SCALES : row * ROW_CODES;
      u32 bytes = __reduce_add_sync(~0u, copy.bytes);
      u64* full = &s.codes_full[turn.stage];
      bar_wait(&s.codes_empty[turn.stage], turn.parity);
      if (lane == 0) bar_expect(full, bytes);
      __syncwarp();
      if (copy.bytes) bulk(s.codes[turn.stage] + to, copy.from, copy.bytes, full);
    }
  }
}

// The first of the half's 8 rows of a row block in the output, and how long a row of that is.
__device__ __forceinline__ int row_of(int row_block, int half) {
  if (MATRIX != 0) return row_block * 16 + half * 8;
  int keys = HEADS * D, values = keys + KEY_HEADS * D;
  if (is_apart(row_block)) {
    int i = row_block - ASKING * FULL, rb = i % 4;
    return (rb < 2 ? keys : values) + i / 4 * 32 + rb % 2 * 16 + half * 8;
  }
  int b = row_block / FULL, n = row_block % FULL * 16 + half * 8;
  if (n < 32) return b * 32 + n;
  return (n - 32 < KEY_ROWS ? keys : values) + b * KEY_ROWS + (n - 32) % KEY_ROWS;
}
constexpr int WIDTH = MATRIX == 0 ? QKV : MATRIX == 2 ? ROW_BLOCKS * 16 : H;

// A warp's 16 rows to where a token's are side by side.
__device__ __forceinline__ void write(const Product& m, const Tile& t, float (&d)[NT / 2], int row_block,
                                      byte* meet) {
  int lane = threadIdx.x & 31, g = lane / 4, rows[2] = {row_of(row_block, 0), row_of(row_block, 1)};
  if (m.parts) {
    float* to = m.parts + ((u64)t.split * (H / 16) + row_block) * m.tokens * 16 + g;
#pragma unroll
    for (int i = 0; i < NT / 8; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int token = t.token + i * 8 + lane % 4 * 2 + j % 2;
        if (token < m.tokens) to[(u64)token * 16 + j / 2 * 8] = d[i * 4 + j];
      }
    return;
  }
  float bias[2] = {0, 0};
  if (MATRIX == 0) bias[0] = wide_float(m.bias[rows[0] + g]), bias[1] = wide_float(m.bias[rows[1] + g]);
  bool adds = (MATRIX == 1 || MATRIX == 3) && m.added;
  // Matrix lane / 8 of four: 8 tokens of rows g; of rows g + 8; the next 8 tokens of both.
  u32 at = sm(meet) + (lane / 16 * 8 + lane % 8) * 32 + lane / 8 % 2 * 16;
#pragma unroll
  for (int first = 0; first < NT; first += MEETING) {
    int token = t.token + first;
    if (token >= m.tokens) break;
    if (adds) {
#pragma unroll
      for (int i = lane; i < MEETING * 2; i += 32) {
        int of = token + i / 2;
        if (of < m.tokens) ((uint4*)meet)[i] = __ldg((const uint4*)(m.added + (u64)of * WIDTH + rows[i % 2]));
      }
      __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < MEETING / 16; i++) {
      float* v = d + (first / 8 + i * 2) * 4;
      u32 w[4];
      if (adds) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                     : "r"(at + i * 512)
                     : "memory");
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] += wide_float(w[j / 2] >> (16 * (j % 2)) & 0xffff);
      }
#pragma unroll
      for (int j = 0; j < 4; j++) w[j] = narrow_two(v[j * 2] + bias[j % 2], v[j * 2 + 1] + bias[j % 2]);
      asm volatile(
          "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at + i * 512),
          "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3])
          : "memory");
    }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < MEETING * 2; i += 32) {
      int of = token + i / 2;
      if (of < m.tokens) *(uint4*)(m.out + (u64)of * WIDTH + rows[i % 2]) = ((uint4*)meet)[i];
    }
    __syncwarp();
  }
}

// A warp's way along its 16 rows: the floats of a step after the other.
struct Weights {
  Turn<PORTIONS> turn;
  Portion portion;
  int row_block, next;
  // j: the step's number around.
  __device__ __forceinline__ void step(u32 (&to)[16], Memory& s, int j) {
    int warp = threadIdx.x / 32;
#pragma unroll
    for (int q = 0; q < PIECES; q++) {
      int i = (j * PIECES + q) % OF_PORTION;
      const byte *at = s.codes[turn.stage], *scales = at + 8 * ROW_CODES + warp * ROW_SCALES;
      if (i == 0) {
        bar_wait(&s.codes_full[turn.stage], turn.parity);
        portion.read(scales, row_block, next++);
      }
      values_of(to + q * (PIECE / 4), at + warp * ROW_CODES, portion, row_block, i);
      if (i < OF_PORTION - 1) continue;
      // The lanes' reads must be done before a bulk copy, which goes another way (the async proxy), may write
      // there.
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      __syncwarp();
      if (threadIdx.x % 32 == 0) bar_arrive(&s.codes_empty[turn.stage]);
      turn.next();
    }
  }
};

__device__ void multiply(const Product& m, Memory& s) {
  int warp = threadIdx.x / 32;
  Turn<STEPS> turn = {0, 0};
  Weights weights;
  weights.turn = {0, 0};
  u32 a[2][16];
  float d[NT / 2];
  for (int i = blockIdx.x; i < tiles_of(m); i += gridDim.x) {
    Tile t = tile_of(m, i);
    weights.row_block = t.row_tile * 8 + warp;
    weights.next = t.begin * 64 / PORTION;
    weights.step(a[0], s, 0);
#pragma unroll
    for (int j = 0; j < NT / 2; j++) d[j] = 0;
    u64* before = nullptr;
#pragma unroll 1
    for (int k = t.begin; k < t.end; k += AROUND) {
#pragma unroll
      for (int j = 0; j < AROUND; j++) {
        bar_wait(&s.x_full[turn.stage], turn.parity);
        u64 at = columns_at(sm(s.x[turn.stage]));
        products_begin();
#pragma unroll
        for (int part = 0; part < 4; part++) product(d, a[j % 2] + part * 4, at + part * 2);
        products_begun();
        products_done<1>();
        if (before && threadIdx.x % 32 == 0) bar_arrive(before);
        before = &s.x_empty[turn.stage];
        turn.next();
        if (j + 1 < AROUND || k + AROUND < t.end) weights.step(a[1 - j % 2], s, (j + 1) % AROUND);
      }
    }
    products_done<0>();
    if (threadIdx.x % 32 == 0) bar_arrive(before);
    write(m, t, d, weights.row_block, s.meet[warp]);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) product(const __grid_constant__ Product m) {
  extern __shared__ __align__(1024) byte raw[];
  Memory& s = *(Memory*)raw;
  int warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STEPS; i++) {
      bar_init(&s.x_full[i], 1);
      bar_init(&s.x_empty[i], CONSUMERS / 32);
    }
    for (int i = 0; i < PORTIONS; i++) {
      bar_init(&s.codes_full[i], 2);
      bar_init(&s.codes_empty[i], CONSUMERS / 32);
    }
    bars_ready();
  }
  __syncthreads();
  start_next();
  if (threadIdx.x >= CONSUMERS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == CONSUMERS) {
      wait_for_previous();
      fetch_tokens(m, s);
    }
    if (warp == CONSUMERS / 32 + 1 || warp == CONSUMERS / 32 + 2)
      fetch_codes(m, s, warp - CONSUMERS / 32 - 1);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    wait_for_previous();
    multiply(m, s);
  }
}
