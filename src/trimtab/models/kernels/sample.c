/* Draw one token per row by inverse CDF, straight from the logits: no copy of the vocabulary is made.
   IS_BF16: storage of the logits; weights are fp32, their sums fp64. */

#include <math.h>
#include <stdint.h>

#include "vector.h"

#define BLOCK 256 /* tokens whose weights are summed together: find the block, then search inside it */

/* Weight of every token of a block, less those in `barred`; returns their sum. */
INLINE double weigh_block(
    const stored *x, int64_t first, int64_t end, float top, float scale, const int64_t *barred, int64_t num_barred, float *weights
) {
    vf sums = {0};
    int64_t i = first;
    for (; i + W <= end; i += W) {
        vf w = exp_vector((load(x + i) - top) * scale);
        memcpy(weights + (i - first), &w, sizeof w);
        sums += w;
    }
    double sum = 0;
    for (int j = 0; j < W; j++) sum += sums[j];
    for (; i < end; i++) sum += weights[i - first] = expf((get(x + i) - top) * scale);
    int is_cut = 0;
    for (int64_t j = 0; j < num_barred; j++)
        if (barred[j] >= first && barred[j] < end) {
            weights[barred[j] - first] = 0;
            is_cut = 1;
        }
    if (is_cut) { /* summed again, since taking a large weight off would leave its rounding */
        sum = 0;
        for (i = 0; i < end - first; i++) sum += weights[i];
    }
    return sum;
}

INLINE float highest(const stored *x, int64_t size) {
    float top = get(x);
    int64_t i = 0;
    if (size >= W) {
        vf tops = load(x);
        for (i = W; i + W <= size; i += W) {
            vf y = load(x + i);
            tops = choose(y > tops, y, tops);
        }
        for (int j = 0; j < W; j++) top = tops[j] > top ? tops[j] : top;
    }
    for (; i < size; i++) top = get(x + i) > top ? get(x + i) : top;
    return top;
}

/* logits [rows, size]; uniforms [rows] in [0, 1); is_barred [rows] says where the `num_ends` tokens in `ends` may
   not be drawn. `sums` is scratch [rows, size / BLOCK + 1]. logprobs are of softmax(logits * scale),
   drawn_logprobs of what was drawn from. Returns the number of rows whose logits are not finite. */
int64_t draw_rows(
    const stored *logits, const double *uniforms, const uint8_t *is_barred, const int64_t *ends, int64_t num_ends,
    float scale, int64_t rows, int64_t size, double *sums, int64_t *tokens, float *logprobs, float *drawn_logprobs
) {
    int64_t num_blocks = (size + BLOCK - 1) / BLOCK, num_bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : num_bad)
    for (int64_t r = 0; r < rows; r++) {
        const stored *x = logits + r * size;
        double *block_sums = sums + r * num_blocks, total = 0, barred_weight = 0;
        float weights[BLOCK], top = highest(x, size);
        int64_t num_barred = is_barred[r] ? num_ends : 0;
        for (int64_t b = 0; b < num_blocks; b++) {
            int64_t end = (b + 1) * BLOCK < size ? (b + 1) * BLOCK : size;
            total += block_sums[b] = weigh_block(x, b * BLOCK, end, top, scale, ends, num_barred, weights);
        }
        for (int64_t j = 0; j < num_barred; j++) barred_weight += expf((get(x + ends[j]) - top) * scale);
        if (!(total > 0) || !isfinite(total) || !isfinite(top)) {
            num_bad++;
            tokens[r] = 0;
            continue;
        }
        double target = uniforms[r] * total, passed = 0;
        int64_t block = 0, last = num_blocks - 1;
        while (last > 0 && block_sums[last] <= 0) last--; /* rounding may leave the target at the very end */
        while (block < last && passed + block_sums[block] <= target) passed += block_sums[block++];
        int64_t first = block * BLOCK, end = first + BLOCK < size ? first + BLOCK : size, token = -1;
        weigh_block(x, first, end, top, scale, ends, num_barred, weights);
        for (int64_t i = 0; i < end - first; i++) {
            if (weights[i] <= 0) continue;
            token = i; /* the last one with weight takes what rounding leaves */
            passed += weights[i];
            if (passed > target) break;
        }
        tokens[r] = first + token;
        double score = (get(x + tokens[r]) - top) * scale;
        logprobs[r] = (float)(score - log(total + barred_weight));
        drawn_logprobs[r] = (float)(score - log(total));
    }
    return num_bad;
}
