/* Linear maps of a few rows by a bf16 weight, for processors that multiply bf16 (AVX-512 BF16). At 64 rows the
   library's own product reaches 60 to 80 % of what this one does: there a weight is used too few times to pay
   for a general kernel's preparations.

   A weight [width, size] lies in panels of W outputs: [width / W][size / 2][W][2], so that one vector holds two
   inputs of each output. A tile of at most ROWS rows by two panels keeps its sums in registers. */

#include <immintrin.h>

#include "vector.h"

#ifndef __AVX512BF16__
#error "this processor does not multiply bf16"
#endif

#define ROWS 13 /* 26 sums, two weights and one input: 29 of 32 registers */

/* A weight [width, size] as it is stored, into panels. */
void pack(const stored *weight, stored *packed, int64_t width, int64_t size) {
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < width / W; p++)
        for (int64_t k = 0; k < size; k += 2)
            for (int64_t j = 0; j < W; j++)
                memcpy(packed + (p * size + k) * W + 2 * j, weight + (p * W + j) * size + k, 2 * sizeof *weight);
}

typedef struct {
    vf low, high; /* of one row: a sum for each output of the first and of the second panel */
} sums;

INLINE vf dot(vf sum, int32_t inputs, __m512i weights) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(inputs), (__m512bh)weights);
}

/* `ahead` is what this thread reads next: memory is slower than one tile, and as fast as two. */
INLINE void multiply(const stored *x, const stored *low, const stored *high, const stored *ahead, int64_t size,
                     const int rows, sums *total) {
    const vf zero = {0};
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) total[r].low = total[r].high = zero;
    for (int64_t k = 0; k < size; k += 2) {
        __m512i first = _mm512_loadu_si512(low + k * W), second = _mm512_loadu_si512(high + k * W);
        _mm_prefetch((const char *)(ahead + k * W), _MM_HINT_T1);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            int32_t inputs;
            memcpy(&inputs, x + r * size + k, sizeof inputs);
            total[r].low = dot(total[r].low, inputs, first);
            total[r].high = dot(total[r].high, inputs, second);
        }
    }
}

/* A result in the model's precision, also where it is kept as fp32 to be added to the stream. */
INLINE void put(void *y, int64_t at, vf value, int64_t is_wide) {
    if (is_wide)
        store_score((float *)y + at, rounded(value));
    else
        store((stored *)y + at, value);
}

/* Columns `at` to `at` + 2W of y; with one panel left over, `high` is NULL. */
INLINE void linear_tile(const stored *x, const stored *low, const stored *high, const stored *ahead,
                        const stored *bias, void *y, int64_t at, int64_t is_wide, int64_t size, int64_t width,
                        const int rows) {
    sums total[ROWS];
    multiply(x, low, high ? high : low, ahead, size, rows, total);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        put(y, at + r * width, bias ? total[r].low + load(bias) : total[r].low, is_wide);
        if (high) put(y, at + r * width + W, bias ? total[r].high + load(bias + W) : total[r].high, is_wide);
    }
}

/* silu(gate) * up of the same inputs, each rounded as if it had been stored. */
INLINE void gated_tile(const stored *x, const stored *gate, const stored *up, const stored *ahead, stored *y,
                       int64_t size, int64_t width, const int rows) {
    sums total[ROWS];
    multiply(x, gate, up, ahead, size, rows, total);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        vf value = rounded(total[r].low);
        store(y + r * width, rounded(value * sigmoid(value)) * rounded(total[r].high));
    }
}

#define CASE(n, tile, ...)         \
    case n:                        \
        tile(__VA_ARGS__, n);      \
        break;
/* The number of rows must be known to the compiler for the sums to stay in registers. */
#define FOR_ROWS(count, ...)                                                                                \
    switch (count) {                                                                                        \
        CASE(1, __VA_ARGS__) CASE(2, __VA_ARGS__) CASE(3, __VA_ARGS__) CASE(4, __VA_ARGS__)                 \
        CASE(5, __VA_ARGS__) CASE(6, __VA_ARGS__) CASE(7, __VA_ARGS__) CASE(8, __VA_ARGS__)                 \
        CASE(9, __VA_ARGS__) CASE(10, __VA_ARGS__) CASE(11, __VA_ARGS__) CASE(12, __VA_ARGS__)              \
        CASE(13, __VA_ARGS__)                                                                               \
    }

/* y [rows, width] = x [rows, size] times the packed weight, plus `bias` [width] or NULL; y is fp32 if wide. */
void linear(const stored *x, const stored *weight, const stored *bias, void *y, int64_t rows, int64_t size,
            int64_t width, int64_t is_wide) {
    int64_t panels = width / W, tiles = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < panels; p += 2) {
        const stored *low = weight + p * size * W, *high = p + 1 < panels ? low + size * W : NULL;
        const stored *added = bias ? bias + p * W : NULL;
        for (int64_t t = 0; t < tiles; t++) { /* tiles of even height: 64 rows are 13, 13, 13, 13, 12 */
            int64_t first = t * rows / tiles, count = (t + 1) * rows / tiles - first;
            int64_t at = first * width + p * W;
            const stored *from = x + first * size, *ahead = low + (2 + t % 2) * size * W;
            FOR_ROWS(count, linear_tile, from, low, high, ahead, added, y, at, is_wide, size, width)
        }
    }
}

/* y [rows, width] = silu(x · gate) * (x · up), both packed [width, size]. */
void gated_linear(const stored *x, const stored *gate, const stored *up, stored *y, int64_t rows, int64_t size,
                  int64_t width) {
    int64_t tiles = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < width / W; p++) {
        for (int64_t t = 0; t < tiles; t++) {
            int64_t first = t * rows / tiles, count = (t + 1) * rows / tiles - first;
            const stored *from = x + first * size, *low = gate + p * size * W, *high = up + p * size * W;
            const stored *ahead = (t % 2 ? high : low) + size * W;
            stored *to = y + first * width + p * W;
            FOR_ROWS(count, gated_tile, from, low, high, ahead, to, size, width)
        }
    }
}
