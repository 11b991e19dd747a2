// The layers of one token as ONE persistent kernel with two global waits a layer.
//
// 128 blocks, one a multiprocessor. A block's weights lie in the order in which it needs them (shape.cuh), so
// that one thread streams them through a ring of stages, across every border of matrices, while 16 warps
// multiply with tensor cores:
//
//   wait for the stream -> norm -> the block's rows of q, k, v, told to the blocks with the same keys ->
//   attention
//     over a share of the cached positions, for all heads of these keys -> a head put together by its four ->
//     the head's columns of the output projection (a quarter of the rows a block) -> added into the stream
//   wait for the stream -> norm -> the block's units of up and gate -> SwiGLU -> the same units' columns of
//   down -> added
//
// What is added is a whole number, so that a reply repeats to the bit.
#include "attention.cuh"
#include "products.cuh"

// A block's place in attention: its head of keys and values, and its number among the blocks that have the
// same.
struct Seat {
  int head, key_head, number;
};
__device__ __forceinline__ Seat seat_of_block() {
  int b = block();
  if (APART && b >= ASKING) return {0, (b - ASKING) / RANKS, 0};
  return {b / RANKS, b / ASKERS, b % ASKERS};
}
// A row of q, k, v: where its word goes, and its bias. n counts the block's rows.
__device__ __forceinline__ int word_of(const Seat& seat, int n, int& bias) {
  int b = block(), keys = HEADS * D + seat.key_head * D, values = keys + KEY_HEADS * D, at;
  if (APART && b >= ASKING) {
    at = query_of(b) + n % 32;
    bias = (n < 32 ? keys : values) + at;
    return (n < 32 ? MAIL_K : MAIL_V) + at;
  }
  if (n < 32) {
    at = query_of(b) + n;
    bias = seat.head * D + at;
    return seat.head % SHARING * D + at;
  }
  at = key_of(seat.number) + (n - 32) % KEY_ROWS;
  bool key = n - 32 < KEY_ROWS;
  bias = (key ? keys : values) + at;
  return (key ? MAIL_K : MAIL_V) + at;
}
// Multiplies some of the block's rows of q, k, v, from `first` on, and has the threads from `teller` on tell
// them.
template <int ROW_BLOCKS>
__device__ __forceinline__ void tell(const Step& t, Shared& s, const Whole& in, const byte* ring, Slot& slot,
                                     const Seat& seat, int layer, int first, int teller, float* part,
                                     float rms, u32 turn) {
  constexpr int ROWS = ROW_BLOCKS * 16;
  int n = thread() - teller, bias = 0, word = 0;
  bool mine = n >= 0 && n < ROWS;
  float added = 0;
  if (mine) {
    word = word_of(seat, first + n, bias);
    added = __ldg(t.biases + (u64)layer * QKV + bias);
  }
  in.rows<Whole::MINE == 1 && ROW_BLOCKS % 2 == 0 ? 2 : 1>(s, ring, slot, ROW_BLOCKS, false, part, ROWS);
  team_sync();
  if (mine) {
    float v = Whole::row(part, ROWS, n) * rms + added;
    check(t, v);
    post(t.mail + seat.key_head * MAIL + word, v, turn);
  }
}
// A warp's query, or key: normed, if the model does that, and turned; c, n: the position's cosine and sine,
// w: the norm's weights.
__device__ __forceinline__ void turn_head(const Step& t, Shared& s, int past, const float4& c,
                                          const float4& n, const float4& w) {
  int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  float4* at = (float4*)(s.q + warp * D) + lane;
  float4 v = *at;
  if (NORMED) {
    float squares = v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
#pragma unroll
    for (int o = 16; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
    float r = rsqrtf(squares / D + t.eps);
    v = make_float4(v.x * r * w.x, v.y * r * w.y, v.z * r * w.z, v.w * r * w.w);
  }
  float4 o = make_float4(__shfl_xor_sync(~0u, v.x, 16), __shfl_xor_sync(~0u, v.y, 16),
                         __shfl_xor_sync(~0u, v.z, 16), __shfl_xor_sync(~0u, v.w, 16));
  v = make_float4(v.x * c.x + o.x * n.x, v.y * c.y + o.y * n.y, v.z * c.z + o.z * n.z, v.w * c.w + o.w * n.w);
  if (warp < SHARING) {
    float scale = 0.12751743f;  // log2(e) / sqrt(128)
    if (t.logn) scale *= __ldg(t.logn + past);
    v = make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
    lay_query(s, v, warp);
  }
  *at = v;
}
// The queries of the heads with the same keys, and the key, taken and turned.
__device__ __forceinline__ void take_queries(const Step& t, Shared& s, const u64* mail, int layer, int past,
                                             u32 turn) {
  int tid = thread(), lane = tid & 31;
  bool turns = tid / 32 <= SHARING, takes = tid * 2 < (SHARING + 1) * D;
  float4 c, n, weights;
  if (turns) {
    c = __ldg((const float4*)(t.cosine + (u64)past * D) + lane);
    n = __ldg((const float4*)(t.sine + (u64)past * D) + lane);
    if (NORMED)
      weights = __ldg((const float4*)(t.head_norms + ((u64)layer * 2 + (tid / 32 == SHARING)) * D) + lane);
  }
  if (takes) {
    ulonglong2 w;
    do w = look_at_two(mail + tid * 2);
    while (is_late(w, turn));
    *(float2*)(s.q + tid * 2) = make_float2(value_of(w.x), value_of(w.y));
  }
  team_sync();
  if (turns) turn_head(t, s, past, c, n, weights);
  team_sync();
}
__device__ __forceinline__ void attention_phase(const Step& t, Shared& s, const Whole& in, const byte* ring,
                                                Slot& slot, int layer, int past, float rms, u32 turn,
                                                u64* sums) {
  Seat seat = seat_of_block();
  // Row blocks that are told before the queries are taken: the queries', and the keys'; and the values' then.
  constexpr int FIRST = APART ? 2 : 2 + (KEY_ROWS + 15) / 16, LAST = Shape::A_RB - FIRST;
  int tid = thread(), used = min(Cache::tiles(past), ASKERS);
  u64* mail = t.mail + seat.key_head * MAIL;
  tell<FIRST>(t, s, in, ring, slot, seat, layer, 0, 0, s.part, rms, turn);
  let_fly(s, t.waiting_flight);
  if constexpr (LAST > 0) {
    constexpr int ROWS = LAST * 16;
    tell<LAST>(t, s, in, ring, slot, seat, layer, FIRST * 16, CONSUMERS - ROWS, s.part + LATER, rms, turn);
  }
  take_queries(t, s, mail, layer, past, turn);
  bool many = Cache::tiles(past, seat.number) > STAGES;  // then the time goes to reading them, not to words
  if (many) let_fly(s, t.flight);
  if (tid / 32 == TEAM - 1) own_key(t, s, layer, seat.head, seat.number, past);
  attend_cached(s, ring, slot, past, seat.number);
  team_sync();
  if (many) let_fly(s, t.waiting_flight);
  if (seat.number < used) tell_mixed(t, s, mail + MAIL_PARTS, seat.number, turn);
  u64 early = tid < D ? look(mail + MAIL_V + tid) : 0;  // as a rule it has been there for long
  take_mixed(s, mail + MAIL_PARTS, seat.head, used, turn);
  team_sync();
  if (tid < D) {
    float value = is_late(early, turn) ? collect(mail + MAIL_V + tid, turn) : value_of(early);
    lay_narrow<D>(t, s, with_own(t, s, value, layer, seat.head, seat.number, past), D);
  }
  team_sync();
  let_fly(s, t.flight);
  projection(t, s, ring, slot, sums);
}
// The same for a block that has keys and values alone.
__device__ __forceinline__ void tell_keys(const Step& t, Shared& s, const Whole& in, const byte* ring,
                                          Slot& slot, int layer, float rms, u32 turn) {
  Seat seat = seat_of_block();
  tell<2>(t, s, in, ring, slot, seat, layer, 0, 0, s.part, rms, turn);
  tell<2>(t, s, in, ring, slot, seat, layer, 32, 0, s.part + LATER, rms, turn);
}
__device__ __forceinline__ void mlp_phase(const Step& t, Shared& s, const Whole& in, const byte* ring,
                                          Slot& slot, float rms, u64* sums) {
  constexpr int THREADS_OF_UNITS = (UNITS + 31) / 32 * 32;
  int tid = thread();
  in.rows<1>(s, ring, slot, Shape::G_RB, Shape::TAIL_ROWS > 0, s.part, STRIDE);
  team_sync();
  if (tid < THREADS_OF_UNITS) {  // a thread a unit
    float hidden = 0;
    if (tid < UNITS) {
      float up = Whole::row(s.part, STRIDE, tid) * rms, gate = Whole::row(s.part, STRIDE, UNITS + tid) * rms;
      hidden = up * gate / (1 + __expf(-gate));
    }
    lay_narrow<THREADS_OF_UNITS>(t, s, hidden, first_part(blockIdx.x));
  }
  team_sync();
  down(t, s, ring, slot, sums);
}
__device__ void consume(const Step& t, Shared& s, const byte* ring) {
  int tid = threadIdx.x, b = blockIdx.x, past = *t.position;
  u32 tokens = *t.turn;
  u64 *now = t.sums + (u64)(tokens & 1) * 2 * t.layers * H,
      *next = t.sums + (u64)(~tokens & 1) * 2 * t.layers * H;
  Slot slot = {0, 0};
  float x[8];
  embed(t, x);
#pragma unroll 1
  for (int phase = 0; phase < 2 * t.layers; phase++) {
    float w[8];
    int order[8] = {};
    load_norm(t.norms + (u64)phase * H, w);
    if (ORDERED && tid < LOADING) {
#pragma unroll
      for (int j = 0; j < 8; j++) order[j] = __ldg(t.orders + (u64)phase * H + tid * 8 + j);
    }
    bring_nearer(t, phase + 1);
    let_fly(s, t.waiting_flight);
    if (phase) take_sums(now + (u64)(phase - 1) * H, phase & 1 ? HEADS : BLOCKS, x);
    float rms = lay_normed(t, s, x, w, order);
    Whole in;
    in.load(s);
    let_fly(s, t.flight);
    if (tid < H / BLOCKS) next[(u64)phase * H + b * (H / BLOCKS) + tid] = 0;  // for the next token
    u32 turn = tokens * t.layers + phase / 2 + 1;
    if (phase & 1)
      mlp_phase(t, s, in, ring, slot, rms, now + (u64)phase * H);
    else if (ASKING == BLOCKS || b < ASKING)
      attention_phase(t, s, in, ring, slot, phase / 2, past, rms, turn, now + (u64)phase * H);
    else if (APART && b < ASKING + TELLING)
      tell_keys(t, s, in, ring, slot, phase / 2, rms, turn);
    team_sync();  // nobody reads the digits any more
  }
  if (b) return;
  take_sums(now + (u64)(2 * t.layers - 1) * H, BLOCKS, x);
  __threadfence();
  bool broken = *(volatile int*)t.broken;
  team_sync();
#pragma unroll
  for (int j = 0; j < 8 && tid < LOADING; j++)
    t.out[tid * 8 + j] = broken ? __uint_as_float(0x7fffffffu) : x[j];
  if (tid == 0) {
    *t.broken = 0;
    *t.turn = tokens + 1;
    *t.counter = 0;
  }
}

// One thread: has every tile copied in, a few under way at a time.
struct Fetch {
  Slot slot, landed;
  int flying;
  // Waits until another tile may be under way; where it goes.
  __device__ __forceinline__ byte* room(Shared& s, byte* ring) {
    bar_wait(&s.empty[slot.stage], slot.parity);
    for (; flying >= s.flight; flying--) {
      bar_wait(&s.full[landed.stage], landed.parity);
      landed.next();
    }
    flying++;
    return ring + slot.stage * STAGE;
  }
  // A matrix's tiles of one of so many blocks.
  __device__ __forceinline__ void tiles(Shared& s, byte* ring, const byte* from, int tiles, int blocks,
                                        int block, u32 bytes) {
    from += (u64)block * bytes;
#pragma unroll 1
    for (int i = 0; i < tiles; i++, from += (u64)blocks * bytes, slot.next()) {
      byte* to = room(s, ring);
      bar_expect(&s.full[slot.stage], bytes);
      bulk(to, from, bytes, &s.full[slot.stage]);
    }
  }
  // Cached positions of the block's head.
  __device__ __forceinline__ void cached(const Step& t, Shared& s, byte* ring, int layer, int past) {
    int key_head = blockIdx.x / ASKERS, number = blockIdx.x % ASKERS, tiles = Cache::tiles(past, number);
#pragma unroll 1
    for (int i = 0; i < tiles; i++, slot.next()) {
      byte* to = room(s, ring);
      u64* full = &s.full[slot.stage];
      int first = (number + i * ASKERS) * Cache::CHUNK, n = min(Cache::CHUNK, past - first),
          scales = (n + 3) / 4 * 16;
      u64 keys = Cache::row(t, layer, key_head, 0) + first,
          values = Cache::row(t, layer, key_head, 1) + first;
      bar_expect(full, 2 * (Cache::VALUES + (KV == 8 ? scales : 0)));
#pragma unroll
      for (int k = 0; k < 2 * Cache::BOXES; k++)
        bulk_box(to + k * Cache::BOX, t.boxes, k % Cache::BOXES * (1024 / KV),
                 k < Cache::BOXES ? keys : values, full);
      if (KV == 8) {
        bulk(to + Cache::SCALES, t.cache_scales + keys, scales, full);
        bulk(to + Cache::SCALES + Cache::CHUNK * 4, t.cache_scales + values, scales, full);
      }
    }
  }
};
__device__ void fetch(const Step& t, Shared& s, byte* ring) {
  using L = Shape;
  int b = blockIdx.x, past = *t.position;
  Fetch f = {{0, 1}, {0, 0}, 0};
#pragma unroll 1
  for (int layer = 0; layer < t.layers; layer++) {
    const byte* at = (const byte*)__ldg(t.tapes + layer);
    if (b < ASKING) {
      f.tiles(s, ring, at, L::A_N, ASKING, b, L::TILE);
      f.cached(t, s, ring, layer, past);
      f.tiles(s, ring, at + L::O_AT, L::O_N, ASKING, b, L::OUT);
    } else if (APART && b < ASKING + TELLING) {
      f.tiles(s, ring, at + L::K_AT, L::K_N, TELLING, b - ASKING, L::TILE);
    }
    f.tiles(s, ring, at + L::G_AT, L::G_N, BLOCKS, b, L::TILE);
    f.tiles(s, ring, at + L::T_AT, L::T_N, BLOCKS, b, L::TAIL);
    f.tiles(s, ring, at + L::D_AT, L::D_N, BLOCKS, b, L::DOWN);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) layers(const __grid_constant__ Step t) {
  extern __shared__ __align__(1024) byte raw[];
  static_assert(STAGES >= 8 && STAGES * STAGE + sizeof(Shared) <= SHARED, "more than a block may have");
  Shared& s = *(Shared*)(raw + STAGES * STAGE);
  int tid = threadIdx.x;
  for (int i = tid; i < KV / 2 * 32; i += THREADS) s.query[i / 32][i % 32] = make_uint4(0, 0, 0, 0);
  if (tid < 8) s.query_scales[tid] = 0;
  if (tid == 0) {
    for (int i = 0; i < STAGES; i++) {
      bar_init(&s.full[i], 1);
      bar_init(&s.empty[i], TEAM);
    }
    s.flight = t.flight;
    bars_ready();
  }
  __syncthreads();
  if (tid < CONSUMERS) {  // one thread of the others needs few registers
    asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
    consume(t, s, raw);
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (tid == CONSUMERS) fetch(t, s, raw);
  }
}
