// The parts of a dream beside the prior and the denoiser: worldaction/kernels/dream/reference.py.
//
// A linear layer of [belief; one-hot code] is torch's product with the belief, to which these kernels add the rows of
// the classes. They need nothing of the prior's own sizes but S and C. WA_W is the policy's width, WA_Q the classifier's.
#pragma once
#include "common.cuh"

constexpr int DREAM_THREADS = 128;

// part of a row's layer: product with the belief, bias, and the rows of its classes
WA_INLINE float seen(const real* product, const float* bias, const real* rows, const u8* code, int width, int j) {
  float v = load(product + j) + bias[j];
  for (int s = 0; s < WA_S; ++s) v += load(rows + (i64)(s * WA_C + code[s]) * width + j);
  return v;
}

// out [nets, B, W]: what each of the policy's networks sees; product [B, nets W], rows [S C, nets W]. A block a row.
WA_KERNEL condition_step(const real* product, const float* bias, const real* rows, const u8* codes, i64 codes_stride,
                         float* out, int batch, int nets) {
  const i64 row = blockIdx.x;
  const int width = nets * WA_W;
  for (int j = threadIdx.x; j < width; j += DREAM_THREADS)
    out[((i64)(j / WA_W) * batch + row) * WA_W + j % WA_W] =
        seen(product + row * width, bias, rows, codes + row * codes_stride, width, j);
}

// actions [B, size] from the end of denoising chains; bit a of binary says that dimension a of an action is thresholded
WA_KERNEL act_step(const float* x, i64 x_stride, float* actions, int batch, int size, int action, i64 binary) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = i / size;
  if (row >= batch) return;
  const int j = (int)(i % size);
  const float v = fminf(fmaxf(x[row * x_stride + j], -1.0f), 1.0f);
  actions[i] = (binary >> (j % action)) & 1 ? (v > 0.0f ? 1.0f : -1.0f) : v;
}

// done_at [B] becomes `now` in rows that succeed and have not before. A block a row.
WA_KERNEL success_step(const real* product, const float* bias, const real* rows, const float* gain,
                       const float* offset, const float* head, const float* head_bias, const u8* codes,
                       i64 codes_stride, int* done_at, float threshold, int now) {
  const i64 row = blockIdx.x;
  Row<WA_Q, DREAM_THREADS> x;
  x.each([&](int j, float& v) {
    v = seen(product + row * WA_Q, bias, rows, codes + row * codes_stride, WA_Q, j);
  });
  x.normalise();
  float logit = 0.0f;
  x.each([&](int j, float& v) { logit += elu(v * gain[j] + offset[j]) * head[j]; });
  logit = block_sum<DREAM_THREADS>(logit) + head_bias[0];
  if (threadIdx.x == 0 && done_at[row] == 0 && sigmoid(logit) >= threshold) done_at[row] = now;
}
