// Runs the blocks of a CUDA kernel, one after the other, each of their threads as a fiber.
//
// The first thing that a GPU would not forgive ends the run, with a sentence that says where: a
// barrier that not all threads reach, a shuffle whose lanes never come, an access outside the
// arrays that the kernel was given. The compiler calls the functions at the end of this file before
// it accesses memory (-fsanitize=kernel-address) or does what is undefined (-fsanitize=…).
#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <setjmp.h>
#include <string>
#include <ucontext.h>
#include <vector>

namespace {

constexpr size_t STACK = 64 << 10;
constexpr unsigned WARP = 32;
struct dim3 { unsigned x, y, z; };
struct Place { const char *file; int line; };
struct Array { const char *begin, *end; int writable; };

struct Launch { // as raw.py fills it
  void (*call)(void **);
  void **arguments;
  dim3 grid, block;
  const Array *arrays; // one for each argument; that of a number is empty
  int count;
  int order; // of blocks, warps and lanes: 0 as numbered, -1 reversed, else random by this seed
  const char *image, *shared, *end; // the library of the kernel; shared memory ends it
};

enum State { READY, AT_BARRIER, IN_WARP, RETURNED, FAILED };

struct Fiber {
  char *stack = nullptr;
  ucontext_t start;
  jmp_buf left; // in the middle of its kernel
  bool begun = false;
  State state;
  dim3 thread;
  unsigned lane, warp;
  Place place;   // where it waits
  uint32_t mask; // of the lanes for which it waits
  uint64_t sent, received;
  unsigned source;
};

std::vector<Fiber> fibers(1024);
uint32_t waiting[1024 / WARP]; // which lanes of each warp wait for others
Fiber *current;
jmp_buf scheduler;
const Launch *launch;
dim3 block;
std::string problem;

__attribute__((noinline)) void pause() {
  if (_setjmp(current->left) == 0) _longjmp(scheduler, 1);
}

std::string text(dim3 n) {
  return "(" + std::to_string(n.x) + ", " + std::to_string(n.y) + ", " + std::to_string(n.z) + ")";
}
std::string text(Place place) {
  return std::string(place.file) + ":" + std::to_string(place.line);
}
bool same(Place one, Place other) { return one.file == other.file && one.line == other.line; }

// Ends the run; the running fiber never comes back.
void fail(const char *format, ...) {
  char words[400];
  va_list values;
  va_start(values, format);
  vsnprintf(words, sizeof words, format, values);
  va_end(values);
  std::string thread = current ? ", thread " + text(current->thread) : "";
  problem = "block " + text(block) + thread + " " + words;
  if (current == nullptr) return;
  current->state = FAILED;
  pause();
}

void run_threads() { // on a fiber's own stack, one after the other
  for (;;) {
    launch->call(launch->arguments);
    current->state = RETURNED;
    pause();
  }
}

__attribute__((noinline)) void resume(Fiber &fiber) {
  current = &fiber;
  if (_setjmp(scheduler) == 0) {
    if (fiber.begun) _longjmp(fiber.left, 1);
    fiber.begun = true;
    if (fiber.stack == nullptr) fiber.stack = static_cast<char *>(malloc(STACK));
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = STACK;
    makecontext(&fiber.start, run_threads, 0);
    setcontext(&fiber.start);
  }
  current = nullptr;
}

// All threads wait or have returned: opens the barrier, if all have reached the same.
void open_barrier(unsigned threads) {
  auto last = fibers.begin() + threads;
  if (std::all_of(fibers.begin(), last, [](const Fiber &fiber) {
        return fiber.state == AT_BARRIER && same(fiber.place, fibers[0].place);
      })) {
    std::for_each(fibers.begin(), last, [](Fiber &fiber) { fiber.state = READY; });
    return;
  }
  std::map<std::string, int> places;
  for (unsigned i = 0; i < threads; i++) {
    std::string line = " in " + text(fibers[i].place);
    State state = fibers[i].state;
    places[state == RETURNED     ? "returned"
           : state == AT_BARRIER ? "wait at __syncthreads" + line
                                 : "wait for lanes of their warp" + line]++;
  }
  std::string all;
  for (auto &place : places)
    all += (all.empty() ? "" : ", ") + std::to_string(place.second) + " " + place.first;
  fail("is stuck; of its threads %s", all.c_str());
}

// The numbers from `first` to `last`, in the order that the launch asks for.
std::vector<uint64_t> ordered(uint64_t first, uint64_t last, std::mt19937_64 &random) {
  std::vector<uint64_t> numbers(last - first);
  std::iota(numbers.begin(), numbers.end(), first);
  if (launch->order < 0) std::reverse(numbers.begin(), numbers.end());
  if (launch->order > 0) std::shuffle(numbers.begin(), numbers.end(), random);
  return numbers;
}

void run_block(unsigned threads, std::mt19937_64 &random) {
  dim3 size = launch->block;
  unsigned warps = (threads + WARP - 1) / WARP;
  std::vector<std::vector<uint64_t>> lanes;
  for (uint64_t warp : ordered(0, warps, random))
    lanes.push_back(ordered(warp * WARP, std::min<uint64_t>(threads, (warp + 1) * WARP), random));
  for (unsigned i = 0; i < threads; i++) {
    fibers[i].state = READY;
    fibers[i].thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    fibers[i].lane = i % WARP, fibers[i].warp = i / WARP;
  }
  std::fill_n(waiting, warps, 0);
  // Shared memory begins with what makes NaN of every float: nobody may read it unwritten.
  memset(const_cast<char *>(launch->shared), 0xff, launch->end - launch->shared);
  for (unsigned returned = 0; problem.empty();) {
    // A warp runs as far as it can before the next one does, so that a missing barrier shows.
    bool moved = false;
    for (auto &warp : lanes)
      for (bool again = true; again;) {
        again = false;
        for (uint64_t i : warp) {
          if (fibers[i].state != READY) continue;
          resume(fibers[i]);
          if (!problem.empty()) return;
          returned += fibers[i].state == RETURNED;
          again = moved = true;
        }
      }
    if (returned == threads) return;
    if (!moved) open_barrier(threads);
  }
}

void check(uintptr_t address, size_t size, bool writes) {
  auto inside = [&](const char *begin, const char *end) {
    return address >= uintptr_t(begin) && address + size <= uintptr_t(end);
  };
  if (current == nullptr || inside(current->stack, current->stack + STACK)) return;
  for (int i = 0; i < launch->count; i++)
    if (inside(launch->arrays[i].begin, launch->arrays[i].end) &&
        (launch->arrays[i].writable || !writes))
      return;
  if (inside(writes ? launch->shared : launch->image, launch->end)) return;
  // Outside: of what is it next to?
  int nearest = -1;
  long distance = 0;
  for (int i = 0; i < launch->count; i++) {
    const Array &array = launch->arrays[i];
    if (array.begin == nullptr) continue;
    long before = uintptr_t(array.begin) - address, behind = address - uintptr_t(array.end) + 1;
    long outside = std::max({before, behind, 0L});
    if (nearest < 0 || outside < distance) nearest = i, distance = outside;
  }
  const char *what = writes ? "writes" : "reads";
  if (address < 4096 || nearest < 0)
    fail("%s %zu bytes at the address %#zx", what, size, size_t(address));
  if (distance == 0 && inside(launch->arrays[nearest].begin, launch->arrays[nearest].end))
    fail("writes %zu bytes into argument %d, which is const", size, nearest);
  const char *side = address < uintptr_t(launch->arrays[nearest].begin) ? "before" : "behind";
  fail("%s %zu bytes that lie %s argument %d", what, size, side, nearest);
}

} // namespace

