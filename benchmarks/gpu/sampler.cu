// Probe: the choice of the next token of 151,936 by one cluster of blocks. What it showed is in log.md beside
// it.
//
// Repetition penalty, temperature, top-k, top-p, min-p and one number between 0 and 1 as in the engine's
// sampler, where 128 blocks meet at barriers in memory, up to twenty times. Here the blocks of one cluster
// hold all logits in registers and tell one another through distributed shared memory, each word counted by a
// barrier of whoever hears it.
//
// Probabilities relative to the best one are whole numbers of 44 bits behind the point: sums do not depend on
// their order, so a reply repeats to the bit. Nothing is sorted: a threshold is found eight bits of the
// probability's own bits at a time, from a histogram of 256 counters of mass. A lane has counters of its own,
// so that flat logits, all in one counter, take little longer than peaked ones; a mass goes into two words of
// 32 bits.
//
//   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -o sampler sampler.cu && ./sampler
#include <cmath>

#include "probe.cuh"
constexpr int V = 151936, WARPS = 32, THREADS = WARPS * 32, BINS = 256;
using u64 = unsigned long long;

struct Settings {
  float temperature, top_p, min_p, penalty;
  int top_k;
};
struct Draw {
  const float* logits;
  const unsigned char* seen;
  Settings s;
  double uniform;
  int* token;  // -1: the best logit is no number or infinite
};
__host__ __device__ inline float penalised(float score, bool seen, float penalty) {
  if (!seen || !(penalty != 1)) return score;
  float a = score * penalty, b = score / penalty;
  return penalty > 1 ? (a < b ? a : b) : (a > b ? a : b);
}
__device__ __forceinline__ float share_of(float score, float best, float temperature) {
  return exp2f((score - best) * (1.4426950408889634f / temperature));
}
__host__ __device__ inline u64 fixed(float share) { return (u64)(share * 17592186044416.f); }  // 2^44

// ---- a cluster's words
__device__ __forceinline__ uint32_t of_block(const void* p, int block) {
  uint32_t a;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(a) : "r"(sm(p)), "r"(block));
  return a;
}
// A word into another block's memory, which that block's barrier counts: no fence, and nobody waits for its
// way.
__device__ __forceinline__ void tell(const void* p, uint64_t* bar, int block, u64 v) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.u64 [%0], %1, [%2];" ::"r"(of_block(p, block)),
      "l"(v), "r"(of_block(bar, block))
      : "memory");
}
__device__ __forceinline__ u64 sum_of_warp(u64 v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}
__device__ __forceinline__ u64 most_of_warp(u64 v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = max(v, __shfl_xor_sync(~0u, v, o));
  return v;
}

template <int CL>
struct Shared {
  alignas(16) uint32_t low[BINS][32], high[BINS][32];  // a block's histogram, a column a lane
  alignas(16) u64 bins[CL][BINS / CL];   // of all blocks: the counters that are this one's to sum up
  alignas(16) u64 all[BINS + BINS / 8];  // the sums of all blocks; eight, which a lane reads, and a gap
  u64 best[CL], mass[CL], ties[CL], of_warps[WARPS], ties_of_warps[WARPS];
  uint64_t told[2];  // by turns: a block may be one turn ahead of another, not two
};

template <int CL>
struct Chooser {
  static constexpr int BLOCK = V / CL, WARP = (BLOCK + WARPS - 1) / WARPS, ROWS = (WARP + 31) / 32;
  Shared<CL>& s;
  int tid = threadIdx.x, lane = tid & 31, warp = tid / 32, block = blockIdx.x, turn = 0;
  float x[ROWS];  // scores, then shares

