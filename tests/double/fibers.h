// CUDA C++ as g++ understands it: included before a kernel, whose source stays as it is.
//
// A thread of CUDA is a fiber: a function that is left at a barrier and entered again where it was
// left. fibers.cpp runs them, one at a time. Supported is what kernels need that share memory,
// shuffle and wait: no atomics, no dynamic shared memory, no cooperative groups.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static // blocks run one after the other, so one memory serves them all
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

struct dim3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct __half;
struct __nv_bfloat16;

// --- What fibers.cpp gives the running thread ----------------------------------------------------

// Where a thread waits: threads that wait in different lines do not wait for each other.
struct Place { const char *file; int line; };
#define HERE {__builtin_FILE(), __builtin_LINE()} // as a default argument: where the caller is

extern "C" {
__attribute__((const)) dim3 fibers_thread();
__attribute__((const)) dim3 fibers_block();
__attribute__((const)) dim3 fibers_threads();
__attribute__((const)) dim3 fibers_grid();
__attribute__((const)) unsigned fibers_lane();
void fibers_barrier(Place place);
// Waits for the lanes of `mask`; gives what the lane `source` sent.
uint64_t fibers_exchange(uint32_t mask, uint64_t sent, unsigned source, Place place);
}

#define threadIdx (fibers_thread())
#define blockIdx (fibers_block())
#define blockDim (fibers_threads())
#define gridDim (fibers_grid())
constexpr int warpSize = 32;

inline void __syncthreads(Place place = HERE) { fibers_barrier(place); }
inline void __syncwarp(uint32_t mask = 0xffffffff, Place place = HERE) {
  fibers_exchange(mask, 0, fibers_lane(), place);
}

namespace fibers {
template <class Value> Value shuffle(uint32_t mask, Value value, unsigned source, Place place) {
  static_assert(std::is_arithmetic<Value>::value, "only numbers can be shuffled");
  uint64_t sent = 0;
  memcpy(&sent, &value, sizeof value);
  sent = fibers_exchange(mask, sent, source, place);
  memcpy(&value, &sent, sizeof value);
  return value;
}
}

// Lanes are numbered within groups of `width`; who would read beyond its group gets its own value.
template <class Value>
Value __shfl_sync(uint32_t mask, Value value, int source, int width = 32,
                  Place place = HERE) {
  unsigned first = fibers_lane() & ~(width - 1);
  return fibers::shuffle(mask, value, first + (source & (width - 1)), place);
}
template <class Value>
Value __shfl_xor_sync(uint32_t mask, Value value, int distance, int width = 32,
                      Place place = HERE) {
  unsigned lane = fibers_lane(), source = lane ^ distance, beyond = (lane & ~(width - 1)) + width;
  return fibers::shuffle(mask, value, source < beyond ? source : lane, place);
}
template <class Value>
Value __shfl_down_sync(uint32_t mask, Value value, unsigned distance, int width = 32,
                       Place place = HERE) {
  unsigned lane = fibers_lane(), source = lane + distance, beyond = (lane & ~(width - 1)) + width;
  return fibers::shuffle(mask, value, source < beyond ? source : lane, place);
}

// --- Functions of CUDA that <math.h> lacks -------------------------------------------------------

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
template <class Value> Value min(Value a, Value b) { return b < a ? b : a; }
template <class Value> Value max(Value a, Value b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
template <class Value> Value __ldg(const Value *from) { return *from; }

// --- How a kernel is called ----------------------------------------------------------------------

namespace fibers {
// A C type in NumPy's words, as CUDA reads it from an argument.
template <class Type> const char *name() {
  using Plain = std::remove_cv_t<Type>;
  if (std::is_same<Plain, __half>::value) return "float16";
  if (std::is_same<Plain, __nv_bfloat16>::value) return "bfloat16";
  if (std::is_same<Plain, float>::value) return "float32";
  if (std::is_same<Plain, double>::value) return "float64";
  if (std::is_same<Plain, int>::value) return "int32";
  if (std::is_same<Plain, long long>::value) return "int64";
  if (std::is_same<Plain, unsigned char>::value) return "uint8";
  return std::is_same<Plain, bool>::value ? "bool" : "a type that the double does not know";
}

template <class Type> void add_name(char *all) {
  using Target = std::remove_pointer_t<Type>;
  strcat(all, *all ? ", " : "");
  strcat(all, std::is_pointer<Type>::value && std::is_const<Target>::value ? "const " : "");
  strcat(all, name<Target>());
  strcat(all, std::is_pointer<Type>::value ? "*" : "");
}
// "const float16*, int32" for (const __half *, int).
template <class... Types> void add_names(void (*)(Types...), char *all) {
  (add_name<Types>(all), ...);
}

template <class... Types, size_t... Indices>
__attribute__((no_sanitize_address)) void call(void (*kernel)(Types...), void **arguments,
                                               std::index_sequence<Indices...>) {
  kernel(*static_cast<std::remove_cv_t<Types> *>(arguments[Indices])...);
}
template <class... Types> void call(void (*kernel)(Types...), void **arguments) {
  call(kernel, arguments, std::index_sequence_for<Types...>());
}
}

#define FIBERS_EXPORT extern "C" __attribute__((visibility("default")))
#define FIBERS_KERNEL(kernel)                                                                      \
  FIBERS_EXPORT void fibers_call_##kernel(void **arguments) { fibers::call(&kernel, arguments); }  \
  FIBERS_EXPORT void fibers_parameters_##kernel(char *all) { fibers::add_names(&kernel, all); }

// What the linker knows of this library. Shared memory is all that lies from __bss_start on.
extern "C" __attribute__((visibility("hidden"))) char __ehdr_start, __bss_start, _end;
FIBERS_EXPORT void fibers_image(const char **begin, const char **shared, const char **end) {
  *begin = &__ehdr_start, *shared = &__bss_start, *end = &_end;
}
