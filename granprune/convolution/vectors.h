// Vectors of one pixel's channels, the memory they come from, and the images that threads take.
//
// Compiled for float32; with NARROW defined, for float32 by short vectors, which few channels fill better; and with
// BFLOAT16 defined for bfloat16, whose instruction adds the products of two pairs: a unit is what one lane
// multiplies, a float32 or a pair of bfloat16.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace {

#if defined(NARROW)
constexpr int LANES = 8;
using Lanes = __mmask8;
#else
constexpr int LANES = 16;
using Lanes = __mmask16;
#endif
constexpr int64_t FEW = 4096;  // weights, for which other threads need not be woken

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#if defined(BFLOAT16)
constexpr int PER = 2;  // numbers of a unit
using Number = uint16_t;
using Unit = uint32_t;
using Units = __m512i;

inline Units units(const Unit* at) { return _mm512_loadu_si512(at); }
inline Units everywhere(Unit unit) { return _mm512_set1_epi32(int(unit)); }
inline Vector multiply_add(Vector sum, Units a, Units b) {
  return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
inline __m256i halves(const Number* at) { return _mm256_loadu_si256((const __m256i*)at); }
inline Vector load(const Number* at) {
  return (Vector)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves(at)), 16));
}
inline void store(Number* at, Vector values) {
  _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)values));
}
inline Vector load(const Number* at, int64_t) { return load(at); }  // there always are all lanes
inline void store(Number* at, Vector values, int64_t) { store(at, values); }
inline Unit pair(float first, float second) {
  return Unit(_mm_extract_epi32((__m128i)_mm_cvtneps_pbh(_mm_setr_ps(first, second, 0, 0)), 0));
}
#else
constexpr int PER = 1;
using Number = float;
using Unit = float;
using Units = Vector;

inline Units units(const Unit* at) { return *(const Vector*)at; }
#if defined(NARROW)
inline Units everywhere(Unit unit) { return (Vector)_mm256_set1_ps(unit); }
#else
inline Units everywhere(Unit unit) { return (Vector)_mm512_set1_ps(unit); }
#endif
inline Vector multiply_add(Vector sum, Units a, Units b) { return sum + a * b; }
#endif

inline Vector load(const float* at) { return *(const Vector*)at; }
inline void store(float* at, Vector values) { *(Vector*)at = values; }
inline Lanes first_lanes(int64_t count) { return Lanes(count < LANES ? (1 << count) - 1 : -1); }
inline Vector load_lanes(const float* at, Lanes lanes) {  // zeros in the other ones, whose memory is not read
#if defined(NARROW)
  return (Vector)_mm256_maskz_loadu_ps(lanes, at);
#else
  return (Vector)_mm512_maskz_loadu_ps(lanes, at);
#endif
}
inline Vector load(const float* at, int64_t count) { return load_lanes(at, first_lanes(count)); }
inline void store(float* at, Vector values, int64_t count) {
  if (count >= LANES)
    store(at, values);
  else
#if defined(NARROW)
    _mm256_mask_storeu_ps(at, first_lanes(count), (__m256)values);
#else
    _mm512_mask_storeu_ps(at, first_lanes(count), (__m512)values);
#endif
}

// Channels that fill vectors.
constexpr int64_t padded(int64_t channels) { return (channels + LANES - 1) / LANES * LANES; }

// Numbers where vectors do not straddle two cache lines. Plain memory, aligned here: what is asked for with an
// alignment comes from fresh pages each time.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : memory_(new char[size * sizeof(T) + LINE]),
        data_((T*)((uintptr_t(memory_.get()) + LINE - 1) / LINE * LINE)) {}
  T* data() const { return data_; }

 private:
  static constexpr uintptr_t LINE = 64;
  std::unique_ptr<char[]> memory_;
  T* data_;
};

// Memory that is needed next, fetched into the cache part by part while something else is computed.
class Ahead {
 public:
  void add(const Number* data, int64_t size) { ranges_[count_++] = {data, size}; }

  // The next one of so many parts.
  void fetch(int64_t parts) {
    for (int r = 0; r < count_; r++) {
      const Range& range = ranges_[r];
      const int64_t end = range.size * (part_ + 1) / parts;
      for (int64_t i = range.size * part_ / parts; i < end; i += LINE) __builtin_prefetch(range.data + i, 0, 2);
    }
    part_++;
  }

 private:
  static constexpr int64_t LINE = 64 / sizeof(Number);
  struct Range {
    const Number* data;
    int64_t size;
  } ranges_[3];
  int count_ = 0;
  int64_t part_ = 0;
};

// What is multiplied and what comes of it: inputs and outputs, or backward the outputs' and the inputs' gradients.
enum Direction { FORWARD, BACKWARD };

struct Shape {
  int64_t images, height, width, inputs, outputs;  // of x; inputs and outputs are channels
  int64_t kernel, stride;                          // 3 or 1, padded to keep the size; 1 or 2
  int64_t threads, chunks;

  int64_t out_height() const { return height / stride; }
  int64_t out_width() const { return width / stride; }
  int64_t x_size() const { return height * width * inputs; }
  int64_t y_size() const { return out_height() * out_width() * outputs; }
  int64_t weights() const { return kernel * kernel * inputs * outputs; }
  int64_t operands(Direction to) const { return to == FORWARD ? inputs : outputs; }
  int64_t results(Direction to) const { return to == FORWARD ? outputs : inputs; }
};

// (outputs, inputs, kernel, kernel) in any order.
struct Weights {
  const float* data;
  const int64_t* strides;

  // Those of a result and an operand, at the first tap.
  const float* of(Direction to, int64_t result, int64_t operand) const {
    return data + (to == FORWARD ? result * strides[0] + operand * strides[1]
                                 : operand * strides[0] + result * strides[1]);
  }
};

// work(chunk, first image, last image + 1), on all threads.
template <class Work>
void each_chunk(const Shape& of, Work work) {
#pragma omp parallel for num_threads(int(of.threads)) schedule(dynamic)
  for (int64_t i = 0; i < of.chunks; i++)
    work(i, of.images * i / of.chunks, of.images * (i + 1) / of.chunks);
}

}  // namespace
