// Probe: what several tokens at once cost over what one costs, in Int8 and Int4, by tensor cores.
// What it showed is in log.md beside it.
//
// The products of the 32 layers of Qwen-7B-Chat as one persistent kernel without waits (the inputs are
// given), in the shapes of two_waits.cu: 128 blocks, each with 96 rows of q, k, v, a head's 128 columns of
// 1,024 rows of the output projection, 172 rows of up and gate, and the columns of down of the same 86 units,
// added into fixed-point sums. One warp streams a block's tiles through a ring, 16 warps multiply, one sums
// up what they have of a row. The output layer (151,936 rows of fp16) is a kernel of its own.
//
// mma.m16n8k32 takes 16 rows of weights and 8 columns. A token fills two columns, the high and the low byte
// of its inputs, whole numbers of 16 bits with a scale a group of 128: c0 * 256 + c1 of a lane is one row of
// one token. Four tokens take one mma where eight take two; the weights pass once. They lie as the
// instruction's registers want them: a lane's 16 bytes (Int4: two steps of 32 inputs in its nibbles) side by
// side.
//
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -o several_tokens several_tokens.cu &&
//   ./several_tokens
#include <cstring>

#include "tape.cuh"
constexpr int VOCAB = 151936, WARPS = 16, THREADS = WARPS * 32 + 64, STAGES = 12;
constexpr double FIXED = 1 << 28;

__host__ __device__ inline __half head_weight(int row, int k) {
  return __float2half(((int)(number(0, 1, row, k) & 1023) - 511) * 1e-4f);
}
constexpr int HEAD_BLOCKS = 132, HEAD_ROUNDS = (VOCAB / 16 + HEAD_BLOCKS - 1) / HEAD_BLOCKS;
__global__ void lay_head(__half* to) {  // [rounds][8 tiles][blocks][16 rows of 512 inputs]
  size_t n = (size_t)HEAD_ROUNDS * 8 * HEAD_BLOCKS * 8192;
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
    int q = i % 256, lane = q / 8, j = q % 8 / 2, chunk = i / 256 % 32, b = i / 8192 % HEAD_BLOCKS,
        kb = i / 8192 / HEAD_BLOCKS % 8, round = i / 8192 / HEAD_BLOCKS / 8;
    int row = (round * HEAD_BLOCKS + b) * 16 + lane / 4 + (j & 1) * 8;
    int k = kb * 512 + chunk * 16 + (j >> 1) * 8 + lane % 4 * 2 + q % 2;
    to[i] = row < VOCAB ? head_weight(row, k) : __half(0.f);
  }
}

// ---- the kernels
struct Work {
  const unsigned char* tape;
  Input in[4];
  unsigned long long* sums;  // [2: of the output projections, of down][H][T]
  float* y;                  // [L][3H + 2F][T]
  int flight, add, keep;     // tiles under way; add into the sums (else wrong results); write y
};
template <int T>
struct Shared {
  uint64_t full[STAGES], empty[STAGES], done[2], taken[2];
  float part[2][WARPS][16 * T];
};
struct Slot {
  int stage;
  unsigned parity;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};
