// Probe: the 32 layers of a token of Qwen-7B-Chat, Int8 or Int4, as ONE persistent kernel with two global
// waits a layer. What it showed is in log.md beside it.
//
// 128 blocks, one a multiprocessor; four own an attention head, each a slice of the MLP's hidden units. A
// block's weights lie in the order in which it needs them (tape.cuh), so that one warp streams them through a
// ring of stages, across every border of matrices, while 16 warps multiply with tensor cores:
//
//   wait for the stream x -> norm -> v, q, k of the head (32 rows of each a block) -> exchanged by the four
//   ->
//     attention over a quarter of the cached positions -> combined by the four -> the head's columns of the
//     output projection (1,024 rows a block) -> added into x
//   wait for x -> norm -> 86 units of up and gate -> SwiGLU -> the same units' columns of down -> added into
//   x
//
// What is added into x is a whole number of 56 bits: the order of the sums does not matter, so a reply
// repeats to the bit. The 8 bits below count who has added, so a reader needs no flag and no barrier beside
// the sum. Keys and values are fp16, or 8 bits with a scale a head and position. Weights come from a hash, so
// that plain kernels in float64 can check everything.
//
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -o two_waits two_waits.cu && ./two_waits
//   -DTRACE also prints the clocks of every section.
#include "tape.cuh"
constexpr int WARPS = 16, CONSUMERS = WARPS * 32, THREADS = CONSUMERS + 32, STAGES = 12, STAGE = 17024;
constexpr int TEAMS = 2, TEAM = WARPS / TEAMS;  // a team of warps has every other tile
constexpr double FIXED = 1 << 28;  // a stream of up to 2^27 in 56 bits; the lowest 8 count who has added

__host__ __device__ inline float norm_of(int l, int which, int k) {
  return 0.5f + (mix(k * 2u + which + 77u * l) % 64) / 64.f;
}
__host__ __device__ inline float bias_of(int l, int row) {
  return ((int)(mix(row + 5u * l) % 33) - 16) / 64.f;
}

// The cache, a tile of CHUNK positions of a head after the other: keys, values and in 8 bits a float scale of
// each row.
template <int KV>
struct Cache {
  static constexpr int CHUNK = KV == 16 ? 32 : 64, ROW = D * KV / 8, SCALES = 2 * CHUNK * ROW;
  static constexpr int BYTES = SCALES + (KV == 16 ? 0 : 2 * CHUNK * 4), LANES = KV == 16 ? 16 : 8;
  static __host__ __device__ size_t tile(int l, int chunks, int chunk, int head) {
    return (((size_t)l * chunks + chunk) * HEADS + head) * BYTES;
  }
};

// ---- words between blocks
constexpr int PATIENT = 2000000;  // looks at a word before the probe gives up
// A float and the turn that it belongs to in one word of 64 bits, so that whoever reads it needs no flag
// beside it.
__device__ __forceinline__ void post(unsigned long long* to, float v, unsigned turn) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to),
               "l"((unsigned long long)turn << 32 | __float_as_uint(v))
               : "memory");
}
__device__ __forceinline__ float collect(const unsigned long long* from, unsigned turn, int wait) {
  unsigned long long v;
  int looks = 0;
  do {
    if (++looks > PATIENT) __trap();
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(from) : "memory");
  } while (wait && (int)((unsigned)(v >> 32) - turn) < 0);
  return __uint_as_float((unsigned)v);
}
__device__ __forceinline__ void team_sync() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }
__device__ __forceinline__ int dp4a(uint32_t a, uint32_t b, int c) {
  asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(c) : "r"(a), "r"(b));
  return c;
}
__device__ __forceinline__ void add_fixed(unsigned long long* to, float v) {
  asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(to),
               "l"((unsigned long long)(__float2ll_rn(v * (float)FIXED) * 256 + 1))
               : "memory");
}

struct Token {
  const unsigned char* tape;              // tape.cuh
  unsigned char* cache;                   // [L][chunks][HEADS] tiles of Cache
  const float *x0, *norm, *bias;          // [H]; [L][2][H]; [L][3H]
  unsigned long long* sums;               // [2 tokens][2L phases][H]
  unsigned long long* mail;               // [HEADS][1024]: what the four blocks of a head tell one another
  float* out;                             // [H]
  long long* trace;                       // [BLOCKS][4 layers][16] clocks
  int pos, chunks, flight, wait, parity;  // tiles under way at most; 1 global waits, 2 the head's; which sums
  unsigned turn;                          // grows with every layer of every token
};

struct Shared {
  uint64_t full[STAGES], empty[STAGES];
  float cos_sin[128], q[D], v[D];
  float scales[32], squares[WARPS], hidden[96], narrow_scale, most[4], own;
  int sums[128], narrow_sums[4][2];       // of the whole numbers, 32 inputs each
  alignas(16) uint32_t digits[2][H / 4];  // of a whole input: the high and the low bytes
  alignas(16)
      uint32_t narrow[2][2][D / 4];  // of a block's own: before and behind a border of groups; high and low
  alignas(16) float part[3648];
};
#ifdef TRACE
#define MARK(what)                                                                                         \
  do {                                                                                                     \
    if (threadIdx.x == 0 && l >= 8 && l < 12) t.trace[(blockIdx.x * 4 + l - 8) * 16 + (what)] = clock64(); \
  } while (0)
#else
#define MARK(what)
#endif

