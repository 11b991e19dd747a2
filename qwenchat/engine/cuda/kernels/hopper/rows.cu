// Tapes back to rows of floats, for the large matrix products of prefill. Inputs stay in the order in which
// they lie, and so do the units of the MLP.
#include "shape.cuh"

struct Rows {
  const byte* tape;     // a matrix: [tile][block]
  unsigned short* out;  // [rows][inputs] of the model's floats
};

struct Group {  // scales and zero points of rows g and g + 8
  float scale[2], zero[2];
  __device__ __forceinline__ Group(const byte* at) {
    int g = (threadIdx.x & 31) / 4;
    if (BITS == 16) return;
    u32 both = *(const u32*)(at + g * 4);
    scale[0] = half_float(both & 0xffff);
    scale[1] = half_float(both >> 16);
    zero[0] = zero[1] = BITS == 4 ? 8 : 0;
    if (ZEROS && BITS == 4) {
      zero[0] = (float)(at[32 + g] & 15);
      zero[1] = (float)(at[32 + g] >> 4);
    } else if (ZEROS) {
      zero[0] = (float)(signed char)at[32 + g * 2];
      zero[1] = (float)(signed char)at[33 + g * 2];
    }
  }
};
// Eight inputs of a row, of two words of codes; those from `border` on are of the second group.
__device__ __forceinline__ uint4 eight(u32 first, u32 second, int shift, int half, const Group& a,
                                       const Group& b, int border) {
  u32 v[8];
#pragma unroll
  for (int j = 0; j < 8; j++) {
    u32 c = (j < 4 ? first : second) >> (8 * (j % 4));
    float code = BITS == 8 ? (float)(signed char)c : (float)(c >> shift & 15);
    float scale = j < border ? a.scale[half] : b.scale[half], zero = j < border ? a.zero[half] : b.zero[half];
    v[j] = narrow_float((code - zero) * scale);
  }
  return make_uint4(v[0] | v[1] << 16, v[2] | v[3] << 16, v[4] | v[5] << 16, v[6] | v[7] << 16);
}
// A lane's part of 512 bytes of 16 rows to where its two rows begin; the second may be none.
__device__ __forceinline__ void put(const uint4& q, const Group& group, unsigned short* first,
                                    unsigned short* second) {
  int t = threadIdx.x % 4;
  if (BITS == 16) {
    ((uint2*)first)[t] = make_uint2(q.x, q.z);
    if (second) ((uint2*)second)[t] = make_uint2(q.y, q.w);
    return;
  }
#pragma unroll
  for (int step = 0; step < (BITS == 4 ? 2 : 1); step++) {
    ((uint4*)first)[step * 4 + t] = eight(q.x, q.z, step * 4, 0, group, group, 8);
    if (second) ((uint4*)second)[step * 4 + t] = eight(q.y, q.w, step * 4, 1, group, group, 8);
  }
}

