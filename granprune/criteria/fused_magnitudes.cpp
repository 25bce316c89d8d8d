// Sums over samples of |gradient x weight|^power, for the weights or the kernels of a convolution.
//
// A sample's gradient of a weight is the sum over pixels of output gradient times input. Images are
// channels-last: a vector holds the output gradients of LANES channels at a pixel, which are multiplied by
// several inputs each. Each thread takes its share of the samples and has sums of its own.

#include <algorithm>
#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, MOST = 16;  // MOST: inputs at once, as many as registers hold sums for
#elif defined(__AVX2__)
constexpr int LANES = 8, MOST = 8;
#else
constexpr int LANES = 4, MOST = 8;
#endif
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct Axis {  // of an image, in pixels
  int64_t size, out_size, kernel, stride, padding;

  // The outputs for which this tap of the kernel lies in the image: [first, last).
  int64_t first(int64_t tap) const { return std::max<int64_t>(0, (padding - tap + stride - 1) / stride); }
  int64_t last(int64_t tap) const {
    const int64_t room = size - 1 + padding - tap;
    return room < 0 ? 0 : std::min(out_size, room / stride + 1);
  }
};

struct Convolution {
  Axis rows, columns;
  int64_t samples, inputs, outputs;  // outputs: a multiple of LANES
  int64_t power, per_kernel, threads;

  int64_t taps() const { return rows.kernel * columns.kernel; }
};

inline const Vector& vector(const float* numbers) { return *reinterpret_cast<const Vector*>(numbers); }
inline Vector& vector(float* numbers) { return *reinterpret_cast<Vector*>(numbers); }

// The gradients of N inputs' weights to LANES outputs at one tap of the kernel.
template <int N>
inline void gradients(const Convolution& of, const float* x, const float* dy, int64_t tap, Vector* result) {
  const int64_t down = tap / of.columns.kernel, right = tap % of.columns.kernel;
  const int64_t first = of.columns.first(right), last = of.columns.last(right);
  const int64_t step = of.columns.stride * of.inputs;
  Vector sum[N] = {};
  for (int64_t row = of.rows.first(down); row < of.rows.last(down); row++) {
    const int64_t from_row = row * of.rows.stride + down - of.rows.padding;
    const int64_t from_column = first * of.columns.stride + right - of.columns.padding;
    const float* input = x + (from_row * of.columns.size + from_column) * of.inputs;
    const float* gradient = dy + (row * of.columns.out_size + first) * of.outputs;
    for (int64_t column = first; column < last; column++, input += step, gradient += of.outputs)
      for (int n = 0; n < N; n++) sum[n] += vector(gradient) * input[n];
  }
  std::copy(sum, sum + N, result);
}

inline Vector magnitude(Vector value, int64_t power) {
  return power == 2 ? value * value : value < 0 ? -value : value;
}

// Adds one sample's magnitudes for N inputs' weights to LANES outputs.
template <int N>
void add(const Convolution& of, const float* x, const float* dy, const float* weight, float* sums) {
  Vector gradient[N], total[N] = {};
  for (int64_t tap = 0; tap < of.taps(); tap++) {
    gradients<N>(of, x, dy, tap, gradient);
    for (int n = 0; n < N; n++) {
      const int64_t place = (tap * of.inputs + n) * of.outputs;
      const Vector product = gradient[n] * vector(weight + place);
      if (of.per_kernel)
        total[n] += product;
      else
        vector(sums + place) += magnitude(product, of.power);
    }
  }
  if (of.per_kernel)
    for (int n = 0; n < N; n++) vector(sums + n * of.outputs) += magnitude(total[n], of.power);
}

// As many inputs at once as there are left, up to N.
template <int N>
void add_all(const Convolution& of, int64_t input, int64_t output, const float* x, const float* dy,
             const float* weight, float* sums) {
  for (; input + N <= of.inputs; input += N) {
    const int64_t place = input * of.outputs + output;
    add<N>(of, x + input, dy + output, weight + place, sums + place);
  }
  if constexpr (N > 1) add_all<N / 2>(of, input, output, x, dy, weight, sums);
}

}  // namespace

// x: (samples, height, width, inputs); dy: (samples, out height, out width, outputs);
// weight: (taps, inputs, outputs); sums: (threads, taps or 1, inputs, outputs), added to.
extern "C" void granprune_magnitudes(const Convolution* of, const float* x, const float* dy,
                                     const float* weight, float* sums) {
  const int64_t pixels = of->rows.size * of->columns.size, out_pixels = of->rows.out_size * of->columns.out_size;
  const int64_t weights = (of->per_kernel ? 1 : of->taps()) * of->inputs * of->outputs;
#pragma omp parallel for num_threads(int(of->threads)) schedule(static, 1)
  for (int64_t t = 0; t < of->threads; t++)
    for (int64_t n = of->samples * t / of->threads; n < of->samples * (t + 1) / of->threads; n++)
      for (int64_t output = 0; output < of->outputs; output += LANES)
        add_all<MOST>(*of, 0, output, x + n * pixels * of->inputs, dy + n * out_pixels * of->outputs, weight,
                      sums + t * weights);
}
