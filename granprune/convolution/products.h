// The weights' gradient of a convolution as it is written: for each tap, a sum over pixels.

#pragma once

#include "vectors.h"

namespace {
namespace products {

constexpr int GRADIENTS = 8;  // channels of output gradients multiplied at once

// Blocks of LANES channels, one after the other, so that neighbouring pixels are neighbours in memory:
// (blocks, images, rows, columns, LANES); a unit of bfloat16 holds two pixels of a row.
struct Blocks {
  const Unit* data;
  int64_t image, row, block;  // units from one to the next
};

// (a, b) for LANES channels, or a alone where a unit is one number.
inline void gather(const Number* a, const Number* b, Unit* to) {
#if defined(BFLOAT16)
  alignas(64) static constexpr uint16_t ORDER[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(halves(a)), halves(b), 1);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(ORDER), both));
#else
  store(to, load(a));
#endif
}

// The pixels at `first`, first + stride, ... of each row as `columns` units; zeros outside the image.
Blocks blocks(const Number* from, int64_t images, int64_t height, int64_t width, int64_t channels, int64_t first,
              int64_t stride, int64_t columns, Unit* to) {
  static constexpr Number ZEROS[LANES] = {};
  const int64_t row = columns * LANES, image = height * row;
  const Blocks made{to, image, row, images * image};
  for (int64_t c = 0; c < channels; c += LANES)
    for (int64_t r = 0; r < images * height; r++) {
      const auto pixel = [&](int64_t at) {
        return at < 0 || at >= width ? ZEROS : from + (r * width + at) * channels + c;
      };
      for (int64_t q = 0, at = first; q < columns; q++, at += PER * stride, to += LANES)
        gather(pixel(at), pixel(at + stride), to);
    }
  return made;
}

struct Size {  // of what is summed over
  int64_t images, rows, columns;
};

// Sums of LANES inputs at each tap of a row of the kernel times GRADIENTS channels of dy; to (tap, output, input),
// added to unless `fresh`.
template <int TAPS>
[[gnu::noinline]] void sum_products(const Size& over, const Unit* const* x, const Blocks& of_x, const Unit* dy,
                                    const Blocks& of_dy, bool fresh, float* to, int64_t tap_step,
                                    int64_t output_step) {
  Vector sum[TAPS][GRADIENTS] = {};
  const auto each_sum = [&](auto work) {
#pragma GCC unroll 3
    for (int tap = 0; tap < TAPS; tap++)
#pragma GCC unroll 8
      for (int g = 0; g < GRADIENTS; g++) work(sum[tap][g], to + tap * tap_step + g * output_step);
  };
  if (!fresh) each_sum([](Vector& in, const float* at) { in = load(at); });
  for (int64_t i = 0; i < over.images; i++)
    for (int64_t r = 0; r < over.rows; r++) {
      const int64_t to_row = i * of_x.image + r * of_x.row;
      const Unit* gradient = dy + i * of_dy.image + r * of_dy.row;
      for (int64_t c = 0; c < over.columns; c++, gradient += LANES) {
        Units pixel[TAPS];
#pragma GCC unroll 3
        for (int tap = 0; tap < TAPS; tap++) pixel[tap] = units(x[tap] + to_row + c * LANES);
#pragma GCC unroll 8
        for (int g = 0; g < GRADIENTS; g++) {
          Units gradient_g = everywhere(gradient[g]);
          asm("" : "+v"(gradient_g));  // loaded once
#pragma GCC unroll 3
          for (int tap = 0; tap < TAPS; tap++) sum[tap][g] = multiply_add(sum[tap][g], pixel[tap], gradient_g);
        }
      }
    }
  each_sum([](Vector& in, float* at) { store(at, in); });
}

// Some images' part of the weights' gradient.
class WeightGradient {
 public:
  // images: at most, in `add`.
  WeightGradient(const Shape& of, int64_t images)
      : of_(of), columns_(of.out_width() / PER), shared_(of.kernel == 3 && of.stride == 1 ? 2 / PER : 0),
        size_(images * of.height * (columns_ + shared_) * of.inputs), x_(of.kernel * size_),
        dy_(images * of.y_size() / PER), sums_(of.weights()) {}

  // dy: (images, out height, out width, outputs).
  void add(int64_t images, const Number* x, const Number* dy, Ahead ahead) {
    const Unit* taps[3];
    Blocks of_x = inputs(images, x, taps);
    const int64_t x_row = of_x.row;
    of_x.row *= of_.stride;
    const Blocks of_dy =
        blocks(dy, images, of_.out_height(), of_.out_width(), of_.outputs, 0, 1, columns_, dy_.data());
    const int64_t parts = of_.kernel * of_.inputs / LANES * of_.outputs / GRADIENTS;
    for (int64_t tap = 0; tap < of_.kernel; tap++) {
      const int64_t shift = tap - of_.kernel / 2;  // rows of x above or below
      const int64_t top = shift < 0, bottom = shift > 0 && of_.stride == 1;  // rows of dy without rows of x
      const Size over{images, of_.out_height() - top - bottom, columns_};
      for (int64_t input = 0; input < of_.inputs; input += LANES)
        for (int64_t output = 0; output < of_.outputs; output += GRADIENTS, ahead.fetch(parts)) {
          const Unit* from[3];
          for (int64_t k = 0; k < of_.kernel; k++)
            from[k] = taps[k] + input / LANES * of_x.block + shift * x_row + top * of_x.row;
          const Unit* gradient = of_dy.data + output / LANES * of_dy.block + output % LANES + top * of_dy.row;
          const int64_t step = of_.outputs * of_.inputs;
          float* to = sums_.data() + tap * of_.kernel * step + output * of_.inputs + input;
          if (of_.kernel == 1)
            sum_products<1>(over, from, of_x, gradient, of_dy, fresh_, to, step, of_.inputs);
          else
            sum_products<3>(over, from, of_x, gradient, of_dy, fresh_, to, step, of_.inputs);
        }
    }
    fresh_ = false;
  }

  // (kernel, kernel, outputs, inputs)
  void write(float* to) const { std::copy(sums_.data(), sums_.data() + of_.weights(), to); }

 private:
  // x as each tap of a row of the kernel reads it. With a stride of 1 the last tap reads what the first does, two
  // pixels further.
  Blocks inputs(int64_t images, const Number* x, const Unit** taps) const {
    Blocks made{};
    for (int64_t tap = 0; tap < of_.kernel - (shared_ > 0); tap++) {
      made = blocks(x, images, of_.height, of_.width, of_.inputs, tap - of_.kernel / 2, of_.stride,
                    columns_ + shared_, x_.data() + tap * size_);
      taps[tap] = made.data;
    }
    if (shared_) taps[2] = taps[0] + shared_ * LANES;
    return made;
  }

  const Shape of_;
  const int64_t columns_, shared_;  // in units; how much further the last tap reads than the first
  const int64_t size_;              // of a copy of x
  const Buffer<Unit> x_, dy_;
  const Buffer<float> sums_;
  bool fresh_ = true;
};

}  // namespace products
}  // namespace
