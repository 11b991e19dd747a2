// The layers of one token as ONE persistent kernel with two global waits a layer.
//
// 128 blocks, one a multiprocessor. A block's weights lie in the order in which it needs them (shape.cuh), so
// that one thread streams them through a ring of stages, across every border of matrices, while 16 warps
// multiply with tensor cores:
//
//   wait for the stream -> norm -> q, k, v of the head (32 rows of each a block), told to the head's four ->
//     attention over a quarter of the cached positions -> put together by the four -> the head's columns of
//     the output projection (1,024 rows a block) -> added into the stream
//   wait for the stream -> norm -> 86 units of up and gate -> SwiGLU -> the same units' columns of down ->
//   added
//
// What is added is a whole number, so that a reply repeats to the bit.
#include "attention.cuh"
#include "products.cuh"

// Queries, keys and values of the block's rows: told to the head, and the queries and keys of the whole head
// taken. Values are not needed before the cached positions are done.
__device__ __forceinline__ void exchange(const Step& t, Shared& s, const Whole& in, const byte* ring,
                                         Slot& slot, int layer, int head, int rank, int past, float rms,
                                         u32 turn) {
  int tid = threadIdx.x, lane = tid & 31, warp = tid / 32;
  u64* mail = t.mail + head * MAIL;
  const float* biases = t.biases + (u64)layer * 3 * H + head * D + number_of(rank, lane);
  in.rows(s, ring, slot, 4, false, s.part, 64);
  team_sync();
  let_fly(s, t.waiting_flight);
  if (warp < 2) {  // queries, keys; both numbers that are turned together are in this warp
    float v = Whole::row(s.part, 64, tid) * rms + biases[warp * H];
    int d = number_of(rank, lane);
    float other = __shfl_xor_sync(~0u, v, 16), c = t.cosine[(u64)past * D + d], n = t.sine[(u64)past * D + d];
    v = v * c + other * n;
    if (warp == 0) {
      v *= 0.12751743f;  // log2(e) / sqrt(128)
      if (t.logn) v *= t.logn[past];
    }
    check(t, v);
    post(mail + (warp ? MAIL_K : MAIL_Q) + d, v, turn);
  }
  in.rows(s, ring, slot, 2, false, s.part + 1024, 32);
  if (tid < 2 * D) s.q[tid] = collect(mail + tid, turn);
  team_sync();
  if (warp == WARPS - 1) {
    float v = Whole::row(s.part + 1024, 32, lane) * rms + biases[2 * H];
    check(t, v);
    post(mail + MAIL_V + number_of(rank, lane), v, turn);
    if (KV == 8) {
      float most = warp_most(fabsf(v));
      if (lane == 0) post(mail + MAIL_MOST + rank, most, turn);
    }
  }
}
__device__ __forceinline__ void attention_phase(const Step& t, Shared& s, const Whole& in, const byte* ring,
                                                Slot& slot, int layer, int past, float rms, u32 turn,
                                                u64* sums) {
  int tid = threadIdx.x, head = blockIdx.x / RANKS, rank = blockIdx.x % RANKS;
  exchange(t, s, in, ring, slot, layer, head, rank, past, rms, turn);
  bool many = Cache::tiles(past, rank) > STAGES;  // then the time goes to reading them, not to words
  if (many) let_fly(s, t.flight);
  if (tid < 32) own_key(t, s, layer, head, rank, past);
  attend_cached(s, ring, slot, past, rank);
  team_sync();
  if (many) let_fly(s, t.waiting_flight);
  if (tid < D) lay_narrow(t, s, meet(t, s, layer, head, rank, past, turn), D, D);
  team_sync();
  let_fly(s, t.flight);
  projection(t, s, ring, slot, sums);
}
__device__ __forceinline__ void mlp_phase(const Step& t, Shared& s, const Whole& in, const byte* ring,
                                          Slot& slot, float rms, u64* sums) {
  int tid = threadIdx.x;
  in.rows(s, ring, slot, 10, true, s.part, 176);
  team_sync();
  if (tid < 96) {  // a thread a unit
    float hidden = 0;
    if (tid < UNITS) {
      float up = Whole::row(s.part, 176, tid) * rms, gate = Whole::row(s.part, 176, UNITS + tid) * rms;
      hidden = up * gate / (1 + __expf(-gate));
    }
    lay_narrow(t, s, hidden, 96, first_part(blockIdx.x));
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
    load_eight(t.norms + (u64)phase * H + tid * 8, w);
    if (ORDERED) {
#pragma unroll
      for (int j = 0; j < 8; j++) order[j] = __ldg(t.orders + (u64)phase * H + tid * 8 + j);
    }
    let_fly(s, t.waiting_flight);
    if (phase) take_sums(now + (u64)(phase - 1) * H, phase & 1 ? HEADS : BLOCKS, x);
    float rms = lay_normed(t, s, x, w, order);
    Whole in;
    in.load(s);
    let_fly(s, t.flight);
    if (tid < 32) next[(u64)phase * H + b * 32 + tid] = 0;  // for the next token
    if (phase & 1)
      mlp_phase(t, s, in, ring, slot, rms, now + (u64)phase * H);
    else
      attention_phase(t, s, in, ring, slot, phase / 2, past, rms, tokens * t.layers + phase / 2 + 1,
                      now + (u64)phase * H);
    team_sync();  // nobody reads the digits any more
  }
  if (b) return;
  take_sums(now + (u64)(2 * t.layers - 1) * H, BLOCKS, x);
  __threadfence();
  bool broken = *(volatile int*)t.broken;
  team_sync();
#pragma unroll
  for (int j = 0; j < 8; j++) t.out[tid * 8 + j] = broken ? __uint_as_float(0x7fffffffu) : x[j];
  if (tid == 0) {
    *t.broken = 0;
    *t.turn = tokens + 1;
    *t.counter = 0;
  }
}