  __device__ __forceinline__ int id(int i) const { return block * BLOCK + warp * WARP + i * 32 + lane; }
  __device__ __forceinline__ bool ok(int i) const {
    return i * 32 + lane < WARP && warp * WARP + i * 32 + lane < BLOCK;
  }
  // All that the blocks tell this one in this turn, `words` from each of them, is here.
  __device__ __forceinline__ void hear(int words) {
    if (tid == 0) bar_expect(&s.told[turn & 1], CL * words * 8);
    bar_wait(&s.told[turn & 1], turn / 2 & 1);
    turn++;
  }
  __device__ __forceinline__ uint64_t* bar() { return &s.told[turn & 1]; }
  __device__ __forceinline__ void clear() {
    uint4* p = (uint4*)s.low;  // and high behind it
#pragma unroll
    for (int i = 0; i < 2 * BINS * 32 / 4 / THREADS; i++) p[i * THREADS + tid] = make_uint4(0, 0, 0, 0);
    __syncthreads();
  }
  struct Found {
    uint32_t key;
    u64 least, above, at;  // what was asked for, the weight of what is above the key, and just at it
  };
  // The largest key such that the weights of all tokens with keys as large come to `least` (a share of all,
  // if `part`).
  template <bool MASS>
  __device__ __forceinline__ Found threshold(u64 least, float part) {
    Found f = {0, least, 0, 0};
#pragma unroll 1
    for (int shift = 22; shift > -8; shift -= 8) {
      int down = max(shift, 0), width = shift < 0 ? 6 : 8;
#pragma unroll
      for (int i = 0; i < ROWS; i++) {
        uint32_t key = __float_as_uint(x[i]);
        if (ok(i) && key >> (down + width) == f.key >> (down + width)) {
          u64 v = MASS ? fixed(x[i]) : 1;
          uint32_t bin = key >> down & ((1 << width) - 1);
          if (!MASS || v) atomicAdd(&s.low[bin][lane], (uint32_t)v & 0x3fffff);
          if (MASS && v >> 22) atomicAdd(&s.high[bin][lane], (uint32_t)(v >> 22));
        }
      }
      __syncthreads();
      int bin = tid / 4, part4 = tid % 4;
      u64 lo = 0, hi = 0;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        uint4 a = ((const uint4*)s.low[bin])[part4 * 2 + i], b = ((const uint4*)s.high[bin])[part4 * 2 + i];
        lo += (u64)a.x + a.y + a.z + a.w;
        hi += (u64)b.x + b.y + b.z + b.w;
      }
      u64 v = lo + (hi << 22);
      v += __shfl_xor_sync(~0u, v, 1);
      v += __shfl_xor_sync(~0u, v, 2);
      if (part4 == 0) tell(&s.bins[block][bin % (BINS / CL)], bar(), bin / (BINS / CL), v);
      __syncthreads();
      clear();
      hear(BINS / CL);
      if (tid < BINS) {
        v = s.bins[tid % CL][tid / CL];
#pragma unroll
        for (int o = CL / 2; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
        {
          int b = block * (BINS / CL) + tid / CL;
          tell(&s.all[b + b / 8], bar(), tid % CL, v);
        }
      }
      hear(BINS / CL);
      // From the top: lane 0 has the eight largest; every warp finds the same.
      u64 w[8], sum = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) sum += w[i] = s.all[(31 - lane) * 9 + 7 - i];
      u64 before = sum;
#pragma unroll
      for (int o = 1; o < 32; o *= 2) {
        u64 other = __shfl_up_sync(~0u, before, o);
        if (lane >= o) before += other;
      }
      if (shift == 22 && part > 0) {
        u64 total = __shfl_sync(~0u, before, 31);
        f.least = max((u64)1, min(total, (u64)ceil((double)total * part)));
      }
      unsigned there = __ballot_sync(~0u, f.above + before >= f.least);
      int owner = there ? __ffs(there) - 1 : 31;
      u64 above = f.above + before - sum, at = 0;
      int found = 0;
      bool done = false;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (!done) {
          found = BINS - 1 - lane * 8 - i;
          at = w[i];
          done = above + w[i] >= f.least;
          if (!done) above += w[i];
        }
      }
      f.key |= (uint32_t)__shfl_sync(~0u, found, owner) << down;
      f.above = __shfl_sync(~0u, above, owner);
      f.at = __shfl_sync(~0u, at, owner);
    }
    return f;
  }
  __device__ __forceinline__ void choose(const Draw& d) {
    u64 best = 0;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      bool there = ok(i);
      float v = there ? __ldcg(d.logits + id(i)) : -INFINITY;
      if (d.s.penalty != 1) v = penalised(v, there && __ldg(d.seen + id(i)), d.s.penalty);
      x[i] = v;
      if (v != v) v = INFINITY;
      uint32_t b = __float_as_uint(v);
      b ^= b >> 31 ? 0xffffffffu : 0x80000000u;  // in the order of the numbers
      if (there) best = max(best, (u64)b << 32 | (0xffffffffu - id(i)));
    }
    best = most_of_warp(best);
    if (lane == 0) s.of_warps[warp] = best;
    clear();
    if (warp == 0) {
      best = most_of_warp(s.of_warps[lane]);
      asm volatile("barrier.cluster.wait.acquire;" ::: "memory");  // everybody's barriers are there
      if (lane < CL) tell(&s.best[block], bar(), lane, best);
    }
    hear(1);
    best = most_of_warp(s.best[lane % CL]);
    int chosen = 0xffffffffu - (uint32_t)best;
    uint32_t bits = best >> 32;
    float top = __uint_as_float(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
    bool broken = isinf(top);
    if (broken || d.s.temperature <= 0) {
      if (block == 0 && tid == 0) *d.token = broken ? -1 : chosen;
      return;
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) x[i] = ok(i) ? share_of(x[i], top, d.s.temperature) : 0;
    if (d.s.top_k > 0 && d.s.top_k < V) {
      float lowest = __uint_as_float(threshold<false>(d.s.top_k, 0).key);
#pragma unroll
      for (int i = 0; i < ROWS; i++)
        if (x[i] < lowest) x[i] = 0;
    }
    if (d.s.top_p < 1) {
      Found f = threshold<true>(0, d.s.top_p);
      float edge = __uint_as_float(f.key);
      u64 value = fixed(edge), ties = f.at / value, needed = (f.least - f.above + value - 1) / value;
#pragma unroll
      for (int i = 0; i < ROWS; i++)
        if (x[i] < edge) x[i] = 0;
      if (ties > needed) first_of(edge, needed);
    }
    u64 mass = 0;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      if (x[i] < d.s.min_p) x[i] = 0;
      mass += fixed(x[i]);
    }
    mass = sum_of_warp(mass);
    if (lane == 0) s.of_warps[warp] = mass;
    __syncthreads();
    if (warp == 0) {
      u64 all = sum_of_warp(s.of_warps[lane]);
      if (lane < CL) tell(&s.mass[block], bar(), lane, all);
    }
    hear(1);
    u64 before = 0, total = 0;
