// Channels of one feature map in the order of another one.

#pragma once

#include "vectors.h"

namespace {

// to[pixel, c] = from[pixel, index[c]], or zero where index[c] is negative; at most 4 vectors of channels each.
void align(const float* from, int64_t pixels, int64_t have, int64_t want, const int32_t* index, int64_t threads,
           float* to) {
  constexpr int MOST = 4;
  __m512i places[MOST];
  __mmask16 lanes[MOST][MOST] = {};  // of a vector of results that come from a vector of operands
  for (int64_t v = 0; v * LANES < want; v++) {
    alignas(64) int32_t place[LANES] = {};
    for (int64_t lane = 0; lane < std::min<int64_t>(LANES, want - v * LANES); lane++) {
      const int32_t source = index[v * LANES + lane];
      if (source < 0) continue;
      place[lane] = source % LANES;
      lanes[v][source / LANES] |= __mmask16(1 << lane);
    }
    places[v] = _mm512_load_si512(place);
  }
#pragma omp parallel for num_threads(int(threads)) schedule(static)
  for (int64_t t = 0; t < threads; t++)
    for (int64_t p = pixels * t / threads; p < pixels * (t + 1) / threads; p++) {
      __m512 sources[MOST];
      for (int64_t s = 0; s * LANES < have; s++) sources[s] = (__m512)load(from + p * have + s * LANES, have - s * LANES);
      for (int64_t v = 0; v * LANES < want; v++) {
        __m512 result = _mm512_setzero_ps();
        for (int64_t s = 0; s * LANES < have; s++)
          result = _mm512_mask_permutexvar_ps(result, lanes[v][s], places[v], sources[s]);
        store(to + p * want + v * LANES, (Vector)result, want - v * LANES);
      }
    }
}

}  // namespace
