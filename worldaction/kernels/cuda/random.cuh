// Random numbers in memory: worldaction/random.py, on the device, without a word from the host between steps.
#pragma once
#include "common.cuh"

// out [B, steps, width]; key holds seed, stream, first step
WA_KERNEL uniforms(const i64* key, const i64* rows, float* out, int batch, int steps, int width) {
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (i64)batch * steps * width) return;
  const i64 row = i / width / steps, step = i / width % steps;
  out[i] = uniform_number((u32)key[0], (u32)key[1], rows[row], key[2] + step, (int)(i % width));
}

// out [B, steps, width] by Box-Muller; a thread makes the two numbers of a pair
WA_KERNEL normals(const i64* key, const i64* rows, float* out, int batch, int steps, int width) {
  const int half = (width + 1) / 2;
  const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (i64)batch * steps * half) return;
  const i64 row = i / half / steps, step = i / half % steps;
  const int j = (int)(i % half);
  const u32 seed = (u32)key[0], stream = (u32)key[1];
  const float u = uniform_number(seed, stream, rows[row], key[2] + step, j);
  const float v = uniform_number(seed, stream, rows[row], key[2] + step, half + j);
  const float radius = sqrtf(-2.0f * logf(u)), angle = 6.28318530717958648f * v;
  float* mine = out + (row * steps + step) * width;
  mine[j] = radius * cosf(angle);
  if (half + j < width) mine[half + j] = radius * sinf(angle);
}