struct Slot {
  int stage;
  unsigned parity;
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
__device__ __forceinline__ const unsigned char* take(Shared& s, unsigned char* ring, const Slot& slot) {
  bar_wait(&s.full[slot.stage], slot.parity);
  return ring + slot.stage * STAGE;
}
// A slot goes back, then the team's next.
__device__ __forceinline__ void leave(Shared& s, Slot& slot, uint32_t seen) {
  give_back(&s.empty[slot.stage], seen);
  slot.skip(TEAMS);
}
__device__ __forceinline__ void digits_of(int q, uint32_t& hi, uint32_t& lo, int byte) {
  hi |= (uint32_t)(((q + 128) >> 8) & 255) << (8 * byte);
  lo |= (uint32_t)(q & 255) << (8 * byte);
}

// Adds what the last phase brought, and lays the norm's output down as digits, a scale for 128.
__device__ __forceinline__ float begin_phase(const Token& t, Shared& s, float (&x)[8], int phase,
                                             const float* norm) {
  int tid = threadIdx.x, lane = tid & 31;
  float w[8];
#pragma unroll
  for (int j = 0; j < 2; j++) {
    float4 f = __ldg((const float4*)(norm + tid * 8) + j);
    w[4 * j] = f.x;
    w[4 * j + 1] = f.y;
    w[4 * j + 2] = f.z;
    w[4 * j + 3] = f.w;
  }
  if (phase > 0) {
    const unsigned long long* d = t.sums + ((size_t)t.parity * 2 * L + phase - 1) * H;
    unsigned all = phase & 1 ? HEADS : BLOCKS;
    int looks = 0;
    if (t.wait & 1) {  // a word a warp first: all words at a time, again and again, would stand in the way
      unsigned long long v;
      do {
        if (++looks > PATIENT) __trap();
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];"
                     : "=l"(v)
                     : "l"(d + (tid & ~31) * 8 + 255)
                     : "memory");
      } while ((v & 255) != all);
    }
    d += tid * 8;
    ulonglong2 v[4];
    bool ok;
    do {
      if (++looks > PATIENT) __trap();
      ok = true;
#pragma unroll
      for (int j = 0; j < 4; j++)
        asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];"
                     : "=l"(v[j].x), "=l"(v[j].y)
                     : "l"(d + 2 * j)
                     : "memory");
#pragma unroll
      for (int j = 0; j < 4; j++) ok = ok && (v[j].x & 255) == all && (v[j].y & 255) == all;
    } while ((t.wait & 1) && !ok);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      x[2 * j] += (float)((double)((long long)v[j].x >> 8) * (1 / FIXED));
      x[2 * j + 1] += (float)((double)((long long)v[j].y >> 8) * (1 / FIXED));
    }
  }
  float sq = 0, m = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    sq = fmaf(x[j], x[j], sq);
    w[j] *= x[j];
    m = fmaxf(m, fabsf(w[j]));
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) sq += __shfl_xor_sync(~0u, sq, o);
#pragma unroll
  for (int o = 8; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
  m = fmaxf(m, 1e-30f);
  float inv = 32639.f / m;
  uint32_t hi[2] = {0, 0}, lo[2] = {0, 0};
  int sum = 0;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    int q = __float2int_rn(w[j] * inv);
    digits_of(q, hi[j / 4], lo[j / 4], j % 4);
    sum += q;
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  ((uint2*)s.digits[0])[tid] = make_uint2(hi[0], hi[1]);
  ((uint2*)s.digits[1])[tid] = make_uint2(lo[0], lo[1]);
  if (lane % 16 == 0) s.scales[tid / 16] = m * (1 / 32639.f);
  if (lane % 4 == 0) s.sums[tid / 4] = sum;
  if (lane == 0) s.squares[tid / 32] = sq;
  team_sync();
  float total = 0;
#pragma unroll
  for (int j = 0; j < WARPS; j++) total += s.squares[j];
  return rsqrtf(total / H + 1e-6f);
}

