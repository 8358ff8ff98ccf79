// The policy's denoising loop in one kernel, float32 and any size: worldaction/kernels/denoise/reference.py.
//
// As denoise.cuh, without tensor cores: a thread computes one feature of all rows of its block; weights come from L2.
#pragma once
#include "denoise_table.cuh"

namespace denoiser {

constexpr int THREADS = 256;

// done(r, f, sum) of OUT features of ROWS rows; weight is [IN, OUT], so that neighbours read neighbours
template <int IN, int OUT, class Done> WA_INLINE void dense(const float (*from)[IN], const float* weight, Done done) {
  for (int f = threadIdx.x; f < OUT; f += THREADS) {
    float sum[ROWS] = {};
#pragma unroll 4
    for (int k = 0; k < IN; ++k) {
      const float w = weight[(i64)k * OUT + f];
#pragma unroll
      for (int r = 0; r < ROWS; ++r) sum[r] += w * from[r][k];
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) done(r, f, sum[r]);
  }
}

struct Shared {
  float x[ROWS][X], h[ROWS][W], even[ROWS][W], odd[ROWS][W];
};
static_assert(sizeof(Shared) == WA_SHARED, "the launch reserves another size");

}  // namespace denoiser

// As `denoise`, with weights transposed: noisy [X, W], out [W, X], layers [2 BLOCKS, W, W].
WA_KERNEL __launch_bounds__(denoiser::THREADS) denoise_exact(
    const float* noisy, const float* out, const float* layers, const float* steps, const float* biases,
    const float* out_bias, const float* table, const float* condition, const float* first, i64 first_stride,
    const float* noise, i64 noise_stride, float* states, float* means, int batch, int count) {
  using namespace denoiser;
  WA_SHARED_BYTES(bytes);
  Shared& sm = *(Shared*)bytes;
  const int row0 = blockIdx.x * ROWS;
  for (int i = threadIdx.x; i < ROWS * X; i += THREADS) {
    const int r = i / X, j = i % X;
    sm.x[r][j] = row0 + r < batch ? first[(i64)(row0 + r) * first_stride + j] : 0.0f;
    if (row0 + r < batch) states[(i64)(row0 + r) * (count + 1) * X + j] = sm.x[r][j];
  }
  __syncthreads();
  for (int step = 0; step < count; ++step) {
    dense<X, W>(sm.x, noisy, [&](int r, int f, float sum) {
      sum += steps[(i64)step * W + f] + (row0 + r < batch ? condition[(i64)(row0 + r) * W + f] : 0.0f);
      sm.h[r][f] = sum;
      sm.even[r][f] = mish(sum);
    });
    __syncthreads();
    for (int block = 0; block < BLOCKS; ++block) {
      const float *matrix = layers + (i64)2 * block * W * W, *bias = biases + 2 * block * W;
      dense<W, W>(sm.even, matrix, [&](int r, int f, float sum) { sm.odd[r][f] = mish(sum + bias[f]); });
      __syncthreads();
      dense<W, W>(sm.odd, matrix + W * W, [&](int r, int f, float sum) {
        sm.h[r][f] += sum + bias[W + f];
        sm.even[r][f] = mish(sm.h[r][f]);
      });
      __syncthreads();
    }
    dense<W, X>(sm.even, out, [&](int r, int j, float sum) {
      const i64 row = row0 + r;
      if (row >= batch) return;
      const float added = noise[row * noise_stride + step * X + j];
      sm.x[r][j] = undo(table, sm.x[r][j], sum + out_bias[j], added, row, step, count, j, states, means);
    });
    __syncthreads();
  }
}
