// The parts of the filter over training windows, forward and backward: worldaction/kernels/scan/explicit.py, `Parts`.
//
// torch multiplies between them. A block a row, but for the two kernels of the categoricals: a warp for each group.
#pragma once
#include "categorical.cuh"

constexpr int SCAN_THREADS = 128;
constexpr int D = WA_D, U = WA_U, S = WA_S, C = WA_C;

// Keeps a row before gain and offset, and its scale.
template <int N> WA_INLINE void keep_norm(Row<N, SCAN_THREADS>& x, float* value, float* scale, i64 row) {
  const float inverse = x.normalise();
  x.each([&](int j, float& v) { value[row * N + j] = v; });
  if (threadIdx.x == 0) scale[row] = inverse;
}

WA_KERNEL scan_input(const real* rows, const u8* codes, const float* keep, const float* action, const float* belief,
                     const float* gain, const float* offset, float* value, float* scale, real* operand, float* kept) {
  const i64 row = blockIdx.x;
  const float k = keep[row];
  Row<U, SCAN_THREADS> x;
  x.each([&](int j, float& v) {
    float sum = 0.0f;
    for (int s = 0; s < S; ++s) sum += load(rows + (i64)(s * C + codes[row * S + s]) * U + j);
    v = k * sum + action[row * U + j];
  });
  keep_norm<U>(x, value, scale, row);
  real* out = operand + row * (U + D);
  x.each([&](int j, float& v) { store(out + j, elu(v * gain[j] + offset[j])); });
  for (int j = threadIdx.x; j < D; j += SCAN_THREADS) {
    const float h = k * belief[row * D + j];
    kept[row * D + j] = h;
    store(out + U + j, h);
  }
}

WA_KERNEL scan_gates(const real* pre, const float* belief, const float* gain, const float* offset, float* value,
                     float* scale, float* next) {
  const i64 row = blockIdx.x;
  __shared__ float y[3 * D];
  Row<3 * D, SCAN_THREADS> x;
  x.each([&](int j, float& v) { v = load(pre + row * 3 * D + j); });
  keep_norm<3 * D>(x, value, scale, row);
  x.each([&](int j, float& v) { y[j] = v * gain[j] + offset[j]; });
  __syncthreads();
  for (int j = threadIdx.x; j < D; j += SCAN_THREADS) {
    const float update = sigmoid(y[2 * D + j] - 1.0f), candidate = tanhf(sigmoid(y[j]) * y[D + j]);
    next[row * D + j] = update * candidate + (1.0f - update) * belief[row * D + j];
  }
}

// add is [B, U] with a stride, or [U] with a stride of zero
WA_KERNEL scan_hidden(const real* pre, const float* add, i64 add_stride, const float* gain, const float* offset,
                      float* value, float* scale, real* out) {
  const i64 row = blockIdx.x;
  Row<U, SCAN_THREADS> x;
  x.each([&](int j, float& v) { v = load(pre + row * U + j) + add[row * add_stride + j]; });
  keep_norm<U>(x, value, scale, row);
  x.each([&](int j, float& v) { store(out + row * U + j, elu(v * gain[j] + offset[j])); });
}

// all_observed: the posterior alone, and every row draws from it; else imagined [B] names the rows that draw from the
// prior
WA_KERNEL scan_draw(const real* logits, const float* bias, const real* other, const float* other_bias,
                    const u8* imagined, int all_observed, const float* uniforms, float* posterior, float* prior,
                    u8* codes, float unimix, int batch) {
  const i64 which = (i64)blockIdx.x * (blockDim.x / 32) + warp(), row = which / S, group = which % S;
  if (row >= batch) return;
  const float* add = bias + group * C;
  Group<C> drawn;
  drawn.softmax([&](int c) { return load(logits + which * C + c) + add[c]; }, unimix);
  drawn.each([&](int c, float& p) { posterior[which * C + c] = p; });
  if (!all_observed) {
    const float* more = other_bias + group * C;
    Group<C> expected;
    expected.softmax([&](int c) { return load(other + which * C + c) + more[c]; }, unimix);
    expected.each([&](int c, float& p) { prior[which * C + c] = p; });
    if (imagined[row]) drawn = expected;
  }
  const int c = drawn.draw(uniforms[which]);
  if (lane() == 0) codes[which] = (u8)c;
}

// all: the state's gradient counts in every row; else in those of counts [B]
WA_KERNEL scan_draw_back(const float* probs, const float* grad, const float* state_grad, const u8* counts, int all,
                         real* out, float unimix, int batch) {
  const i64 which = (i64)blockIdx.x * (blockDim.x / 32) + warp(), row = which / S;
  if (row >= batch) return;
  const float share = all || counts[row] ? 1.0f : 0.0f;
  Group<C> g;
  float along = 0.0f;
  g.each([&](int c, float& v) {
    v = grad[which * C + c] + share * state_grad[which * C + c];
    along += (probs[which * C + c] - unimix / C) * v;
  });
  along = warp_sum(along) / (1.0f - unimix);
  g.each([&](int c, float& v) { store(out + which * C + c, (probs[which * C + c] - unimix / C) * (v - along)); });
}

// dv, the gradient after a layer norm's gain, becomes the one before the norm.
template <int N> WA_INLINE void norm_back(Row<N, SCAN_THREADS>& dv, const float* value, float scale, real* out) {
  float mean = 0.0f, along = 0.0f;
  dv.each([&](int j, float& v) { mean += v, along += v * value[j]; });
  mean = block_sum<SCAN_THREADS>(mean) / N;
  along = block_sum<SCAN_THREADS>(along) / N;
  dv.each([&](int j, float& v) { store(out + j, scale * (v - mean - value[j] * along)); });
}

WA_KERNEL scan_hidden_back(const real* grad, i64 grad_stride, const float* value, const float* scale,
                           const float* gain, const float* offset, real* out, float* affine) {
  const i64 row = blockIdx.x;
  const float* n = value + row * U;
  Row<U, SCAN_THREADS> d;
  d.each([&](int j, float& v) {
    const float y = n[j] * gain[j] + offset[j];
    v = load(grad + row * grad_stride + j) * (y > 0.0f ? 1.0f : expf(y));
    affine[row * U + j] = v;
    v *= gain[j];
  });
  norm_back<U>(d, n, scale[row], out + row * U);
}

WA_KERNEL scan_gates_back(const float* grad, const float* value, const float* scale, const float* belief,
                          const float* gain, const float* offset, real* out, float* affine, float* past) {
  const i64 row = blockIdx.x;
  const float* n = value + row * 3 * D;
  float* a = affine + row * 3 * D;
  const auto y = [&](int j) { return n[j] * gain[j] + offset[j]; };
  for (int j = threadIdx.x; j < D; j += SCAN_THREADS) {
    const float reset = sigmoid(y(j)), candidate = y(D + j), update = sigmoid(y(2 * D + j) - 1.0f);
    const float next = tanhf(reset * candidate), g = grad[row * D + j], inner = g * update * (1.0f - next * next);
    a[j] = inner * candidate * reset * (1.0f - reset);
    a[D + j] = inner * reset;
    a[2 * D + j] = g * (next - belief[row * D + j]) * update * (1.0f - update);
    past[row * D + j] = g * (1.0f - update);
  }
  __syncthreads();  // a thread reads what others wrote
  Row<3 * D, SCAN_THREADS> d;
  d.each([&](int j, float& v) { v = a[j] * gain[j]; });
  norm_back<3 * D>(d, n, scale[row], out + row * 3 * D);
}
