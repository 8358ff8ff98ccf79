// The parts of an imagined step that are not matrix products: worldaction/kernels/rollout/reference.py, a block a row.
//
// Route of every size: torch multiplies, and these kernels do all that lies between two products in one pass each.
//     input_step -> gates product -> gates_step -> hidden product -> hidden_step -> logits product -> sample_step
#pragma once
#include "categorical.cuh"

constexpr int STEP_THREADS = 128;

// x of [x | h] [B, U + D]: the rows of the classes, the action, layer norm, ELU. action_weight is [A, U].
WA_KERNEL input_step(const real* rows, const real* action_weight, const float* bias, const float* gain,
                     const float* offset, const u8* codes, i64 codes_stride, const float* actions, i64 actions_stride,
                     real* operand, int batch) {
  const i64 row = blockIdx.x;
  if (row >= batch) return;
  const u8* code = codes + row * codes_stride;
  const float* action = actions + row * actions_stride;
  Row<WA_U, STEP_THREADS> x;
  x.each([&](int j, float& v) {
    v = bias[j];
    for (int a = 0; a < WA_A; ++a) v += action[a] * load(action_weight + (i64)a * WA_U + j);
    for (int s = 0; s < WA_S; ++s) v += load(rows + (i64)(s * WA_C + code[s]) * WA_U + j);
  });
  x.normalise();
  x.each([&](int j, float& v) { store(operand + row * (WA_U + WA_D) + j, elu(v * gain[j] + offset[j])); });
}

// Layer norm of the 3 D pre-activations and the gates; h goes to belief, and to the right half of [x | h].
WA_KERNEL gates_step(const real* pre, const float* gain, const float* offset, const float* belief, i64 belief_stride,
                     float* next, i64 next_stride, real* operand, int batch) {
  const i64 row = blockIdx.x;
  if (row >= batch) return;
  Row<3 * WA_D, STEP_THREADS> parts;
  __shared__ float y[3 * WA_D];  // a thread's three gates are not in its own registers if D is no multiple of the block
  parts.each([&](int j, float& v) { v = load(pre + row * 3 * WA_D + j); });
  parts.normalise();
  parts.each([&](int j, float& v) { y[j] = v * gain[j] + offset[j]; });
  __syncthreads();
  for (int j = threadIdx.x; j < WA_D; j += STEP_THREADS) {
    const float candidate = tanhf(sigmoid(y[j]) * y[WA_D + j]), update = sigmoid(y[2 * WA_D + j] - 1.0f);
    const float h = update * candidate + (1.0f - update) * belief[row * belief_stride + j];
    next[row * next_stride + j] = h;
    store(operand + row * (WA_U + WA_D) + WA_U + j, h);
  }
}

// Bias, layer norm and ELU of the prior's hidden layer [B, U].
WA_KERNEL hidden_step(const real* pre, const float* bias, const float* gain, const float* offset, real* out,
                      int batch) {
  const i64 row = blockIdx.x;
  if (row >= batch) return;
  Row<WA_U, STEP_THREADS> x;
  x.each([&](int j, float& v) { v = load(pre + row * WA_U + j) + bias[j]; });
  x.normalise();
  x.each([&](int j, float& v) { store(out + row * WA_U + j, elu(v * gain[j] + offset[j])); });
}

// h of [x | h] from the belief that a rollout starts with.
WA_KERNEL first_step(const float* belief, i64 belief_stride, real* operand, int batch) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = i / WA_D, j = i % WA_D;
  if (row < batch) store(operand + row * (WA_U + WA_D) + WA_U + j, belief[row * belief_stride + j]);
}