__device__ __forceinline__ int dp4a(uint32_t a, uint32_t b, int c) {
  asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(c) : "r"(a), "r"(b));
  return c;
}
// One step of 32 inputs for the input's columns. DP: of one token without tensor cores, a lane its own eight
// inputs.
template <int NT, bool DP>
struct Step {
  uint2 x[NT], low;
  __device__ __forceinline__ void load(const uint2* from, int lane, int columns) {
#pragma unroll
    for (int n = 0; n < NT; n++) x[n] = lane / 4 < columns ? __ldg(from + n * 32 + lane) : make_uint2(0, 0);
    if (DP) {
      uint2 v = x[0];
      low.x = __shfl_sync(~0u, v.x, 4 + lane % 4);
      low.y = __shfl_sync(~0u, v.y, 4 + lane % 4);
      x[0].x = __shfl_sync(~0u, v.x, lane % 4);
      x[0].y = __shfl_sync(~0u, v.y, lane % 4);
    }
  }
  __device__ __forceinline__ void multiply(int (&c)[NT][4], const uint4& a) const {
    if (DP) {
      c[0][0] = dp4a(a.z, x[0].y, dp4a(a.x, x[0].x, c[0][0]));
      c[0][1] = dp4a(a.z, low.y, dp4a(a.x, low.x, c[0][1]));
      c[0][2] = dp4a(a.w, x[0].y, dp4a(a.y, x[0].x, c[0][2]));
      c[0][3] = dp4a(a.w, low.y, dp4a(a.y, low.x, c[0][3]));
    } else {
#pragma unroll
      for (int n = 0; n < NT; n++) mma(c[n], a, x[n]);
    }
  }
};
template <int BITS, int NT, bool DP>  // 512 bytes: a step of 32 inputs, in Int4 two
__device__ __forceinline__ void chunk(int (&c)[NT][4], const uint4& q, const Step<NT, DP>* x) {
  if (BITS == 8) {
    x[0].multiply(c, q);
  } else {
    x[0].multiply(c, nibbles(q, 0));
    x[1].multiply(c, nibbles(q, 4));
  }
}
__device__ __forceinline__ float of_lanes(float v) {
  v += __shfl_xor_sync(~0u, v, 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}

template <int T>  // of a sum: four tokens side by side
__host__ __device__ constexpr int place(int row, int t) {
  return T <= 4 ? row * T + t : (t / 4 * H + row) * 4 + t % 4;
}

template <int BITS, int T, bool DP>
struct Consumer {
  using S = Shape<BITS>;
  static constexpr int NT = (T + 3) / 4, STEPS = BITS == 8 ? 1 : 2, COLUMNS = T < 4 ? 2 * T : 8;
  using X = Step<NT, DP>;
  const Work& w;
  Shared<T>& s;
  unsigned char* ring;
  int lane = threadIdx.x & 31, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, token = DP ? 0 : t;
  Slot slot = {0, 0};
  int handed = 0;

  __device__ __forceinline__ const unsigned char* take() {
    bar_wait(&s.full[slot.stage], slot.parity);
    return ring + slot.stage * S::TILE;
  }
  __device__ __forceinline__ void leave(uint32_t seen) {
    give_back(&s.empty[slot.stage], seen);
    slot.next();
  }
  // The products of a group, times the scales: rows g and g + 8.
  __device__ __forceinline__ uint32_t scaled(float (&acc)[NT][2], const int (&c)[NT][4],
                                             const unsigned char* sc, const float (&xs)[NT],
                                             const int (&xz)[NT]) {
    uint32_t both = *(const uint32_t*)(sc + g * 4), z = BITS == 8 ? 0 : sc[32 + g];
    float2 f = __half22float2(*(const __half2*)&both);
#pragma unroll
    for (int n = 0; n < NT; n++) {
      int v0 = c[n][0] * 256 + c[n][1], v1 = c[n][2] * 256 + c[n][3];
      if (BITS == 4) {
        v0 -= (int)(z & 15) * xz[n];
        v1 -= (int)(z >> 4) * xz[n];
      }
      acc[n][0] = fmaf((float)v0, f.x * xs[n], acc[n][0]);
      acc[n][1] = fmaf((float)v1, f.y * xs[n], acc[n][1]);
    }
    return both & (z | ~255u);  // no scale is -1
  }
  __device__ __forceinline__ void scales(float (&xs)[NT], int (&xz)[NT], const Input& in, int group,
                                         int zero) {
#pragma unroll
    for (int n = 0; n < NT; n++) {
      bool ok = token < T;
      xs[n] = ok ? __ldg(in.scale + group * T + n * 4 + token) : 0;
      xz[n] = BITS == 4 && ok && (!DP || t == 0) ? __ldg(in.sum + zero * T + n * 4 + token) : 0;
    }
  }
  __device__ __forceinline__ void hand_over(float (&acc)[NT][2]) {
    int k = handed & 1;
    if (DP) {
      acc[0][0] = of_lanes(acc[0][0]);
      acc[0][1] = of_lanes(acc[0][1]);
    }
    if (handed >= 2) bar_wait(&s.taken[k], (handed / 2 - 1) & 1);
#pragma unroll
    for (int n = 0; n < NT; n++)
      if (t < T) {
        s.part[k][warp][g * T + n * 4 + t] = acc[n][0];
        s.part[k][warp][(g + 8) * T + n * 4 + t] = acc[n][1];
      }
    __syncwarp();
    if (lane == 0) bar_arrive(&s.done[k]);
    handed++;
  }
  // Row blocks whose inputs are all of H: a warp has its 256 inputs in registers for all of them.
  __device__ __forceinline__ void rows(const Input& in, int blocks, bool tail) {
    X x[8];
    float xs[S::KB][NT];
    int xz[S::KB][NT];
#pragma unroll
    for (int kb = 0; kb < S::KB; kb++) {
      int k = kb * S::KT + warp * (S::KT / 16);
      scales(xs[kb], xz[kb], in, k / 128, k / 128);
#pragma unroll
      for (int i = 0; i < 8 / S::KB; i++)
        x[kb * (8 / S::KB) + i].load(in.x + (size_t)(k / 32 + i) * NT * 32, lane, COLUMNS);
    }
    int group = warp * (S::KT / 16) / 128 * S::SB;
#pragma unroll 1
    for (int rb = 0; rb < blocks + tail; rb++) {
      float acc[NT][2] = {};
#pragma unroll
      for (int kb = 0; kb < S::KB; kb++) {
        const unsigned char* at = take();
        int c[NT][4] = {};
        uint32_t seen = ~0u;
        if (rb < blocks) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            uint4 q = *(const uint4*)(at + (warp * 2 + i) * 512 + lane * 16);
            chunk<BITS, NT, DP>(c, q, x + (kb * 2 + i) * STEPS);
            seen &= q.x;
          }
          seen &= scaled(acc, c, at + 16384 + group, xs[kb], xz[kb]);
        } else {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const unsigned char* p = at + (warp * 2 + i) * 384 + lane * 8;
            uint2 e = *(const uint2*)p, f = lane < 16 ? *(const uint2*)(p + 256) : make_uint2(0, 0);
            chunk<BITS, NT, DP>(c, make_uint4(e.x, f.x, e.y, f.y), x + (kb * 2 + i) * STEPS);
            seen &= e.x & f.x;
          }
          seen &= scaled(acc, c, at + 12288 + group, xs[kb], xz[kb]);
        }
        leave(seen);
      }
      hand_over(acc);
    }
  }
  __device__ __forceinline__ void add_one(unsigned long long* to, float v) {
    asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to),
                 "l"((unsigned long long)(__float2ll_rn(v * (float)FIXED) * 256 + 1))
                 : "memory");
  }
  __device__ __forceinline__ void add(unsigned long long* sums, int row, float (&acc)[NT][2]) {
    if (DP) {
      acc[0][0] = of_lanes(acc[0][0]);
      acc[0][1] = of_lanes(acc[0][1]);
    }
    if (!w.add) {
      if (acc[0][0] == 1.2345f) add_one(sums, acc[0][1]);
    } else if (T <= 2) {  // the rows g + 8 to lanes that would have nothing to do
      float other = __shfl_up_sync(~0u, acc[0][1], T);
      if (t < 2 * T) add_one(sums + (row + g + t / T * 8) * T + t % T, t < T ? acc[0][0] : other);
    } else {
#pragma unroll
      for (int n = 0; n < NT; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) add_one(sums + place<T>(row + g + h * 8, n * 4 + t), acc[n][h]);
    }
  }
  __device__ __forceinline__ void projection() {  // a head's columns of 1,024 rows
    int b = blockIdx.x;
    X x[4];
    float xs[NT];
    int xz[NT];
    scales(xs, xz, w.in[1], b / 4, b / 4);
#pragma unroll
    for (int i = 0; i < 4; i++) x[i].load(w.in[1].x + (size_t)(b / 4 * 4 + i) * NT * 32, lane, COLUMNS);
#pragma unroll 1
    for (int i = 0; i < S::O_N; i++) {
      const unsigned char* at = take();
      float acc[NT][2] = {};
      bool mine = BITS == 4 || (i & 1) == warp / 8;
      int rb = BITS == 4 ? warp : warp % 8;
      uint32_t seen = 0;
      if (mine) {
        int c[NT][4] = {};
        seen = ~0u;
#pragma unroll
        for (int j = 0; j < BITS / 2; j++) {
          uint4 q = *(const uint4*)(at + rb * (256 * BITS) + j * 512 + lane * 16);
          chunk<BITS, NT, DP>(c, q, x + j * STEPS);
          seen &= q.x;
        }
        seen &= scaled(acc, c, at + 16384 + rb * S::SB, xs, xz);
      }
      leave(seen);
      if (mine) add(w.sums, b % 4 * 1024 + (S::o_tile(b, i) * S::RBT + rb) * 16, acc);
    }
  }
  __device__ __forceinline__ void down() {  // the columns of 86 units, of all rows
    int b = blockIdx.x;
    X x0[3], x1[3];  // with zeros behind, and before, the border of the groups
    float xs[NT];
    int xz0[NT], xz1[NT];
    scales(xs, xz0, w.in[3], b, b * 2);
    scales(xs, xz1, w.in[3], b, b * 2 + 1);
#pragma unroll
    for (int i = 0; i < 3; i++) {
      x0[i].load(w.in[3].x + (size_t)((b * 3 + i) * 2) * NT * 32, lane, COLUMNS);
      x1[i].load(w.in[3].x + (size_t)((b * 3 + i) * 2 + 1) * NT * 32, lane, COLUMNS);
    }
#pragma unroll 1
    for (int i = 0; i < S::D_N; i++) {
      const unsigned char* at = take();
      float acc[NT][2] = {};
      bool mine = BITS == 4 || (i & 1) == warp / 8;
      int rb = BITS == 4 ? warp : warp % 8;
      uint32_t seen = 0;
      if (mine) {
        const unsigned char* p = at + rb * (176 * BITS);
        int c0[NT][4] = {}, c1[NT][4] = {};
        auto both = [&](const uint4& q, int step) {
          x0[step].multiply(c0, q);
          x1[step].multiply(c1, q);
          seen &= q.x & q.z;
        };
        seen = ~0u;
        uint4 q = *(const uint4*)(p + lane * 16);
        if (BITS == 8) {
          both(q, 0);
          both(*(const uint4*)(p + 512 + lane * 16), 1);
          p += 1024;
          uint2 e = *(const uint2*)(p + lane * 8),
                f = t < 2 ? *(const uint2*)(p + 256 + (g * 2 + t) * 8) : make_uint2(0, 0);
          both(make_uint4(e.x, e.y, f.x, f.y), 2);
        } else {
          both(nibbles(q, 0), 0);
          both(nibbles(q, 4), 1);
          p += 512;
          uint32_t e = *(const uint32_t*)(p + lane * 4),
                   f = t < 2 ? *(const uint32_t*)(p + 128 + (g * 2 + t) * 4) : 0, m = 0x0f0f0f0f;
          both(make_uint4(e & m, e >> 4 & m, f & m, f >> 4 & m), 2);
        }
        seen &= scaled(acc, c0, at + 11264 + rb * 2 * S::SB, xs, xz0);
        seen &= scaled(acc, c1, at + 11264 + (rb * 2 + 1) * S::SB, xs, xz1);
      }
      leave(seen);
      if (mine) add(w.sums + H * T, (S::d_tile(b, i) * S::RBT + rb) * 16, acc);
    }
  }
};