// ---- products. A token fills two of an mma's eight columns, so four parts of its inputs have two columns
// each, zeros in the others' steps: lane % 4 then has the sums of a part of its own, and scales it, where
// else three lanes of four would stand idle four times as often. In Int4 the high nibbles are multiplied
// where they stand, sixteen times as large, and a group is two parts, so that only scales know of it.
__device__ __forceinline__ uint2 columns(const uint32_t* hi, const uint32_t* lo, int step, int pair) {
  int lane = threadIdx.x & 31, at = step * 8 + lane % 4;
  const uint32_t* from = lane / 4 % 2 ? lo : hi;
  return lane / 8 == pair ? make_uint2(from[at], from[at + 4]) : make_uint2(0, 0);
}
struct Scales {  // a group's, of rows g and g + 8, and their zero points
  uint32_t both, zeros;
};
template <int BITS>
__device__ __forceinline__ Scales scales_at(const unsigned char* sc) {
  int g = (threadIdx.x & 31) / 4;
  return {*(const uint32_t*)(sc + g * 4), BITS == 8 ? 0u : sc[32 + g]};
}
__device__ __forceinline__ uint32_t seen_of(const Scales& s) {
  return s.both & (s.zeros | ~255u);
}  // no scale is -1
template <int BITS>
__device__ __forceinline__ void scaled(float (&acc)[2], const int (&c)[4], const Scales& s, float xs,
                                       int xz) {
  float2 f = __half22float2(*(const __half2*)&s.both);
  int v0 = c[0] * 256 + c[1], v1 = c[2] * 256 + c[3];
  if (BITS == 4) {
    v0 -= (int)(s.zeros & 15) * xz;
    v1 -= (int)(s.zeros >> 4) * xz;
  }
  acc[0] = (float)v0 * (f.x * xs);
  acc[1] = (float)v1 * (f.y * xs);
}
// The sum over a row's four lanes: an even lane's is row g, an odd one's row g + 8.
__device__ __forceinline__ float row_of_lane(const float (&acc)[2]) {
  bool odd = threadIdx.x & 1;
  float v = (odd ? acc[1] : acc[0]) + __shfl_xor_sync(~0u, odd ? acc[0] : acc[1], 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}
template <int BITS>
struct Whole {  // a warp's part of a whole input
  using S = Shape<BITS>;
  static constexpr int MINE = S::KB / TEAMS;  // tiles of a row block that are a team's
  static constexpr int K = S::KT / TEAM, STEPS = K / 32, GROUPS = K / 128, CHUNKS = K / S::CHUNK,
                       HALVES = 8 / BITS;
  static_assert(MINE * GROUPS * HALVES <= 4, "a part needs two columns");
  uint2 x[MINE][STEPS];
  float scale;  // of the lane's own part
  int sum;
  static __device__ __forceinline__ int number() { return threadIdx.x / 32 % TEAM; }
  static __device__ __forceinline__ int team() { return threadIdx.x / 32 / TEAM; }
  static __device__ __forceinline__ int kb(int i) { return team() + i * TEAMS; }
  __device__ __forceinline__ void load(const Shared& s) {
    int mine = threadIdx.x % 4, half = mine % HALVES, group = mine / HALVES;
    scale = 0;
    sum = 0;
    if (group < MINE * GROUPS) {
      group = (kb(group / GROUPS) * S::KT + number() * K) / 128 + group % GROUPS;
      scale = half ? s.scales[group] / 16 : s.scales[group];
      if (BITS == 4) sum = (s.sums[group * 4 + half] + s.sums[group * 4 + half + 2]) * (half ? 16 : 1);
    }
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
      for (int j = 0; j < STEPS; j++)
        x[i][j] = columns(s.digits[0], s.digits[1], (kb(i) * S::KT + number() * K) / 32 + j,
                          (i * GROUPS + j / 4) * HALVES + j % HALVES);
  }
  // The products of a tile of 16 rows, or of 12 (512 or 384 bytes of 32 inputs).
  template <bool TAIL>
  __device__ __forceinline__ uint32_t tile(int (&c)[4], Scales& scales, const unsigned char* at,
                                           int i) const {
    int lane = threadIdx.x & 31, group = lane % 4 / HALVES;
    uint32_t seen = ~0u;
    uint4 q[CHUNKS];
#pragma unroll
    for (int j = 0; j < CHUNKS; j++) {
      const unsigned char* p = at + (number() * CHUNKS + j) * (TAIL ? 384 : 512);
      if (TAIL) {
        uint2 e = *(const uint2*)(p + lane * 8),
              f = lane < 16 ? *(const uint2*)(p + 256 + lane * 8) : make_uint2(0, 0);
        q[j] = make_uint4(e.x, f.x, e.y, f.y);
        seen &= e.x & f.x;
      } else {
        q[j] = *(const uint4*)(p + lane * 16);
        seen &= q[j].x;
      }
    }
    Scales here = scales_at<BITS>(at + (TAIL ? 12288 : 16384) + (number() * GROUPS + group % GROUPS) * S::SB);
    seen &= seen_of(here);
    if (i == 0 || group / GROUPS == i) scales = here;
#pragma unroll
    for (int j = 0; j < STEPS; j++)
      if (BITS == 8)
        mma(c, q[j], x[i][j]);
      else
        mma_unsigned(c, masked(q[j / 2], j % 2 ? 0xf0f0f0f0u : 0x0f0f0f0fu), x[i][j]);
    return seen;
  }
  // Blocks of 16 rows (a last one of 12, if `tail`): a warp's share of its rows to part.
  __device__ __forceinline__ void rows(Shared& s, unsigned char* ring, Slot& slot, int blocks, bool tail,
                                       float* part, int stride) const {
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, half = lane % 2;
    slot.skip(team());
#pragma unroll 1
    for (int rb = 0; rb < blocks + tail; rb++) {
      int c[4] = {0, 0, 0, 0};
      Scales scales;
#pragma unroll
      for (int i = 0; i < MINE; i++) {
        const unsigned char* at = take(s, ring, slot);
        uint32_t seen = rb < blocks ? tile<false>(c, scales, at, i) : tile<true>(c, scales, at, i);
        leave(s, slot, seen);
      }
      float acc[2];
      scaled<BITS>(acc, c, scales, scale, sum);
      float v = row_of_lane(acc);
      if (lane % 4 < 2 && (rb < blocks || !half || lane < 16))
        part[warp * stride + rb * 16 + half * 8 + lane / 4] = v;
    }
    slot.back(team());
  }
  // The sum of all shares of a row.
  static __device__ __forceinline__ float row(const float* part, int stride, int n) {
    float v = 0;
#pragma unroll 4
    for (int k = 0; k < WARPS; k++) v += part[k * stride + n];
    return v;
  }
};
__device__ __forceinline__ void add_rows(unsigned long long* to,
                                         const float (&acc)[2]) {  // of the first two lanes
  int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4;
  float v = (t & 1 ? acc[1] : acc[0]) + __shfl_xor_sync(~0u, t & 1 ? acc[0] : acc[1], 1);
  if (t < 2) add_fixed(to + g + t * 8, v);
}
template <int BITS>
__device__ __forceinline__ void projection(Shared& s, unsigned char* ring, Slot& slot,
                                           unsigned long long* sums) {
  using S = Shape<BITS>;
  constexpr int EACH = S::RBT / TEAM;
  int b = blockIdx.x, lane = threadIdx.x & 31, number = threadIdx.x / 32 % TEAM,
      team = threadIdx.x / 32 / TEAM;
  uint2 x[4];
#pragma unroll
  for (int i = 0; i < 4; i++) x[i] = columns(s.narrow[0][0], s.narrow[0][1], i, 0);
  float xs = lane % 4 ? 0 : s.narrow_scale;
  int xz = s.narrow_sums[0][0] + s.narrow_sums[1][0] + s.narrow_sums[2][0] + s.narrow_sums[3][0];
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < S::O_N; i += TEAMS) {
    const unsigned char* at = take(s, ring, slot);
    float acc[EACH][2] = {};
    uint32_t seen = ~0u;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int rb = number * EACH + e, c[4] = {0, 0, 0, 0};
#pragma unroll
      for (int j = 0; j < BITS / 2; j++) {
        uint4 q = *(const uint4*)(at + rb * (256 * BITS) + j * 512 + lane * 16);
        if (BITS == 8) {
          mma(c, q, x[j]);
        } else {
          mma(c, nibbles(q, 0), x[j * 2]);
          mma(c, nibbles(q, 4), x[j * 2 + 1]);
        }
        seen &= q.x;
      }
      Scales scales = scales_at<BITS>(at + 16384 + rb * S::SB);
      seen &= seen_of(scales);
      scaled<BITS>(acc[e], c, scales, xs, xz);
    }
    leave(s, slot, seen);
#pragma unroll
    for (int e = 0; e < EACH; e++)
      add_rows(sums + b % 4 * 1024 + (S::o_tile(b, i) * S::RBT + number * EACH + e) * 16, acc[e]);
  }
  slot.back(team);
}
template <int BITS>
__device__ __forceinline__ void down(Shared& s, unsigned char* ring, Slot& slot, unsigned long long* sums) {
  using S = Shape<BITS>;
  constexpr int EACH = S::RBT / TEAM;
  int b = blockIdx.x, lane = threadIdx.x & 31, number = threadIdx.x / 32 % TEAM,
      team = threadIdx.x / 32 / TEAM, g = lane / 4, t = lane % 4;
  uint2 x[3];  // before and behind the border of groups in columns of their own
  int part = lane % 2;
#pragma unroll
  for (int i = 0; i < 3; i++)
    x[i] = columns(s.narrow[lane / 8 % 2][0], s.narrow[lane / 8 % 2][1], i, lane < 16 ? lane / 8 : -1);
  float xs = lane % 4 < 2 ? s.narrow_scale : 0;
  int xz = s.narrow_sums[0][part] + s.narrow_sums[1][part] + s.narrow_sums[2][part];
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < S::D_N; i += TEAMS) {
    const unsigned char* at = take(s, ring, slot);
    float acc[EACH][2] = {};
    uint32_t seen = ~0u;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      int rb = number * EACH + e, c[4] = {0, 0, 0, 0};
      const unsigned char* p = at + rb * (176 * BITS);
      uint4 q = *(const uint4*)(p + lane * 16);
      seen &= q.x;
      if (BITS == 8) {
        uint4 r = *(const uint4*)(p + 512 + lane * 16);
        uint2 e = *(const uint2*)(p + 1024 + lane * 8),
              f = t < 2 ? *(const uint2*)(p + 1280 + (g * 2 + t) * 8) : make_uint2(0, 0);
        seen &= r.x & e.x & f.x;
        mma(c, q, x[0]);
        mma(c, r, x[1]);
        mma(c, make_uint4(e.x, e.y, f.x, f.y), x[2]);
      } else {
        uint32_t e = *(const uint32_t*)(p + 512 + lane * 4), m = 0x0f0f0f0f,
                 f = t < 2 ? *(const uint32_t*)(p + 640 + (g * 2 + t) * 4) : 0;
        seen &= e & f;
        mma(c, nibbles(q, 0), x[0]);
        mma(c, nibbles(q, 4), x[1]);
        mma(c, make_uint4(e & m, e >> 4 & m, f & m, f >> 4 & m), x[2]);
      }
      Scales scales = scales_at<BITS>(at + 11264 + (rb * 2 + part) * S::SB);
      seen &= seen_of(scales);
      scaled<BITS>(acc[e], c, scales, xs, xz);
    }
    leave(s, slot, seen);