#pragma unroll
    for (int k = 0; k < CL; k++) {
      u64 m = s.mass[k];
      if (k < block) before += m;
      total += m;
    }
    u64 target = min((u64)((double)total * d.uniform), total - 1);
    if (target < before || target >= before + s.mass[block]) return;
    before += sum_of_warp(lane < warp ? s.of_warps[lane] : 0);
    if (target < before || target >= before + mass) return;
    u64 v = 0, first = 0;
    int row = 0;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {  // which row of the warp's
      u64 w = fixed(x[i]), all = ((u64)__reduce_add_sync(~0u, (uint32_t)(w >> 22)) << 22) +
                                 __reduce_add_sync(~0u, (uint32_t)w & 0x3fffff);
      if (target >= before) {
        v = w;
        row = i;
        first = before;
      }
      before += all;
    }
    u64 upto = v;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
      u64 other = __shfl_up_sync(~0u, upto, o);
      if (lane >= o) upto += other;
    }
    if (target < first + upto && target >= first + upto - v) *d.token = id(row);
  }
  // Of the tokens just at the edge only the first `needed`, in the order of their ids.
  __device__ __forceinline__ void first_of(float edge, u64 needed) {
    int mine = 0;
#pragma unroll
    for (int i = 0; i < ROWS; i++) mine += __popc(__ballot_sync(~0u, ok(i) && x[i] == edge));
    if (lane == 0) s.ties_of_warps[warp] = mine;
    __syncthreads();
    if (warp == 0) {
      u64 all = sum_of_warp(s.ties_of_warps[lane]);
      if (lane < CL) tell(&s.ties[block], bar(), lane, all);
    }
    hear(1);
    u64 before = 0;
    for (int k = 0; k < block; k++) before += s.ties[k];
    for (int k = 0; k < warp; k++) before += s.ties_of_warps[k];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      bool tie = ok(i) && x[i] == edge;
      unsigned all = __ballot_sync(~0u, tie);
      if (tie && before + __popc(all & ((1u << lane) - 1)) >= needed) x[i] = 0;
      before += __popc(all);
    }
  }
};
template <int CL>
__global__ void __launch_bounds__(THREADS, 1) sample(const __grid_constant__ Draw d) {
  extern __shared__ __align__(16) unsigned char raw[];
  Chooser<CL> c{*(Shared<CL>*)raw};
  if (threadIdx.x == 0) {
    bar_init(&c.s.told[0], 1);
    bar_init(&c.s.told[1], 1);
    bars_ready();
  }
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  c.choose(d);  // a block that ends has heard the others' last words
}
__global__ void nothing() {}

