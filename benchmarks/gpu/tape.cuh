// Weights of the 7B's layers, Int8 or Int4 in groups of 128, laid out for a kernel of 128 blocks and tensor
// cores.
//
// A block has 96 rows of q, k, v, a head's 128 columns of 1,024 rows of the output projection, 172 rows of up
// and gate and the columns of down of the same 86 units. Its tiles lie in the order in which it needs them,
// the tiles of all blocks side by side, and in a tile the weights as the registers of mma.m16n8k32 want them:
// a lane's 16 bytes of 16 rows and 32 inputs (Int4: of 64, two steps in low and high nibbles) side by side. A
// token fills two of the instruction's eight columns, the high and the low byte of its inputs, whole numbers
// of 16 bits.
#pragma once
#include <cmath>

#include "probe.cuh"
constexpr int L = 32, H = 4096, HEADS = 32, D = 128, F = 11008, UNITS = 86, BLOCKS = 128, MOST = 8;

template <int BITS>
struct Shape {
  static constexpr int KT = 8192 / BITS,
                       KB = H / KT;               // inputs of a tile of 16 rows (16 KB); tiles of such rows
  static constexpr int SB = BITS == 8 ? 32 : 40;  // 16 rows' scales of a group; in Int4 zero points too
  static constexpr int RBT = 64 / BITS;           // row blocks (of 16) in a tile of columns
  static constexpr int TILE = 16384 + KT / 128 * SB, TAIL = 12288 + KT / 128 * SB,
                       DOWN = 11264 + RBT * 2 * SB;
  static constexpr int A_N = 6 * KB, O_N = 64 / RBT, G_N = 10 * KB, T_N = KB, D_N = 256 / RBT;
  static constexpr int WHOLE = A_N + O_N + G_N, TILES = WHOLE + T_N + D_N;
  static constexpr size_t BLOCK = (size_t)WHOLE * TILE + T_N * TAIL + D_N * DOWN;
  static constexpr int CHUNK = 256 / BITS;  // inputs in 512 bytes of 16 rows
  // Where the i-th tile of columns of a block is in the matrix: blocks begin at different rows, or they would
  // all add into the same few words at a time.
  static __host__ __device__ int o_tile(int b, int i) { return (i + b / 4) % O_N; }
  static __host__ __device__ int d_tile(int b, int i) { return (i + b % 16 * (D_N / 16)) % D_N; }
  static __host__ __device__ int bytes(int i) { return i < WHOLE ? TILE : i < WHOLE + T_N ? TAIL : DOWN; }
  static __host__ __device__ size_t before(int i) {
    int a = i < WHOLE ? i : WHOLE, t = i < WHOLE ? 0 : i < WHOLE + T_N ? i - WHOLE : T_N;
    return (size_t)a * TILE + (size_t)t * TAIL + (size_t)(i - a - t) * DOWN;
  }
};

// ---- the weights. Matrices: 0 qkv [3H, H], 1 output projection [H, H], 2 up and gate [2F, H], 3 down [H, F]
__host__ __device__ inline uint32_t number(int l, int m, int row, int k) {
  return mix((uint32_t)k * 2654435761u ^ mix((uint32_t)row * 4u + m + 97u * l));
}
template <int BITS>
__device__ int code(int l, int m, int row, int k) {
  uint32_t n = number(l, m, row, k);
  return BITS == 8 ? (int)(int8_t)(n & 255) : (int)(n & 15);
}
__device__ __half scale_of(int l, int m, int row, int g) {
  return __float2half((1.f + (mix(row * 131u + g * 7u + m + 31u * l) % 7)) * 3e-5f);
}
template <int BITS>
__device__ int zero_of(int l, int m, int row, int g) {
  return BITS == 8 ? 0 : mix(row * 77u + g * 3u + m + 11u * l) & 15;
}
__host__ __device__ inline int first_part(int b) {  // units of a block before a group's border
  int n = 128 - b * UNITS % 128;
  return n < UNITS ? n : UNITS;
}
// Values first, then queries, then keys; a block has both numbers of a head that are turned together.
__host__ __device__ inline int kind_of(int n) { return n == 0 ? 2 : n - 1; }
__host__ __device__ inline int number_of(int rank, int n) { return n / 16 * 64 + rank * 16 + n % 16; }
__host__ __device__ inline int qkv_row(int b, int n) {
  return kind_of(n / 32) * H + b / 4 * D + number_of(b % 4, n % 32);
}
__host__ __device__ inline int mlp_row(int b, int n) { return (n < UNITS ? 0 : F) + b * UNITS + n % UNITS; }

