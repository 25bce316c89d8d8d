// Runs a pruned network described by tables, one chunk of inputs at a time.
//
// A feature map is a stack of planes, one a channel, with a row of zeros between planes. A weight of a
// convolution then reads its input at one fixed distance from the output, so a pruned layer is a list of
// {distance, weight} for each output channel: the loop over that list is the same whatever was pruned.
// A linear layer is a 1x1 convolution whose "pixels" are the images of a batch.
//
// Weights of a kernel's left and right column read one pixel to the side. Where a tile is as wide as the
// plane, they are summed in place and the sums are shifted once, so that every load is aligned; elsewhere
// rows are padded with zeros and the loads are shifted.
//
// The Python side (plan.py) writes the tables; the structures below are mirrored there.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define WIDEST 16
#elif defined(__AVX2__)
#define WIDEST 8
#else
#define WIDEST 4
#endif

enum Kind : int32_t { LOAD, SPLIT, WEIGHTS, COLUMNS, DENSE, MEAN, STORE, ROWS, BITS, MATRIX };
enum Activation : int32_t { LINEAR, RELU, TANH };
enum Part : int32_t { START = 1, FINISH = 2 };
constexpr int COLUMN = 3, GROUP = 4;

template <int N>
struct Tap {  // one weight; or the 3 of a kernel's column; or those of GROUP outputs that share an input
  int32_t offset;
  float weight[N];
};
struct Output {  // where an output plane is, what is added to it (residual < 0: nothing)
  int32_t target, residual;
  float bias;
};
struct Item {  // taps of a group of outputs: left column [0, 1), right column [1, 2), middle [2, 3)
  int32_t taps[4], output, part;
};
struct Step {  // positions, planes and rows are in floats from the start of the arena
  int32_t kind, activation, channels, height, width;
  int32_t source, source_plane, source_row, target, target_plane, target_row;
  int32_t items;
  const Item* item;
  const Output* output;
  const void* taps;
  const uint16_t* index;
};

namespace {

template <int V>
struct Lanes {
  typedef float vec __attribute__((vector_size(V * 4)));
  typedef float unaligned __attribute__((vector_size(V * 4), aligned(4), may_alias));
};
template <int V>
using vec = typename Lanes<V>::vec;

template <int V>
inline vec<V> load(const float* p) {
  return *reinterpret_cast<const typename Lanes<V>::unaligned*>(p);
}
template <int V>
inline void store(float* p, vec<V> value) {
  *reinterpret_cast<typename Lanes<V>::unaligned*>(p) = value;
}

// Lanes START, START + STEP, ... of a followed by b.
template <int V, int START, int STEP, size_t... I>
inline vec<V> pick(vec<V> a, vec<V> b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (START + I * STEP)...);
#else
  typedef int32_t lanes __attribute__((vector_size(V * 4)));
  return __builtin_shuffle(a, b, lanes{static_cast<int32_t>(START + I * STEP)...});
#endif
}
template <int V, int START, int STEP = 1>
inline vec<V> pick(vec<V> a, vec<V> b) {
  return pick<V, START, STEP>(a, b, std::make_index_sequence<V>());
}

// ---- activations --------------------------------------------------------------------------------------

// tanh as the continued fraction's rational function of degree 13/6, fitted on [-7.9, 7.9], beyond which
// float32 tanh is 1: error below 4 units in the last place. The same coefficients as Eigen's.
template <class F>
inline F rational_tanh(F x) {
  const F limit = F{} + 7.90531110763549805f;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  F s = x * x;
  F p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = p * s + -8.60467152213735e-11f;
  p = p * s + 5.12229709037114e-08f;
  p = p * s + 1.48572235717979e-05f;
  p = p * s + 6.37261928875436e-04f;
  p = p * s + 4.89352455891786e-03f;
  F q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = q * s + 2.26843463243900e-03f;
  q = q * s + 4.89352518554385e-03f;
  return x * p / q;
}

template <class F>
inline F activate(F x, int32_t activation) {
  const F zero = {};
  if (activation == RELU) return zero > x ? zero : x;  // keeps NaN, as torch does
  if (activation == TANH) return 1.7159f * rational_tanh<F>(0.6666f * x);
  return x;
}

