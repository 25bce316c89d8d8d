// Convolutions of channels-last images on CPUs with AVX-512, with what the normalisation behind them needs.
//
// Threads take the images in chunks, and sums over images are added chunk by chunk, so results do not depend on
// the number of threads.

#include "normalisation.h"
#include "vectors.h"
#if !defined(NARROW)
#include "products.h"
#include "tiles.h"
#endif
#if !defined(BFLOAT16)
#include "winograd.h"
#endif
#if !defined(NARROW) && !defined(BFLOAT16)
#include "align.h"
#endif

namespace {

constexpr int64_t LONG = 256;  // pixels that make a long sum

template <template <Direction> class R, class G>
struct Method {
  template <Direction TO>
  using Results = R<TO>;
  using WeightGradient = G;
};

template <class Run>
void with_method(const Shape& of, Run run) {
#if !defined(BFLOAT16)
  if (of.kernel == 3 && of.stride == 1) return run(Method<winograd::Results, winograd::WeightGradient>());
#endif
#if !defined(NARROW)
  run(Method<tiles::Results, products::WeightGradient>());
#endif
}

template <class Method>
void forward(const Shape& of, const Number* x, const Weights& weights, Number* y, float* mean, double* variance) {
  using Results = typename Method::template Results<FORWARD>;
  const auto packed = Results::packed(of, weights);
  std::vector<Moments> parts(of.chunks, Moments(of.outputs));
  each_chunk(of, [&](int64_t chunk, int64_t first, int64_t last) {
    const Results results(of);
    for (int64_t n = first; n < last; n++) {
      Number* image = y + n * of.y_size();
      results.image(x + n * of.x_size(), packed.data(), image);
      if (mean) parts[chunk].add(moments(image, of.out_height() * of.out_width(), of.outputs));
    }
  });
  if (!mean) return;
  Moments all(of.outputs);
  for (const Moments& part : parts) all.add(part);
  for (int64_t c = 0; c < of.outputs; c++) {
    mean[c] = float(all.mean[c]);
    variance[c] = all.squares[c] / all.count;
  }
}

// (outputs, kernel, kernel, inputs) from the chunks' (kernel, kernel, outputs, inputs).
void add_chunks(const Shape& of, const float* chunks, float* dweight) {
  const int64_t taps = of.kernel * of.kernel;
#pragma omp parallel for num_threads(int(of.threads)) schedule(static) if (of.weights() > FEW)
  for (int64_t i = 0; i < of.outputs * taps; i++) {
    float* to = dweight + i * of.inputs;
    std::fill(to, to + of.inputs, 0.f);
    for (int64_t chunk = 0; chunk < of.chunks; chunk++) {
      const float* from = chunks + chunk * of.weights() + (i % taps * of.outputs + i / taps) * of.inputs;
      for (int64_t k = 0; k < of.inputs; k++) to[k] += from[k];
    }
  }
}

template <class Method>
void backward(const Shape& of, const Number* x, const Weights& weights, const Normalisation& norm, Number* dx,
              float* dweight) {
  using Results = typename Method::template Results<BACKWARD>;
  const int64_t pixels = of.out_height() * of.out_width(), size = of.y_size();
  const int64_t group = std::max<int64_t>(1, LONG / pixels);  // images that are taken together
  const auto packed = dx ? Results::packed(of, weights) : Buffer<Unit>(0);
  const Buffer<float> sums(dweight ? of.chunks * of.weights() : 0);
  each_chunk(of, [&](int64_t chunk, int64_t first, int64_t last) {
    const Buffer<Number> dy(group * size);
    const Results results(of);
    typename Method::WeightGradient gradient(of, group);
    for (int64_t n = first; n < last; n += group) {
      const int64_t images = std::min(group, last - n);
      norm.differentiate(n * pixels, images * pixels, of.outputs, dy.data());
      if (dweight) {
        Ahead ahead;
        const int64_t next = n + images, more = std::min(group, last - next);
        ahead.add(x + next * of.x_size(), more * of.x_size());
        ahead.add(norm.y + next * size, more * size);
        ahead.add(norm.gradient + next * size, more * size);
        gradient.add(images, x + n * of.x_size(), dy.data(), ahead);
      }
      for (int64_t i = 0; dx && i < images; i++)
        results.image(dy.data() + i * size, packed.data(), dx + (n + i) * of.x_size());
    }
    if (dweight) gradient.write(sums.data() + chunk * of.weights());
  });
  if (dweight) add_chunks(of, sums.data(), dweight);
}

}  // namespace

extern "C" {

// x: (images, height, width, inputs); weights: of these strides (outputs, inputs, kernel, kernel), float32;
// y: (images, out height, out width, outputs); mean, variance: (outputs) of y, if wanted.
void granprune_convolution_forward(const Shape* of, const Number* x, const float* weights, const int64_t* strides,
                                   Number* y, float* mean, double* variance) {
  with_method(*of, [&](auto method) {
    forward<decltype(method)>(*of, x, {weights, strides}, y, mean, variance);
  });
}

// dx, dweight: if wanted; dweight: (outputs, kernel, kernel, inputs).
void granprune_convolution_backward(const Shape* of, const Number* x, const float* weights, const int64_t* strides,
                                    const Normalisation* norm, Number* dx, float* dweight) {
  with_method(*of, [&](auto method) {
    backward<decltype(method)>(*of, x, {weights, strides}, *norm, dx, dweight);
  });
}

#if !defined(NARROW) && !defined(BFLOAT16)
// from: (pixels, have); to: (pixels, want); index: (want), negative for zeros.
void granprune_align(const float* from, int64_t pixels, int64_t have, int64_t want, const int32_t* index,
                     int64_t threads, float* to) {
  align(from, pixels, have, want, index, threads, to);
}
#endif
}
