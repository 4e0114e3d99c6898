// rounding.cpp - operations that are rounded correctly in a build that fuses products and sums and divides by reciprocals.
// Compiled apart, and not inlined, so that the kernels' flags can't reach them.

#include <math.h>

float pmkvq_add_rn(float a, float b) { return a + b; }
float pmkvq_mul_rn(float a, float b) { return a*b; }
float pmkvq_div_rn(float a, float b) { return a/b; }
float pmkvq_fma_rn(float a, float b, float c) { return fmaf(a, b, c); }

// ex2.approx.ftz: subnormal operands and results are zero
float pmkvq_exp2(float x) {
    const float tiny = 1.17549435e-38f; // the smallest normal number
    const float y    = exp2f(fabsf(x) < tiny ? 0.0f : x);
    return y < tiny ? 0.0f : y;
}