// ---- convolution --------------------------------------------------------------------------------------
// A tile is T rows of X vectors of V pixels; N output channels are summed at once, in N * T * X registers.

template <int V, int X, int T, int N>
struct Tile {
  vec<V> sum[N][T][X];

  template <class F>
  inline void each(F f) {
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
#pragma GCC unroll 8
      for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int x = 0; x < X; x++) f(sum[n][t][x], n, t, x);
  }

  inline void add(const Tap<N>* tap, const Tap<N>* last, const float* base, intptr_t row) {
    for (; tap < last; ++tap) {
      const float* p = base + tap->offset;
#pragma GCC unroll 8
      for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int x = 0; x < X; x++) {
          const vec<V> pixels = load<V>(p + t * row + x * V);
#pragma GCC unroll 8
          for (int n = 0; n < N; n++) sum[n][t][x] += pixels * tap->weight[n];
        }
    }
  }

  // A column of a kernel: each input row is loaded once and used for up to three output rows.
  inline void add_columns(const Tap<COLUMN>* tap, const Tap<COLUMN>* last, const float* base, intptr_t row) {
    for (; tap < last; ++tap) {
      const float* p = base + tap->offset;
#pragma GCC unroll 16
      for (int r = 0; r < T + 2; r++)
#pragma GCC unroll 2
        for (int x = 0; x < X; x++) {
          const vec<V> pixels = load<V>(p + r * row + x * V);
#pragma GCC unroll 3
          for (int k = 0; k < 3; k++)
            if (r - k >= 0 && r - k < T) sum[0][r - k][x] += pixels * tap->weight[k];
        }
    }
  }

  template <int W>
  inline void add(const Step& s, int32_t first, int32_t last, const float* base) {
    const Tap<W>* taps = static_cast<const Tap<W>*>(s.taps);
    if constexpr (W == COLUMN) add_columns(taps + first, taps + last, base, s.target_row);
    else add(taps + first, taps + last, base, s.target_row);
  }
};

// A row of X vectors moved by one pixel, zeros moving in.
template <int V, int X>
inline void shift_right(vec<V> (&row)[X]) {
#pragma GCC unroll 2
  for (int x = X - 1; x >= 0; x--)
    row[x] = pick<V, V - 1>(x ? row[x - 1] : vec<V>{}, row[x]);
}
template <int V, int X>
inline void shift_left(vec<V> (&row)[X]) {
#pragma GCC unroll 2
  for (int x = 0; x < X; x++)
    row[x] = pick<V, 1>(row[x], x + 1 < X ? row[x + 1] : vec<V>{});
}

template <int V, int X, int T, int N, int W, bool WHOLE_ROWS>
void convolve_tile(const Step& s, float* base) {
  const intptr_t row = s.target_row;
  for (const Item* item = s.item; item < s.item + s.items; ++item) {
    const int32_t* taps = item->taps;
    const Output* output = s.output + item->output;
    Tile<V, X, T, N> tile = {};
    if (taps[0] < taps[2]) {
      tile.template add<W>(s, taps[0], taps[1], WHOLE_ROWS ? base : base - 1);
      if constexpr (WHOLE_ROWS) {
        Tile<V, X, T, N> left = tile;
        tile = {};
        tile.template add<W>(s, taps[1], taps[2], base);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++)
#pragma GCC unroll 8
          for (int t = 0; t < T; t++) {
            shift_right<V, X>(left.sum[n][t]);
            shift_left<V, X>(tile.sum[n][t]);
          }
        tile.each([&](vec<V>& sum, int n, int t, int x) { sum += left.sum[n][t][x]; });
      } else {
        tile.template add<W>(s, taps[1], taps[2], base + 1);
      }
    }
    const bool start = item->part & START;
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
      const int32_t from = start ? output[n].residual : output[n].target;
      const float bias = start ? output[n].bias : 0;
#pragma GCC unroll 8
      for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int x = 0; x < X; x++) {
          tile.sum[n][t][x] += bias;
          if (from >= 0) tile.sum[n][t][x] += load<V>(base + from + t * row + x * V);
        }
    }
    tile.template add<W>(s, taps[2], taps[3], base);
    const int32_t activation = item->part & FINISH ? s.activation : LINEAR;
    tile.each([&](vec<V>& sum, int n, int t, int x) {
      store<V>(base + output[n].target + t * row + x * V, activate<vec<V>>(sum, activation));
    });
  }
}