// One thread: has every tile copied in, a few under way at a time.
__device__ void fetch(const Step& t, Shared& s, byte* ring) {
  int b = blockIdx.x, head = b / RANKS, rank = b % RANKS, past = *t.position,
      tiles = Cache::tiles(past, rank), flying = 0;
  Slot slot = {0, 1}, landed = {0, 0};
#pragma unroll 1
  for (int layer = 0; layer < t.layers; layer++) {
    const byte* at = (const byte*)__ldg(t.tapes + layer);
#pragma unroll 1
    for (int i = 0; i < Shape::TILES + tiles; i++) {
      bar_wait(&s.empty[slot.stage], slot.parity);
      for (; flying >= s.flight; flying--) {
        bar_wait(&s.full[landed.stage], landed.parity);
        landed.next();
      }
      flying++;
      byte* to = ring + slot.stage * STAGE;
      u64* full = &s.full[slot.stage];
      if (i >= Shape::A_N && i < Shape::A_N + tiles) {
        int first = (rank + (i - Shape::A_N) * RANKS) * Cache::CHUNK, n = min(Cache::CHUNK, past - first),
            scales = (n + 3) / 4 * 16;
        u64 keys = Cache::row(t, layer, head, 0) + first, values = Cache::row(t, layer, head, 1) + first;
        bar_expect(full, 2 * (n * Cache::ROW + (KV == 8 ? scales : 0)));
        bulk(to, t.cache + keys * Cache::ROW, n * Cache::ROW, full);
        bulk(to + Cache::VALUES, t.cache + values * Cache::ROW, n * Cache::ROW, full);
        if (KV == 8) {
          bulk(to + Cache::SCALES, t.cache_scales + keys, scales, full);
          bulk(to + Cache::SCALES + Cache::CHUNK * 4, t.cache_scales + values, scales, full);
        }
      } else {
        u32 bytes = Shape::bytes(i < Shape::A_N ? i : i - tiles);
        bar_expect(full, bytes);
        bulk(to, at + (u64)b * bytes, bytes, full);
        at += (u64)BLOCKS * bytes;
      }
      slot.next();
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) layers(const __grid_constant__ Step t) {
  extern __shared__ __align__(128) byte raw[];
  static_assert(STAGES * STAGE + sizeof(Shared) <= SHARED, "more than a block may have");
  Shared& s = *(Shared*)(raw + STAGES * STAGE);
  int tid = threadIdx.x;
  if (tid == 0) {
    for (int i = 0; i < STAGES; i++) {
      bar_init(&s.full[i], 1);
      bar_init(&s.empty[i], TEAM);
    }
    s.flight = t.flight;
    bars_ready();
  }
  __syncthreads();
  if (tid < CONSUMERS)
    consume(t, s, raw);
  else if (tid == CONSUMERS)
    fetch(t, s, raw);
}
