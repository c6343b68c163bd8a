/* One decode step of attention, and the norm beside it, for CPUs. build.py compiles it on first use.

   Specialised by macros: IS_BF16 (storage; arithmetic is fp32), HEAD_SIZE, GROUP (query heads per key head).
   Keys lie in blocks of sixteen tokens, [block][HEAD_SIZE][16], so that the scores of sixteen tokens grow side
   by side and nothing is summed across a vector. Values lie as [token][HEAD_SIZE]. */

#include <math.h>
#include <omp.h>
#include <stdint.h>

#include "vector.h"

#define D HEAD_SIZE
#define PARTS (D / W)
#define AT_ONCE 4 /* query heads whose sums stay in registers together */

/* R rows, Hq and Hkv heads. `own_lengths` do not count the new token, which `attend` appends. */
typedef struct {
    const stored *query, *key, *value;          /* [R, Hq, D], [R, Hkv, D], [R, Hkv, D] */
    stored *output;                             /* [R, Hq, D] */
    stored *own_keys, *own_values;              /* [R, Hkv, own_room, D] */
    const stored *prompt_keys, *prompt_values;  /* [slots, Hkv, prompt_room, D] */
    const int64_t *slots, *prompt_lengths, *own_lengths; /* [R] */
    float *scratch;                             /* [threads, AT_ONCE, scratch_room] */
    int64_t rows, key_heads, own_room, prompt_room, scratch_room, window, threads; /* window 0: none */
    float scaling, softcap;                     /* softcap 0: none */
} Step;

/* Products of n queries [n][D] with `count` keys, in whole blocks. Two blocks at a time hide the latency.
   `ahead` is how far the next row's keys lie from these: they are asked for meanwhile, being read only once. */
INLINE void multiply(
    const float *q, const stored *keys, int64_t count, int n, float *out, int64_t room, int64_t ahead
) {
    int64_t blocks = (count + W - 1) / W, b = 0;
    for (; b + 1 < blocks; b += 2) {
        vf left[AT_ONCE] = {0}, right[AT_ONCE] = {0};
        const stored *k = keys + b * W * D;
        for (int d = 0; d < D; d++) {
            if (ahead) __builtin_prefetch(k + ahead + d * 2 * W);
            vf x = load(k + d * W), y = load(k + (D + d) * W);
            for (int i = 0; i < n; i++) {
                left[i] += x * q[i * D + d];
                right[i] += y * q[i * D + d];
            }
        }
        for (int i = 0; i < n; i++) {
            store_score(out + i * room + b * W, left[i]);
            store_score(out + i * room + b * W + W, right[i]);
        }
    }
    if (b < blocks) {
        vf left[AT_ONCE] = {0};
        for (int d = 0; d < D; d++) {
            if (ahead && d % 2 == 0) __builtin_prefetch(keys + ahead + (b * D + d) * W);
            vf x = load(keys + (b * D + d) * W);
            for (int i = 0; i < n; i++) left[i] += x * q[i * D + d];
        }
        for (int i = 0; i < n; i++) store_score(out + i * room + b * W, left[i]);
    }
}

/* Scores [total] become weights in place; returns their sum. Unseen entries are -inf. */
INLINE float weigh(float *x, int64_t total, float scaling, float softcap) {
    if (softcap > 0) {
        for (int64_t t = 0; t < total; t++)
            if (x[t] > -INFINITY) x[t] = tanhf(x[t] * scaling / softcap) * softcap;
        scaling = 1.0f;
    }
    vf top = load_score(x), sum = {0};
    for (int64_t t = W; t < total; t += W) {
        vf y = load_score(x + t);
        top = choose(y > top, y, top);
    }
    float highest = top[0], result = 0;
    for (int j = 1; j < W; j++) highest = top[j] > highest ? top[j] : highest;
    for (int64_t t = 0; t < total; t += W) {
        vf y = exp_vector((load_score(x + t) - highest) * scaling);
        sum += y;
        store_score(x + t, y);
    }
    for (int j = 0; j < W; j++) result += sum[j];
    return result;
}

