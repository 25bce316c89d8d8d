// 3 x 3 convolutions with stride 1 in float32, by fewer multiplications.
//
// Minimal filtering F(2 x 2, 3 x 3) (Winograd; Lavin & Gray, 2016): a patch of 4 x 4 operands g gives 2 x 2 results
// A'[(G w G') * (B' g B)]A by 16 products a channel instead of 36. For each place of a patch they are a matrix
// product over all channels. Patches lie two pixels apart.

#pragma once

#include "vectors.h"

namespace {
namespace winograd {

constexpr int64_t PLACES = 16;

// Numbers from one place to the next: places a power of two apart would share few sets of the cache.
constexpr int64_t apart(int64_t numbers) { return numbers + LANES; }

template <class T>
inline void filter(T a, T b, T c, T* to) {  // G
  to[0] = a, to[1] = (a + b + c) / 2, to[2] = (a - b + c) / 2, to[3] = c;
}
inline void patch(Vector a, Vector b, Vector c, Vector d, Vector* to) {  // B'
  to[0] = a - c, to[1] = b + c, to[2] = c - b, to[3] = b - d;
}
inline void result(Vector a, Vector b, Vector c, Vector d, Vector* to) {  // A'
  to[0] = a + b + c, to[1] = b - c - d;
}
inline void gradient(Vector a, Vector b, Vector* to) {  // A
  to[0] = a, to[1] = a + b, to[2] = a - b, to[3] = -b;
}
inline void taps(Vector a, Vector b, Vector c, Vector d, Vector* to) {  // G'
  const Vector sum = (b + c) * 0.5f;
  to[0] = a + sum, to[1] = (b - c) * 0.5f, to[2] = sum + d;
}

struct Images {
  int64_t height, width, channels;

  int64_t patches() const { return height * width / 4; }

  // work(patch, its top, its left), for `count` patches from the first.
  template <class Work>
  void each(int64_t first, int64_t count, Work work) const {
    int64_t top = first / (width / 2) * 2, left = first % (width / 2) * 2;
    for (int64_t p = 0; p < count; p++, left += 2) {
      if (left == width) top += 2, left = 0;
      work(p, top, left);
    }
  }
};

// Transforms of an image's patches, which reach a pixel further on each side: to (places, step / channels, channels
// that fill vectors).
[[gnu::noinline]] void read_patches(const Images& of, const float* x, int64_t first, int64_t count, float* to,
                                    int64_t step) {
  const int64_t channels = of.channels, wide = padded(channels);
  of.each(first, count, [=](int64_t p, int64_t top, int64_t left) {
    const float* pixels = x + ((top - 1) * of.width + left - 1) * channels;
    const auto if_inside = [](bool inside, Lanes lanes) { return inside ? lanes : Lanes(0); };
    for (int64_t c = 0; c < channels; c += LANES) {
      const Lanes all = first_lanes(channels - c);
      const Lanes above = if_inside(top > 0, all), below = if_inside(top + 2 < of.height, all);
      const Lanes before = if_inside(left > 0, all), after = if_inside(left + 2 < of.width, all);
      const Lanes row_lanes[4] = {above, all, all, below}, column_lanes[4] = {before, all, all, after};
      Vector columns[4][4], row[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; k++) {
        const auto at = [&](int r) {
          return load_lanes(pixels + (r * of.width + k) * channels + c, row_lanes[r] & column_lanes[k]);
        };
        patch(at(0), at(1), at(2), at(3), columns[k]);
      }
      float* place = to + p * wide + c;
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++) {
        patch(columns[0][r], columns[1][r], columns[2][r], columns[3][r], row);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++, place += step) store(place, row[k]);
      }
    }
  });
}

// Transforms of an image's 2 x 2 gradients of results: as those of patches.
[[gnu::noinline]] void read_gradients(const Images& of, const float* dy, int64_t first, int64_t count, float* to,
                                      int64_t step) {
  const int64_t channels = of.channels, wide = padded(channels);
  of.each(first, count, [=](int64_t p, int64_t top, int64_t left) {
    const float *upper = dy + (top * of.width + left) * channels, *lower = upper + of.width * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
      Vector columns[2][4], row[4];
      for (int k = 0; k < 2; k++) {
        const int64_t at = k * channels + c;
        gradient(load(upper + at, channels - c), load(lower + at, channels - c), columns[k]);
      }
      float* place = to + p * wide + c;
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++) {
        gradient(columns[0][r], columns[1][r], row);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++, place += step) store(place, row[k]);
      }
    }
  });
}

