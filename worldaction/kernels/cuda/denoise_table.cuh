// What the two kernels of the denoising loop share: sizes, and a step's five numbers.
#pragma once
#include "common.cuh"

constexpr int W = WA_W, X = WA_X, BLOCKS = WA_BLOCKS, ROWS = WA_ROWS;

// One number of x from step k to the next, see `undo_table`. states [B, n + 1, X] and means [B, n, X].
WA_INLINE float undo(const float* table, float x, float eps, float noise, i64 row, int step, int steps, int j,
                     float* states, float* means) {
  const float* t = table + 5 * step;
  const float clean = fminf(fmaxf(t[0] * x + t[1] * eps, -1.0f), 1.0f), mean = t[2] * clean + t[3] * x;
  const float next = mean + t[4] * fminf(fmaxf(noise, -3.0f), 3.0f);
  means[(row * steps + step) * X + j] = mean;
  states[(row * (steps + 1) + step + 1) * X + j] = next;
  return next;
}