// Tiles that would stick out are moved back over their neighbours: no masks, no remainders.
template <int V, int X, int T, int N, int W, bool WHOLE_ROWS>
void convolve_tiles(const Step& s, float* arena, int height) {
  constexpr int lower = T > 4 ? 4 : 1;  // few heights: each is compiled
  if constexpr (T > 1)
    if (height < T) return convolve_tiles<V, X, lower, N, W, WHOLE_ROWS>(s, arena, height);
  for (int y = 0; y < height; y += T)
    for (int x = 0; x < s.width; x += V * X) {
      const int top = std::min(y, height - T), left = std::min(x, s.width - V * X);
      convolve_tile<V, X, T, N, W, WHOLE_ROWS>(s, arena + static_cast<intptr_t>(top) * s.target_row + left);
    }
}

template <int V, int T, int N, int W>
void convolve(const Step& s, float* arena, int height) {
  if constexpr (V < 4) {
    convolve_tiles<1, 1, 1, N, W, false>(s, arena, height);
  } else {
    const bool whole = s.target_row == s.width;
    const bool half_fits_better = V == 16 && (s.width + 15) / 16 * 2 > (s.width + 7) / 8;
    if constexpr (V == WIDEST)
      if (whole && s.width == 2 * V) return convolve_tiles<V, 2, T / 2, N, W, true>(s, arena, height);
    if (whole && s.width == V) return convolve_tiles<V, 1, T, N, W, true>(s, arena, height);
    if (s.width < V || half_fits_better) return convolve<V / 2, T, N, W>(s, arena, height);
    convolve_tiles<V, 1, T, N, W, false>(s, arena, height);
  }
}

// ---- moving data --------------------------------------------------------------------------------------

// Images (channels, height, width) into padded planes.
void load_images(const Step& s, float* arena, const float* x) {
  for (int c = 0; c < s.channels; c++)
    for (int y = 0; y < s.height; y++, x += s.width)
      std::memcpy(arena + s.target + c * s.target_plane + y * s.target_row, x, s.width * sizeof(float));
}

// The four images of even and odd rows and columns, as planes 4c .. 4c + 3: a stride of 2 becomes one of 1.
void split_row(const float* from, float* even, float* odd, int width) {
  int x = 0;
  for (; 2 * x + 16 <= width; x += 8) {
    const vec<8> a = load<8>(from + 2 * x), b = load<8>(from + 2 * x + 8);
    store<8>(even + x, pick<8, 0, 2>(a, b));
    store<8>(odd + x, pick<8, 1, 2>(a, b));
  }
  for (; x < width / 2; x++) {
    even[x] = from[2 * x];
    odd[x] = from[2 * x + 1];
  }
  if (width % 2) even[x] = from[2 * x];
}

void split(const Step& s, float* arena) {
  for (int c = 0; c < s.channels; c++)
    for (int y = 0; y < s.height; y++) {
      float* even = arena + s.target + (4 * c + 2 * (y % 2)) * s.target_plane + y / 2 * s.target_row;
      split_row(arena + s.source + c * s.source_plane + y * s.source_row, even, even + s.target_plane, s.width);
    }
}

void mean(const Step& s, float* arena) {
  for (int c = 0; c < s.channels; c++) {
    vec<8> sums = {};
    float rest = 0;
    for (int y = 0; y < s.height; y++) {
      const float* row = arena + s.source + c * s.source_plane + y * s.source_row;
      int x = 0;
      for (; x + 8 <= s.width; x += 8) sums += load<8>(row + x);
      for (; x < s.width; x++) rest += row[x];
    }
    for (int i = 0; i < 8; i++) rest += sums[i];
    arena[s.target + c] = rest / (s.height * s.width);
  }
}