extern "C" {

// --- For raw.py ----------------------------------------------------------------------------------

// Runs all blocks; gives what is wrong, or NULL.
const char *fibers_run(const Launch *given) {
  launch = given;
  problem.clear();
  dim3 grid = launch->grid, size = launch->block;
  std::mt19937_64 random(launch->order);
  for (uint64_t i : ordered(0, uint64_t(grid.x) * grid.y * grid.z, random)) {
    block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    run_block(size.x * size.y * size.z, random);
    if (problem.empty()) continue;
    for (Fiber &fiber : fibers) fiber.begun = false; // they were left in the middle
    return problem.c_str();
  }
  return nullptr;
}

// --- For fibers.h --------------------------------------------------------------------------------

dim3 fibers_thread() { return current->thread; }
dim3 fibers_block() { return block; }
dim3 fibers_threads() { return launch->block; }
dim3 fibers_grid() { return launch->grid; }
unsigned fibers_lane() { return current->lane; }

void fibers_barrier(Place place) {
  current->place = place;
  current->state = AT_BARRIER;
  pause();
}

uint64_t fibers_exchange(uint32_t mask, uint64_t sent, unsigned source, Place place) {
  Fiber &fiber = *current, *warp = &fibers[fiber.warp * WARP];
  if (!(mask >> fiber.lane & 1)) fail("is not in the mask %#x of %s", mask, text(place).c_str());
  if (!(mask >> source & 1))
    fail("reads lane %u in %s, outside its mask", source, text(place).c_str());
  fiber.mask = mask, fiber.sent = sent, fiber.source = source, fiber.place = place;
  waiting[fiber.warp] |= 1u << fiber.lane;
  if ((waiting[fiber.warp] & mask) != mask) {
    fiber.state = IN_WARP;
    pause();
    return fiber.received;
  }
  waiting[fiber.warp] &= ~mask;
  for (unsigned lane = 0; lane < WARP; lane++) {
    if (!(mask >> lane & 1)) continue;
    Fiber &other = warp[lane];
    if (other.mask != mask || !same(other.place, place))
      fail("waits for lanes %#x in %s, and lane %u for lanes %#x in %s", mask, text(place).c_str(),
           lane, other.mask, text(other.place).c_str());
    other.received = warp[other.source].sent;
    other.state = READY;
  }
  return fiber.received;
}

// --- For the compiler ----------------------------------------------------------------------------

#define ACCESS(name, size)                                                                         \
  void __asan_load##name(uintptr_t address) { check(address, size, false); }                      \
  void __asan_store##name(uintptr_t address) { check(address, size, true); }
ACCESS(1_noabort, 1)
ACCESS(2_noabort, 2)
ACCESS(4_noabort, 4)
ACCESS(8_noabort, 8)
ACCESS(16_noabort, 16)
void __asan_loadN_noabort(uintptr_t address, size_t size) { check(address, size, false); }
void __asan_storeN_noabort(uintptr_t address, size_t size) { check(address, size, true); }
void __asan_handle_no_return() {}

#define UNDEFINED(name, what)                                                                      \
  void __ubsan_handle_##name(const Place *place) { fail("%s in %s", what, text(*place).c_str()); }
UNDEFINED(type_mismatch_v1, "reads or writes at an address that is not aligned")
UNDEFINED(out_of_bounds, "uses an index beyond its array")
UNDEFINED(divrem_overflow, "divides an integer by zero")
UNDEFINED(add_overflow, "overflows an integer by adding")
UNDEFINED(sub_overflow, "overflows an integer by subtracting")
UNDEFINED(mul_overflow, "overflows an integer by multiplying")
UNDEFINED(negate_overflow, "overflows an integer by negating")
}
