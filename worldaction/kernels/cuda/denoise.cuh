// The policy's denoising loop in one kernel, bfloat16 on tensor cores: worldaction/kernels/denoise/reference.py.
//
// Rows are independent, so a block undoes all steps of its WA_ROWS rows without a word to any other. A step is a chain
// of small products; a graph of library calls would pay a launch for each of them. The residual stays in the
// accumulators; weights lie in shared memory as far as they fit (the first WA_RESIDENT matrices), one in registers
// (WA_HELD), the rest in L2.
#pragma once
#include "denoise_table.cuh"

namespace denoiser {

constexpr int XP = WA_XP, WARPS = WA_WARPS, THREADS = 32 * WARPS, PAD = 8;
constexpr int MT = W / 16, XT = XP / 16;  // tiles of the width and of the chunk
constexpr int MW = MT / WARPS, NR = ROWS / 8;
static_assert(W % 16 == 0 && XP % 16 == 0 && MT % WARPS == 0 && ROWS % 8 == 0 && X <= XP, "sizes that do not divide");

// Matrices in the order of their fragments, a tile in 128 words: noisy, out, layers 1, 2, ..., and layer 0 last.
constexpr int TILE = 128, EDGE = MT * XT * TILE, SQUARE = MT * MT * TILE;
constexpr int MATRICES = 2 + 2 * BLOCKS;
WA_INLINE constexpr int place(int layer) { return layer ? layer + 1 : MATRICES - 1; }
WA_INLINE constexpr int offset(int matrix) { return matrix < 2 ? matrix * EDGE : 2 * EDGE + (matrix - 2) * SQUARE; }

struct Shared {
  u32 resident[offset(WA_RESIDENT)];
  u16 even[ROWS][W + PAD], odd[ROWS][W + PAD], noisy[ROWS][XP + PAD];
  float x[ROWS][XP], part[WARPS][ROWS][XP];
};
static_assert(sizeof(Shared) == WA_SHARED, "the launch reserves another size");

typedef float Tile[NR][4];

// Two numbers of an activation as operand b: row 8 n + g, columns 16 kt + 2 t
template <int LD> WA_INLINE void fragment(u32* b, const u16 (*from)[LD], int n, int kt) {
  const u16* at = &from[8 * n + (lane() >> 2)][16 * kt + 2 * (lane() & 3)];
  b[0] = *(const u32*)at, b[1] = *(const u32*)(at + 8);
}

// acc += tiles [TM, TK] of a matrix (row tiles first ..) x an activation
template <int TM, int TK, int LD>
WA_INLINE void product(Tile* acc, const u32* matrix, int width, int first, int start, const u16 (*from)[LD]) {
#pragma unroll 4
  for (int kt = 0; kt < TK; ++kt) {
    u32 b[NR][2];
#pragma unroll
    for (int n = 0; n < NR; ++n) fragment(b[n], from, n, start + kt);
#pragma unroll
    for (int m = 0; m < TM; ++m) {
      const uint4 v = *(const uint4*)(matrix + ((first + m) * width + start + kt) * TILE + lane() * 4);
      const u32 a[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int n = 0; n < NR; ++n) mma(acc[m][n], a, b[n]);
    }
  }
}

// f(m, n, i, feature, row) for each number that this lane has of its warp's MW feature tiles
template <class F> WA_INLINE void each(F f) {
#pragma unroll
  for (int m = 0; m < MW; ++m)
#pragma unroll
    for (int n = 0; n < NR; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        f(m, n, i, (warp() * MW + m) * 16 + (lane() >> 2) + 8 * (i / 2), 8 * n + 2 * (lane() & 3) + i % 2);
}

}  // namespace denoiser

// weights: see `place`; steps [n, W]; biases [2 BLOCKS, W]; condition [B, W]; first [B, X] and noise [B, n, X], rows by
// stride; grid: B / ROWS rounded up.
WA_KERNEL __launch_bounds__(denoiser::THREADS, 1) denoise(
    const u32* weights, const float* steps, const float* biases, const float* out_bias, const float* table,
    const float* condition, const float* first, i64 first_stride, const float* noise, i64 noise_stride, float* states,
    float* means, int batch, int count) {
  using namespace denoiser;
  WA_SHARED_BYTES(bytes);
  Shared& sm = *(Shared*)bytes;
  const int tid = threadIdx.x, row0 = blockIdx.x * ROWS;
  const auto matrix = [&](int k) { return (k < WA_RESIDENT ? (const u32*)sm.resident : weights) + offset(k); };
  for (int i = tid; i < offset(WA_RESIDENT); i += THREADS) sm.resident[i] = weights[i];
#if WA_HELD
  u32 held[MW * MT][4];
#pragma unroll
  for (int i = 0; i < MW * MT; ++i) {
    const uint4 v = *(const uint4*)(weights + offset(place(0)) + (warp() * MW * MT + i) * TILE + lane() * 4);
    held[i][0] = v.x, held[i][1] = v.y, held[i][2] = v.z, held[i][3] = v.w;
  }
#endif
  for (int i = tid; i < ROWS * XP; i += THREADS) {
    const int r = i / XP, j = i % XP;
    const bool inside = row0 + r < batch && j < X;
    const float x = inside ? first[(i64)(row0 + r) * first_stride + j] : 0.0f;
    sm.x[r][j] = x;
    sm.noisy[r][j] = to_bf16(x);
    if (inside) states[(i64)(row0 + r) * (count + 1) * X + j] = x;
  }
  Tile given[MW];
  each([&](int m, int n, int i, int f, int r) {
    given[m][n][i] = row0 + r < batch ? condition[(i64)(row0 + r) * W + f] : 0.0f;
  });
  __syncthreads();

  for (int step = 0; step < count; ++step) {
    Tile h[MW], inner[MW];
    each([&](int m, int n, int i, int f, int) { h[m][n][i] = given[m][n][i] + steps[(i64)step * W + f]; });
    product<MW, XT>(h, matrix(0), XT, warp() * MW, 0, sm.noisy);
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
      each([&](int m, int n, int i, int f, int r) { sm.even[r][f] = to_bf16(mish(h[m][n][i])); });
      each([&](int m, int n, int i, int f, int) { inner[m][n][i] = biases[2 * block * W + f]; });
      __syncthreads();
#if WA_HELD
      if (block == 0) {
#pragma unroll
        for (int kt = 0; kt < MT; ++kt) {
          u32 b[NR][2];
#pragma unroll
          for (int n = 0; n < NR; ++n) fragment(b[n], sm.even, n, kt);
#pragma unroll
          for (int m = 0; m < MW; ++m)
#pragma unroll
            for (int n = 0; n < NR; ++n) mma(inner[m][n], held[m * MT + kt], b[n]);
        }
      } else
#endif
        product<MW, MT>(inner, matrix(place(2 * block)), MT, warp() * MW, 0, sm.even);
      each([&](int m, int n, int i, int f, int r) {
        sm.odd[r][f] = to_bf16(mish(inner[m][n][i]));
        h[m][n][i] += biases[(2 * block + 1) * W + f];
      });
      __syncthreads();
      product<MW, MT>(h, matrix(place(2 * block + 1)), MT, warp() * MW, 0, sm.odd);
    }
    each([&](int m, int n, int i, int f, int r) { sm.even[r][f] = to_bf16(mish(h[m][n][i])); });
    __syncthreads();

    // the output is narrow: every warp multiplies its share of the depth, and the shares are added below
    Tile out[XT] = {};
    product<XT, MW>(out, matrix(1), MT, 0, warp() * MW, sm.even);
#pragma unroll
    for (int m = 0; m < XT; ++m)
#pragma unroll
      for (int n = 0; n < NR; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sm.part[warp()][8 * n + 2 * (lane() & 3) + i % 2][16 * m + (lane() >> 2) + 8 * (i / 2)] = out[m][n][i];
    __syncthreads();
    for (int i = tid; i < ROWS * X; i += THREADS) {
      const int r = i / X, j = i % X;
      const i64 row = row0 + r;
      if (row >= batch) continue;
      float eps = out_bias[j];
      for (int k = 0; k < WARPS; ++k) eps += sm.part[k][r][j];
      const float added = noise[row * noise_stride + step * X + j];
      const float x = undo(table, sm.x[r][j], eps, added, row, step, count, j, states, means);
      sm.x[r][j] = x;
      sm.noisy[r][j] = to_bf16(x);
    }
    __syncthreads();
  }
}