#pragma unroll
    for (int e = 0; e < EACH; e++)
      add_rows(sums + (S::d_tile(b, i) * S::RBT + number * EACH + e) * 16, acc[e]);
  }
  slot.back(team);
}

// The first `n` (a multiple of 32) threads' numbers as digits with one scale; those from `border` on apart.
__device__ __forceinline__ void narrow_digits(Shared& s, float v, int n, int border) {
  int tid = threadIdx.x, warp = tid / 32;
  float m = fabsf(v);
#pragma unroll
  for (int k = 16; k; k >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, k));
  if (tid % 32 == 0) s.most[warp] = m;
  asm volatile("bar.sync 2, %0;" ::"r"(n) : "memory");
  m = fmaxf(fmaxf(s.most[0], s.most[1]), fmaxf(s.most[2], n > 96 ? s.most[3] : 0));
  m = fmaxf(m, 1e-30f);
  int q = __float2int_rn(v * (32639.f / m));
  bool first = tid < border;
#pragma unroll
  for (int part = 0; part < 2; part++) {
    int w = first == (part == 0) ? q : 0, sum = __reduce_add_sync(~0u, w);
    ((int8_t*)s.narrow[part][0])[tid] = (int8_t)((w + 128) >> 8);
    ((int8_t*)s.narrow[part][1])[tid] = (int8_t)w;
    if (tid % 32 == 0) s.narrow_sums[warp][part] = sum;
  }
  if (tid == 0) s.narrow_scale = m * (1 / 32639.f);
}

// ---- attention: LANES lanes a position, NUMBERS of its 128 a lane; a warp sums up its own, at the end all
// meet
template <int KV>
struct Query {
  static constexpr int LANES = Cache<KV>::LANES, N = D / LANES;
  float q[N];                     // fp16
  uint32_t hi[N / 4], lo[N / 4];  // 8 bits: whole numbers of 16 bits
  float scale;
  __device__ __forceinline__ void load(const Shared& s) {
    int lane = (threadIdx.x & 31) % LANES;
    float m = 1e-30f;
#pragma unroll
    for (int j = 0; j < N; j++) {
      int d = lane * N + j;
      q[j] = (s.q[d] * s.cos_sin[d & 63] + (d < 64 ? -1.f : 1.f) * s.q[d ^ 64] * s.cos_sin[64 + (d & 63)]) *
             0.12751743f;  // log2(e) / sqrt(128)
      m = fmaxf(m, fabsf(q[j]));
    }
    if (KV == 8) {
#pragma unroll
      for (int o = LANES / 2; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
      scale = m * (1 / 32639.f);
#pragma unroll
      for (int j = 0; j < N; j++) {
        if (j % 4 == 0) hi[j / 4] = lo[j / 4] = 0;
        digits_of(__float2int_rn(q[j] * (32639.f / m)), hi[j / 4], lo[j / 4], j % 4);
      }
    }
  }
  // A position's score, and its values as they lie there; w: the tile, n: which position of it.
  __device__ __forceinline__ float score(const unsigned char* w, int n, uint4& u, float& v_scale,
                                         uint32_t& seen) const {
    using C = Cache<KV>;
    int lane = (threadIdx.x & 31) % LANES;
    uint4 k = *(const uint4*)(w + n * C::ROW + lane * 16);
    u = *(const uint4*)(w + C::CHUNK * C::ROW + n * C::ROW + lane * 16);
    uint32_t kw[4] = {k.x, k.y, k.z, k.w};
    seen &= k.x & u.x;
    if constexpr (KV == 16) {
      float a = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        float2 f = __half22float2(*(__half2*)&kw[j]);
        a = fmaf(q[2 * j], f.x, fmaf(q[2 * j + 1], f.y, a));
      }
#pragma unroll
      for (int o = LANES / 2; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
      return a;
    } else {
      float k_scale = ((const float*)(w + C::SCALES))[n];
      v_scale = ((const float*)(w + C::SCALES))[C::CHUNK + n];
      seen &= __float_as_uint(k_scale) & __float_as_uint(v_scale);
      int h = 0, o = 0;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        h = dp4a(kw[j], hi[j], h);
        o = dp4a(kw[j], lo[j], o);
      }
      int a = h * 256 + o;
#pragma unroll
      for (int x = LANES / 2; x; x >>= 1) a += __shfl_xor_sync(~0u, a, x);
      return (float)a * (scale * k_scale);
    }
  }
  static __device__ __forceinline__ void values(const uint4& u, float (&v)[N]) {
    uint32_t w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int j = 0; j < N; j++) {
      if constexpr (KV == 16)
        v[j] = __half2float(__ushort_as_half((unsigned short)(w[j / 2] >> (16 * (j % 2)))));
      else  // a byte as the last of a float's: 2^23 + 128 + code
        v[j] = __uint_as_float(__byte_perm(w[j / 4] ^ 0x80808080u, 0x4b000000u, 0x7440 + j % 4)) - 8388736.f;
    }
  }
};
template <int KV>
__device__ void attend(const Token& t, Shared& s, unsigned char* ring, Slot& slot, int l, int head, int rank,
                       float key) {
  using C = Cache<KV>;
  constexpr int LANES = C::LANES, N = D / LANES;
  constexpr int PLACES = TEAM * 32 / LANES,
                EACH = C::CHUNK / PLACES;  // positions a team looks at at a time; a lane's
  int tid = threadIdx.x, lane = (tid & 31) % LANES, warp = tid / 32, team = warp / TEAM,
      n = tid % (TEAM * 32) / LANES;
  float acc[N] = {}, v[N], m = -1e30f, sum = 0;
  Query<KV> query;
  query.load(s);
  int old = (t.pos + C::CHUNK - 1) / C::CHUNK;
  int tiles = old > rank ? (old - rank + 3) / 4 : 0;
  Slot behind = slot;
  behind.skip(tiles % STAGES);
  if (tiles / STAGES & 1) behind.parity ^= 1;
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < tiles; i += TEAMS) {
    float a[EACH], v_scale[EACH], nm = m;
    uint4 u[EACH];
    uint32_t seen = ~0u;
    int first = (rank + 4 * i) * C::CHUNK;
    const unsigned char* w = take(s, ring, slot);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      a[e] = query.score(w, n + e * PLACES, u[e], v_scale[e], seen);
      if (first + n + e * PLACES >= t.pos) a[e] = -1e30f;
      nm = fmaxf(nm, a[e]);
    }
    leave(s, slot, seen);
    float f = exp2f(m - nm);
    m = nm;
    sum *= f;