template <int T, class Put>  // sums up what the 16 warps have of 16 rows
__device__ __forceinline__ void sum_up(Shared<T>& s, int& n, Put put) {
  int lane = threadIdx.x & 31, k = n & 1;
  bar_wait(&s.done[k], (n / 2) & 1);
#pragma unroll
  for (int o = lane; o < 16 * T; o += 32) {
    float v = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) v += s.part[k][i][o];
    put(o / T, o % T, v);
  }
  __syncwarp();
  if (lane == 0) bar_arrive(&s.taken[k]);
  n++;
}
template <int T>
__device__ __forceinline__ void begin(Shared<T>& s) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      bar_init(&s.full[i], 1);
      bar_init(&s.empty[i], WARPS);
    }
    for (int i = 0; i < 2; i++) {
      bar_init(&s.done[i], WARPS);
      bar_init(&s.taken[i], 1);
    }
    bars_ready();
  }
  __syncthreads();
}
struct Fetcher {
  Slot slot = {0, 1}, landed = {0, 0};
  int ahead;
  template <class Sh>
  __device__ __forceinline__ void get(Sh& s, unsigned char* ring, int stage, const void* from, int bytes) {
    bar_wait(&s.empty[slot.stage], slot.parity);
    if (ahead)
      ahead--;
    else {
      bar_wait(&s.full[landed.stage], landed.parity);
      landed.next();
    }
    bar_expect(&s.full[slot.stage], bytes);
    bulk(ring + slot.stage * stage, from, bytes, &s.full[slot.stage]);
    slot.next();
  }
};

