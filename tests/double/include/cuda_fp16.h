// float16 as a kernel stores it: from and to float, rounded to the nearest, ties to even.
#pragma once
#include <stdint.h>
#include <string.h>

struct __half { uint16_t bits; };

inline float __half2float(__half half) {
  uint32_t magnitude = half.bits & 0x7fff, bits = magnitude << 13;
  float value;
  if (magnitude >= 0x7c00) bits += (255 - 31) << 23; // infinite, or no number
  else bits += (127 - 15) << 23;
  memcpy(&value, &bits, 4);
  if (magnitude < 0x0400) value = magnitude * 0x1p-24f; // subnormal
  return half.bits & 0x8000 ? -value : value;
}

inline __half __float2half(float value) {
  uint32_t bits, magnitude, half;
  memcpy(&bits, &value, 4);
  magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {0x7fff};
  if (magnitude >= 0x477ff000) half = 0x7c00; // 65520 and more round to infinity
  else if (magnitude < 0x38800000) {          // below 2⁻¹⁴ a half is a multiple of 2⁻²⁴,
    float shifted;                            // and so is a float between 0.5 and 1
    memcpy(&shifted, &magnitude, 4);
    shifted += 0.5f;
    memcpy(&half, &shifted, 4);
    half -= 0x3f000000;
  } else half = (magnitude - ((127 - 15) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  return {uint16_t(half | (bits >> 16 & 0x8000))};
}
inline __half __float2half_rn(float value) { return __float2half(value); }
