// The densest stream of float32 multiply-adds that a core can compute: in registers only, with enough of
// them that none waits for the one before. The numbers are arguments: of what it knows, a compiler computes a
// part beforehand, and fewer multiply-adds are left than are counted.

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
constexpr int CHAINS = 12;  // 12 sums and two constants fit into 16 registers

typedef float vec __attribute__((vector_size(LANES * 4)));

extern "C" {

int chains() { return CHAINS; }

// Floating-point operations of one time: a multiplication and an addition in each lane of each sum.
int operations() { return 2 * LANES * CHAINS; }

// start: (chains). The result is returned so that no compiler leaves the work out.
float multiply_adds(long times, const float* start, float number) {
  vec sums[CHAINS];
  for (int c = 0; c < CHAINS; c++) sums[c] = vec{} + start[c];  // equal ones would be merged
  const vec factor = vec{} + number;
  for (long i = 0; i < times; i++) {
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sums[c] = sums[c] * factor + factor;
  }
  for (int c = 1; c < CHAINS; c++) sums[0] += sums[c];
  return sums[0][0];
}
}