template <int BITS, int T, bool DP>
__global__ void __launch_bounds__(THREADS, 1) layers(const __grid_constant__ Work w) {
  using S = Shape<BITS>;
  extern __shared__ __align__(128) unsigned char raw[];
  unsigned char* ring = raw;
  Shared<T>& s = *(Shared<T>*)(raw + STAGES * S::TILE);
  begin(s);
  int warp = threadIdx.x / 32, b = blockIdx.x;
  if (warp < WARPS) {
    Consumer<BITS, T, DP> c{w, s, ring};
#pragma unroll 1
    for (int l = 0; l < L; l++) {
      c.rows(w.in[0], 6, false);
      c.projection();
      c.rows(w.in[2], 10, true);
      c.down();
    }
  } else if (warp == WARPS) {
    if (threadIdx.x % 32 == 0) {
      Fetcher f;
      f.ahead = w.flight;
      const unsigned char* at = w.tape;
#pragma unroll 1
      for (int l = 0; l < L; l++)
#pragma unroll 1
        for (int i = 0; i < S::TILES; i++) {
          int n = S::bytes(i);
          f.get(s, ring, S::TILE, at + (size_t)b * n, n);
          at += (size_t)BLOCKS * n;
        }
    }
  } else {
    int n = 0;
#pragma unroll 1
    for (int l = 0; l < L; l++)
#pragma unroll 1
      for (int rb = 0; rb < 17; rb++)
        sum_up(s, n, [&](int r, int token, float v) {
          int row = rb < 6 ? qkv_row(b, rb * 16 + r) : (rb - 6) * 16 + r;
          if (rb >= 6) row = row < 2 * UNITS ? 3 * H + mlp_row(b, row) : -1;
          if (w.keep && row >= 0) w.y[((size_t)l * (3 * H + 2 * F) + row) * T + token] = v;
        });
  }
}

