/* The small steps between the matrix products, each in one pass instead of three to seven, and their gradients.
   IS_BF16: how the model stores numbers. The stream that the layers add to stays fp32, so a norm reads fp32. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "vector.h"

INLINE float sum_of(vf value) {
    float sum = 0;
    for (int j = 0; j < W; j++) sum += value[j];
    return sum;
}

/* Root-mean-square norm times the weight; `scales` keeps one over the root mean square of each row. */
void rms_norm(const float *input, const stored *weight, stored *output, float *scales, int64_t rows, int64_t size,
              float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = input + r * size;
        stored *y = output + r * size;
        vf squares = {0};
        for (int64_t d = 0; d < size; d += W) squares += load_score(x + d) * load_score(x + d);
        float scale = 1.0f / sqrtf(sum_of(squares) / size + eps);
        scales[r] = scale;
        for (int64_t d = 0; d < size; d += W) store(y + d, load_score(x + d) * scale * load(weight + d));
    }
}

/* Its gradients: `dinput` like the input, `dweight [ceil(rows / block), size]` in parts that add up. */
void rms_norm_backward(const float *input, const stored *weight, const float *scales, const stored *grad,
                       float *dinput, float *dweight, int64_t rows, int64_t size, int64_t block) {
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < rows; first += block) {
        float *dw = dweight + first / block * size;
        memset(dw, 0, size * sizeof(float));
        for (int64_t r = first; r < rows && r < first + block; r++) {
            const float *x = input + r * size;
            const stored *g = grad + r * size;
            float *dx = dinput + r * size;
            vf dots = {0};
            for (int64_t d = 0; d < size; d += W) dots += load(g + d) * load(weight + d) * load_score(x + d);
            float scale = scales[r], pull = scale * scale * scale * (sum_of(dots) / size);
            for (int64_t d = 0; d < size; d += W) {
                vf value = load_score(x + d), slope = load(g + d) * scale;
                store_score(dx + d, slope * load(weight + d) - value * pull);
                store_score(dw + d, load_score(dw + d) + slope * value);
            }
        }
    }
}

/* silu(gate) * up, `count` numbers (a multiple of W); silu is rounded before the product, as transformers does. */
void silu_multiply(const stored *gate, const stored *up, stored *output, int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += W) {
        vf x = load(gate + i);
        store(output + i, rounded(x * sigmoid(x)) * load(up + i));
    }
}

void silu_multiply_backward(const stored *gate, const stored *up, const stored *grad, stored *dgate, stored *dup,
                            int64_t count) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i += W) {
        vf x = load(gate + i), g = load(grad + i), s = sigmoid(x);
        store(dup + i, g * x * s);
        store(dgate + i, g * load(up + i) * s * (x * (1.0f - s) + 1.0f));
    }
}

/* Rotary positions: x, y [rows, heads, size] (may be the same), cosine and sine [rows, size]. `is_backward`: the
   transpose of the rotation, which is its gradient. */
void rotate(const stored *x, stored *y, const float *cosine, const float *sine, int64_t rows, int64_t heads,
            int64_t size, int64_t is_backward) {
    int64_t half = size / 2;
#pragma omp parallel for schedule(static)
    for (int64_t unit = 0; unit < rows * heads; unit++) {
        const stored *from = x + unit * size;
        stored *to = y + unit * size;
        const float *c = cosine + unit / heads * size, *s = sine + unit / heads * size;
        for (int64_t d = 0; d < half; d += W) {
            vf low = load(from + d), high = load(from + half + d);
            vf s_low = load_score(s + d), s_high = load_score(s + half + d);
            vf a = is_backward ? -s_high : s_low, b = is_backward ? -s_low : s_high;
            store(to + d, low * load_score(c + d) - high * a);
            store(to + half + d, high * load_score(c + half + d) + low * b);
        }
    }
}
