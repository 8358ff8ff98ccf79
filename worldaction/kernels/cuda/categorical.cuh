// Drawing a class of a latent group: worldaction/kernels/categorical/reference.py, one warp for each group.
#pragma once
#include "common.cuh"

// The class at which the cumulative unimixed softmax of C logits passes u; logit(c) gives them. All lanes get it.
template <int C, class Logit> WA_INLINE int draw_class(Logit logit, float unimix, float u) {
  constexpr int PER = (C + 31) / 32;  // lane l holds classes l * PER, ...
  float v[PER], top = __uint_as_float(0xff800000u), z = 0.0f, sum = 0.0f;
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    int c = lane() * PER + i;
    v[i] = c < C ? logit(c) : __uint_as_float(0xff800000u);
    top = fmaxf(top, v[i]);
  }
  top = warp_max(top);
#pragma unroll
  for (int i = 0; i < PER; ++i) z += v[i] = expf(v[i] - top);
  z = warp_sum(z);
#pragma unroll
  for (int i = 0; i < PER; ++i) {
    if (lane() * PER + i < C) sum += (1.0f - unimix) * (v[i] / z) + unimix / C;
    v[i] = sum;
  }
  const float below = warp_sum_below(sum), total = __shfl_sync(0xffffffffu, below + sum, 31);
  int passed = 0;
#pragma unroll
  for (int i = 0; i < PER; ++i) passed += lane() * PER + i < C && u * total >= below + v[i];
  passed = warp_sum(passed);
  return passed < C ? passed : C - 1;
}

#ifdef WA_S
// codes [B, S] from logits [B, S C] without their bias; grid: enough warps for every group of every row
WA_KERNEL sample_step(const real* logits, const float* bias, const float* uniforms, i64 uniforms_stride, u8* codes,
                      i64 codes_stride, float unimix, int batch) {
  const i64 which = (i64)blockIdx.x * (blockDim.x / 32) + warp();
  if (which >= (i64)batch * WA_S) return;
  const i64 row = which / WA_S, group = which % WA_S;
  const real* mine = logits + which * WA_C;
  const float* add = bias + group * WA_C;
  const int c = draw_class<WA_C>([&](int k) { return load(mine + k) + add[k]; }, unimix,
                                 uniforms[row * uniforms_stride + group]);
  if (lane() == 0) codes[row * codes_stride + group] = (u8)c;
}
#endif