// Matrix transposition in blocks that stay in the cache: a batch (n, channels) <-> planes of n values.
void transpose(const float* from, int rows, int columns, intptr_t from_row, float* to, intptr_t to_row) {
  constexpr int block = 16;
  for (int r0 = 0; r0 < rows; r0 += block)
    for (int c0 = 0; c0 < columns; c0 += block)
      for (int c = c0; c < c0 + block && c < columns; c++)
        for (int r = r0; r < r0 + block && r < rows; r++) to[c * to_row + r] = from[r * from_row + c];
}

// ---- matrix times vector ------------------------------------------------------------------------------

inline vec<4> gather(const float* x, const uint16_t* index) {
  return vec<4>{x[index[0]], x[index[1]], x[index[2]], x[index[3]]};
}
inline float total(vec<4> sum) { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }

inline float dot_row(const float* w, const uint16_t* index, int count, const float* x) {
  vec<4> even = {}, odd = {};
  int k = 0;
  for (; k + 8 <= count; k += 8) {
    even += load<4>(w + k) * gather(x, index + k);
    odd += load<4>(w + k + 4) * gather(x, index + k + 4);
  }
  float sum = total(even + odd);
  for (; k < count; k++) sum += w[k] * x[index[k]];
  return sum;
}

#if defined(__AVX2__)
// For each byte of bits and each of its lanes: which packed weight belongs there, or a negative number.
struct Places {
  int8_t of[256][8] = {};
  constexpr Places() {
    for (int bits = 0; bits < 256; bits++)
      for (int lane = 0, next = 0; lane < 8; lane++) of[bits][lane] = bits >> lane & 1 ? next++ : -1;
  }
};
constexpr Places places;

// Packed weights in their lanes, zero in the others.
inline vec<8> expand(const float* w, uint32_t bits) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(places.of[bits]));
  const __m256i place = _mm256_cvtepi8_epi32(bytes);
  const __m256 packed = _mm256_permutevar8x32_ps(_mm256_loadu_ps(w), place);
  return _mm256_blendv_ps(packed, _mm256_setzero_ps(), _mm256_castsi256_ps(place));
}
#else
inline vec<4> expand(const float* w, uint32_t bits) {
  vec<4> weights = {};
  for (int lane = 0; lane < 4; lane++)
    if (bits >> lane & 1) weights[lane] = *w++;
  return weights;
}
#endif

// One bit a weight says whether it is kept; kept weights are packed. `x` is padded to whole groups of 16.
inline float dot_bits(const float* w, const uint16_t* bits, int groups, const float* x) {
  constexpr int V = WIDEST < 8 ? WIDEST : 8;  // in vectors of 16 it takes longer
  vec<V> sums[2] = {};
  for (int g = 0; g < groups; g++)
#pragma GCC unroll 4
    for (int part = 0; part < 16; part += V) {
      const uint32_t kept = bits[g] >> part & ((1u << V) - 1);
      sums[part / V % 2] += expand(w, kept) * load<V>(x + 16 * g + part);
      w += __builtin_popcount(kept);
    }
  const vec<V> sum = sums[0] + sums[1];
  float total = 0;
  for (int i = 0; i < V; i++) total += sum[i];
  return total;
}

inline float dot(const float* w, int count, const float* x) {
  vec<WIDEST> sum[4] = {};
  int k = 0;
  for (; k + 4 * WIDEST <= count; k += 4 * WIDEST)
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) sum[i] += load<WIDEST>(w + k + i * WIDEST) * load<WIDEST>(x + k + i * WIDEST);
  sum[0] += sum[1] + (sum[2] + sum[3]);
  float total = 0;
  for (int i = 0; i < WIDEST; i++) total += sum[0][i];
  for (; k < count; k++) total += w[k] * x[k];
  return total;
}

void multiply(const Step& s, float* arena) {
  const float* x = arena + s.source;
  for (int i = 0; i < s.items; i++) {
    const Item& item = s.item[i];
    const int32_t first = item.taps[2], count = item.taps[3] - first;
    const Output& output = s.output[item.output];
    const float* w = static_cast<const float*>(s.taps) + first;
    float sum = output.bias;
    if (s.kind == ROWS) sum += dot_row(w, s.index + first, count, x);
    if (s.kind == BITS) sum += dot_bits(w, s.index + static_cast<intptr_t>(item.output) * s.width, s.width, x);
    if (s.kind == MATRIX) sum += dot(w, count, x);
    arena[output.target] = activate<vec<1>>(vec<1>{sum}, s.activation)[0];
  }
}

