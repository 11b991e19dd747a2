// Attention of a head by its four blocks: each looks at a quarter of the tiles of cached positions, LANES
// lanes a position, N of its numbers a lane; then its warps meet, and then the blocks.
#pragma once
#include "norm.cuh"

// A tile of CHUNK positions in the ring: keys, values and in 8 bits a float scale of each row.
struct Cache {
  static constexpr int CHUNK = KV == 16 ? 32 : 64, ROW = D * KV / 8, VALUES = CHUNK * ROW,
                       SCALES = 2 * VALUES;
  static constexpr int LANES = ROW / 16, N = D / LANES;
  // Tiles of a rank, of so many positions.
  static __device__ __forceinline__ int tiles(int positions, int rank) {
    int all = (positions + CHUNK - 1) / CHUNK;
    return all > rank ? (all - rank + RANKS - 1) / RANKS : 0;
  }
  // The first row of a head's keys or values.
  static __device__ __forceinline__ u64 row(const Step& t, int layer, int head, int values) {
    return ((u64)(values * t.layers + layer) * HEADS + head) * t.capacity;
  }
};

struct Query {
  static constexpr int LANES = Cache::LANES, N = Cache::N;
  float q[N];
  u32 hi[N / 4], lo[N / 4];  // 8 bits: whole numbers of 16 bits
  float scale;
  __device__ __forceinline__ void load(const Shared& s) {
    int lane = (threadIdx.x & 31) % LANES;
    float m = 1e-30f;
#pragma unroll
    for (int j = 0; j < N; j++) {
      q[j] = s.q[lane * N + j];
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
  __device__ __forceinline__ float score(const byte* w, int n, uint4& u, float& value_scale) const {
    int lane = (threadIdx.x & 31) % LANES;
    uint4 k = *(const uint4*)(w + n * Cache::ROW + lane * 16);
    u = *(const uint4*)(w + Cache::VALUES + n * Cache::ROW + lane * 16);
    u32 kw[4] = {k.x, k.y, k.z, k.w};
    if (KV == 16) {
      float a = 0;
#pragma unroll
      for (int j = 0; j < 4; j++)
        a = fmaf(q[2 * j], wide_float(kw[j] & 0xffff), fmaf(q[2 * j + 1], wide_float(kw[j] >> 16), a));
#pragma unroll
      for (int o = LANES / 2; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
      return a;
    }
    const float* scales = (const float*)(w + Cache::SCALES);
    value_scale = scales[Cache::CHUNK + n];
    int h = 0, o = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      h = __dp4a((int)kw[j], (int)hi[j % (N / 4)], h);
      o = __dp4a((int)kw[j], (int)lo[j % (N / 4)], o);
    }
    int a = h * 256 + o;
#pragma unroll
    for (int x = LANES / 2; x; x >>= 1) a += __shfl_xor_sync(~0u, a, x);
    return (float)a * (scale * scales[n]);
  }
  static __device__ __forceinline__ void values(const uint4& u, float (&v)[N]) {
    u32 w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int j = 0; j < N; j++)
      if (KV == 16)
        v[j] = wide_float(w[j / 2] >> (16 * (j % 2)) & 0xffff);
      else  // a byte as the last of a float's: 2^23 + 128 + code
        v[j] = __uint_as_float(__byte_perm(w[j / 4] ^ 0x80808080u, 0x4b000000u, 0x7440 + j % 4)) - 8388736.f;
  }
};

// The cached positions: each warp's mixed values, greatest score and mass to s.part.
__device__ __forceinline__ void attend_cached(Shared& s, const byte* ring, Slot& slot, int past, int rank) {
  constexpr int LANES = Cache::LANES, N = Cache::N, PLACES = TEAM * 32 / LANES, EACH = Cache::CHUNK / PLACES;
  int tid = threadIdx.x, lane = (tid & 31) % LANES, warp = tid / 32, team = warp / TEAM,
      n = tid % (TEAM * 32) / LANES;
  float acc[N] = {}, v[N], most = -1e30f, mass = 0;
  Query query;
  query.load(s);
  int tiles = Cache::tiles(past, rank);
  Slot behind = slot;
  behind.skip(tiles % STAGES);
  if (tiles / STAGES & 1) behind.parity ^= 1;
  slot.skip(team);
#pragma unroll 1
  for (int i = team; i < tiles; i += TEAMS) {
    float a[EACH], value_scale[EACH], now = most;
    uint4 u[EACH];
    int first = (rank + RANKS * i) * Cache::CHUNK + n;
    const byte* w = take(s, ring, slot);
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      a[e] = query.score(w, n + e * PLACES, u[e], value_scale[e]);
      if (first + e * PLACES >= past) a[e] = -1e30f;  // whatever lies there
      now = fmaxf(now, a[e]);
    }
    leave(s, slot);
    float f = exp2f(most - now);
    most = now;
    mass *= f;
#pragma unroll
    for (int j = 0; j < N; j++) acc[j] *= f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      bool ok = a[e] > -1e30f;
      float p = ok ? exp2f(a[e] - now) : 0;
      mass += p;
      if (KV == 8) p = ok ? p * value_scale[e] : 0;
      Query::values(u[e], v);
#pragma unroll
      for (int j = 0; j < N; j++) acc[j] = fmaf(p, ok ? v[j] : 0, acc[j]);
    }
  }
  slot = behind;
