/* The largest error of exp_diff in float32, over all 2^32 inputs: for a float v < 0 it is exp(v - 0),
   for the others exp(0 - v), so that each difference comes through both operands. The yardstick is
   the C library's exp in double. Prints two numbers: the error of normal results in ULP, that of
   subnormal ones in units of the smallest; ends with status 1 where a NaN or a limit is wrong.
   Compiled by test_accuracy.py with -DSTUB="smx_<isa>.c" and -Isrc. */
#include STUB
int smx_tiles_allowed(void) { return 0; } /* the table of avx512 asks */
#include <stdio.h>

#define LANES (int)(SMX_VBYTES / 4)

int main(void) {
    double worst[2] = {0, 0};
    for (uint64_t first = 0; first < (uint64_t)1 << 32; first += LANES) {
        float x[LANES], m[LANES], got[LANES];
        for (int i = 0; i < LANES; i++) {
            const uint32_t bits = (uint32_t)first + i;
            float v;
            memcpy(&v, &bits, 4);
            x[i] = bits >> 31 ? v : 0;
            m[i] = bits >> 31 ? 0 : v;
        }
        V_f32 v = load_f32(x);
        const exp_of_f32 of = exp_start_f32(load_f32(m));
        exp_diff_f32(1, &v, &of);
        store_f32(got, v);
        for (int i = 0; i < LANES; i++) {
            const double d = isinf(m[i]) ? NAN : (double)x[i] - m[i], right = exp(d);
            if (d != d || d == -INFINITY || d < -104) {
                if (d != d ? got[i] == got[i] : got[i] != 0) {
                    printf("exp(%a) = %a  x %a m %a\n", d, got[i], x[i], m[i]);
                    return 1;
                }
                continue;
            }
            const int normal = right >= 0x1p-126;
            int exponent;
            frexp(right, &exponent);
            const double unit = normal ? ldexp(1, exponent - 24) : 0x1p-149;
            const double error = fabs(got[i] - right) / unit;
            if (!(error <= worst[!normal])) worst[!normal] = error;
        }
    }
    printf("%.4f %.4f\n", worst[0], worst[1]);
    return 0;
}
