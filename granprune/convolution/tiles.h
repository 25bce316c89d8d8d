// Convolutions as they are written: each result is a sum over the taps of the kernel.
//
// A tile of results, some pixels wide and one or two vectors deep, stays in registers while the channels of the
// operands beneath it are multiplied one after the other. What the borders would multiply by zero is left out
// where a row is one tile.

#pragma once

#include <type_traits>

#include "vectors.h"

namespace {
namespace tiles {

// A tile's result to which `tap` of the kernel adds the product of an operand, both by their places in a row;
// none of the N if it is outside [0, N).
template <Direction TO, int KERNEL, int STRIDE>
constexpr int result(int operand, int tap) {
  const int from = TO == FORWARD ? operand - tap + KERNEL / 2 : STRIDE * operand + tap - KERNEL / 2;
  return TO == BACKWARD ? from : from % STRIDE ? -1 : from / STRIDE;
}

struct TapRows {  // the rows of the kernel that lie in the image, for a row of results
  int count = 0;
  const Unit *operands[3], *weights[3];
};

// N results of V vectors. CHANNELS: of the operands, in units. WHOLE: a row of results is one tile.
template <Direction TO, int KERNEL, int STRIDE, int N, int V, int CHANNELS, bool WHOLE>
[[gnu::noinline]] void tile(const TapRows& rows, int64_t column, int64_t width, int64_t channels, Number* to) {
  constexpr int MANY = TO == FORWARD ? N * STRIDE : N / STRIDE;  // operands, without those beside the tile
  constexpr int BESIDE = WHOLE ? 0 : KERNEL / 2;
  static constexpr Unit ZEROS[CHANNELS] = {};
  const int64_t first = TO == FORWARD ? column * STRIDE : column / STRIDE;
  Vector sum[N][V] = {};
  for (int row = 0; row < rows.count; row++) {
    const Unit *operand = rows.operands[row] + first * CHANNELS, *weight = rows.weights[row];
    const Unit* left = column == 0 ? ZEROS : operand - CHANNELS;
    const Unit* right = column + N == width ? ZEROS : operand + MANY * CHANNELS;
    for (int c = 0; c < CHANNELS; c++) {
      Units weights[KERNEL][V];
#pragma GCC unroll 3
      for (int tap = 0; tap < KERNEL; tap++)
#pragma GCC unroll 2
        for (int v = 0; v < V; v++, weight += LANES) weights[tap][v] = units(weight);
#pragma GCC unroll 40
      for (int n = -BESIDE; n < MANY + BESIDE; n++) {
        Units operand_n = everywhere(n < 0 ? left[c] : n == MANY ? right[c] : operand[n * CHANNELS + c]);
        asm("" : "+v"(operand_n));  // loaded once, not by each instruction that takes it
#pragma GCC unroll 3
        for (int k = 0; k < KERNEL; k++) {
          const int tap = TO == FORWARD ? KERNEL - 1 - k : k;  // the result that had the last operand, too, first
          const int at = result<TO, KERNEL, STRIDE>(n, tap);
#pragma GCC unroll 2
          for (int v = 0; v < V; v++)
            if (at >= 0 && at < N) sum[at][v] = multiply_add(sum[at][v], weights[tap][v], operand_n);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < N; n++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) store(to + n * channels + v * LANES, sum[n][v]);
}

template <Direction TO>
class Results {
 public:
  explicit Results(const Shape& of) : of_(of) {}

  // In the order in which tiles take them: (results / depth, kernel, operand units, kernel, depth).
  static Buffer<Unit> packed(const Shape& of, const Weights& weights) {
    const int64_t operands = of.operands(TO) / PER, results = of.results(TO);
    const int64_t depth = deep(of) ? 2 * LANES : LANES, rows = of.kernel * operands * of.kernel;
    Buffer<Unit> into(results * rows);
#pragma omp parallel for num_threads(int(of.threads)) schedule(static) if (of.weights() > FEW)
    for (int64_t i = 0; i < results * rows / depth; i++) {
      const int64_t result = i / rows * depth, column = i % of.kernel, rest = i % rows / of.kernel;
      const int64_t operand = rest % operands * PER, row = rest / operands;
      const int64_t tap = row * weights.strides[2] + column * weights.strides[3];
      for (int64_t k = 0; k < depth; k++) {
        const float* from = weights.of(TO, result + k, operand) + tap;
#if defined(BFLOAT16)
        into.data()[i * depth + k] = pair(*from, weights.of(TO, result + k, operand + 1)[tap]);
#else
        into.data()[i * depth + k] = *from;
#endif
      }
    }
    return into;
  }

  // Those of one image.
  void image(const Number* operands, const Unit* weights, Number* to) const {
    const auto run = [&](auto kernel, auto stride) {
      constexpr int KERNEL = decltype(kernel)::value, STRIDE = decltype(stride)::value;
      deep(of_) ? image<KERNEL, STRIDE, 8, 2>((const Unit*)operands, weights, to)
                : image<KERNEL, STRIDE, 16, 1>((const Unit*)operands, weights, to);
    };
    const std::integral_constant<int, 1> one;
    const std::integral_constant<int, 2> two;
    const std::integral_constant<int, 3> three;
    if (of_.kernel == 1)
      of_.stride == 1 ? run(one, one) : run(one, two);
    else if (of_.stride == 2)
      run(three, two);
#if defined(BFLOAT16)  // in float32 there is a better way
    else
      run(three, one);
#endif
  }

 private:
  // Whether tiles are two vectors deep and 8 pixels wide, instead of one and 16: for narrow images, and where an
  // operand serves few pixels.
  static bool deep(const Shape& of) {
    const int64_t width = TO == FORWARD ? of.out_width() : of.width;
    return of.results(TO) % (2 * LANES) == 0 &&
           (width % 16 || of.kernel == 1 || (TO == FORWARD && of.stride == 2));
  }

  template <int KERNEL, int STRIDE, int N, int V>
  void image(const Unit* operands, const Unit* weights, Number* to) const {
    switch (of_.operands(TO)) {
      case 16: return image<KERNEL, STRIDE, N, V, 16 / PER>(operands, weights, to);
      case 32: return image<KERNEL, STRIDE, N, V, 32 / PER>(operands, weights, to);
      case 64: return image<KERNEL, STRIDE, N, V, 64 / PER>(operands, weights, to);
    }
  }

  template <int KERNEL, int STRIDE, int N, int V, int CHANNELS>
  void image(const Unit* operands, const Unit* weights, Number* to) const {
    constexpr bool FORTH = TO == FORWARD;
    const int64_t height = FORTH ? of_.out_height() : of_.height, width = FORTH ? of_.out_width() : of_.width;
    const int64_t operand_rows = FORTH ? of_.height : of_.out_height(), channels = of_.results(TO);
    const int64_t pitch = (FORTH ? of_.width : of_.out_width()) * CHANNELS;
    for (int64_t channel = 0; channel < channels; channel += V * LANES)
      for (int64_t r = 0; r < height; r++) {
        TapRows rows;
        for (int tap = 0; tap < KERNEL; tap++) {
          const int64_t from = FORTH ? r * STRIDE + tap - KERNEL / 2 : r - tap + KERNEL / 2;
          const int64_t row = FORTH ? from : from / STRIDE;
          if (from < 0 || (!FORTH && from % STRIDE) || row >= operand_rows) continue;
          rows.operands[rows.count] = operands + row * pitch;
          rows.weights[rows.count++] = weights + (channel * KERNEL + tap * V * LANES) * KERNEL * CHANNELS;
        }
        Number* row = to + r * width * channels + channel;
        if (width == N)
          tile<TO, KERNEL, STRIDE, N, V, CHANNELS, true>(rows, 0, width, channels, row);
        else
          for (int64_t c = 0; c < width; c += N)
            tile<TO, KERNEL, STRIDE, N, V, CHANNELS, false>(rows, c, width, channels, row + c * channels);
      }
  }

  const Shape of_;
};

}  // namespace tiles
}  // namespace
