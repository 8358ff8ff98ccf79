// The whole rollout in one kernel: every weight stays on chip for all H steps. bfloat16, small batches.
//
// Blocks form groups of WA_NC; a group imagines WA_BM rows, and block c of it owns a slice of every matrix's outputs: DS
// columns of each gate, US of the hidden layer, and the groups GS of the code where c < NL. Between the five phases of a
// step the blocks exchange what the next phase needs of all columns through global memory (which stays in L2), behind a
// barrier of the group: x | sums of the gates' layer norm | h | hidden layer | codes. All blocks must be resident.
// U is padded to UP with zeros, which change no sum. Idea after Diamos et al. 2016, "Persistent RNNs".
#pragma once
#include "categorical.cuh"

namespace persistent {

constexpr int D = WA_D, U = WA_U, UP = WA_UP, S = WA_S, C = WA_C, A = WA_A, NC = WA_NC, BM = WA_BM;
constexpr int NL = NC < S ? NC : S;                    // blocks of a group that own logits
constexpr int DS = D / NC, US = UP / NC, GS = S / NL;  // columns of a gate, columns of the hidden layer, groups
constexpr int LS = GS * C, LP = (LS + 7) / 8 * 8;      // logits of a block, and padded to tiles of 8
constexpr int K = UP + D, KC = 64, PAD = 8;            // depth of the gates' product, and what is staged of it at once
constexpr int NH = DS / 8, WARPS = BM / 16 * NH, THREADS = 32 * WARPS;  // warp (mt, nh): 16 rows, tile nh of columns
static_assert(D % (8 * NC) == 0 && UP % (8 * NC) == 0 && UP % 16 == 0 && D % 16 == 0 && S % NL == 0 && BM % 16 == 0 && UP >= U,
              "sizes that do not divide");
static_assert(THREADS <= 1024, "too many warps");

// In shared memory, in this order. Rows end in PAD numbers, so that a fragment's eight rows lie in different banks.
struct Shared {
  u16 gates[3 * DS][K + PAD], hidden[US][D + PAD], logits[LP][UP + PAD], operand[BM][KC + PAD];
  float h[BM][DS], drawn[BM][LP + 1], sums[BM][NH][2], moments[BM][2];
};
static_assert(sizeof(Shared) == WA_SHARED, "the launch reserves another size");

// acc[j] += operand rows [16 mt, + 16) x weights rows [8 tiles[j], + 8), over staged columns [0, depth) at weights' k0
template <int N, int LD>
WA_INLINE void multiply(float (*acc)[4], const u16 (*operand)[KC + PAD], const u16 (*weights)[LD], const int* tiles,
                        int mt, int k0, int depth) {
  const int g = lane() >> 2, t = 2 * (lane() & 3);
  for (int k = 0; k < depth; k += 16) {
    const u16 *low = &operand[16 * mt + g][k + t], *high = &operand[16 * mt + g + 8][k + t];
    const u32 a[4] = {*(const u32*)low, *(const u32*)high, *(const u32*)(low + 8), *(const u32*)(high + 8)};
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const u16* w = &weights[8 * tiles[j] + g][k0 + k + t];
      const u32 b[2] = {*(const u32*)w, *(const u32*)(w + 8)};
      mma(acc[j], a, b);
    }
  }
}

// Stage a piece of an operand, two numbers at a time, and multiply, until all of the depth is done.
template <int N, int DEPTH, int LD, class Pair>
WA_INLINE void product(float (*acc)[4], u16 (*operand)[KC + PAD], const u16 (*weights)[LD], const int* tiles, int mt,
                       Pair pair) {
  for (int k0 = 0; k0 < DEPTH; k0 += KC) {
    const int depth = DEPTH - k0 < KC ? DEPTH - k0 : KC;
    __syncthreads();
    for (int i = threadIdx.x; i < BM * depth / 2; i += THREADS) {
      const int m = i / (depth / 2), k = 2 * (i % (depth / 2));
      *(u32*)&operand[m][k] = pair(m, k0 + k);
    }
    __syncthreads();
    multiply<N>(acc, operand, weights, tiles, mt, k0, depth);
  }
}

// Sums and sums of squares of this block's columns, for layer norms over all blocks' columns.
// first and second: of this lane's rows g and g + 8 in this warp's tiles.
WA_INLINE void put_sums(Shared& sm, float (&sum)[2], float (&square)[2], int mt, int nh, float* out) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int o = 1; o < 4; o <<= 1) {
      sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], o);
      square[i] += __shfl_xor_sync(0xffffffffu, square[i], o);
    }
    if ((lane() & 3) == 0) {
      float* at = sm.sums[16 * mt + (lane() >> 2) + 8 * i][nh];
      at[0] = sum[i], at[1] = square[i];
    }
  }
  __syncthreads();
  for (int m = threadIdx.x; m < BM; m += THREADS) {
    float s = 0.0f, q = 0.0f;
    for (int i = 0; i < NH; ++i) s += sm.sums[m][i][0], q += sm.sums[m][i][1];
    out[(i64)m * NC * 2] = s, out[(i64)m * NC * 2 + 1] = q;
  }
}