// The output layer, fp16: an input is two numbers of fp16 that add up to it, the second 2,048 times as large.
template <int T>
__global__ void __launch_bounds__(THREADS, 1)
    output(const __half* weights, const uint2* in, float* y, int flight) {
  constexpr int NT = (T + 3) / 4, TILE = 16384, COLUMNS = T < 4 ? 2 * T : 8;
  extern __shared__ __align__(128) unsigned char raw[];
  unsigned char* ring = raw;
  Shared<T>& s = *(Shared<T>*)(raw + STAGES * TILE);
  begin(s);
  int warp = threadIdx.x / 32, lane = threadIdx.x & 31, b = blockIdx.x, g = lane / 4, t = lane % 4;
  if (warp < WARPS) {
    Slot slot = {0, 0};
    uint2 x[16][NT];
#pragma unroll
    for (int i = 0; i < 16; i++)
#pragma unroll
      for (int n = 0; n < NT; n++)
        x[i][n] = g < COLUMNS ? __ldg(in + ((size_t)(i / 2 * 32 + warp * 2 + i % 2) * NT + n) * 32 + lane)
                              : make_uint2(0, 0);
#pragma unroll 1
    for (int round = 0; round < HEAD_ROUNDS; round++) {
      float c[NT][4] = {};
#pragma unroll
      for (int kb = 0; kb < 8; kb++) {
        bar_wait(&s.full[slot.stage], slot.parity);
        const unsigned char* at = ring + slot.stage * TILE + warp * 1024 + lane * 16;
        uint32_t seen = ~0u;
#pragma unroll
        for (int i = 0; i < 2; i++) {
          uint4 q = *(const uint4*)(at + i * 512);
          seen &= q.x;
#pragma unroll
          for (int n = 0; n < NT; n++) mma(c[n], q, x[kb * 2 + i][n]);
        }
        give_back(&s.empty[slot.stage], seen);
        slot.next();
      }
      int k = round & 1;
      if (round >= 2) bar_wait(&s.taken[k], (round / 2 - 1) & 1);
#pragma unroll
      for (int n = 0; n < NT; n++)
        if (t < T) {
          s.part[k][warp][g * T + n * 4 + t] = c[n][0] + c[n][1] * (1.f / 2048);
          s.part[k][warp][(g + 8) * T + n * 4 + t] = c[n][2] + c[n][3] * (1.f / 2048);
        }
      __syncwarp();
      if (lane == 0) bar_arrive(&s.done[k]);
    }
  } else if (warp == WARPS) {
    if (lane == 0) {
      Fetcher f;
      f.ahead = flight;
      for (int i = 0; i < HEAD_ROUNDS * 8; i++)
        f.get(s, ring, TILE, weights + ((size_t)i * HEAD_BLOCKS + b) * 8192, TILE);
    }
  } else {
    int n = 0;
    for (int round = 0; round < HEAD_ROUNDS; round++)
      sum_up(s, n, [&](int r, int token, float v) {
        int row = (round * HEAD_BLOCKS + b) * 16 + r;
        if (row < VOCAB) y[(size_t)row * T + token] = v;
      });
  }
}

