// Runs kernels written for a GPU on the CPU (g++, x86-64): the other half of worldaction/kernels/cuda/common.cuh.
//
// Every thread of a block is a fiber; a block runs on one thread of the operating system, and the blocks of a cooperative
// launch side by side. Fibers run in an order that is drawn from WA_SHIM_SEED, and a warp may run far ahead of the others
// between two barriers, so that a missing barrier shows as a wrong result. A barrier that not all threads reach, a write
// past the end of shared memory and a barrier between blocks that is never released are reported, not suffered.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static thread_local
#define WA_SHARED_BYTES(name) unsigned char* name = shim::shared_bytes()

struct dim3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace shim {

extern "C" void shim_switch(void** save, void* load);
asm(R"(
.text
.globl shim_switch
.type shim_switch,@function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

enum State { RUNS, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
  void* stack_pointer;
  State state;
  dim3 thread;
};

constexpr size_t STACK = 128 * 1024, SLACK = 4096;
constexpr unsigned char POISON = 0xA5;
constexpr int PATIENCE = 60;  // seconds at a barrier between blocks

inline std::atomic<const char*> failure{nullptr};
inline void fail(const char* why) {
  const char* none = nullptr;
  failure.compare_exchange_strong(none, why);
}

struct Block {
  void* scheduler;
  std::vector<Fiber> fibers;
  Fiber* current;
  dim3 index, threads, blocks;
  std::function<void()> body;
  std::vector<unsigned char> shared;
  size_t shared_size;
  std::vector<uint64_t> exchange;  // a slot of eight words per thread, for shuffles and products
  uint64_t random;
};
inline thread_local Block* block = nullptr;

inline void pause(State state) {
  Block* b = block;
  b->current->state = state;
  shim_switch(&b->current->stack_pointer, b->scheduler);
}

inline void enter() {
  block->body();
  pause(DONE);
}

inline unsigned draw(Block& b, unsigned below) {
  b.random = b.random * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)((b.random >> 33) % below);
}

inline void shuffle(Block& b, std::vector<unsigned>& order) {
  for (unsigned i = (unsigned)order.size(); i > 1; --i) std::swap(order[i - 1], order[draw(b, i)]);
}

inline void prepare(Block& b, unsigned count) {
  static thread_local std::vector<char*> stacks;
  while (stacks.size() < count)
    stacks.push_back((char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  b.fibers.resize(count);
  b.exchange.assign(count * 8, 0);
  for (unsigned i = 0; i < count; ++i) {
    void** top = (void**)(((uintptr_t)stacks[i] + STACK) & ~(uintptr_t)15);
    *--top = nullptr;
    *--top = (void*)enter;
    for (int k = 0; k < 6; ++k) *--top = nullptr;
    b.fibers[i] = {top, RUNS, {i, 0, 0}};
  }
}

// Runs the fibers of a warp until all wait, or for a few rounds only. Whether any ran.
inline bool run_warp(Block& b, unsigned first, unsigned count, std::vector<unsigned>& lanes) {
  bool progress = false;
  for (unsigned rounds = draw(b, 2) ? ~0u : 1 + draw(b, 4); rounds; --rounds) {
    bool ran = false;
    shuffle(b, lanes);
    for (unsigned k : lanes)
      if (k < count && b.fibers[first + k].state == RUNS) {
        b.current = &b.fibers[first + k];
        ran = true;
        shim_switch(&b.scheduler, b.current->stack_pointer);
      }
    unsigned waiting = 0, done = 0;
    for (unsigned i = first; i < first + count; ++i) {
      waiting += b.fibers[i].state == AT_WARP_BARRIER;
      done += b.fibers[i].state == DONE;
    }
    if (waiting && waiting + done == count) {
      for (unsigned i = first; i < first + count; ++i)
        if (b.fibers[i].state == AT_WARP_BARRIER) b.fibers[i].state = RUNS;
      ran = true;
    }
    progress |= ran;
    if (!ran) break;
  }
  return progress;
}

inline unsigned char* shared_bytes() {
  return (unsigned char*)(((uintptr_t)block->shared.data() + 127) & ~(uintptr_t)127);
}

inline void run_block(Block& b) {
  block = &b;
  const unsigned count = b.threads.x;
  prepare(b, count);
  std::vector<unsigned> warps((count + 31) / 32), lanes(32);
  for (unsigned i = 0; i < warps.size(); ++i) warps[i] = i;
  for (unsigned i = 0; i < 32; ++i) lanes[i] = i;
  while (!failure.load()) {
    bool progress = false;
    shuffle(b, warps);
    for (unsigned w : warps) progress |= run_warp(b, 32 * w, std::min(32u, count - 32 * w), lanes);
    unsigned done = 0, waiting = 0;
    for (auto& fiber : b.fibers) done += fiber.state == DONE, waiting += fiber.state == AT_BLOCK_BARRIER;
    if (done == count) break;
    if (waiting && waiting + done == count) {
      for (auto& fiber : b.fibers)
        if (fiber.state == AT_BLOCK_BARRIER) fiber.state = RUNS;
    } else if (!progress) {
      fail("a barrier that not all threads of the block reach");
    }
  }
  const unsigned char* end = shared_bytes() + b.shared_size;
  if (std::any_of(end, end + SLACK, [](unsigned char x) { return x != POISON; }))
    fail("a write past the end of shared memory");
}

template <class Kernel> const char* launch(dim3 blocks, unsigned threads, size_t shared, bool cooperative, Kernel run) {
  failure = nullptr;
  const char* text = getenv("WA_SHIM_SEED");
  const uint64_t seed = text ? strtoull(text, nullptr, 10) : 1;
  const auto one = [&](unsigned i) {
    Block b;
    b.index = {i, 0, 0}, b.threads = {threads, 1, 1}, b.blocks = blocks, b.body = run;
    b.shared.assign(shared + 256 + SLACK, POISON), b.shared_size = shared;
    b.random = seed * 7919 + i;
    run_block(b);
  };
  std::vector<std::thread> workers;
  if (cooperative)
    for (unsigned i = 0; i < blocks.x; ++i) workers.emplace_back(one, i);
  else
    workers.emplace_back([&] { for (unsigned i = 0; i < blocks.x && !failure.load(); ++i) one(i); });
  for (auto& worker : workers) worker.join();
  return failure.load();
}

inline unsigned me() { return block->current->thread.x; }

template <class T> T from_lane(T v, unsigned lane) {
  static_assert(sizeof(T) <= 8);
  Block* b = block;
  const unsigned self = me();
  memcpy(&b->exchange[self * 8], &v, sizeof(T));
  pause(AT_WARP_BARRIER);
  memcpy(&v, &b->exchange[((self & ~31u) + lane) * 8], sizeof(T));
  pause(AT_WARP_BARRIER);
  return v;
}

// A launch with arguments as the driver takes them: pointers to values.
template <class... A, size_t... I>
const char* unpack(void (*kernel)(A...), void** values, dim3 blocks, unsigned threads, size_t shared, bool cooperative,
                   std::index_sequence<I...>) {
  return launch(blocks, threads, shared, cooperative, [=] { kernel(*(A*)values[I]...); });
}
template <class... A>
const char* call(void (*kernel)(A...), void** values, unsigned blocks, unsigned threads, size_t shared,
                 int cooperative) {
  return unpack(kernel, values, {blocks, 1, 1}, threads, shared, cooperative != 0, std::index_sequence_for<A...>{});
}

}  // namespace shim

#define WA_SHIM_EXPORT(kernel)                                                                              \
  extern "C" const char* shim_##kernel(void** values, unsigned blocks, unsigned threads, size_t shared,     \
                                       int cooperative) {                                                   \
    return shim::call(kernel, values, blocks, threads, shared, cooperative);                                \
  }

#define threadIdx (shim::block->current->thread)
#define blockIdx (shim::block->index)
#define blockDim (shim::block->threads)
#define gridDim (shim::block->blocks)

inline void __syncthreads() { shim::pause(shim::AT_BLOCK_BARRIER); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask) { return shim::from_lane(v, (shim::me() & 31) ^ mask); }
template <class T> T __shfl_sync(unsigned, T v, int lane) { return shim::from_lane(v, lane & 31); }
template <class T> T __shfl_up_sync(unsigned, T v, int by) {
  const int lane = shim::me() & 31;
  return shim::from_lane(v, lane >= by ? lane - by : lane);
}
template <class T> T atomicAdd(T* p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __uint_as_float(unsigned x) {
  float f;
  memcpy(&f, &x, 4);
  return f;
}
inline unsigned __float_as_uint(float x) {
  unsigned u;
  memcpy(&u, &x, 4);
  return u;
}

// One m16n8k16 product with the fragments of a GPU: every lane shows its own, and reads what it needs of the others'.
inline void mma(float* c, const unsigned* a, const unsigned* b) {
  using namespace shim;
  const unsigned self = me(), base = self & ~31u, lane = self & 31, g = lane >> 2, t = lane & 3;
  unsigned* mine = (unsigned*)&block->exchange[self * 8];
  for (int i = 0; i < 4; ++i) mine[i] = a[i];
  mine[4] = b[0], mine[5] = b[1];
  pause(AT_WARP_BARRIER);
  const auto number = [](unsigned word, int high) { return __uint_as_float(high ? word & 0xffff0000u : word << 16); };
  const auto shown = [&](unsigned by) { return (const unsigned*)&block->exchange[(base + by) * 8]; };
  float out[4];
  for (int i = 0; i < 4; ++i) {
    const unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
    float sum = c[i];
    for (int k = 0; k < 16; ++k) {
      const unsigned half = k / 8, owner = k % 8 / 2;
      sum += number(shown((row % 8) * 4 + owner)[row / 8 + 2 * half], k % 2) * number(shown(column * 4 + owner)[4 + half], k % 2);
    }
    out[i] = sum;
  }
  pause(AT_WARP_BARRIER);
  for (int i = 0; i < 4; ++i) c[i] = out[i];
}

// Called in a loop by whoever waits for other blocks; who waits for good is let go with a failure.
inline unsigned load_acquire(const unsigned* p) {
  static thread_local unsigned last = 0, spins = 0;
  static thread_local std::chrono::steady_clock::time_point since;
  const unsigned v = __atomic_load_n(p, __ATOMIC_ACQUIRE);
  if (!spins++ || v != last) last = v, since = std::chrono::steady_clock::now();
  if (spins % 1024 == 0 && std::chrono::steady_clock::now() - since > std::chrono::seconds(shim::PATIENCE))
    shim::fail("a barrier between blocks that is not released");
  if (shim::failure.load()) shim::pause(shim::DONE);
  std::this_thread::yield();
  return v;
}