INLINE void add_values(
    const float *weights, int64_t room, const stored *values, int64_t first, int64_t end, int n,
    vf sums[AT_ONCE][PARTS], int64_t ahead
) {
    for (int64_t t = first; t < end; t++)
        for (int d = 0; d < PARTS; d++) {
            if (ahead && d * W * sizeof(stored) % 64 == 0) __builtin_prefetch(values + ahead + t * D + d * W);
            vf x = load(values + t * D + d * W);
            for (int i = 0; i < n; i++) sums[i][d] += x * weights[i * room + t];
        }
}

INLINE int64_t whole_blocks(int64_t count) { return (count + W - 1) / W * W; }

INLINE void hide(float *x, int64_t from, int64_t to) {
    for (int64_t t = from; t < to; t++) x[t] = -INFINITY;
}

/* n query heads of one row that share a key head, from its query head `first` on. */
INLINE void attend_heads(const Step *s, int64_t row, int64_t head, int first, int n, float *scores) {
    int64_t prompt = s->prompt_lengths[row], own = s->own_lengths[row] + 1, room = s->scratch_room;
    int64_t prompt_at = (s->slots[row] * s->key_heads + head) * s->prompt_room * D;
    int64_t own_at = (row * s->key_heads + head) * s->own_room * D;
    int64_t query_at = ((row * s->key_heads + head) * GROUP + first) * D;
    int64_t unseen = s->window > 0 && prompt + own > s->window ? prompt + own - s->window : 0;
    int64_t unseen_prompt = unseen < prompt ? unseen : prompt, unseen_own = unseen - unseen_prompt;
    int64_t width = whole_blocks(prompt), total = width + whole_blocks(own);
    int64_t ahead = row + 1 < s->rows ? s->key_heads * s->own_room * D : 0;
    float q[AT_ONCE * D], weight[AT_ONCE];
    for (int i = 0; i < n * D; i++) q[i] = get(s->query + query_at + i);
    multiply(q, s->prompt_keys + prompt_at, prompt, n, scores, room, 0);
    multiply(q, s->own_keys + own_at, own, n, scores + width, room, ahead);
    for (int i = 0; i < n; i++) {
        float *x = scores + i * room;
        hide(x, 0, unseen_prompt);
        hide(x, prompt, width + unseen_own);
        hide(x, width + own, total);
        weight[i] = weigh(x, total, s->scaling, s->softcap);
    }
    vf sums[AT_ONCE][PARTS] = {0};
    add_values(scores, room, s->prompt_values + prompt_at, unseen_prompt, prompt, n, sums, 0);
    add_values(scores + width, room, s->own_values + own_at, unseen_own, own, n, sums, ahead);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < PARTS; d++) store(s->output + query_at + i * D + d * W, sums[i][d] / weight[i]);
}

INLINE void append(const Step *s, int64_t row, int64_t head) {
    int64_t t = s->own_lengths[row], new_at = (row * s->key_heads + head) * D;
    int64_t own_at = (row * s->key_heads + head) * s->own_room * D;
    stored *keys = s->own_keys + own_at + t / W * W * D + t % W;
    for (int d = 0; d < D; d++) keys[d * W] = s->key[new_at + d];
    memcpy(s->own_values + own_at + t * D, s->value + new_at, D * sizeof(stored));
}

/* As many threads as `scratch` has room for: the runtime that is linked here may know of another number. */
void attend(const Step *s) {
#pragma omp parallel for schedule(static) num_threads((int)s->threads)
    for (int64_t unit = 0; unit < s->rows * s->key_heads; unit++) {
        /* Rows of a group run one after another, so that their prompt stays in the cache. */
        int64_t head = unit / s->rows, row = unit % s->rows;
        float *scores = s->scratch + (int64_t)omp_get_thread_num() * AT_ONCE * s->scratch_room;
        append(s, row, head);
        for (int first = 0; first < GROUP / AT_ONCE * AT_ONCE; first += AT_ONCE)
            attend_heads(s, row, head, first, AT_ONCE, scores);
        if (GROUP % AT_ONCE) attend_heads(s, row, head, GROUP / AT_ONCE * AT_ONCE, GROUP % AT_ONCE, scores);
    }
}