// ---- programs -----------------------------------------------------------------------------------------

struct Program {
  std::vector<Step> steps;
  size_t arena_floats;
  int64_t chunk;  // images a pass
  std::mutex mutex;
  std::vector<float*> arenas;  // those that no thread uses; the zeros around the planes are set once

  float* take() {
    std::lock_guard<std::mutex> lock(mutex);
    if (!arenas.empty()) {
      float* arena = arenas.back();
      arenas.pop_back();
      return arena;
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, arena_floats * sizeof(float))) return nullptr;
    return static_cast<float*>(std::memset(memory, 0, arena_floats * sizeof(float)));
  }
  void give(float* arena) {
    std::lock_guard<std::mutex> lock(mutex);
    arenas.push_back(arena);
  }
};

// What fits into 32 registers, or 16, leaving room for weights and pixels.
constexpr int ROWS_OF_ONE = 8, ROWS_OF_GROUP = WIDEST == 16 ? 4 : 2;

void run_chunk(const Program& program, float* arena, const float* x, float* y, int n) {
  for (const Step& s : program.steps) {
    // In a plane of a batch, the rows in use depend on the number of images.
    const int height = program.chunk > 1 ? (n + s.width - 1) / s.width : s.height;
    switch (s.kind) {
      case LOAD:
        if (program.chunk > 1) transpose(x, n, s.channels, s.channels, arena + s.target, s.target_plane);
        else load_images(s, arena, x);
        break;
      case STORE: transpose(arena + s.source, s.channels, n, s.source_plane, y, s.channels); break;
      case SPLIT: split(s, arena); break;
      case MEAN: mean(s, arena); break;
      case WEIGHTS: convolve<WIDEST, ROWS_OF_ONE, 1, 1>(s, arena, height); break;
      case COLUMNS: convolve<WIDEST, ROWS_OF_ONE, 1, COLUMN>(s, arena, height); break;
      case DENSE: convolve<WIDEST, ROWS_OF_GROUP, GROUP, GROUP>(s, arena, height); break;
      default: multiply(s, arena);
    }
  }
}

}  // namespace

extern "C" {

int granprune_lanes() { return WIDEST; }

void* granprune_open(const Step* steps, int64_t count, int64_t arena_floats, int64_t chunk) {
  Program* program = new Program;
  program->steps.assign(steps, steps + count);
  program->arena_floats = arena_floats;
  program->chunk = chunk;
  return program;
}

void granprune_close(void* handle) {
  Program* program = static_cast<Program*>(handle);
  for (float* arena : program->arenas) std::free(arena);
  delete program;
}

// x: (n, inputs) -> y: (n, outputs); 0, or 1 when memory ran out.
int granprune_run(void* handle, const float* x, float* y, int64_t n, int64_t inputs, int64_t outputs,
                  int64_t threads) {
  Program& program = *static_cast<Program*>(handle);
  // A batch smaller than all the threads' chunks is shared out in whole vectors of 16 images.
  const int64_t share = ((n + threads - 1) / threads + 15) / 16 * 16;
  const int64_t chunk = share < program.chunk ? share : program.chunk;
  const int64_t workers = std::min(threads, (n + chunk - 1) / chunk);
  std::atomic<int64_t> next{0};
  std::atomic<int> failed{0};
  auto work = [&] {
    float* arena = program.take();
    if (!arena) {
      failed = 1;
      return;
    }
    for (int64_t i; (i = next.fetch_add(chunk)) < n;) {
      const int64_t images = std::min(n - i, chunk);
      run_chunk(program, arena, x + i * inputs, y + i * outputs, static_cast<int>(images));
    }
    program.give(arena);
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < workers; i++) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads to be had: those there are do all the work
  }
  work();
  for (std::thread& other : others) other.join();
  return failed;
}
}