#pragma unroll
    for (int j = 0; j < N; j++) acc[j] *= f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      bool ok = a[e] > -1e30f;
      float p = ok ? exp2f(a[e] - nm) : 0;
      sum += p;
      if (KV == 8) p = ok ? p * v_scale[e] : 0;
      Query<KV>::values(u[e], v);
#pragma unroll
      for (int j = 0; j < N; j++) acc[j] = fmaf(p, ok ? v[j] : 0, acc[j]);
    }
  }
  slot = behind;
#pragma unroll
  for (int o = 16; o >= LANES; o >>= 1) {
    float nm = fmaxf(m, __shfl_xor_sync(~0u, m, o)), f = exp2f(m - nm);
    m = nm;
    sum *= f;
    sum += __shfl_xor_sync(~0u, sum, o);
#pragma unroll
    for (int j = 0; j < N; j++) {
      acc[j] *= f;
      acc[j] += __shfl_xor_sync(~0u, acc[j], o);
    }
  }
  float* mine = s.part + 1536 + warp * 132;
  if ((tid & 31) < LANES) {
#pragma unroll
    for (int j = 0; j < N; j += 4)
      *(float4*)(mine + lane * N + j) = make_float4(acc[j], acc[j + 1], acc[j + 2], acc[j + 3]);
    if (lane == 0) {
      mine[128] = m;
      mine[129] = sum;
    }
  }
  unsigned long long* mail = t.mail + head * 1024 + 384;
  unsigned turn = t.turn + l;
  unsigned char* tile = t.cache + C::tile(l, t.chunks, t.pos / C::CHUNK, head);
  int at = t.pos % C::CHUNK;
  if (warp == 0) {  // the token's own key as the cache holds it, and this block's part of its score
    int lane = tid, d = number_of(rank, lane);
    float c = s.cos_sin[d & 63], sn = s.cos_sin[64 + (d & 63)], sign = d < 64 ? -1.f : 1.f;
    float a = (s.q[d] * c + sign * s.q[d ^ 64] * sn) * 0.12751743f;
    if constexpr (KV == 16) {
      ((__half*)(tile + at * C::ROW))[d] = __float2half(key);
      a *= __half2float(__float2half(key));
    } else {
      float most = 0;
      for (int k = 0; k < 4; k++)
        most = fmaxf(most, collect(t.mail + head * 1024 + 256 + k, turn, t.wait & 2));
      int code = __float2int_rn(key * (127.f / fmaxf(most, 1e-30f)));
      ((int8_t*)(tile + at * C::ROW))[d] = (int8_t)code;
      if (rank == 0 && lane == 0) ((float*)(tile + C::SCALES))[at] = most / 127;
      a *= (float)code * (most / 127);
    }
#pragma unroll
    for (int o = 16; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
    if (lane == 0) s.own = a;
  }
  if (KV == 8 && tid < D) {
    float most = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) most = fmaxf(most, fabsf(s.v[(tid & 31) + k * 32]));
#pragma unroll
    for (int o = 16; o; o >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
    int code = __float2int_rn(s.v[tid] * (127.f / fmaxf(most, 1e-30f)));
    v[0] = (float)code * (most / 127);
    if (rank == 0) {
      ((int8_t*)(tile + C::CHUNK * C::ROW + at * C::ROW))[tid] = (int8_t)code;
      if (tid == 0) ((float*)(tile + C::SCALES))[C::CHUNK + at] = most / 127;
    }
  } else if (tid < D) {
    v[0] = s.v[tid];
    if (rank == 0) ((__half*)(tile + C::CHUNK * C::ROW + at * C::ROW))[tid] = __float2half(v[0]);
  }
  team_sync();
  if (tid < D) {  // the block's sixteen warps
    float M = -1e30f, o = 0, z = 0;
#pragma unroll 4
    for (int k = 0; k < WARPS; k++) M = fmaxf(M, s.part[1536 + k * 132 + 128]);
#pragma unroll 4
    for (int k = 0; k < WARPS; k++) {
      float e = exp2f(s.part[1536 + k * 132 + 128] - M);
      o += e * s.part[1536 + k * 132 + tid];
      z += e * s.part[1536 + k * 132 + 129];
    }
    float os[4], ms[4], zs[4], own[4];
    post(mail + rank * 132 + tid, o, turn);
    if (tid < 3) post(mail + rank * 132 + 128 + tid, tid == 0 ? M : tid == 1 ? z : s.own, turn);
    bool late;
    int looks = 0;
    do {  // all sixteen words at a time
      unsigned long long w[16];
      late = false;
      if (++looks > PATIENT) __trap();
#pragma unroll
      for (int k = 0; k < 16; k++)
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];"
                     : "=l"(w[k])
                     : "l"(mail + k / 4 * 132 + (k % 4 ? 127 + k % 4 : tid))
                     : "memory");
#pragma unroll
      for (int k = 0; k < 16; k++) {
        late = late || (int)((unsigned)(w[k] >> 32) - turn) < 0;
        (k % 4 == 0 ? os : k % 4 == 1 ? ms : k % 4 == 2 ? zs : own)[k / 4] = __uint_as_float((unsigned)w[k]);
      }
    } while ((t.wait & 2) && late);
    float self = own[0] + own[1] + own[2] + own[3];
    M = fmaxf(fmaxf(fmaxf(ms[0], ms[1]), fmaxf(ms[2], ms[3])), self);
    z = exp2f(self - M);
    o = z * v[0];