// ---- the check: shares from a plain kernel, everything else on the host, sorted
__global__ void shares(const float* logits, const unsigned char* seen, Settings s, float best, float* out) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < V) out[i] = share_of(penalised(logits[i], seen[i], s.penalty), best, s.temperature);
}
int expected(const std::vector<float>& logits, const std::vector<unsigned char>& seen, const Settings& s,
             double u, const float* dl, const unsigned char* ds) {
  float best = -INFINITY;
  int chosen = 0;
  for (int i = V - 1; i >= 0; i--) {
    float v = penalised(logits[i], seen[i], s.penalty);
    if (v != v) v = INFINITY;
    if (v >= best) {
      best = v;
      chosen = i;
    }
  }
  if (std::isinf(best)) return -1;
  if (s.temperature <= 0) return chosen;
  float* out;
  CK(cudaMalloc(&out, V * 4));
  shares<<<(V + 255) / 256, 256>>>(dl, ds, s, best, out);
  CK(cudaDeviceSynchronize());
  auto p = download(out, V);
  CK(cudaFree(out));
  std::vector<int> order(V);
  for (int i = 0; i < V; i++) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
  if (s.top_k > 0 && s.top_k < V) {
    float lowest = p[order[s.top_k - 1]];
    for (auto& v : p)
      if (v < lowest) v = 0;
  }
  if (s.top_p < 1) {
    u64 total = 0, sum = 0;
    for (float v : p) total += fixed(v);
    u64 least = std::max((u64)1, std::min(total, (u64)std::ceil((double)total * s.top_p)));
    for (int i : order) {
      if (sum >= least) {
        p[i] = 0;
      } else {
        sum += fixed(p[i]);
      }
    }
  }
  u64 total = 0, sum = 0;
  for (auto& v : p) {
    if (v < s.min_p) v = 0;
    total += fixed(v);
  }
  u64 target = std::min((u64)((double)total * u), total - 1);
  for (int i = 0; i < V; i++)
    if ((sum += fixed(p[i])) > target) return i;
  return -2;
}

