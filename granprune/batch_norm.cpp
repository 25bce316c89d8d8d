// Batch normalisation of channels-last images on the CPU, with what follows it: a skip connection, a ReLU.
//
// An image is a list of pixels, each of which holds a number a channel. Several pixels make one wide row,
// so that also few channels fill vectors; a lane is a place in a row and belongs to one channel.
// Numbers are summed in float32 within a block, then in float64.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t BLOCK = 8192;  // numbers
constexpr int64_t PIVOT = 256;   // pixels

struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  BFloat16(float value) {  // rounds to nearest, ties to even
    uint32_t wide;
    std::memcpy(&wide, &value, 4);
    bits = value == value ? (wide + 0x7fff + (wide >> 16 & 1)) >> 16 : 0x7fc0;
  }
  operator float() const {
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
};

struct Shape {
  int64_t pixels, channels, row;  // row: numbers of a wide row, divisible by channels, divides all numbers
  int64_t threads;
};

// The parameters and statistics that belong to the channels; channel c of x is entry index[c] of them.
struct Channels {
  const int64_t* index;  // null: the channels are all entries in order
  const float *weight, *bias;
  float *running_mean, *running_var;
  float momentum, eps;

  int64_t operator[](int64_t channel) const { return index ? index[channel] : channel; }
};

// What the forward pass leaves for the backward pass, a number a channel each.
struct Statistics {
  float *mean, *inverse;  // inverse: 1 / standard deviation
  float *scale, *shift;   // the normalised number is scale x + shift

  Statistics(float* numbers, int64_t channels)
      : mean(numbers), inverse(mean + channels), scale(inverse + channels), shift(scale + channels) {}
};

struct Sums {
  std::vector<double> first, second;  // a number a channel
};

// work(first row, last row + 1, thread), on all threads.
template <class Work>
void each_part(const Shape& shape, Work work) {
  const int64_t rows = shape.pixels * shape.channels / shape.row;
#pragma omp parallel for num_threads(int(shape.threads)) schedule(static, 1)
  for (int64_t t = 0; t < shape.threads; t++)
    work(rows * t / shape.threads, rows * (t + 1) / shape.threads, t);
}

// work(number, lane) for all numbers of some rows, by vectors.
template <class Work>
inline void each_number(int64_t begin, int64_t end, int64_t row, Work work) {
  for (int64_t r = begin; r < end; r++)
#pragma omp simd
    for (int64_t lane = 0; lane < row; lane++) work(r * row + lane, lane);
}

// Two sums over each channel; add(number, lane, a, b) adds to its lane's sums.
template <class Add>
Sums sums(const Shape& shape, Add add) {
  const int64_t row = shape.row, rows = std::max<int64_t>(1, BLOCK / row);
  std::vector<double> totals(2 * row * shape.threads);
  each_part(shape, [&](int64_t begin, int64_t end, int64_t t) {
    std::vector<float> block(2 * row);
    float *__restrict a = block.data(), *__restrict b = a + row;
    double* total = &totals[2 * row * t];
    for (; begin < end; begin += rows) {
      std::fill(block.begin(), block.end(), 0.f);
      each_number(begin, std::min(begin + rows, end), row,
                  [=](int64_t i, int64_t lane) { add(i, lane, a[lane], b[lane]); });
      for (int64_t lane = 0; lane < 2 * row; lane++) total[lane] += block[lane];
    }
  });
  Sums pooled{std::vector<double>(shape.channels), std::vector<double>(shape.channels)};
  for (int64_t i = 0; i < int64_t(totals.size()); i++)
    (i / row % 2 ? pooled.second : pooled.first)[i % row % shape.channels] += totals[i];
  return pooled;
}

// A channel's number for each of its lanes.
std::vector<float> lanes(const Shape& shape, const float* values) {
  std::vector<float> tiled(shape.row);
  for (int64_t lane = 0; lane < shape.row; lane++) tiled[lane] = values[lane % shape.channels];
  return tiled;
}