__global__ void check_head(const float* x, double* y) {
  int row = blockIdx.x, lane = threadIdx.x;
  double a[MOST] = {};
  for (int k = lane; k < H; k += 32) {
    double v = __half2float(head_weight(row, k));
    for (int t = 0; t < MOST; t++) a[t] += v * x[(size_t)t * F + k];
  }
  for (int t = 0; t < MOST; t++) {
    for (int o = 16; o; o >>= 1) a[t] += __shfl_xor_sync(~0u, a[t], o);
    if (lane == 0) y[(size_t)row * MOST + t] = a[t];
  }
}

// ---- running it
struct Bench {
  cudaStream_t st;
  std::vector<float> x[5];  // inputs [MOST][F] of the four matrices and of the output layer
  float* dx[5];
  void* scratch;
  double speed;
};
constexpr int ROWS = 3 * H + 2 * F, AGAIN = 200;
static double off(double e, double n) { return std::sqrt(e / n); }

template <int BITS, int T, bool DP>
std::vector<float> several(const Bench& o, const unsigned char* tape, const std::vector<double>& y64,
                           const std::vector<double>& s64, double one_ms, double* ms_out) {
  using S = Shape<BITS>;
  Work w = {};
  w.tape = tape;
  for (int m = 0; m < 3; m++) w.in[m] = whole_input(o.x[m].data(), T, H);
  w.in[3] = down_input(o.x[3].data(), T);
  CK(cudaMalloc(&w.sums, (size_t)2 * H * T * 8));
  CK(cudaMalloc(&w.y, (size_t)L * ROWS * T * 4));
  size_t shared = (size_t)STAGES * S::TILE + sizeof(Shared<T>);
  CK(cudaFuncSetAttribute(layers<BITS, T, DP>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  auto go = [&](int flight, int add, int keep) {
    w.flight = flight;
    w.add = add;
    w.keep = keep;
    layers<BITS, T, DP><<<BLOCKS, THREADS, shared, o.st>>>(w);
    CK(cudaGetLastError());
  };
  auto result = [&](int flight) {  // rows of every layer and the sums, a token after the other
    CK(cudaMemsetAsync(w.sums, 0, (size_t)2 * H * T * 8, o.st));
    CK(cudaMemsetAsync(w.y, 0xff, (size_t)L * ROWS * T * 4, o.st));
    go(flight, 1, 1);
    CK(cudaStreamSynchronize(o.st));
    auto y = download(w.y, (size_t)L * ROWS * T);
    auto s = download(w.sums, (size_t)2 * H * T);
    std::vector<float> r;
    for (int t = 0; t < T; t++) {
      for (size_t i = 0; i < (size_t)L * ROWS; i++) r.push_back(y[i * T + t]);
      for (size_t i = 0; i < 2 * H; i++) {
        long long v = (long long)s[i / H * H * T + place<T>(i % H, t)] - (i < H ? L * HEADS : L * BLOCKS);
        r.push_back(v & 255 ? NAN : (float)((double)(v >> 8) / FIXED));
      }
    }
    return r;
  };
  auto r = result(4), again = result(3);
  bool same = memcmp(r.data(), again.data(), r.size() * 4) == 0;
  auto sums = download(w.sums, (size_t)2 * H * T);
  int others = 0;
  for (int i = 0; i < AGAIN; i++) {
    CK(cudaMemsetAsync(w.sums, 0, (size_t)2 * H * T * 8, o.st));
    go(2 + i % 5, 1, 0);
    CK(cudaStreamSynchronize(o.st));
    others += download(w.sums, (size_t)2 * H * T) != sums;
  }
  double ey = 0, ny = 0, es = 0, ns = 0;
  size_t each = (size_t)L * ROWS + 2 * H;
  for (int t = 0; t < T; t++) {
    for (size_t i = 0; i < (size_t)L * ROWS; i++) {
      double a = y64[i * MOST + t], d = r[t * each + i] - a;
      ey += d * d;
      ny += a * a;
    }
    for (size_t i = 0; i < 2 * H; i++) {
      double a = s64[i * MOST + t], d = r[t * each + (size_t)L * ROWS + i] - a;
      es += d * d;
      ns += a * a;
    }
  }
  double best = 1e9, bytes = (double)L * BLOCKS * S::BLOCK, ms[3], none;
  int at = 0, flights[3] = {3, 4, 6};
  for (int i = 0; i < 3; i++) {
    ms[i] = median_ms(o.st, 9, 5, [&] { go(flights[i], 1, 0); });
    if (ms[i] < best) {
      best = ms[i];
      at = i;
    }
  }
  none = median_ms(o.st, 9, 5, [&] { go(flights[at], 0, 0); });
  printf(
      "Int%d, %d token%s %s: off %.1e rows, %.1e sums, %s, sums unlike these %d of %d times; ms %.3f %.3f "
      "%.3f "
      "(3, 4, 6 tiles under way), no adding %.3f; best %.0f GB/s, %.1f %% of the memory's, %.3f of one\n",
      BITS, T, T > 1 ? "s" : " ", DP ? "dp4a" : "mma ", off(ey, ny), off(es, ns),
      same ? "twice the same" : "NOT THE SAME TWICE", others, AGAIN, ms[0], ms[1], ms[2], none,
      bytes / best / 1e6, bytes / best / 1e4 / o.speed, one_ms > 0 ? best / one_ms : 1);
  fflush(stdout);
  *ms_out = best;
  CK(cudaFree(w.sums));
  CK(cudaFree(w.y));
  r.resize(each);
  return r;
}

template <int BITS>
void all_of(Bench& o) {
  using S = Shape<BITS>;
  unsigned char* tape;
  CK(cudaMalloc(&tape, (size_t)L * BLOCKS * S::BLOCK));
  for (int l = 0; l < L; l++) lay<BITS><<<dim3(S::TILES, BLOCKS), 256, 0, o.st>>>(tape, l);
  CK(cudaGetLastError());
  double *y, *s;
  CK(cudaMalloc(&y, (size_t)L * ROWS * MOST * 8));
  CK(cudaMalloc(&s, (size_t)2 * H * MOST * 8));
  CK(cudaMemset(s, 0, (size_t)2 * H * MOST * 8));
  for (int l = 0; l < L; l++) {
    check<BITS><<<3 * H, 32, 0, o.st>>>(l, 0, H, o.dx[0], y + (size_t)l * ROWS * MOST, 0);
    check<BITS><<<2 * F, 32, 0, o.st>>>(l, 2, H, o.dx[2], y + ((size_t)l * ROWS + 3 * H) * MOST, 0);
    check<BITS><<<H, 32, 0, o.st>>>(l, 1, H, o.dx[1], s, 1);
    check<BITS><<<H, 32, 0, o.st>>>(l, 3, F, o.dx[3], s + (size_t)H * MOST, 1);
  }
  CK(cudaStreamSynchronize(o.st));
  auto y64 = download(y, (size_t)L * ROWS * MOST), s64 = download(s, (size_t)2 * H * MOST);
  CK(cudaFree(y));
  o.speed = memory_speed(o.st, tape, 3ull << 30, o.scratch);
  printf("Int%d: %.3f GB a token, the memory reads %.0f GB/s: %.3f ms\n", BITS, L * BLOCKS * S::BLOCK / 1e9,
         o.speed, L * BLOCKS * S::BLOCK / 1e6 / o.speed);
  double one, ms;
  several<BITS, 1, true>(o, tape, y64, s64, 0, &ms);
  auto a = several<BITS, 1, false>(o, tape, y64, s64, 0, &one);
  several<BITS, 2, false>(o, tape, y64, s64, one, &ms);
  auto b = several<BITS, 4, false>(o, tape, y64, s64, one, &ms);
  auto c = several<BITS, 8, false>(o, tape, y64, s64, one, &ms);
  printf("Int%d: the first of several has the bits of one alone: %s, %s\n", BITS,
         memcmp(a.data(), b.data(), a.size() * 4) ? "NO" : "yes",
         memcmp(a.data(), c.data(), a.size() * 4) ? "NO" : "yes");
  several<BITS, 1, false>(o, tape, y64, s64, one, &ms);
  CK(cudaFree(tape));
}

template <int T>
double head_of(const Bench& o, const __half* weights, const std::vector<double>& y64, double one_ms) {
  std::vector<uint2> words;
  const auto& x = o.x[4];
  auto pair = [&](int t, int low, int k) {
    uint32_t w = 0;
    for (int i = 0; t < T && i < 2; i++) {
      float v = x[(size_t)t * F + k + i];
      __half h = __float2half(v);
      if (low) h = __float2half((v - __half2float(h)) * 2048);
      w |= (uint32_t)__half_as_ushort(h) << (16 * i);
    }
    return w;
  };
  for (int k = 0; k < H; k += 16)
    for (int n = 0; n < (T + 3) / 4; n++)
      for (int lane = 0; lane < 32; lane++) {
        int t = n * 4 + lane / 8, low = lane / 4 % 2, at = k + lane % 4 * 2;
        words.push_back(make_uint2(pair(t, low, at), pair(t, low, at + 8)));
      }
  uint2* in = upload(words);
  float* y;
  CK(cudaMalloc(&y, (size_t)VOCAB * T * 4));
  size_t shared = (size_t)STAGES * 16384 + sizeof(Shared<T>);
  CK(cudaFuncSetAttribute(output<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  auto go = [&](int flight) {
    output<T><<<HEAD_BLOCKS, THREADS, shared, o.st>>>(weights, in, y, flight);
    CK(cudaGetLastError());
  };
  auto result = [&](int flight) {
    CK(cudaMemsetAsync(y, 0xff, (size_t)VOCAB * T * 4, o.st));
    go(flight);
    CK(cudaStreamSynchronize(o.st));
    return download(y, (size_t)VOCAB * T);
  };
  auto r = result(4), again = result(3);
  double e = 0, n = 0, best = 1e9, ms[3];
  for (size_t i = 0; i < VOCAB; i++)
    for (int t = 0; t < T; t++) {
      double a = y64[i * MOST + t], d = r[i * T + t] - a;
      e += d * d;
      n += a * a;
    }
  for (int i = 0; i < 3; i++)
    best = std::min(best, ms[i] = median_ms(o.st, 9, 5, [&] { go(i == 2 ? 6 : 3 + i); }));
  double bytes = (double)VOCAB * H * 2;
  printf("output layer, %d tokens: off %.1e, %s; ms %.4f %.4f %.4f, %.1f %% of the memory's, %.3f of one\n",
         T, off(e, n), memcmp(r.data(), again.data(), r.size() * 4) ? "NOT THE SAME TWICE" : "twice the same",
         ms[0], ms[1], ms[2], bytes / best / 1e4 / o.speed, one_ms > 0 ? best / one_ms : 1);
  fflush(stdout);
  CK(cudaFree(in));
  CK(cudaFree(y));
  return best;
}

int main() {
  Bench o;
  CK(cudaStreamCreate(&o.st));
  CK(cudaMalloc(&o.scratch, 64));
  for (int m = 0; m < 5; m++) {
    o.x[m].resize((size_t)MOST * F);
    for (int i = 0; i < MOST * F; i++) o.x[m][i] = ((int)(mix(i * 5 + m) % 20001) - 10000) / 10000.f;
    o.dx[m] = upload(o.x[m]);
  }
  all_of<8>(o);
  all_of<4>(o);
  size_t n = (size_t)HEAD_ROUNDS * 8 * HEAD_BLOCKS * 8192;
  __half* weights;
  CK(cudaMalloc(&weights, n * 2));
  lay_head<<<4096, 256, 0, o.st>>>(weights);
  double* y;
  CK(cudaMalloc(&y, (size_t)VOCAB * MOST * 8));
  check_head<<<VOCAB, 32, 0, o.st>>>(o.dx[4], y);
  CK(cudaStreamSynchronize(o.st));
  auto y64 = download(y, (size_t)VOCAB * MOST);
  o.speed = memory_speed(o.st, weights, 1ull << 30, o.scratch);
  printf("output layer: %.3f GB, the memory reads %.0f GB/s: %.4f ms\n", VOCAB * (double)H * 2e-9, o.speed,
         VOCAB * (double)H * 2 / 1e6 / o.speed);
  double one = head_of<1>(o, weights, y64, 0);
  head_of<2>(o, weights, y64, one);
  head_of<4>(o, weights, y64, one);
  head_of<8>(o, weights, y64, one);
  return 0;
}