template <int CL>
void launch(cudaStream_t st, const Draw& d) {
  cudaLaunchConfig_t c = {};
  c.gridDim = CL;
  c.blockDim = THREADS;
  c.dynamicSmemBytes = sizeof(Shared<CL>);
  c.stream = st;
  cudaLaunchAttribute a[1];
  a[0].id = cudaLaunchAttributeClusterDimension;
  a[0].val.clusterDim.x = CL;
  a[0].val.clusterDim.y = a[0].val.clusterDim.z = 1;
  c.attrs = a;
  c.numAttrs = 1;
  CK(cudaLaunchKernelEx(&c, sample<CL>, d));
}
template <class Go>
double in_graph_us(cudaStream_t st, Go go) {  // a launch of 64 of a graph
  cudaGraph_t g;
  cudaGraphExec_t e;
  CK(cudaStreamBeginCapture(st, cudaStreamCaptureModeGlobal));
  for (int i = 0; i < 64; i++) go();
  CK(cudaStreamEndCapture(st, &g));
  CK(cudaGraphInstantiate(&e, g, 0));
  double ms = median_ms(st, 9, 10, [&] { CK(cudaGraphLaunch(e, st)); });
  CK(cudaGraphExecDestroy(e));
  CK(cudaGraphDestroy(g));
  return ms * 1000 / 64;
}
template <int CL>
void measure(cudaStream_t st) {
  CK(cudaFuncSetAttribute(sample<CL>, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<CL>)));
  if (CL > 8) CK(cudaFuncSetAttribute(sample<CL>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  const Settings all[] = {{0, 1, 0, 1, 0},
                          {1, 0.8f, 0, 1.1f, 0},
                          {0.7f, 0.9f, 0, 1, 50},
                          {1, 1, 0, 1, 0},
                          {1.5f, 0.95f, 0.02f, 1.05f, 0},
                          {1, 0.5f, 0, 1, 1},
                          {3, 0.999f, 0, 0.9f, 100000},
                          {0.1f, 0.3f, 0, 1, 0}};
  const char* kinds[] = {"peaked", "flat", "all the same", "whole numbers", "with a NaN"};
  int* token;
  CK(cudaMalloc(&token, 4));
  int right = 0, wrong = 0, drawn = 0;
  for (int kind = 0; kind < 5; kind++) {
    std::vector<float> logits(V);
    std::vector<unsigned char> seen(V);
    for (int i = 0; i < V; i++) {
      float u = (mix(i * 3 + kind) + 0.5f) / 4294967296.f, v = (mix(i * 7 + 1) + 0.5f) / 4294967296.f;
      float n = std::sqrt(-2 * std::log(u)) * std::cos(6.2831853f * v);
      logits[i] = kind == 0 ? n * 3.5f : kind == 1 ? n * 0.3f : kind == 2 ? 1.25f : std::rint(n * 3);
      seen[i] = mix(i) % 50 == 0;
    }
    if (kind == 4) logits[777] = NAN;
    Draw d = {upload(logits), upload(seen), all[0], 0, token};
    for (const Settings& s : all)
      for (double u : {0.0, 0.37, 0.8125, 0.999999999}) {
        d.s = s;
        d.uniform = u;
        CK(cudaMemset(token, 0x55, 4));
        launch<CL>(st, d);
        CK(cudaStreamSynchronize(st));
        int got = download(token, 1)[0], want = expected(logits, seen, s, u, d.logits, d.seen);
        drawn++;
        if (got == want)
          right++;
        else if (wrong++ < 8)
          printf("  %s, temperature %g, top-k %d, top-p %g, %g: %d instead of %d\n", kinds[kind],
                 s.temperature, s.top_k, s.top_p, u, got, want);
      }
    if (kind < 3) {
      printf("cluster of %2d, %-12s", CL, kinds[kind]);
      for (int i : {0, 3, 1, 2}) {
        d.s = all[i];
        d.uniform = 0.37;
        printf("  %s %.2f us",
               i == 0   ? "greedy"
               : i == 3 ? "temperature"
               : i == 1 ? "top-p, penalty"
                        : "top-k and top-p",
               in_graph_us(st, [&] { launch<CL>(st, d); }));
      }
      printf("\n");
      fflush(stdout);
    }
    CK(cudaFree((void*)d.logits));
    CK(cudaFree((void*)d.seen));
  }
  printf("cluster of %2d: %d of %d tokens as sorted on the host, %d wrong\n", CL, right, drawn, wrong);
  CK(cudaFree(token));
}
int main() {
  cudaStream_t st;
  CK(cudaStreamCreate(&st));
  printf("an empty kernel: %.2f us\n", in_graph_us(st, [&] { nothing<<<16, THREADS, 0, st>>>(); }));
  measure<16>(st);
  measure<8>(st);
  return 0;
}