// Whole inputs: q, k, v (row_blocks 6, no tail) or up and gate (10 and a tail). Grid: tiles, blocks.
extern "C" __global__ void whole_rows(const __grid_constant__ Rows m, int row_blocks, int tail) {
  int i = blockIdx.x, b = blockIdx.y, rb = i / Shape::KB, kb = i % Shape::KB, lane = threadIdx.x & 31,
      g = lane / 4, full = row_blocks * Shape::KB;
  bool last = rb == row_blocks;
  const byte* at = m.tape + ((u64)min(i, full) * Shape::TILE + (u64)max(i - full, 0) * Shape::TAIL) * BLOCKS +
                   (u64)b * (last ? Shape::TAIL : Shape::TILE);
  int row[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int n = rb * 16 + half * 8 + g;
    row[half] = !tail           ? n / 32 * H + b / RANKS * D + number_of(b % RANKS, n % 32)
                : n < 2 * UNITS ? (n < UNITS ? 0 : F) + b * UNITS + n % UNITS
                                : -1;
  }
  for (int ch = threadIdx.x / 32; ch < 32; ch += blockDim.x / 32) {
    uint4 q;
    if (last) {
      uint2 e = *(const uint2*)(at + ch * 384 + lane * 8),
            f = lane < 16 ? *(const uint2*)(at + ch * 384 + 256 + lane * 8) : make_uint2(0, 0);
      q = make_uint4(e.x, f.x, e.y, f.y);
    } else {
      q = *(const uint4*)(at + ch * 512 + lane * 16);
    }
    Group group(at + (last ? Shape::TAIL_CODES : Shape::CODES) + ch * Shape::CHUNK / GROUP * Shape::SB);
    unsigned short* to = m.out + kb * Shape::KT + ch * Shape::CHUNK;
    put(q, group, to + (u64)row[0] * H, row[1] < 0 ? nullptr : to + (u64)row[1] * H);
  }
}
// Matrices of columns go by rows of tiles, so that what lies side by side is written at one time.
__device__ __forceinline__ int turned_back(int tile, int first, int all) {
  return (tile - first + all) % all;
}
// The output projection. Grid: blocks, tiles; a warp a block of 16 rows at a time.
extern "C" __global__ void projection_rows(const __grid_constant__ Rows m) {
  int b = blockIdx.x, tile = blockIdx.y, lane = threadIdx.x & 31, g = lane / 4,
      i = turned_back(tile, Shape::o_tile(b, 0), Shape::O_N);
  const byte* at = m.tape + ((u64)i * BLOCKS + b) * Shape::TILE;
  for (int rb = threadIdx.x / 32; rb < Shape::RBT; rb += blockDim.x / 32) {
    int row = b % RANKS * 1024 + (tile * Shape::RBT + rb) * 16 + g;
    Group group(at + Shape::CODES + rb * Shape::SB);
#pragma unroll
    for (int j = 0; j < BITS / 2; j++) {
      uint4 q = *(const uint4*)(at + rb * (256 * BITS) + j * 512 + lane * 16);
      unsigned short* to = m.out + (u64)row * H + b / RANKS * D + j * Shape::CHUNK;
      put(q, group, to, to + 8 * H);
    }
  }
}
// Down. Grid: blocks, tiles; a warp a block of 16 rows at a time, which meet in shared memory: a block's 86
// columns do not begin at a multiple of 16 bytes.
constexpr int DOWN_WARPS = 8;
extern "C" __global__ void __launch_bounds__(DOWN_WARPS * 32) down_rows(const __grid_constant__ Rows m) {
  __shared__ uint4 meet[DOWN_WARPS][16][11];
  int b = blockIdx.x, tile = blockIdx.y, i = turned_back(tile, Shape::d_tile(b, 0), Shape::D_N),
      lane = threadIdx.x & 31, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, border = first_part(b);
  const byte* at = m.tape + ((u64)i * BLOCKS + b) * Shape::DOWN;
  for (int rb = warp; rb < Shape::RBT; rb += DOWN_WARPS) {
    const byte *p = at + rb * Shape::DOWN_ROWS, *scales = at + Shape::DOWN_CODES + rb * 2 * Shape::SB;
    Group first(scales), second(scales + Shape::SB);
    auto lay = [&](int k, const uint4& q, int shift) {  // eight inputs of rows g and g + 8 from k * 8 on
      meet[warp][g][k] = eight(q.x, q.z, shift, 0, first, second, border - k * 8);
      meet[warp][g + 8][k] = eight(q.y, q.w, shift, 1, first, second, border - k * 8);
    };
    uint4 q = *(const uint4*)(p + lane * 16);
    if (BITS == 16) {
      for (int j = 0; j < 6; j++) {
        if (j == 5 && t >= 2) continue;
        uint4 w = *(const uint4*)(p + j * 512 + (j == 5 ? g * 2 + t : lane) * 16);
        ((uint2*)meet[warp][g])[j * 4 + t] = make_uint2(w.x, w.z);
        ((uint2*)meet[warp][g + 8])[j * 4 + t] = make_uint2(w.y, w.w);
      }
    } else if (BITS == 8) {
      lay(t, q, 0);
      lay(4 + t, *(const uint4*)(p + 512 + lane * 16), 0);
      if (t < 3) lay(8 + t, *(const uint4*)(p + 1024 + (g * 3 + t) * 16), 0);
    } else {
      lay(t, q, 0);
      lay(4 + t, q, 4);
      if (t < 3) {
        uint2 u = *(const uint2*)(p + 512 + (g * 3 + t) * 8);
        lay(8 + t, make_uint4(u.x, u.y, u.x >> 4, u.y >> 4), 0);
      }
    }
    __syncwarp();
    unsigned short* to = m.out + (u64)(tile * Shape::RBT + rb) * 16 * F + b * UNITS;
    for (int n = lane; n < 16 * (UNITS / 2); n += 32) {
      int row = n / (UNITS / 2), pair = n % (UNITS / 2);
      *(u32*)(to + (u64)row * F + pair * 2) = ((const u32*)meet[warp][row])[pair];
    }
    __syncwarp();
  }
}
