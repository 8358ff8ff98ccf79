// What lies between the matrix products of an imagined step, on a CPU: each row in one go, while it is in the cache.
// The definition is reference.py; native.py compiles this file for the processor in hand and calls it. Sums are float32
// and over a row's own numbers alone, in a fixed order, so that a row does not depend on its neighbours or on threads.
#include <cstdint>

namespace {

using f32 = float;
using u32 = std::uint32_t;
using i64 = std::int64_t;

struct bf16 { std::uint16_t bits; };

inline f32 load(f32 x) { return x; }
inline f32 load(bf16 x) { return __builtin_bit_cast(f32, u32(x.bits) << 16); }
inline void store(f32 x, f32& to) { to = x; }
inline void store(f32 x, bf16& to) {
  const u32 bits = __builtin_bit_cast(u32, x);
  // to nearest, ties to even; what is not a number stays none
  to.bits = x == x ? (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 : 0x7FC0;
}

// sixteen numbers that are added at once, on a processor that can
constexpr int LANES = 16;
typedef f32 Lanes __attribute__((vector_size(4 * LANES)));
typedef u32 Words __attribute__((vector_size(4 * LANES)));
typedef std::int32_t Places __attribute__((vector_size(4 * LANES)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline Lanes lanes(const f32* x) {
  Lanes found;
  __builtin_memcpy(&found, x, sizeof found);
  return found;
}
inline Lanes lanes(const bf16* x) {
  Halves found;
  __builtin_memcpy(&found, x, sizeof found);
  return Lanes(__builtin_convertvector(found, Words) << 16);
}

// exp to 1e-7 of its value (Cephes' polynomial), for loops that a compiler turns into vectors
inline f32 exponential(f32 x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const f32 n = __builtin_rintf(x * 1.44269504088896341f);
  const f32 r = __builtin_fmaf(n, 2.12194440e-4f, __builtin_fmaf(n, -0.693359375f, x));
  f32 p = __builtin_fmaf(1.9875691500e-4f, r, 1.3981999507e-3f);
  p = __builtin_fmaf(p, r, 8.3334519073e-3f);
  p = __builtin_fmaf(p, r, 4.1665795894e-2f);
  p = __builtin_fmaf(p, r, 1.6666665459e-1f);
  p = __builtin_fmaf(p, r, 0.5f);
  p = __builtin_fmaf(p, r, 1.0f);
  p = __builtin_fmaf(p, r, 1.0f);
  return p * __builtin_bit_cast(f32, (std::int32_t(n) + 127) << 23);
}
inline f32 sigmoid(f32 x) { return 1.0f / (1.0f + exponential(-x)); }
inline f32 elu(f32 x) { return x > 0.0f ? x : exponential(x) - 1.0f; }

// a row's mean, and the inverse of its standard deviation as torch.nn.LayerNorm has it
struct Moments { f32 mean, inverse; };

template <class T> inline Moments moments(const T* x, i64 n) {
  f32 sum = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (i64 k = 0; k < n; ++k) sum += load(x[k]);
  const f32 mean = sum / f32(n);
#pragma omp simd reduction(+ : square)
  for (i64 k = 0; k < n; ++k) {
    const f32 off = load(x[k]) - mean;
    square += off * off;
  }
  return {mean, 1.0f / __builtin_sqrtf(square / f32(n) + 1e-5f)};
}

struct Norm {
  const f32 *gain, *offset;
  f32 operator()(f32 x, Moments m, i64 k) const { return (x - m.mean) * m.inverse * gain[k] + offset[k]; }
};

template <class X, class T> inline void elu_of_norm(const X* x, T* out, const Norm& norm, i64 n) {
  const Moments m = moments(x, n);
#pragma omp simd
  for (i64 k = 0; k < n; ++k) store(elu(norm(load(x[k]), m, k)), out[k]);
}

constexpr i64 FEW = 16;  // rows for which threads cost more than they bring

struct Prior {
  i64 deter, groups, classes, hidden, action;
  const void* state_rows;                  // [S C, U] in the precision of products
  const f32 *action_rows, *input_bias;     // [A, U], [U]
  Norm input_norm, gates_norm, hidden_norm;
};

// the input layer of a code and an action, for the numbers from `first` on of one row as long as N are left, N at a time
template <int N, class T> i64 input(const Prior& p, i64 first, const std::uint8_t* code, const f32* action, f32* x) {
  constexpr int parts = N / LANES;
  const T* const rows = static_cast<const T*>(p.state_rows);
  for (; first + N <= p.hidden; first += N) {
    Lanes sum[parts];  // in registers
    for (int k = 0; k < parts; ++k) sum[k] = lanes(p.input_bias + first + k * LANES);
    for (i64 a = 0; a < p.action; ++a)
      for (int k = 0; k < parts; ++k) sum[k] += action[a] * lanes(p.action_rows + a * p.hidden + first + k * LANES);
    for (i64 s = 0; s < p.groups; ++s) {
      const T* const row = rows + (s * p.classes + code[s]) * p.hidden + first;
      for (int k = 0; k < parts; ++k) sum[k] += lanes(row + k * LANES);
    }
    __builtin_memcpy(x + first, sum, sizeof sum);
  }
  return first;
}
template <class T> void input(const Prior& p, const std::uint8_t* code, const f32* action, f32* x) {
  i64 first = input<4 * LANES, T>(p, 0, code, action, x);
  first = input<LANES, T>(p, first, code, action, x);
  const T* const rows = static_cast<const T*>(p.state_rows);
  for (; first < p.hidden; ++first) {
    f32 sum = p.input_bias[first];
    for (i64 a = 0; a < p.action; ++a) sum += action[a] * p.action_rows[a * p.hidden + first];
    for (i64 s = 0; s < p.groups; ++s) sum += load(rows[(s * p.classes + code[s]) * p.hidden + first]);
    x[first] = sum;
  }
}

// cumulative sums in place, of numbers that are followed by zeros up to a multiple of LANES
inline void accumulate(f32* x, i64 n) {
#ifdef __AVX512F__
  f32 before = 0.0f;
  for (i64 c = 0; c < n; c += LANES) {
    Lanes sum = lanes(x + c);
    sum += __builtin_shuffle(Lanes{}, sum, Places{0, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30});
    sum += __builtin_shuffle(Lanes{}, sum, Places{0, 1, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29});
    sum += __builtin_shuffle(Lanes{}, sum, Places{0, 1, 2, 3, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27});
    sum += __builtin_shuffle(Lanes{}, sum, Places{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23});
    sum += before;
    before = sum[LANES - 1];
    __builtin_memcpy(x + c, &sum, sizeof sum);
  }
#else
  for (i64 c = 1; c < n; ++c) x[c] += x[c - 1];
#endif
}

// the class of one group at which the cumulative distribution passes a uniform number; C is `count`, or 0 for any
template <int C, class T> std::uint8_t pick(const T* logits, i64 count, f32 unimix, f32 uniform) {
  const i64 classes = C ? C : count;
  alignas(64) f32 p[256];
  f32 top = load(logits[0]);
#pragma omp simd reduction(max : top)
  for (i64 c = 0; c < classes; ++c) top = load(logits[c]) > top ? load(logits[c]) : top;
#pragma omp simd
  for (i64 c = 0; c < classes; ++c) p[c] = exponential(load(logits[c]) - top);
  for (i64 c = classes; c % LANES; ++c) p[c] = 0.0f;
  accumulate(p, classes);
  const f32 sum = p[classes - 1], share = (1.0f - unimix) / sum, least = unimix / f32(classes);
  const f32 target = uniform * (share * sum + unimix);
  std::int32_t below = 0;
#pragma omp simd reduction(+ : below)
  for (std::int32_t c = 0; c < std::int32_t(classes); ++c) below += target >= share * p[c] + least * f32(c + 1);
  return std::uint8_t(below < classes ? below : classes - 1);
}

// joined [B, U + D]: the input layer's end, and the belief; the number of rows whose code names no class
template <class T>
i64 enter(const Prior& p, i64 batch, const std::uint8_t* code, i64 code_stride, const f32* action, i64 action_stride,
           const f32* belief, i64 belief_stride, f32* scratch, T* joined) {
  i64 wrong = 0;
#pragma omp parallel for if (batch > FEW) reduction(+ : wrong)
  for (i64 b = 0; b < batch; ++b) {
    const std::uint8_t* const drawn = code + b * code_stride;
    const f32* const taken = action + b * action_stride;
    f32* const x = scratch + b * p.hidden;
    T* const out = joined + b * (p.hidden + p.deter);
    bool known = true;
    for (i64 s = 0; s < p.groups; ++s) known &= drawn[s] < p.classes;
    if (!known) {
      ++wrong;
      continue;
    }
    input<T>(p, drawn, taken, x);
    elu_of_norm(x, out, p.input_norm, p.hidden);
#pragma omp simd
    for (i64 k = 0; k < p.deter; ++k) store(belief[b * belief_stride + k], out[p.hidden + k]);
  }
  return wrong;
}

// the end of the GRU: parts [B, 3 D] and the belief to the next belief, in float32 and in the precision of products
template <class T>
void believe(const Prior& p, i64 batch, const T* parts, const f32* belief, i64 belief_stride, f32* next, i64 next_stride,
             T* rounded) {
#pragma omp parallel for if (batch > FEW)
  for (i64 b = 0; b < batch; ++b) {
    const i64 deter = p.deter;
    const T* const x = parts + b * 3 * deter;
    const f32* const before = belief + b * belief_stride;
    f32* const after = next + b * next_stride;
    const Moments m = moments(x, 3 * deter);
#pragma omp simd
    for (i64 k = 0; k < deter; ++k) {
      const f32 reset = sigmoid(p.gates_norm(load(x[k]), m, k));
      const f32 update = sigmoid(p.gates_norm(load(x[2 * deter + k]), m, 2 * deter + k) - 1.0f);
      const f32 candidate = 2.0f * sigmoid(2.0f * reset * p.gates_norm(load(x[deter + k]), m, deter + k)) - 1.0f;
      after[k] = update * candidate + (1.0f - update) * before[k];
      store(after[k], rounded[b * deter + k]);
    }
  }
}

// the hidden layer's end, [B, U] in place
template <class T> void expect(const Prior& p, i64 batch, T* x) {
#pragma omp parallel for if (batch > FEW)
  for (i64 b = 0; b < batch; ++b) elu_of_norm(x + b * p.hidden, x + b * p.hidden, p.hidden_norm, p.hidden);
}

// logits [B, S, C] and uniform numbers [B, S] to a code [B, S]
template <int C, class T>
void draw_of(const Prior& p, i64 batch, f32 unimix, const T* logits, const f32* uniform, i64 uniform_stride,
             std::uint8_t* code, i64 code_stride) {
#pragma omp parallel for if (batch > FEW)
  for (i64 b = 0; b < batch; ++b)
    for (i64 s = 0; s < p.groups; ++s)
      code[b * code_stride + s] =
          pick<C>(logits + (b * p.groups + s) * p.classes, p.classes, unimix, uniform[b * uniform_stride + s]);
}
template <class T>
void draw(const Prior& p, i64 batch, f32 unimix, const T* logits, const f32* uniform, i64 uniform_stride,
          std::uint8_t* code, i64 code_stride) {
  // loops of a known length are unrolled, which pays for the usual sizes
  const auto run = p.classes == 32 ? draw_of<32, T> : p.classes == 16 ? draw_of<16, T> : draw_of<0, T>;
  run(p, batch, unimix, logits, uniform, uniform_stride, code, code_stride);
}

}  // namespace

#define WA_FOR(T)                                                                                                       \
  extern "C" i64 enter_##T(const Prior* p, i64 batch, const std::uint8_t* code, i64 code_stride, const f32* action,     \
                            i64 action_stride, const f32* belief, i64 belief_stride, f32* scratch, T* joined) {          \
    return enter(*p, batch, code, code_stride, action, action_stride, belief, belief_stride, scratch, joined);                  \
  }                                                                                                                      \
  extern "C" void believe_##T(const Prior* p, i64 batch, const T* parts, const f32* belief, i64 belief_stride,           \
                              f32* next, i64 next_stride, T* rounded) {                                                  \
    believe(*p, batch, parts, belief, belief_stride, next, next_stride, rounded);                                        \
  }                                                                                                                      \
  extern "C" void expect_##T(const Prior* p, i64 batch, T* x) { expect(*p, batch, x); }                                  \
  extern "C" void draw_##T(const Prior* p, i64 batch, f32 unimix, const T* logits, const f32* uniform,                   \
                           i64 uniform_stride, std::uint8_t* code, i64 code_stride) {                                    \
    draw(*p, batch, unimix, logits, uniform, uniform_stride, code, code_stride);                                         \
  }
WA_FOR(f32)
WA_FOR(bf16)
