/* The small steps between the matrix products of a decode step, each in one pass instead of three to seven.
   They round where transformers rounds, so that sampling says what the learner computes. IS_BF16: storage. */

#include <math.h>
#include <stdint.h>

#include "vector.h"

/* Root-mean-square norm: the normalised row is rounded, then multiplied by the weight and rounded again. */
void rms_norm(const stored *input, const stored *weight, stored *output, int64_t rows, int64_t size, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const stored *x = input + r * size;
        stored *y = output + r * size;
        vf squares = {0};
        for (int64_t d = 0; d < size; d += W) squares += load(x + d) * load(x + d);
        float sum = 0;
        for (int j = 0; j < W; j++) sum += squares[j];
        float scale = 1.0f / sqrtf(sum / size + eps);
        for (int64_t d = 0; d < size; d += W) {
            store(y + d, load(x + d) * scale);
            store(y + d, load(y + d) * load(weight + d));
        }
    }
}

/* silu(gate) * up, `count` numbers (a multiple of W); silu is rounded before the product. */
void silu_multiply(const stored *gate, const stored *up, stored *output, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count / W; i++) {
        vf x = load(gate + i * W);
        vi is_negative = x < 0.0f;
        vf decay = exp_vector(choose(is_negative, x, -x)); /* exp(-|x|), never above 1 */
        store(output + i * W, x * choose(is_negative, decay, decay * 0.0f + 1.0f) / (decay + 1.0f));
        store(output + i * W, load(output + i * W) * load(up + i * W));
    }
}

/* Rotary positions in place for one token per row: x [R, heads, size], cosine and sine [R, size]. */
void rotate(stored *x, const stored *cosine, const stored *sine, int64_t rows, int64_t heads, int64_t size) {
    int64_t half = size / 2;
#pragma omp parallel for schedule(static)
    for (int64_t unit = 0; unit < rows * heads; unit++) {
        stored *p = x + unit * size;
        const stored *c = cosine + unit / heads * size, *s = sine + unit / heads * size;
        for (int64_t d = 0; d < half; d += W) {
            vf low = load(p + d), high = load(p + half + d);
            vf a = rounded(low * load(c + d)), b = rounded(-high * load(s + d));
            vf e = rounded(high * load(c + half + d)), f = rounded(low * load(s + half + d));
            store(p + d, a + b);
            store(p + half + d, e + f);
        }
    }
}