// Mean and variance of each channel. Deviations are from a mean of few pixels, so squares stay small.
template <class T>
void measure(const Shape& shape, const T* x, float* mean, double* variance) {
  const int64_t channels = shape.channels, few = std::min(PIVOT, shape.pixels);
  std::vector<float> pivot(channels);
  for (int64_t i = 0; i < few * channels; i++) pivot[i % channels] += float(x[i]) / float(few);
  const auto pivots = lanes(shape, pivot.data());
  const float* p = pivots.data();
  const Sums moments = sums(shape, [=](int64_t i, int64_t lane, float& sum, float& square) {
    const float deviation = float(x[i]) - p[lane];
    sum += deviation;
    square += deviation * deviation;
  });
  for (int64_t c = 0; c < channels; c++) {
    const double shift = moments.first[c] / shape.pixels;
    mean[c] = float(pivot[c] + shift);
    variance[c] = std::max(0., moments.second[c] / shape.pixels - shift * shift);
  }
}

// measured: the channels' variances, if these and the means are known.
template <class T>
void forward(const Shape& shape, const Channels& of, bool training, bool relu, const T* x, const T* skip, T* y,
             const Statistics& s, const double* measured) {
  std::vector<double> variance(shape.channels);
  if (measured)
    std::copy(measured, measured + shape.channels, variance.begin());
  else if (training)
    measure(shape, x, s.mean, variance.data());
  for (int64_t c = 0; c < shape.channels; c++) {
    const int64_t k = of[c];
    float &running_mean = of.running_mean[k], &running_var = of.running_var[k];
    if (training) {
      const double unbiased = variance[c] * shape.pixels / (shape.pixels - 1);
      running_mean += of.momentum * (s.mean[c] - running_mean);
      running_var += of.momentum * (float(unbiased) - running_var);
    } else {
      s.mean[c] = running_mean;
      variance[c] = running_var;
    }
    const double inverse = 1 / std::sqrt(variance[c] + of.eps);
    s.inverse[c] = float(inverse);
    s.scale[c] = float(of.weight[k] * inverse);
    s.shift[c] = float(of.bias[k] - double(s.mean[c]) * s.scale[c]);
  }
  const auto scales = lanes(shape, s.scale), shifts = lanes(shape, s.shift);
  const float *a = scales.data(), *b = shifts.data();
  const float least = relu ? 0 : -INFINITY;
  each_part(shape, [=](int64_t begin, int64_t end, int64_t) {
    const auto write = [=](int64_t i, float value) { y[i] = T(value < least ? least : value); };
    if (skip)
      each_number(begin, end, shape.row,
                  [=](int64_t i, int64_t lane) { write(i, float(x[i]) * a[lane] + b[lane] + float(skip[i])); });
    else
      each_number(begin, end, shape.row,
                  [=](int64_t i, int64_t lane) { write(i, float(x[i]) * a[lane] + b[lane]); });
  });
}

// What becomes of x and the gradient g of the normalised number: dx = scale g + slope x + offset.
struct Line {
  std::vector<float> slope, offset;  // a number a channel each
};