// Mean and reciprocal deviation of each row over n numbers, of which every block has put its sums.
WA_INLINE void get_moments(Shared& sm, const float* sums, int n) {
  for (int m = threadIdx.x; m < BM; m += THREADS) {
    double s = 0.0, q = 0.0;
    for (int i = 0; i < NC; ++i) s += sums[((i64)m * NC + i) * 2], q += sums[((i64)m * NC + i) * 2 + 1];
    const double mean = s / n, variance = q / n - mean * mean;
    sm.moments[m][0] = (float)mean;
    sm.moments[m][1] = rsqrtf((float)(variance > 0.0 ? variance : 0.0) + NORM_EPS);
  }
  __syncthreads();
}

}  // namespace persistent

// Weights as in the reference, with U padded: rows [S C, UP], action_weight [A, UP], gates [3 D, UP + D], hidden
// [UP, D], logits [S C, UP]. Work: operand [B', UP + D], hidden_raw [B', UP], sums [2, B', NC, 2], counters [B' / BM, 32]
// of zeros, B' = B rounded up to BM. Results: beliefs [B, H, D], codes [B, H, S]. grid: B' / BM * NC, cooperative.
WA_KERNEL __launch_bounds__(persistent::THREADS, 1) rollout_persistent(
    const u16* rows, const u16* action_weight, const float* input_bias, const float* input_gain,
    const float* input_offset, const u16* gates, const float* gates_gain, const float* gates_offset,
    const u16* hidden, const float* hidden_bias, const float* hidden_gain, const float* hidden_offset,
    const u16* logits, const float* logits_bias, const float* belief, const u8* code, const float* actions,
    const float* uniforms, u16* operand, float* hidden_raw, float* sums, u32* counters, float* beliefs, u8* codes,
    float unimix, int batch, int horizon) {
  using namespace persistent;
  WA_SHARED_BYTES(bytes);
  Shared& sm = *(Shared*)bytes;
  const int tid = threadIdx.x, g = lane() >> 2, t2 = 2 * (lane() & 3), mt = warp() / NH, nh = warp() % NH;
  const int c = blockIdx.x % NC, group = blockIdx.x / NC, row0 = group * BM, padded = gridDim.x / NC * BM;
  const bool owns_logits = c < NL;
  u32 *counter = counters + group * 32, passed = 0;
  u16* xh = operand + (i64)row0 * K;
  float *raw = hidden_raw + (i64)row0 * UP, *gate_sums = sums + (i64)row0 * NC * 2;
  float* hidden_sums = gate_sums + (i64)padded * NC * 2;
  const auto in_batch = [&](int m) { return row0 + m < batch ? row0 + m : batch - 1; };  // rows past the end repeat

  for (int i = tid; i < 3 * DS * K; i += THREADS) {
    const int n = i / K, gate = n / DS, j = n % DS;
    sm.gates[n][i % K] = gates[(i64)(gate * D + c * DS + j) * K + i % K];
  }
  for (int i = tid; i < US * D; i += THREADS) sm.hidden[i / D][i % D] = hidden[(i64)(c * US + i / D) * D + i % D];
  if (owns_logits)
    for (int i = tid; i < LP * UP; i += THREADS)
      sm.logits[i / UP][i % UP] = i / UP < LS ? logits[(i64)(c * LS + i / UP) * UP + i % UP] : (u16)0;
  for (int i = tid; i < BM * DS; i += THREADS) {
    const int m = i / DS, j = i % DS;
    const float h = belief[(i64)in_batch(m) * D + c * DS + j];
    sm.h[m][j] = h;
    xh[(i64)m * K + UP + c * DS + j] = to_bf16(h);
  }

  for (int step = 0; step < horizon; ++step) {
    // 1. x: rows of the weight, the action, layer norm, ELU; a warp a row, rows shared out over the group
    for (int m = c * WARPS + warp(); m < BM; m += NC * WARPS) {
      constexpr int PER = (UP + 31) / 32;
      const i64 row = in_batch(m);
      const u8* drawn = step ? codes + (row * horizon + step - 1) * S : code + row * S;
      const float* action = actions + (row * horizon + step) * A;
      float v[PER], s = 0.0f, q = 0.0f;
#pragma unroll
      for (int i = 0; i < PER; ++i) v[i] = 32 * i + lane() < UP ? input_bias[32 * i + lane()] : 0.0f;
      const auto add = [&](const u16* weight, float times) {
#pragma unroll
        for (int i = 0; i < PER; ++i)
          if (32 * i + lane() < UP) v[i] += times * from_bf16(weight[32 * i + lane()]);
      };
      for (int a = 0; a < A; ++a) add(action_weight + a * UP, action[a]);
      for (int k = 0; k < S; ++k) add(rows + (i64)(k * C + drawn[k]) * UP, 1.0f);
#pragma unroll
      for (int i = 0; i < PER; ++i) s += v[i];
      s = warp_sum(s) / U;
#pragma unroll
      for (int i = 0; i < PER; ++i) q += 32 * i + lane() < U ? (v[i] - s) * (v[i] - s) : 0.0f;
      q = rsqrtf(warp_sum(q) / U + NORM_EPS);
#pragma unroll
      for (int i = 0; i < PER; ++i) {
        const int j = 32 * i + lane();
        if (j < UP) xh[(i64)m * K + j] = to_bf16(elu((v[i] - s) * q * input_gain[j] + input_offset[j]));
      }
    }
    group_barrier(counter, passed += NC);

    // 2. pre-activations of DS columns of the three gates, and their part of the layer norm
    float acc[3][4] = {};
    const int gate_tiles[3] = {nh, NH + nh, 2 * NH + nh};
    product<3, K>(acc, sm.operand, sm.gates, gate_tiles, mt,
                  [&](int m, int k) { return *(const u32*)(xh + (i64)m * K + k); });
    float sum[2] = {}, square[2] = {};
#pragma unroll
    for (int j = 0; j < 3; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i / 2] += acc[j][i], square[i / 2] += acc[j][i] * acc[j][i];
    put_sums(sm, sum, square, mt, nh, gate_sums + c * 2);
    group_barrier(counter, passed += NC);

    // 3. the gates, and h
    get_moments(sm, gate_sums, 3 * D);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int m = 16 * mt + g + 8 * (i / 2), j = 8 * nh + t2 + i % 2, column = c * DS + j;
      float y[3];
#pragma unroll
      for (int k = 0; k < 3; ++k)
        y[k] = (acc[k][i] - sm.moments[m][0]) * sm.moments[m][1] * gates_gain[k * D + column] +
               gates_offset[k * D + column];
      const float candidate = tanhf(sigmoid(y[0]) * y[1]), update = sigmoid(y[2] - 1.0f);
      const float h = update * candidate + (1.0f - update) * sm.h[m][j];
      sm.h[m][j] = h;
      xh[(i64)m * K + UP + column] = to_bf16(h);
      if (row0 + m < batch) beliefs[((i64)(row0 + m) * horizon + step) * D + column] = h;
    }
    group_barrier(counter, passed += NC);

    // 4. US columns of the hidden layer before its norm; tiles shared out over the warps of a row tile
    {
      constexpr int N = (US / 8 + NH - 1) / NH;
      float out[N][4] = {}, part[2] = {}, squares[2] = {};
      int tiles[N];
#pragma unroll
      for (int j = 0; j < N; ++j) tiles[j] = nh + j * NH < US / 8 ? nh + j * NH : 0;
      product<N, D>(out, sm.operand, sm.hidden, tiles, mt,
                    [&](int m, int k) { return *(const u32*)(xh + (i64)m * K + UP + k); });
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (nh + j * NH < US / 8)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int m = 16 * mt + g + 8 * (i / 2), column = c * US + 8 * tiles[j] + t2 + i % 2;
            const float v = out[j][i] + hidden_bias[column];
            raw[(i64)m * UP + column] = v;
            part[i / 2] += v, squares[i / 2] += v * v;
          }
      put_sums(sm, part, squares, mt, nh, hidden_sums + c * 2);
    }
    group_barrier(counter, passed += NC);

    // 5. logits of GS groups, and a class for each
    if (owns_logits) {
      constexpr int N = (LP / 8 + NH - 1) / NH;
      float out[N][4] = {};
      int tiles[N];
#pragma unroll
      for (int j = 0; j < N; ++j) tiles[j] = nh + j * NH < LP / 8 ? nh + j * NH : 0;
      get_moments(sm, hidden_sums, U);
      product<N, UP>(out, sm.operand, sm.logits, tiles, mt, [&](int m, int k) {
        u32 pair = 0;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float y = (raw[(i64)m * UP + k + i] - sm.moments[m][0]) * sm.moments[m][1];
          pair |= (u32)to_bf16(elu(y * hidden_gain[k + i] + hidden_offset[k + i])) << (16 * i);
        }
        return pair;
      });
#pragma unroll
      for (int j = 0; j < N; ++j)
        if (nh + j * NH < LP / 8)
#pragma unroll
          for (int i = 0; i < 4; ++i) sm.drawn[16 * mt + g + 8 * (i / 2)][8 * tiles[j] + t2 + i % 2] = out[j][i];
      __syncthreads();
      for (int i = warp(); i < BM * GS; i += WARPS) {
        const int m = i / GS, mine = i % GS, k = c * GS + mine;
        const i64 row = in_batch(m);
        const int drawn = draw_class<C>([&](int n) { return sm.drawn[m][mine * C + n] + logits_bias[k * C + n]; },
                                        unimix, uniforms[(row * horizon + step) * S + k]);
        if (lane() == 0 && row0 + m < batch) codes[(row * horizon + step) * S + k] = (u8)drawn;
      }
    }
    group_barrier(counter, passed += NC);
  }
}
