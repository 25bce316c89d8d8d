// The densest stream of float32 multiply-adds that a core can compute: in registers only, with enough of
// them that none waits for the one before.

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

// Floating-point operations of one time: a multiplication and an addition in each lane of each sum.
int operations() { return 2 * LANES * CHAINS; }

// The result is returned so that no compiler leaves the work out.
float multiply_adds(long times) {
  vec sums[CHAINS];
  for (int c = 0; c < CHAINS; c++) sums[c] = vec{} + static_cast<float>(c);  // equal ones would be merged
  const vec factor = vec{} + 0.5f;
  for (long i = 0; i < times; i++) {
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sums[c] = sums[c] * factor + factor;
  }
  for (int c = 1; c < CHAINS; c++) sums[0] += sums[c];
  return sums[0][0];
}
}