// dx, and the parameters' gradients if they are wanted. gradient(number, lane) is that of the normalised
// number; where it is needed a second time, after the sums, `again` is asked for it. Without dx only the line
// is found, with the sums.
template <class T, class Gradient, class Again>
Line differentiate(const Shape& shape, const int64_t* index, bool training, const T* x, const Statistics& s,
                   T* dx, float* dweight, float* dbias, Gradient gradient, Again again) {
  const auto means = lanes(shape, s.mean);
  const float* m = means.data();
  const bool summed = training || dweight || !dx;
  Sums total{std::vector<double>(shape.channels), std::vector<double>(shape.channels)};
  if (summed)
    total = sums(shape, [=](int64_t i, int64_t lane, float& sum, float& product) {
      const float g = gradient(i, lane);
      sum += g;
      product += g * (float(x[i]) - m[lane]);
    });
  // dx = scale (g - mean(g) - (x - mean) inverse^2 mean(g (x - mean)))
  Line line{std::vector<float>(shape.channels), std::vector<float>(shape.channels)};
  for (int64_t c = 0; c < shape.channels; c++) {
    const int64_t k = index ? index[c] : c;
    const double inverse = s.inverse[c], share = training ? double(s.scale[c]) / shape.pixels : 0;
    if (dweight) {
      dweight[k] = float(total.second[c] * inverse);
      dbias[k] = float(total.first[c]);
    }
    line.slope[c] = float(-share * inverse * inverse * total.second[c]);
    line.offset[c] = float(-share * total.first[c] - double(line.slope[c]) * s.mean[c]);
  }
  if (!dx) return line;
  const auto scales = lanes(shape, s.scale), slopes = lanes(shape, line.slope.data());
  const auto offsets = lanes(shape, line.offset.data());
  const float *a = scales.data(), *b = slopes.data(), *c = offsets.data();
  const auto write = [=](auto asked) {
    each_part(shape, [=](int64_t begin, int64_t end, int64_t) {
      each_number(begin, end, shape.row, [=](int64_t i, int64_t lane) {
        dx[i] = T(asked(i, lane) * a[lane] + (float(x[i]) * b[lane] + c[lane]));
      });
    });
  };
  if (summed)
    write(again);
  else
    write(gradient);
  return line;
}

// y is needed, and dskip wanted, where there was a skip connection.
template <class T>
Line backward(const Shape& shape, const int64_t* index, bool training, bool relu, const T* x, const T* y,
              const T* dy, const Statistics& s, T* dskip, T* dx, float* dweight, float* dbias) {
  const auto run = [&](auto gradient, auto again) {
    return differentiate(shape, index, training, x, s, dx, dweight, dbias, gradient, again);
  };
  if (y) {
    const auto keep = [=](int64_t i, int64_t) {
      const float g = float(y[i]) > 0 ? float(dy[i]) : 0.f;
      dskip[i] = T(g);
      return g;
    };
    return run(keep, [=](int64_t i, int64_t) { return float(dskip[i]); });
  } else if (relu) {  // y is computed again: that costs less than reading it
    const auto scales = lanes(shape, s.scale), shifts = lanes(shape, s.shift);
    const float *a = scales.data(), *b = shifts.data();
    const auto gradient = [=](int64_t i, int64_t lane) {
      return float(x[i]) * a[lane] + b[lane] > 0 ? float(dy[i]) : 0.f;
    };
    return run(gradient, gradient);
  } else {
    const auto gradient = [=](int64_t i, int64_t) { return float(dy[i]); };
    return run(gradient, gradient);
  }
}

template <class T>
const T* as(const void* values) { return static_cast<const T*>(values); }
template <class T>
T* as(void* values) { return static_cast<T*>(values); }

}  // namespace

extern "C" {

// statistics: (4, channels). variance: (channels), if it is known, as then the first row of statistics is.
void granprune_norm_forward(bool bfloat16, const Shape* shape, const Channels* channels, bool training,
                            bool relu, const void* x, const void* skip, void* y, float* statistics,
                            const double* variance) {
  const auto run = [&](auto type) {
    using T = decltype(type);
    forward<T>(*shape, *channels, training, relu, as<T>(x), as<T>(skip), as<T>(y),
               Statistics(statistics, shape->channels), variance);
  };
  bfloat16 ? run(BFloat16()) : run(float());
}

// line: (2, channels) slope and offset, instead of dx, if that is not wanted.
void granprune_norm_backward(bool bfloat16, const Shape* shape, bool training, bool relu,
                             const int64_t* index, const void* x, const void* y, const void* dy,
                             float* statistics, void* dskip, void* dx, float* dweight, float* dbias,
                             float* line) {
  const auto run = [&](auto type) {
    using T = decltype(type);
    return backward<T>(*shape, index, training, relu, as<T>(x), as<T>(y), as<T>(dy),
                Statistics(statistics, shape->channels), as<T>(dskip), as<T>(dx), dweight, dbias);
  };
  const Line found = bfloat16 ? run(BFloat16()) : run(float());
  if (!dx) std::copy(found.offset.begin(), found.offset.end(), std::copy(found.slope.begin(), found.slope.end(), line));
}
}