template <Direction TO>
class Results {
 public:
  explicit Results(const Shape& of)
      : operands_{of.height, of.width, of.operands(TO)}, results_{of.height, of.width, of.results(TO)},
        patches_(PLACES * apart(PATCHES * padded(operands_.channels))),
        products_(PLACES * apart(PATCHES * padded(results_.channels))) {}

  // The weights' transforms: (places, results / LANES, operands, LANES).
  static Buffer<float> packed(const Shape& of, const Weights& weights) {
    const int64_t operands = of.operands(TO), results = of.results(TO), size = padded(results) * operands;
    Buffer<float> into(PLACES * size);
#pragma omp parallel for num_threads(int(of.threads)) schedule(static) if (size > FEW)
    for (int64_t i = 0; i < size; i++) {
      const int64_t operand = i / LANES % operands, result = i / LANES / operands * LANES + i % LANES;
      float rows[3][4], columns[4];
      for (int64_t r = 0; r < 3; r++) {
        const auto at = [&](int64_t k) {
          if (result >= results) return 0.f;
          const int64_t row = TO == FORWARD ? r : 2 - r, column = TO == FORWARD ? k : 2 - k;
          return weights.of(TO, result, operand)[row * weights.strides[2] + column * weights.strides[3]];
        };
        filter(at(0), at(1), at(2), rows[r]);
      }
      for (int64_t k = 0; k < 4; k++) {
        filter(rows[0][k], rows[1][k], rows[2][k], columns);
        for (int64_t r = 0; r < 4; r++) into.data()[(r * 4 + k) * size + i] = columns[r];
      }
    }
    return into;
  }

  // Those of one image.
  void image(const float* operands, const float* weights, float* to) const {
    const int64_t channels = operands_.channels;
    for (int64_t first = 0; first < operands_.patches(); first += PATCHES) {
      read_patches(operands_, operands, first, PATCHES, patches_.data(), apart(PATCHES * padded(channels)));
      // While products are computed, what comes next is fetched: operands are a row further than results.
      const float* ahead = operands + (4 * (first + PATCHES) + operands_.width) * channels;
      const float* beneath = to + 4 * first * results_.channels;
      switch (padded(channels)) {
#if defined(NARROW)
        case 8: multiply<8>(weights, ahead, beneath); break;
        case 24: multiply<24>(weights, ahead, beneath); break;
        case 40: multiply<40>(weights, ahead, beneath); break;
        case 56: multiply<56>(weights, ahead, beneath); break;
#endif
        case 16: multiply<16>(weights, ahead, beneath); break;
        case 32: multiply<32>(weights, ahead, beneath); break;
        case 48: multiply<48>(weights, ahead, beneath); break;
        case 64: multiply<64>(weights, ahead, beneath); break;
      }
      write(first, to);
    }
  }

 private:
  static constexpr int64_t PATCHES = 8;  // at once

  template <int WIDE>
  [[gnu::noinline]] void multiply(const float* weights, const float* ahead, const float* beneath) const {
    const int64_t channels = operands_.channels;
    const int64_t step = 4 * PATCHES / PLACES * channels, beneath_step = 4 * PATCHES / PLACES * results_.channels;
    for (int64_t place = 0; place < PLACES; place++, ahead += step, beneath += beneath_step) {
      for (int64_t i = 0; i < step; i += LANES) __builtin_prefetch(ahead + i);
      for (int64_t i = 0; i < beneath_step; i += LANES) __builtin_prefetch(beneath + i, 1);
      const float* patches = patches_.data() + place * apart(PATCHES * WIDE);
      float* to = products_.data() + place * apart(PATCHES * padded(results_.channels));
      for (int64_t block = 0; block < results_.channels; block += LANES, to += PATCHES * LANES) {
        Vector sum[PATCHES] = {};
        for (int64_t k = 0; k < channels; k++, weights += LANES) {
          const Vector weight = load(weights);
#pragma GCC unroll 8
          for (int p = 0; p < PATCHES; p++) sum[p] += weight * everywhere(patches[p * WIDE + k]);
        }
#pragma GCC unroll 8
        for (int p = 0; p < PATCHES; p++) store(to + p * LANES, sum[p]);
      }
    }
  }

  [[gnu::noinline]] void write(int64_t first, float* y) const {
    const int64_t channels = results_.channels, step = apart(PATCHES * padded(channels)), row = results_.width * channels;
    results_.each(first, PATCHES, [&](int64_t p, int64_t top, int64_t left) {
      for (int64_t c = 0; c < channels; c += LANES) {
        const float* from = products_.data() + c * PATCHES + p * LANES;
        Vector columns[4][2], pixels[2];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
          const auto at = [&](int r) { return load(from + (r * 4 + k) * step); };
          result(at(0), at(1), at(2), at(3), columns[k]);
        }
        float* to = y + top * row + left * channels + c;
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++, to += row) {
          result(columns[0][r], columns[1][r], columns[2][r], columns[3][r], pixels);
          store(to, pixels[0], channels - c), store(to + channels, pixels[1], channels - c);
        }
      }
    });
  }

  const Images operands_, results_;
  const Buffer<float> patches_, products_;  // (places, patches, operands); (places, results / LANES, patches, LANES)
};