template <int BITS>
__device__ unsigned char tape_byte(int l, int b, int i, int o) {
  using S = Shape<BITS>;
  auto two = [&](int m, int r0, int k0, int r1, int k1) {  // one code of 8 bits or two of 4
    return (unsigned char)(BITS == 8 ? code<BITS>(l, m, r0, k0)
                                     : code<BITS>(l, m, r0, k0) | code<BITS>(l, m, r1, k1) << 4);
  };
  auto scales = [&](int m, int at, int g, auto row) {
    if (at < 32) {
      int r = row(at / 4 + (at / 2 & 1) * 8);
      return (unsigned char)(r < 0 ? 0 : __half_as_ushort(scale_of(l, m, r, g)) >> (8 * (at & 1)) & 255);
    }
    int r0 = row(at - 32), r1 = row(at - 24);
    return (unsigned char)(zero_of<BITS>(l, m, r0, g) | (r1 < 0 ? 0 : zero_of<BITS>(l, m, r1, g) << 4));
  };
  auto whole = [&](int m, int q, int k, auto row) {  // byte q of 512: a lane's 16
    int lane = q / 16, j = q % 16 / 4, r = row(lane / 4 + (j & 1) * 8);
    k += (j >> 1) * 16 + lane % 4 * 4 + q % 4;
    return two(m, r, k, r, k + 32);
  };
  if (i < S::A_N || (i >= S::A_N + S::O_N && i < S::WHOLE + S::T_N)) {
    int m = i < S::A_N ? 0 : 2, t = i < S::A_N ? i : i - S::A_N - S::O_N, rb = t / S::KB, kb = t % S::KB;
    auto row = [&](int r) {
      int n = rb * 16 + r;
      return m == 0 ? qkv_row(b, n) : n < 2 * UNITS ? mlp_row(b, n) : -1;
    };
    bool tail = i >= S::WHOLE;
    int size = tail ? 384 : 512;
    if (o >= 32 * size) {
      o -= 32 * size;
      return scales(m, o % S::SB, kb * S::KT / 128 + o / S::SB, row);
    }
    int k = kb * S::KT + o / size * S::CHUNK, q = o % size;
    if (!tail) return whole(m, q, k, row);
    int upper = q >= 256, lane = (q - upper * 256) / 8, j = q % 8 / 4 * 2 + upper;  // 12 rows
    int r = row(lane / 4 + (j & 1) * 8);
    k += (j >> 1) * 16 + lane % 4 * 4 + q % 4;
    return two(m, r, k, r, k + 32);
  }
  if (i < S::WHOLE) {
    int tile = S::o_tile(b, i - S::A_N), size = 256 * BITS;
    auto row = [&](int r) { return b % 4 * 1024 + tile * S::RBT * 16 + r; };
    if (o >= 16384) {
      o -= 16384;
      return scales(1, o % S::SB, b / 4, [&](int r) { return row(o / S::SB * 16 + r); });
    }
    return whole(1, o % 512, b / 4 * D + o % size / 512 * S::CHUNK,
                 [&](int r) { return row(o / size * 16 + r); });
  }
  int tile = S::d_tile(b, i - S::WHOLE - S::T_N), size = 176 * BITS;
  if (o >= 11264) {
    o -= 11264;
    int g = b * UNITS / 128 + o / S::SB % 2;
    return g >= F / 128
               ? 0
               : scales(3, o % S::SB, g, [&](int r) { return (tile * S::RBT + o / S::SB / 2) * 16 + r; });
  }
  int rb = (tile * S::RBT + o / size) * 16, q = o % size;
  if (q < 128 * BITS) return whole(3, q % 512, b * UNITS + q / 512 * S::CHUNK, [&](int r) { return rb + r; });
  q -= 128 * BITS;  // the last 24 inputs: 16 of every lane, 8 of half of them
  int w = BITS, upper = q >= 32 * w, at = upper ? q - 32 * w : q, lane = at / w,
      g = upper ? lane / 2 : lane / 4, k = upper ? 80 + lane % 2 * 4 + at % 4 : 64 + lane % 4 * 4 + at % 4,
      r = BITS == 8 ? at % 8 / 4 * 8 : 0;
  return k < UNITS ? two(3, rb + g + r, b * UNITS + k, rb + g + 8, b * UNITS + k) : 0;
}
template <int BITS>
__global__ void lay(unsigned char* tape, int l) {
  using S = Shape<BITS>;
  int i = blockIdx.x, b = blockIdx.y, n = S::bytes(i);
  unsigned char* to = tape + ((size_t)l * S::BLOCK + S::before(i)) * BLOCKS + (size_t)b * n;
  for (int o = threadIdx.x; o < n; o += blockDim.x) to[o] = tape_byte<BITS>(l, b, i, o);
}
// ---- the check, in float64: a warp a row, eight tokens; matrices 0 and 2 as they are, 1 and 3 summed up
// over layers
template <int BITS>
__global__ void check(int l, int m, int K, const float* x, double* y, int sum) {
  int row = blockIdx.x, lane = threadIdx.x;
  double a[MOST] = {};
  for (int k = lane; k < K; k += 32) {
    double v = (code<BITS>(l, m, row, k) - zero_of<BITS>(l, m, row, k / 128)) *
               (double)__half2float(scale_of(l, m, row, k / 128));
    for (int t = 0; t < MOST; t++) a[t] += v * x[(size_t)t * F + k];
  }
  for (int t = 0; t < MOST; t++) {
    for (int o = 16; o; o >>= 1) a[t] += __shfl_xor_sync(~0u, a[t], o);
    if (lane == 0) y[(size_t)row * MOST + t] = a[t] + (sum ? y[(size_t)row * MOST + t] : 0);
  }
}