#pragma unroll
    for (int k = 0; k < 4; k++) {
      float e = exp2f(ms[k] - M);
      o += e * os[k];
      z += e * zs[k];
    }
    narrow_digits(s, o / z, D, D);
  }
  team_sync();
}

template <int BITS, int KV>
__device__ void consume(const Token& t, Shared& s, unsigned char* ring) {
  using C = Cache<KV>;
  int tid = threadIdx.x, lane = tid & 31, warp = tid / 32, b = blockIdx.x, head = b / 4, rank = b % 4;
  Slot slot = {0, 0};
  float x[8];
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = t.x0[tid * 8 + j];
#pragma unroll 1
  for (int phase = 0;; phase++) {
    int l = phase / 2, mlp = phase & 1;
    (void)l;
    MARK(mlp * 5);
    float rms = begin_phase(t, s, x, phase, t.norm + (size_t)(phase < 2 * L ? phase : 0) * H);
    if (phase == 2 * L) break;
    MARK(mlp * 5 + 1);
    unsigned long long* sums = t.sums + ((size_t)t.parity * 2 * L + phase) * H;
    Whole<BITS> in;
    in.load(s);
    in.rows(s, ring, slot, mlp ? 10 : 4, mlp, s.part, mlp ? 176 : 64);
    if (!mlp) {
      MARK(2);
      const float* biases = t.bias + (size_t)l * 3 * H + head * D + number_of(rank, lane);
      team_sync();
      if (tid < 64) {  // values and queries, which travel while the keys are multiplied
        float v = Whole<BITS>::row(s.part, 64, tid) * rms + biases[kind_of(warp) * H];
        post(t.mail + head * 1024 + warp * D + number_of(rank, lane), v, t.turn + l);
      }
      in.rows(s, ring, slot, 2, false, s.part + 1024, 32);
      if (tid < 256) {
        float v = collect(t.mail + head * 1024 + tid, t.turn + l, t.wait & 2);
        if (tid < D)
          s.v[tid] = KV == 16 ? __half2float(__float2half(v)) : v;
        else
          s.q[tid - D] = v;
      }
      team_sync();
      MARK(3);
      float key = 0;
      if (warp == 0) {  // the token's own key, turned
        key = Whole<BITS>::row(s.part + 1024, 32, lane) * rms + biases[H];
        int d = number_of(rank, lane);
        float other = __shfl_xor_sync(~0u, key, 16);
        key = key * s.cos_sin[d & 63] + (d < 64 ? -1.f : 1.f) * other * s.cos_sin[64 + (d & 63)];
        if (KV == 8) {
          float m = fabsf(key);
#pragma unroll
          for (int o = 16; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
          if (lane == 0) post(t.mail + head * 1024 + 256 + rank, m, t.turn + l);
        }
      }
      attend<KV>(t, s, ring, slot, l, head, rank, key);
      MARK(4);
      if (tid < 64) t.sums[((size_t)(t.parity ^ 1) * 2 * L + 2 * l + tid / 32) * H + b * 32 + lane] = 0;
      projection<BITS>(s, ring, slot, sums);
    } else {
      MARK(7);
      team_sync();
      if (tid < 96) {  // a thread a unit
        float up = 0, gate = 0;
        if (tid < UNITS) {
          up = Whole<BITS>::row(s.part, 176, tid) * rms;
          gate = Whole<BITS>::row(s.part, 176, UNITS + tid) * rms;
        }
        narrow_digits(s, tid < UNITS ? up * gate / (1 + __expf(-gate)) : 0, 96, first_part(b));
      }
      team_sync();
      MARK(8);
      down<BITS>(s, ring, slot, sums);
    }
    team_sync();  // nobody reads the digits any more
    if (mlp) MARK(9);
  }
  if (b == 0)
    for (int j = 0; j < 8; j++) t.out[tid * 8 + j] = x[j];
}

template <int BITS, int KV>
__device__ void fetch(const Token& t, Shared& s, unsigned char* ring) {
  using S = Shape<BITS>;
  using C = Cache<KV>;
  int b = blockIdx.x, head = b / 4, rank = b % 4, old = (t.pos + C::CHUNK - 1) / C::CHUNK,
      kv = old > rank ? (old - rank + 3) / 4 : 0, ahead = t.flight;
  Slot slot = {0, 1}, landed = {0, 0};
  const unsigned char* at = t.tape;
#pragma unroll 1
  for (int l = 0; l < L; l++) {
    const unsigned char* keys = t.cache + C::tile(l, t.chunks, rank, head);
#pragma unroll 1
    for (int i = 0; i < S::TILES + kv; i++) {
      const unsigned char* from;
      uint32_t bytes;
      if (i >= S::A_N && i < S::A_N + kv) {
        bytes = C::BYTES;
        from = keys;
        keys += (size_t)4 * HEADS * bytes;
      } else {
        bytes = S::bytes(i < S::A_N ? i : i - kv);
        from = at + (size_t)b * bytes;
        at += (size_t)BLOCKS * bytes;
      }
      bar_wait(&s.empty[slot.stage], slot.parity);
      if (ahead)
        ahead--;
      else {
        bar_wait(&s.full[landed.stage], landed.parity);
        landed.next();
      }  // so many tiles under way
      bar_expect(&s.full[slot.stage], bytes);
      bulk(ring + slot.stage * STAGE, from, bytes, &s.full[slot.stage]);
      slot.next();
    }
  }
}

template <int BITS, int KV>
__global__ void __launch_bounds__(THREADS, 1) token(const __grid_constant__ Token t) {
  extern __shared__ __align__(128) unsigned char raw[];
  unsigned char* ring = raw;
  Shared& s = *(Shared*)(raw + STAGES * STAGE);
  int tid = threadIdx.x, warp = tid / 32;
  if (tid == 0) {
    for (int i = 0; i < STAGES; i++) {
      bar_init(&s.full[i], 1);
      bar_init(&s.empty[i], TEAM);
    }
    bars_ready();
  }
  if (tid < 64) {
    float f = (float)t.pos * exp2f(-(float)tid / 64 * 13.287712379549449f);
    s.cos_sin[tid] = cosf(f);
    s.cos_sin[64 + tid] = sinf(f);
  }
  __syncthreads();
  if (warp < WARPS)
    consume<BITS, KV>(t, s, ring);
  else if (tid % 32 == 0)
    fetch<BITS, KV>(t, s, ring);
  __syncthreads();
}

// ---- the plain check: a warp a row, in double
__global__ void ref_norm(const double* x, const float* w, double* y) {
  __shared__ double z[256];
  double a = 0;
  for (int k = threadIdx.x; k < H; k += 256) a += x[k] * x[k];
  z[threadIdx.x] = a;
  __syncthreads();
  a = 0;
  for (int i = 0; i < 256; i++) a += z[i];
  double r = 1 / sqrt(a / H + 1e-6);
  for (int k = threadIdx.x; k < H; k += 256) y[k] = x[k] * r * w[k];
}
template <int BITS>
__global__ void ref_rows(int l, int m, const double* x, double* y, int K, const float* bias, int add) {
  int n = blockIdx.x, lane = threadIdx.x;
  double a = 0;
  for (int k = lane; k < K; k += 32)
    a += (code<BITS>(l, m, n, k) - zero_of<BITS>(l, m, n, k / 128)) *
         (double)__half2float(scale_of(l, m, n, k / 128)) * x[k];
  for (int o = 16; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
  if (lane == 0) y[n] = (add ? y[n] : 0) + a + (bias ? bias[n] : 0);
}
template <int KV>
__global__ void ref_attend(const double* qkv, const unsigned char* cache, int l, int chunks, int pos,
                           double* out) {
  using C = Cache<KV>;
  int h = blockIdx.x;
  extern __shared__ double p[];
  const double *q = qkv + h * D, *k = qkv + H + h * D, *v = qkv + 2 * H + h * D;
  auto rope = [&](const double* v, int d) {
    double f = pos * exp2(-(d & 63) / 64.0 * 13.287712379549449);
    return v[d] * cos(f) + (d < 64 ? -1.0 : 1.0) * v[d ^ 64] * sin(f);
  };
  auto cached = [&](int j, int d, int values) {
    const unsigned char* w = cache + C::tile(l, chunks, j / C::CHUNK, h);
    int row = values * C::CHUNK + j % C::CHUNK;
    if (KV == 16) return (double)__half2float(((const __half*)(w + row * C::ROW))[d]);
    return (double)((const int8_t*)(w + row * C::ROW))[d] * ((const float*)(w + C::SCALES))[row];
  };
  double k_most = 0, v_most = 0;
  for (int d = 0; d < D; d++) {
    k_most = fmax(k_most, fabs(rope(k, d)));
    v_most = fmax(v_most, fabs(v[d]));
  }
  auto stored = [&](double a, double most) {
    return KV == 16 ? (double)__half2float(__float2half((float)a)) : rint(a / (most / 127)) * (most / 127);
  };
  for (int j = threadIdx.x; j <= pos; j += blockDim.x) {
    double a = 0;
    for (int d = 0; d < D; d++) a += rope(q, d) * (j < pos ? cached(j, d, 0) : stored(rope(k, d), k_most));
    p[j] = a / sqrt((double)D);
  }
  __syncthreads();
  double M = -1e300, z = 0, o = 0;
  for (int j = 0; j <= pos; j++) M = fmax(M, p[j]);
  for (int j = 0; j <= pos; j++) z += exp(p[j] - M);
  int d = threadIdx.x;
  for (int j = 0; j <= pos; j++) o += exp(p[j] - M) / z * (j < pos ? cached(j, d, 1) : stored(v[d], v_most));
  out[h * D + d] = o;
}
__global__ void ref_swiglu(const double* y, double* h) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < F) h[i] = y[i] * y[F + i] / (1 + exp(-y[F + i]));
}
template <int KV>
__global__ void fill_cache(unsigned char* p, size_t tiles) {
  using C = Cache<KV>;
  constexpr int WORDS = KV == 16 ? C::BYTES / 2 : C::SCALES + 2 * C::CHUNK;
  size_t n = tiles * WORDS;
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
    unsigned char* tile = p + i / WORDS * C::BYTES;
    int o = i % WORDS;
    uint32_t r = mix((uint32_t)i);
    if (KV == 16)
      ((__half*)tile)[o] = __float2half(((int)(r % 257) - 128) / 128.f);
    else if (o < C::SCALES)
      ((int8_t*)tile)[o] = (int8_t)((int)(r % 255) - 127);
    else
      ((float*)(tile + C::SCALES))[o - C::SCALES] = (1 + r % 7) / (4 * 127.f);
  }
}

