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

std::vector<float> lanes(const Shape& shape, const std::vector<float>& values) {
  return lanes(shape, values.data());
}

// Mean and variance of each channel. Deviations are from a mean of few pixels, so squares stay small.
template <class T>
void measure(const Shape& shape, const T* x, float* mean, float* variance) {
  const int64_t channels = shape.channels, few = std::min(PIVOT, shape.pixels);
  std::vector<float> pivot(channels);
  for (int64_t i = 0; i < few * channels; i++) pivot[i % channels] += float(x[i]) / float(few);
  const auto pivots = lanes(shape, pivot);
  const float* p = pivots.data();
  const Sums moments = sums(shape, [=](int64_t i, int64_t lane, float& sum, float& square) {
    const float deviation = float(x[i]) - p[lane];
    sum += deviation;
    square += deviation * deviation;
  });
  for (int64_t c = 0; c < channels; c++) {
    const double shift = moments.first[c] / shape.pixels;
    mean[c] = float(pivot[c] + shift);
    variance[c] = float(std::max(0., moments.second[c] / shape.pixels - shift * shift));
  }
}

template <class T>
void forward(const Shape& shape, const Channels& of, bool training, bool relu, const T* x, const T* skip, T* y,
             float* mean, float* variance) {
  if (training) measure(shape, x, mean, variance);
  std::vector<float> scale(shape.channels), shift(shape.channels);
  for (int64_t c = 0; c < shape.channels; c++) {
    const int64_t k = of[c];
    float &running_mean = of.running_mean[k], &running_var = of.running_var[k];
    if (training) {
      const double unbiased = variance[c] * double(shape.pixels) / double(shape.pixels - 1);
      running_mean += of.momentum * (mean[c] - running_mean);
      running_var += of.momentum * (float(unbiased) - running_var);
    } else {
      mean[c] = running_mean;
      variance[c] = running_var;
    }
    scale[c] = float(of.weight[k] / std::sqrt(double(variance[c]) + of.eps));
    shift[c] = float(of.bias[k] - double(mean[c]) * scale[c]);
  }
  const auto scales = lanes(shape, scale), shifts = lanes(shape, shift);
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

// dskip, if there is a skip connection, is the gradient after the ReLU's; then that is what dx is made of.
template <class T>
void backward(const Shape& shape, const Channels& of, bool training, const T* x, const T* y, const T* dy,
              const float* mean, const float* variance, T* dskip, T* dx, float* dweight, float* dbias) {
  const auto means = lanes(shape, mean);
  const float* m = means.data();
  const auto after_relu = [=](int64_t i) { return float(y[i]) > 0 ? float(dy[i]) : 0.f; };
  const auto untouched = [=](int64_t i) { return float(dy[i]); };
  const auto summed = [=](auto gradient) {
    return sums(shape, [=](int64_t i, int64_t lane, float& sum, float& product) {
      const float g = gradient(i);
      sum += g;
      product += g * (float(x[i]) - m[lane]);
    });
  };
  const auto kept = [=](int64_t i) {
    const float g = after_relu(i);
    dskip[i] = T(g);
    return g;
  };
  const Sums total = dskip ? summed(kept) : y ? summed(after_relu) : summed(untouched);

  // dx = scale (g - mean(g) - (x - mean) / deviation^2 mean(g (x - mean))), as one line in x and g
  std::vector<float> scale(shape.channels), slope(shape.channels), offset(shape.channels);
  for (int64_t c = 0; c < shape.channels; c++) {
    const int64_t k = of[c];
    const double inverse = 1 / std::sqrt(double(variance[c]) + of.eps);
    dweight[k] = float(total.second[c] * inverse);
    dbias[k] = float(total.first[c]);
    const double factor = of.weight[k] * inverse, share = training ? factor / shape.pixels : 0;
    scale[c] = float(factor);
    slope[c] = float(-share * inverse * inverse * total.second[c]);
    offset[c] = float(-share * total.first[c] - double(slope[c]) * mean[c]);
  }
  const auto scales = lanes(shape, scale), slopes = lanes(shape, slope), offsets = lanes(shape, offset);
  const float *a = scales.data(), *b = slopes.data(), *c = offsets.data();
  const auto write = [=](auto gradient) {
    each_part(shape, [=](int64_t begin, int64_t end, int64_t) {
      each_number(begin, end, shape.row, [=](int64_t i, int64_t lane) {
        dx[i] = T(gradient(i) * a[lane] + (float(x[i]) * b[lane] + c[lane]));
      });
    });
  };
  if (dskip)
    write([=](int64_t i) { return float(dskip[i]); });
  else if (y)
    write(after_relu);
  else
    write(untouched);
}

template <class T>
const T* as(const void* values) { return static_cast<const T*>(values); }
template <class T>
T* as(void* values) { return static_cast<T*>(values); }

}  // namespace

extern "C" {

void granprune_norm_forward(bool bfloat16, const Shape* shape, const Channels* channels, bool training,
                            bool relu, const void* x, const void* skip, void* y, float* mean,
                            float* variance) {
  const auto run = [&](auto type) {
    using T = decltype(type);
    forward<T>(*shape, *channels, training, relu, as<T>(x), as<T>(skip), as<T>(y), mean, variance);
  };
  bfloat16 ? run(BFloat16()) : run(float());
}

void granprune_norm_backward(bool bfloat16, const Shape* shape, const Channels* channels, bool training,
                             const void* x, const void* y, const void* dy, const float* mean,
                             const float* variance, void* dskip, void* dx, float* dweight, float* dbias) {
  const auto run = [&](auto type) {
    using T = decltype(type);
    backward<T>(*shape, *channels, training, as<T>(x), as<T>(y), as<T>(dy), mean, variance, as<T>(dskip),
                as<T>(dx), dweight, dbias);
  };
  bfloat16 ? run(BFloat16()) : run(float());
}
}