// ---- the instructions
__device__ __forceinline__ void mma(int (&c)[4], const uint4& a, const uint2& b) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ void mma(float (&c)[4], const uint4& a, const uint2& b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ void mma_unsigned(int (&c)[4], const uint4& a,
                                             const uint2& b) {  // weights of 0 to 255
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
__device__ __forceinline__ uint4 masked(const uint4& q, uint32_t m) {
  return make_uint4(q.x & m, q.y & m, q.z & m, q.w & m);
}
__device__ __forceinline__ uint4 nibbles(const uint4& q, int shift) {
  return make_uint4(q.x >> shift & 0x0f0f0f0f, q.y >> shift & 0x0f0f0f0f, q.z >> shift & 0x0f0f0f0f,
                    q.w >> shift & 0x0f0f0f0f);
}

// ---- the inputs
struct Input {         // a matrix's input as the instruction's registers: [steps of 32][NT][32 lanes]
  const uint2* x;      // (down: [blocks][3][2: before and behind the group's border][NT][32])
  const float* scale;  // [groups][T] (down: [blocks][T])
  const int* sum;      // of the whole numbers, the same (down: [blocks][2][T])
};

struct Numbers {  // inputs as whole numbers of 16 bits with one scale
  std::vector<int> q;
  float scale;
  int sum(int from, int to) const {
    int a = 0;
    for (int i = from; i < to; i++) a += q[i];
    return a;
  }
};
inline Numbers numbers(const float* x, int n) {
  Numbers r;
  float m = 1e-30f;
  for (int i = 0; i < n; i++) m = fmaxf(m, fabsf(x[i]));
  r.scale = m / 32639.f;
  for (int i = 0; i < n; i++) r.q.push_back((int)rintf(x[i] * (32639.f / m)));
  return r;
}
inline uint32_t digit_word(const std::vector<int>& q, int k, int which, int from, int to) {
  uint32_t w = 0;
  for (int i = 0; i < 4; i++)
    if (k + i >= from && k + i < to) {
      int v = q[k + i];
      w |= (uint32_t)((which ? v : (v + 128) >> 8) & 255) << (8 * i);
    }
  return w;
}
// A step of 32 inputs from k on; what is not in [from, to) is 0. of(t): the whole numbers of token t.
template <class Of>
void step_words(std::vector<uint2>& to_, int T, int k, int from, int to, Of of) {
  for (int n = 0; n < (T + 3) / 4; n++)
    for (int lane = 0; lane < 32; lane++) {
      int t = n * 4 + lane / 8, at = k + lane % 4 * 4;
      to_.push_back(t < T ? make_uint2(digit_word(of(t), at, lane / 4 % 2, from, to),
                                       digit_word(of(t), at + 16, lane / 4 % 2, from, to))
                          : make_uint2(0, 0));
    }
}
inline Input whole_input(const float* x, int T, int K) {  // x: [T][F]
  std::vector<uint2> words;
  std::vector<float> scale;
  std::vector<int> sum;
  for (int g = 0; g < K / 128; g++) {
    std::vector<Numbers> n;
    for (int t = 0; t < T; t++) {
      n.push_back(numbers(x + (size_t)t * F + g * 128, 128));
      scale.push_back(n[t].scale);
      sum.push_back(n[t].sum(0, 128));
    }
    for (int k = 0; k < 128; k += 32)
      step_words(words, T, k, 0, 128, [&](int t) -> const std::vector<int>& { return n[t].q; });
  }
  return {upload(words), upload(scale), upload(sum)};
}
inline Input down_input(const float* x, int T) {
  std::vector<uint2> words;
  std::vector<float> scale;
  std::vector<int> sum;
  for (int b = 0; b < BLOCKS; b++) {
    std::vector<Numbers> n;
    int border = first_part(b);
    for (int t = 0; t < T; t++) n.push_back(numbers(x + (size_t)t * F + b * UNITS, UNITS));
    for (int t = 0; t < T; t++) scale.push_back(n[t].scale);
    for (int t = 0; t < T; t++) sum.push_back(n[t].sum(0, border));
    for (int t = 0; t < T; t++) sum.push_back(n[t].sum(border, UNITS));
    for (int k = 0; k < 96; k += 32)
      for (int part = 0; part < 2; part++)
        step_words(words, T, k, part ? border : 0, part ? UNITS : border,
                   [&](int t) -> const std::vector<int>& { return n[t].q; });
  }
  return {upload(words), upload(scale), upload(sum)};
}