// ---- running it
struct Run {
  cudaStream_t st;
  std::vector<float> x;
  float *dx, *norm, *bias, *out;
  unsigned long long *sums, *mail;
  long long* trace;
  double *rx, *rn, *ry, *ra, *rh;
  unsigned tokens;  // of the sums' halves and the mail's turns: of all kernels together
};

template <int BITS, int KV>
void measure(Run& o, const unsigned char* tape) {
  using S = Shape<BITS>;
  using C = Cache<KV>;
  int chunks = 8192 / C::CHUNK + 1;
  unsigned char* cache;
  CK(cudaMalloc(&cache, (size_t)L * HEADS * chunks * C::BYTES));
  fill_cache<KV><<<2048, 256, 0, o.st>>>(cache, (size_t)L * HEADS * chunks);
  size_t shared = (size_t)STAGES * STAGE + sizeof(Shared);
  CK(cudaFuncSetAttribute(token<BITS, KV>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  CK(cudaFuncSetAttribute(ref_attend<KV>, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
  Token t = {tape, cache, o.dx, o.norm, o.bias, o.sums, o.mail, o.out, o.trace, 0, chunks, 3, 3, 0, 0};
  auto go = [&](int pos, int flight, int wait) {
    t.pos = pos;
    t.flight = flight;
    t.wait = wait;
    t.parity = o.tokens & 1;
    t.turn = o.tokens * L + 1;
    o.tokens++;
    token<BITS, KV><<<BLOCKS, THREADS, shared, o.st>>>(t);
    CK(cudaGetLastError());
  };
  for (int pos : {0, 1, 63, 64, 65, 127, 1000}) {
    std::vector<double> x64(o.x.begin(), o.x.end());
    CK(cudaMemcpy(o.rx, x64.data(), H * 8, cudaMemcpyHostToDevice));
    for (int l = 0; l < L; l++) {
      ref_norm<<<1, 256, 0, o.st>>>(o.rx, o.norm + 2 * l * H, o.rn);
      ref_rows<BITS><<<3 * H, 32, 0, o.st>>>(l, 0, o.rn, o.ry, H, o.bias + l * 3 * H, 0);
      ref_attend<KV><<<HEADS, D, (pos + 1) * 8, o.st>>>(o.ry, cache, l, chunks, pos, o.ra);
      ref_rows<BITS><<<H, 32, 0, o.st>>>(l, 1, o.ra, o.rx, H, nullptr, 1);
      ref_norm<<<1, 256, 0, o.st>>>(o.rx, o.norm + (2 * l + 1) * H, o.rn);
      ref_rows<BITS><<<2 * F, 32, 0, o.st>>>(l, 2, o.rn, o.ry, H, nullptr, 0);
      ref_swiglu<<<43, 256, 0, o.st>>>(o.ry, o.rh);
      ref_rows<BITS><<<H, 32, 0, o.st>>>(l, 3, o.rh, o.rx, F, nullptr, 1);
    }
    CK(cudaStreamSynchronize(o.st));
    auto r = download(o.rx, H);
    go(pos, 3, 3);
    CK(cudaStreamSynchronize(o.st));
    auto a = download(o.out, H);
    bool same = true;
    for (int i = 0; i < 100; i++) {
      go(pos, 2 + i % 5, 3);
      CK(cudaStreamSynchronize(o.st));
      same = same && download(o.out, H) == a;
    }
    double e = 0, n = 0;
    for (int k = 0; k < H; k++) {
      e += (a[k] - r[k]) * (a[k] - r[k]);
      n += r[k] * r[k];
    }
    printf("Int%d, %d bits of KV, position %4d: off by %.1e of %.2f, %s\n", BITS, KV, pos, sqrt(e / n),
           sqrt(n / H), same ? "a hundred times the same" : "NOT ALWAYS THE SAME");
  }
  double speed = memory_speed(o.st, tape, 3ull << 30, o.out);
  for (int pos : {1024, 8191}) {
    double bytes = (double)L * BLOCKS * S::BLOCK + (double)L * HEADS * (pos + 1) * C::BYTES / C::CHUNK;
    printf("Int%d, %d bits of KV, position %4d, %.2f GB, %.3f ms at %.0f GB/s:", BITS, KV, pos, bytes / 1e9,
           bytes / speed / 1e6, speed);
    for (int wait : {3, 0}) {
      double best = 1e9;
      for (int flight : {2, 3, 4, 5, 6}) {
        double ms = median_ms(o.st, 9, 8, [&] { go(pos, flight, wait); });
        if (wait == 3) printf(" %d: %.3f,", flight, ms);
        best = std::min(best, ms);
      }
      printf("%s best %.3f ms, %.1f %%", wait ? "" : "; not waiting (wrong results)", best,
             100 * bytes / speed / 1e6 / best);
    }
    printf("\n");
    fflush(stdout);
  }
#ifdef TRACE
  const char* names[] = {"wait+norm", "v q",     "k+exchange", "attend", "proj",
                         "wait+norm", "gate/up", "swiglu",     "down"};
  for (int pos : {1, 1024, 8191}) {
    CK(cudaMemset(o.trace, 0, BLOCKS * 64 * 8));
    for (int i = 0; i < 4; i++) go(pos, 3, 3);
    CK(cudaStreamSynchronize(o.st));
    auto c = download(o.trace, BLOCKS * 64);
    for (int k = 0; k < 9; k++) {
      double sum = 0, lo = 1e9, hi = 0;
      for (int b = 0; b < BLOCKS * 4; b++) {
        double d = c[b * 16 + k + 1] - c[b * 16 + k];
        sum += d;
        lo = std::min(lo, d);
        hi = std::max(hi, d);
      }
      printf("  %4d %-10s %7.0f clocks (%.0f to %.0f)\n", pos, names[k], sum / (BLOCKS * 4), lo, hi);
    }
  }
#endif
  CK(cudaFree(cache));
}
template <int BITS>
void all_of(Run& o) {
  using S = Shape<BITS>;
  unsigned char* tape;
  CK(cudaMalloc(&tape, (size_t)L * BLOCKS * S::BLOCK));
  for (int l = 0; l < L; l++) lay<BITS><<<dim3(S::TILES, BLOCKS), 256, 0, o.st>>>(tape, l);
  CK(cudaGetLastError());
  CK(cudaStreamSynchronize(o.st));
  measure<BITS, 16>(o, tape);
  measure<BITS, 8>(o, tape);
  CK(cudaFree(tape));
}

int main() {
  Run o = {};
  CK(cudaStreamCreate(&o.st));
  std::vector<float> norm(2 * L * H), bias(L * 3 * H);
  for (int l = 0; l < L; l++) {
    for (int w = 0; w < 2; w++)
      for (int k = 0; k < H; k++) norm[(2 * l + w) * H + k] = norm_of(l, w, k);
    for (int r = 0; r < 3 * H; r++) bias[l * 3 * H + r] = bias_of(l, r);
  }
  for (int k = 0; k < H; k++) o.x.push_back(((int)(mix(k) % 201) - 100) / 100.f);
  o.dx = upload(o.x);
  o.norm = upload(norm);
  o.bias = upload(bias);
  CK(cudaMalloc(&o.out, H * 4));
  CK(cudaMalloc(&o.sums, (size_t)4 * L * H * 8));
  CK(cudaMemset(o.sums, 0, (size_t)4 * L * H * 8));
  CK(cudaMalloc(&o.mail, HEADS * 1024 * 8));
  CK(cudaMemset(o.mail, 0, HEADS * 1024 * 8));
  CK(cudaMalloc(&o.trace, BLOCKS * 64 * 8));
  CK(cudaMalloc(&o.rx, H * 8));
  CK(cudaMalloc(&o.rn, H * 8));
  CK(cudaMalloc(&o.ry, 2 * F * 8));
  CK(cudaMalloc(&o.ra, H * 8));
  CK(cudaMalloc(&o.rh, F * 8));
  all_of<8>(o);
  all_of<4>(o);
  return 0;
}