// Some images' part of the weights' gradient.
class WeightGradient {
 public:
  WeightGradient(const Shape& of, int64_t)
      : x_{of.height, of.width, of.inputs}, dy_{of.height, of.width, of.outputs},
        inputs_(padded(of.inputs)), outputs_(padded(of.outputs)),
        patches_(std::min(x_.patches(), std::max<int64_t>(32, 1024 / inputs_))),
        of_x_(PLACES * apart(patches_ * inputs_)), of_dy_(PLACES * apart(patches_ * outputs_)), sums_(PLACES * inputs_ * outputs_) {}

  // dy: (images, height, width, outputs).
  void add(int64_t images, const float* x, const float* dy, Ahead ahead) {
    const int64_t pixels = x_.height * x_.width, parts = images * (x_.patches() + patches_ - 1) / patches_ * PLACES;
    for (int64_t i = 0; i < images; i++, x += pixels * x_.channels, dy += pixels * dy_.channels)
      for (int64_t first = 0; first < x_.patches(); first += patches_, fresh_ = false) {
        const int64_t count = std::min(patches_, x_.patches() - first);
        read_patches(x_, x, first, count, of_x_.data(), apart(patches_ * inputs_));
        read_gradients(dy_, dy, first, count, of_dy_.data(), apart(patches_ * outputs_));
        for (int64_t place = 0; place < PLACES; place++, ahead.fetch(parts))
          for (int64_t output = 0; output < dy_.channels; output += OUTPUTS)
            for (int64_t input = 0; input < inputs_; input += LANES)
              multiply(dy_.channels - output, of_x_.data() + place * apart(patches_ * inputs_) + input,
                       of_dy_.data() + place * apart(patches_ * outputs_) + output, count,
                       sums_.data() + (place * outputs_ + output) * inputs_ + input);
      }
  }

  // (kernel, kernel, outputs, inputs)
  void write(float* to) const {
    const int64_t step = outputs_ * inputs_, to_step = dy_.channels * x_.channels;
    for (int64_t output = 0; output < dy_.channels; output++)
      for (int64_t input = 0; input < x_.channels; input += LANES) {
        const float* from = sums_.data() + output * inputs_ + input;
        Vector columns[4][3], row[3];
        for (int k = 0; k < 4; k++) {
          const auto at = [&](int r) { return load(from + (r * 4 + k) * step); };
          taps(at(0), at(1), at(2), at(3), columns[k]);
        }
        for (int r = 0; r < 3; r++) {
          taps(columns[0][r], columns[1][r], columns[2][r], columns[3][r], row);
          for (int k = 0; k < 3; k++)
            store(to + (r * 3 + k) * to_step + output * x_.channels + input, row[k], x_.channels - input);
        }
      }
  }

 private:
  static constexpr int64_t OUTPUTS = 16;  // at once, at most

  void multiply(int64_t outputs, const float* x, const float* dy, int64_t count, float* sums) const {
    if (outputs <= 4)
      multiply<4>(x, dy, count, sums);
    else if (outputs <= 8)
      multiply<8>(x, dy, count, sums);
    else if (outputs <= 12)
      multiply<12>(x, dy, count, sums);
    else
      multiply<16>(x, dy, count, sums);
  }

  // The sums over patches of the products of so many outputs and LANES inputs.
  template <int COUNT>
  [[gnu::noinline]] void multiply(const float* x, const float* dy, int64_t count, float* sums) const {
    Vector sum[COUNT] = {};
    if (!fresh_)
#pragma GCC unroll 16
      for (int k = 0; k < COUNT; k++) sum[k] = load(sums + k * inputs_);
    for (int64_t p = 0; p < count; p++, x += inputs_, dy += outputs_) {
      const Vector input = load(x);
#pragma GCC unroll 16
      for (int k = 0; k < COUNT; k++) sum[k] += input * everywhere(dy[k]);
    }
#pragma GCC unroll 16
    for (int k = 0; k < COUNT; k++) store(sums + k * inputs_, sum[k]);
  }

  const Images x_, dy_;
  const int64_t inputs_, outputs_;          // that fill vectors
  const int64_t patches_;                   // at once
  const Buffer<float> of_x_, of_dy_, sums_;  // (places, patches, inputs or outputs); (places, outputs, inputs)
  bool fresh_ = true;
};

}  // namespace winograd
}  // namespace
