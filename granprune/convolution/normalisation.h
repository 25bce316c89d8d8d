// What a convolution does for the normalisation behind it: the statistics of its outputs, their gradients.

#pragma once

#include <vector>

#include "vectors.h"

namespace {

// Count, mean and sum of squared deviations of each channel, over some images.
struct Moments {
  double count = 0;
  std::vector<double> mean, squares;

  explicit Moments(int64_t channels) : mean(channels), squares(channels) {}

  // Chan, Golub & LeVeque (1983)
  void add(const Moments& other) {
    const double total = count + other.count;
    for (size_t c = 0; c < mean.size(); c++) {
      const double apart = other.mean[c] - mean[c];
      mean[c] += apart * other.count / total;
      squares[c] += other.squares[c] + apart * apart * count * other.count / total;
    }
    count = total;
  }
};

// Those of one image, which is in the cache. Deviations are from the mean of its first pixels.
Moments moments(const Number* y, int64_t pixels, int64_t channels) {
  constexpr int AT_ONCE = 4;  // sums that do not wait for each other; divides the pixels
  constexpr int64_t FIRST = 32;
  Moments of(channels);
  of.count = double(pixels);
  for (int64_t c = 0; c < channels; c += LANES) {
    const int64_t lanes = std::min<int64_t>(LANES, channels - c);
    const auto sum = [&](int64_t count, auto work) {  // of each channel
      Vector sums[AT_ONCE] = {};
      for (int64_t p = 0; p < count; p += AT_ONCE)
#pragma GCC unroll 4
        for (int k = 0; k < AT_ONCE; k++) sums[k] += work(load(y + (p + k) * channels + c, lanes), k);
      return sums[0] + sums[1] + sums[2] + sums[3];
    };
    const int64_t first = std::min(FIRST, pixels);
    const Vector pivot = sum(first, [](Vector value, int) { return value; }) / float(first);
    Vector squares[AT_ONCE] = {};
    const Vector apart = sum(pixels, [&](Vector value, int k) {
      value -= pivot;
      squares[k] += value * value;
      return value;
    });
    const Vector square = squares[0] + squares[1] + squares[2] + squares[3];
    for (int64_t lane = 0; lane < lanes; lane++) {
      const double shift = apart[lane] / of.count;
      of.mean[c + lane] = pivot[lane] + shift;
      of.squares[c + lane] = std::max(0., square[lane] - shift * shift * of.count);
    }
  }
  return of;
}

// The gradient of the convolution's output y, given that of what normalisation, and maybe a ReLU, make of it:
// scale x gradient + slope x y + offset, the gradient being zero where scale x y + shift is not positive.
struct Normalisation {
  const Number *y, *gradient;
  const float *scale, *shift, *slope, *offset;  // a number a channel each
  bool relu;

  void differentiate(int64_t first, int64_t pixels, int64_t channels, Number* dy) const {
    for (int64_t c = 0; c < channels; c += LANES) {
      const int64_t lanes = std::min<int64_t>(LANES, channels - c);
      const Vector a = load(scale + c, lanes), b = load(shift + c, lanes);
      const Vector s = load(slope + c, lanes), o = load(offset + c, lanes);
      const Number *y_c = y + first * channels + c, *g_c = gradient + first * channels + c;
      Number* dy_c = dy + c;
      for (int64_t p = 0; p < pixels; p++, y_c += channels, g_c += channels, dy_c += channels) {
        const Vector value = load(y_c, lanes);
        Vector g = load(g_c, lanes);
        if (relu) g = a * value + b > 0 ? g : Vector{};
        store(dy_c, g * a + (value * s + o), lanes);
      }
    }
  }
};

}  // namespace
