// What goes into the products of prefill (product.cu), laid as their copies want it: 64 inputs of every
// token, then the next 64. A token's 128 bytes are eight pieces by turns, as the tensor cores read them from
// shared memory; within 32 inputs (floats: 16) the pairs are in the order in which a tape's words have them.
#include "barriers.cuh"

typedef unsigned short half_word;

struct Inputs {
  const half_word* x;             // [tokens][heads][D]; for the MLP's hidden units [tokens][BLOCKS * BOTH]
  const float* parts;             // [splits][H / 16][tokens][16] to add to it, or null
  half_word* sum;                 // [tokens][H], with parts: x with them
  const half_word* weight;        // [H], of a norm, or null
  const int* order;               // [H], the input at each place, or null
  byte* out;                      // [inputs / 64][padded][64], or null
  int token_stride, head_stride;  // of x, in numbers
  int tokens, padded, splits;
  float eps;
};

// The t-th of four pairs of inputs that a piece of 16 bytes has.
__device__ __forceinline__ int input_of(int piece, int t) {
  return BITS == 16 ? piece / 2 * 16 + t * 4 + piece % 2 * 2 : piece / 4 * 32 + t * 8 + piece % 4 * 2;
}
// Where a piece of a token is.
__device__ __forceinline__ uint4* piece_at(const Inputs& m, int piece, int token) {
  return (uint4*)(m.out + ((u64)(piece / 8) * m.padded + token) * 128) + (piece % 8 ^ token % 8);
}
__device__ __forceinline__ void wide_eight(const uint4& q, float (&x)[8]) {
  u32 w[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
  for (int j = 0; j < 8; j++) x[j] = wide_float(w[j / 2] >> (16 * (j % 2)) & 0xffff);
}

// A block a token, a thread eight numbers: a norm, if there is one, and the parts of the product before added
// first.
extern "C" __global__ void __launch_bounds__(H / 8) inputs(const __grid_constant__ Inputs m) {
  __shared__ float squares[H / 256];
  __shared__ __align__(16) float line[H / 32 * 40];  // 32 numbers and room, so that reads meet other banks
  int tid = threadIdx.x, token = blockIdx.x;
  float x[8];
  start_next();
  wait_for_previous();
  wide_eight(__ldg((const uint4*)(m.x + (u64)token * m.token_stride + (u64)(tid * 8 / D) * m.head_stride +
                                  tid * 8 % D)),
             x);
  if (m.parts) {
    for (int i = 0; i < m.splits; i++) {
      const float4* part =
          (const float4*)(m.parts + (((u64)i * (H / 16) + tid / 2) * m.tokens + token) * 16 + tid % 2 * 8);
      float4 a = __ldg(part), b = __ldg(part + 1);
      x[0] += a.x, x[1] += a.y, x[2] += a.z, x[3] += a.w, x[4] += b.x, x[5] += b.y, x[6] += b.z, x[7] += b.w;
    }
    uint4 q = make_uint4(narrow_two(x[0], x[1]), narrow_two(x[2], x[3]), narrow_two(x[4], x[5]),
                         narrow_two(x[6], x[7]));
    ((uint4*)(m.sum + (u64)token * H))[tid] = q;
    wide_eight(q, x);
  }
  if (!m.out) return;
  if (m.weight) {
    float weight[8], sum = 0;
    wide_eight(__ldg((const uint4*)m.weight + tid), weight);
#pragma unroll
    for (int j = 0; j < 8; j++) sum = fmaf(x[j], x[j], sum);
#pragma unroll
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (tid % 32 == 0) squares[tid / 32] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int j = 0; j < H / 256; j++) sum += squares[j];
    float rms = rsqrtf(sum / H + m.eps);
#pragma unroll
    for (int j = 0; j < 8; j++) x[j] = x[j] * rms * weight[j];
  }
  float4* mine = (float4*)(line + tid / 4 * 40 + tid % 4 * 8);
  mine[0] = make_float4(x[0], x[1], x[2], x[3]);
  mine[1] = make_float4(x[4], x[5], x[6], x[7]);
  __syncthreads();
  u32 w[4];
#pragma unroll
  for (int t = 0; t < 4; t++) {
    int k = input_of(tid, t), a = k, b = k + 1;
    if (m.order) {
      int2 of = __ldg((const int2*)(m.order + k));
      a = of.x, b = of.y;
    }
    w[t] = narrow_two(line[a / 32 * 40 + a % 32], line[b / 32 * 40 + b % 32]);
  }
  *piece_at(m, tid, token) = make_uint4(w[0], w[1], w[2], w[3]);
}

// The MLP's hidden units: up times SiLU of gate. A block's are laid as whole pieces of 32, of which the last
// ones are zeros. A block a token, 512 threads.
constexpr int BOTH = (2 * UNITS + 15) / 16 * 16;
extern "C" __global__ void __launch_bounds__(512) hidden(const __grid_constant__ Inputs m) {
  constexpr int OF_BLOCK = (UNITS + 31) / 32 * 4, EACH = BLOCKS * OF_BLOCK / 512;  // pieces
  int token = blockIdx.x;
  u32 up[EACH][4], gate[EACH][4];
  start_next();
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int n = i * 512 + threadIdx.x;
    const half_word* of = m.x + (u64)token * (BLOCKS * BOTH) + n / OF_BLOCK * BOTH;
#pragma unroll
    for (int t = 0; t < 4; t++) {
      int u = input_of(n % OF_BLOCK, t);
      up[i][t] = u < UNITS ? __ldg((const u32*)(of + u)) : 0;
      gate[i][t] = u < UNITS ? __ldg((const u32*)(of + UNITS + u)) : 0;
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    u32 w[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
      float v[2];
#pragma unroll
      for (int j = 0; j < 2; j++) {
        float a = wide_float(up[i][t] >> (16 * j) & 0xffff), g = wide_float(gate[i][t] >> (16 * j) & 0xffff);
        v[j] = __fdividef(a * g, 1 + __expf(-g));
      }
      w[t] = narrow_two(v[0], v[1]);
    }
    *piece_at(m, i * 512 + threadIdx.x, token) = make_uint4(w[0], w[1], w[2], w[3]);
  }
}
