// Drawing a class of a latent group: worldaction/kernels/categorical/reference.py, one warp for each group.
#pragma once
#include "common.cuh"

// The classes of a group over the lanes of a warp: lane l holds classes l * PER, ...
template <int C> struct Group {
  static constexpr int PER = (C + 31) / 32;
  float p[PER];

  template <class F> WA_INLINE void each(F f) {
#pragma unroll
    for (int i = 0; i < PER; ++i)
      if (lane() * PER + i < C) f(lane() * PER + i, p[i]);
  }

  // p becomes the unimixed softmax of the logits that logit(c) gives
  template <class Logit> WA_INLINE void softmax(Logit logit, float unimix) {
    float top = __uint_as_float(0xff800000u), z = 0.0f;
    each([&](int c, float& v) { top = fmaxf(top, v = logit(c)); });
    top = warp_max(top);
    each([&](int, float& v) { z += v = expf(v - top); });
    z = warp_sum(z);
    each([&](int, float& v) { v = (1.0f - unimix) * (v / z) + unimix / C; });
  }

  // the class at which the cumulative p passes u; all lanes get it
  WA_INLINE int draw(float u) {
    float sum = 0.0f;
    each([&](int, float& v) { sum += v; });
    const float below = warp_sum_below(sum), total = __shfl_sync(0xffffffffu, below + sum, 31);
    float reached = below;
    int passed = 0;
    each([&](int, float& v) { passed += u * total >= (reached += v); });
    passed = warp_sum(passed);
    return passed < C ? passed : C - 1;
  }
};

// The class that u draws from C logits; logit(c) gives them.
template <int C, class Logit> WA_INLINE int draw_class(Logit logit, float unimix, float u) {
  Group<C> group;
  group.softmax(logit, unimix);
  return group.draw(u);
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
