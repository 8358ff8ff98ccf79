// What every kernel uses: number types, random numbers, reductions, tensor cores, and a barrier between blocks.
//
// The text needs no header of CUDA's, so that NVRTC compiles it where nothing but a driver is installed; and it compiles
// with g++ behind the shim of the tests, which is why the few PTX instructions stand behind functions of their own.
// Sizes are macros (WA_...), because a kernel is compiled for the sizes that it is used with.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifdef WA_SHIM
#include "kernels_shim.h"
#else
#define WA_SHARED_BYTES(name) extern __shared__ __align__(128) unsigned char name[]
#endif
#define WA_INLINE __device__ __forceinline__
#define WA_KERNEL extern "C" __global__ void

constexpr float NORM_EPS = 1e-5f;  // of torch.nn.functional.layer_norm

// ---- bfloat16, round to nearest even ---------------------------------------------------------------------------------

WA_INLINE float from_bf16(u16 x) { return __uint_as_float((u32)x << 16); }

WA_INLINE u16 to_bf16(float x) {
  u32 bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN stays NaN
  return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// The type of weights and of the operands of products: bfloat16 or float32. Sums and states are always float32.
#if WA_BF16
typedef u16 real;
WA_INLINE float load(const real* p) { return from_bf16(*p); }
WA_INLINE void store(real* p, float x) { *p = to_bf16(x); }
#else
typedef float real;
WA_INLINE float load(const real* p) { return *p; }
WA_INLINE void store(real* p, float x) { *p = x; }
#endif

// ---- functions of one number -----------------------------------------------------------------------------------------

WA_INLINE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
WA_INLINE float elu(float x) { return x > 0.0f ? x : expm1f(x); }

// x tanh(log(1 + e^x)), with tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2)
WA_INLINE float mish(float x) {
  if (x > 20.0f) return x;
  float e = expf(x), n = e * (e + 2.0f);
  return x * n / (n + 2.0f);
}

// ---- random numbers: the same as worldaction/random.py ---------------------------------------------------------------

struct Words {
  u32 w[4];
};

WA_INLINE Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    u64 a = (u64)0xD2511F53u * c0, b = (u64)0xCD9E8D57u * c2;
    u32 n0 = (u32)(b >> 32) ^ c1 ^ k0, n2 = (u32)(a >> 32) ^ c3 ^ k1;
    c0 = n0, c1 = (u32)b, c2 = n2, c3 = (u32)a;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  Words r = {{c0, c1, c2, c3}};
  return r;
}

// 23 bits and a half: float32 holds the value exactly, so neither 0 nor 1 is ever returned
WA_INLINE float unit(u32 word) { return ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f); }

// Number i of a row's uniform numbers at a step; row is the global name of the dream.
WA_INLINE float uniform_number(u32 seed, u32 stream, i64 row, i64 step, int i) {
  return unit(philox((u32)(i / 4), (u32)row, (u32)step, 0u, seed, stream).w[i % 4]);
}

// ---- reductions, in a fixed order: the same bits in every thread and in every run ------------------------------------

WA_INLINE int lane() { return threadIdx.x & 31; }
WA_INLINE int warp() { return threadIdx.x >> 5; }

WA_INLINE float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

WA_INLINE int warp_sum(int v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

WA_INLINE float warp_max(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

// Sum of the values of the lanes below.
WA_INLINE float warp_sum_below(float v) {
  float s = v;
#pragma unroll
  for (int o = 1; o < 32; o <<= 1) {
    float other = __shfl_up_sync(0xffffffffu, s, o);
    if (lane() >= o) s += other;
  }
  return s - v;
}

template <int THREADS> WA_INLINE float block_sum(float v) {
  __shared__ float parts[32];
  v = warp_sum(v);
  __syncthreads();  // whoever still reads parts of the sum before
  if (lane() == 0) parts[warp()] = v;
  __syncthreads();
  return warp_sum(lane() < THREADS / 32 ? parts[lane()] : 0.0f);
}

// A row of N numbers over a block: thread i holds i, i + THREADS, ... and zeros past the end.
template <int N, int THREADS> struct Row {
  static constexpr int PER = (N + THREADS - 1) / THREADS;
  float v[PER];

  template <class F> WA_INLINE void each(F f) {
#pragma unroll
    for (int i = 0; i < PER; ++i) {
      int j = i * THREADS + threadIdx.x;
      if (j < N) f(j, v[i]);
    }
  }

  // v becomes (v - mean) / deviation; the reciprocal of the deviation is returned
  WA_INLINE float normalise() {
    float s = 0.0f, q = 0.0f;
    each([&](int, float& x) { s += x; });
    const float mean = block_sum<THREADS>(s) / N;
    each([&](int, float& x) { q += (x - mean) * (x - mean); });
    const float inverse = rsqrtf(block_sum<THREADS>(q) / N + NORM_EPS);
    each([&](int, float& x) { x = (x - mean) * inverse; });
    return inverse;
  }
};

// ---- tensor cores: one m16n8k16 product of bfloat16, sums in float32 -------------------------------------------------
// Fragments (PTX ISA, "Matrix Fragments for mma.m16n8k16"), g = lane / 4, t = lane % 4, two numbers a word:
//   a[i]: row g + 8 (i % 2), columns 2 t + 8 (i / 2) and one more
//   b[i]: rows 2 t + 8 i and one more, column g
//   c[i]: row g + 8 (i / 2), column 2 t + i % 2

#ifndef WA_SHIM
WA_INLINE void mma(float* c, const u32* a, const u32* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// ---- a barrier between blocks that all are resident ------------------------------------------------------------------

#ifndef WA_SHIM
WA_INLINE u32 load_acquire(const u32* p) {
  u32 v;
  asm volatile("ld.acquire.gpu.global.u32 %0,[%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
#endif

// All blocks that share a counter, which starts at zero and rises by their number at each barrier.
WA_INLINE void group_barrier(u32* counter, u32 target) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(counter, 1u);
    while (load_acquire(counter) < target) {
    }
    __threadfence();
  }
  __syncthreads();
}