#pragma unroll
  for (int o = 16; o >= LANES; o >>= 1) {
    float now = fmaxf(most, __shfl_xor_sync(~0u, most, o)), f = exp2f(most - now);
    most = now;
    mass *= f;
    mass += __shfl_xor_sync(~0u, mass, o);
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
      mine[128] = most;
      mine[129] = mass;
    }
  }
}

// The greatest of a warp's numbers.
__device__ __forceinline__ float warp_most(float m) {
#pragma unroll
  for (int o = 16; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
  return m;
}
// A number of a row as the cache holds it; `most`: the row's greatest.
__device__ __forceinline__ float stored(float v, float most, u32& code) {
  if (KV == 16) {
    code = narrow_float(v);
    return wide_float(code);
  }
  float scale = most / 127;
  int c = __float2int_rn(v / fmaxf(scale, 1e-30f));
  code = (u32)c & 255;
  return (float)c * scale;
}
// The first warp: the token's own key goes into the cache, and its score to s.own.
__device__ __forceinline__ void own_key(const Step& t, Shared& s, int layer, int head, int rank, int past) {
  int lane = threadIdx.x;
  float4 k = *(const float4*)(s.q + D + lane * 4), q = *(const float4*)(s.q + lane * 4);
  float kv[4] = {k.x, k.y, k.z, k.w}, qv[4] = {q.x, q.y, q.z, q.w}, a = 0, most = 0;
  if (KV == 8) most = warp_most(fmaxf(fmaxf(fabsf(k.x), fabsf(k.y)), fmaxf(fabsf(k.z), fabsf(k.w))));
  u32 code[4];
#pragma unroll
  for (int j = 0; j < 4; j++) a = fmaf(stored(kv[j], most, code[j]), qv[j], a);
#pragma unroll
  for (int o = 16; o; o >>= 1) a += __shfl_xor_sync(~0u, a, o);
  if (lane == 0) s.own = a;
  if (rank) return;
  u64 row = Cache::row(t, layer, head, 0) + past;
  if (KV == 16) {
    ((uint2*)(t.cache + row * Cache::ROW))[lane] =
        make_uint2(code[0] | code[1] << 16, code[2] | code[3] << 16);
  } else {
    ((u32*)(t.cache + row * Cache::ROW))[lane] = code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24;
    if (lane == 0) t.cache_scales[row] = most / 127;
  }
}
// The first 128 threads: a number of the head's each, of the cached positions and the token's own value.
__device__ __forceinline__ float meet(const Step& t, Shared& s, int layer, int head, int rank, int past,
                                      u32 turn) {
  int tid = threadIdx.x;
  u64* mail = t.mail + head * MAIL;
  const float* part = s.part + 1536;
  float most = -1e30f, mixed = 0, mass = 0;
#pragma unroll 4
  for (int k = 0; k < WARPS; k++) most = fmaxf(most, part[k * 132 + 128]);
#pragma unroll 4
  for (int k = 0; k < WARPS; k++) {
    float e = exp2f(part[k * 132 + 128] - most);
    mixed += e * part[k * 132 + tid];
    mass += e * part[k * 132 + 129];
  }
  u64* mine = mail + MAIL_PARTS + rank * MAIL_PART;
  post(mine + tid, mixed, turn);
  if (tid == 0) post(mine + 128, most, turn);
  if (tid == 1) post(mine + 129, mass, turn);
  float own = s.own, mixeds[RANKS], mosts[RANKS], masses[RANKS], value, value_most = 0;
  constexpr int WORDS = 3 * RANKS + 1 + (KV == 8 ? RANKS : 0);
  u64 w[WORDS];
  bool late;
  do {
    late = false;
#pragma unroll
    for (int k = 0; k < WORDS; k++) {
      int at = k == 3 * RANKS  ? MAIL_V + tid
               : k > 3 * RANKS ? MAIL_MOST + k - 3 * RANKS - 1
                               : MAIL_PARTS + k / 3 * MAIL_PART + (k % 3 ? 127 + k % 3 : tid);
      w[k] = look(mail + at);
    }
#pragma unroll
    for (int k = 0; k < WORDS; k++) late = late || is_late(w[k], turn);
  } while (late);
#pragma unroll
  for (int k = 0; k < RANKS; k++) {
    mixeds[k] = value_of(w[3 * k]);
    mosts[k] = value_of(w[3 * k + 1]);
    masses[k] = value_of(w[3 * k + 2]);
    if (KV == 8) value_most = fmaxf(value_most, value_of(w[WORDS - 1 - k]));
  }
  u32 code;
  value = stored(value_of(w[3 * RANKS]), value_most, code);
  if (rank == 1) {
    u64 row = Cache::row(t, layer, head, 1) + past;
    if (KV == 16)
      ((unsigned short*)(t.cache + row * Cache::ROW))[tid] = (unsigned short)code;
    else
      t.cache[row * Cache::ROW + tid] = (byte)code;
    if (KV == 8 && tid == 0) t.cache_scales[row] = value_most / 127;
  }
  float top = own;
#pragma unroll
  for (int k = 0; k < RANKS; k++) top = fmaxf(top, mosts[k]);
  float all = exp2f(own - top), sum = all * value;
#pragma unroll
  for (int k = 0; k < RANKS; k++) {
    float e = exp2f(mosts[k] - top);
    sum += e * mixeds[k];
    all += e * masses[k];
  }
  return sum / all;
}
