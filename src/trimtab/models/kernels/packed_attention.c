/* Attention over a packed row and its gradients: every stretch sees itself causally, and the prefix of its unit
   before that, in one softmax. SIZE: numbers per head; IS_BF16: how tensors are stored; arithmetic is fp32.

   Tensors are token-major: q, out [T, heads, SIZE], k, v [T, kv_heads, SIZE]. A unit is some stretches that share
   a prefix: {first token of the prefix, its length, first stretch, number of stretches, place in `partial`}. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vector.h"

#define ROWS 32   /* queries that are worked on together */
#define TILE 4    /* rows of one product in registers, by at most four vectors */
#define WIDE (4 * W)
#define UNIT 5    /* numbers per unit */
#define PAD(n) (((n) + W - 1) / W * W)

INLINE void tile(int vectors, const float *a, int64_t row, int64_t column, const float *b, int64_t ldb, float *c,
                 int64_t ldc, int64_t depth, int is_added) {
    vf sums[TILE][4];
    for (int r = 0; r < TILE; r++)
        for (int v = 0; v < vectors; v++) sums[r][v] = is_added ? load_score(c + r * ldc + v * W) : (vf){0};
    for (int64_t k = 0; k < depth; k++)
        for (int r = 0; r < TILE; r++)
            for (int v = 0; v < vectors; v++) sums[r][v] += a[r * row + k * column] * load_score(b + k * ldb + v * W);
    for (int r = 0; r < TILE; r++)
        for (int v = 0; v < vectors; v++) store_score(c + r * ldc + v * W, sums[r][v]);
}

/* c [rows, columns] (+)= a [rows, depth] b [depth, columns]; a's strides say which way it lies, `panel` how far apart
   panels of WIDE columns of b are. Rows are a multiple of TILE, columns of W. */
static void product(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t row, int64_t column,
                    const float *b, int64_t ldb, int64_t panel, float *c, int64_t ldc, int is_added) {
    for (int64_t j = 0; j < columns; j += WIDE)
        for (int64_t r = 0; r < rows; r += TILE) {
            const float *left = a + r * row, *right = b + j / WIDE * panel;
            float *to = c + r * ldc + j;
            switch ((columns - j) / W) {
            case 1: tile(1, left, row, column, right, ldb, to, ldc, depth, is_added); break;
            case 2: tile(2, left, row, column, right, ldb, to, ldc, depth, is_added); break;
            case 3: tile(3, left, row, column, right, ldb, to, ldc, depth, is_added); break;
            default: tile(4, left, row, column, right, ldb, to, ldc, depth, is_added);
            }
        }
}

/* Room of one thread for the keys of a unit; kept from call to call. */
typedef struct {
    int64_t room; /* keys */
    float *k, *v, *k_turned, *v_turned, *probs, *slopes, *dk, *dv, *q, *dout, *result;
} scratch;

static __thread float *kept;
static __thread int64_t kept_room;

static scratch make_room(int64_t keys) {
    int64_t room = (keys / WIDE + 2) * WIDE, queries = ROWS * SIZE;
    if (room > kept_room) {
        free(kept);
        kept = malloc((6 * room * SIZE + 2 * ROWS * (room + W) + 3 * queries) * sizeof(float));
        kept_room = room;
    }
    int64_t wide = kept_room * SIZE;
    room = kept_room + W; /* an odd number of cache lines, so that rows do not fall on each other */
    float *p = kept + 6 * wide, *s = p + 2 * ROWS * room;
    return (scratch){room,          kept,          kept + wide,     kept + 2 * wide, kept + 3 * wide, p,
                     p + ROWS * room, kept + 4 * wide, kept + 5 * wide, s,               s + queries,     s + 2 * queries};
}

/* Where a key's first number lies among the turned ones: panels of WIDE keys, each [SIZE, WIDE]. */
INLINE int64_t turned_place(int64_t key) { return key / WIDE * (WIDE * SIZE) + key % WIDE; }

/* Bring tokens [start, start + count) of one kv head to columns [first, ...), with zeros after them. */
static void fetch(const stored *from, float *rows, float *turned, int64_t start, int64_t count,
                  int64_t first, int64_t head, int64_t heads) {
    for (int64_t t = 0; t < count; t++) {
        const stored *x = from + ((start + t) * heads + head) * SIZE;
        float *y = rows + (first + t) * SIZE;
        for (int64_t d = 0; d < SIZE; d += W) store_score(y + d, load(x + d));
        float *z = turned + turned_place(first + t);
        for (int64_t d = 0; d < SIZE; d++) z[d * WIDE] = y[d];
    }
    memset(rows + (first + count) * SIZE, 0, W * SIZE * sizeof(float));
    for (int64_t t = first + count; t < first + count + W; t++)
        for (int64_t d = 0; d < SIZE; d++) turned[turned_place(t) + d * WIDE] = 0;
}

static void fetch_both(const stored *k, const stored *v, const scratch *s, int64_t start, int64_t count, int64_t first,
                       int64_t head, int64_t heads) {
    fetch(k, s->k, s->k_turned, start, count, first, head, heads);
    fetch(v, s->v, s->v_turned, start, count, first, head, heads);
}

/* Queries (or gradients) of one head as fp32 rows, times `scale`; rows that do not exist are zero. */
static void fetch_rows(const stored *from, float *to, int64_t start, int64_t count, int64_t head, int64_t heads,
                       float scale) {
    for (int64_t r = 0; r < count; r++)
        for (int64_t d = 0; d < SIZE; d += W)
            store_score(to + r * SIZE + d, load(from + ((start + r) * heads + head) * SIZE + d) * scale);
    memset(to + count * SIZE, 0, (ROWS - count) * SIZE * sizeof(float));
}

INLINE vi lanes_from(int64_t first) {
    vi lane;
    for (int j = 0; j < W; j++) lane[j] = (int32_t)first + j;
    return lane;
}

static void softmax(float *scores, int64_t seen, int64_t width, float *sum, float *largest) {
    vf best = load_score(scores) * 0.0f - 1e30f, total = {0};
    for (int64_t j = 0; j < width; j += W) {
        vf value = choose(lanes_from(j) < (int32_t)seen, load_score(scores + j), best * 0.0f - 1e30f);
        store_score(scores + j, value);
        best = choose(value > best, value, best);
    }
    float most = best[0];
    for (int j = 1; j < W; j++) most = best[j] > most ? best[j] : most;
    for (int64_t j = 0; j < width; j += W) {
        vf weight = exp_vector(load_score(scores + j) - most);
        store_score(scores + j, weight);
        total += weight;
    }
    *sum = 0;
    for (int j = 0; j < W; j++) *sum += total[j];
    *largest = most;
}

static int64_t longest(const int64_t *unit, const int64_t *stretches) {
    int64_t most = 0;
    for (int64_t s = unit[2]; s < unit[2] + unit[3]; s++) most = stretches[2 * s + 1] > most ? stretches[2 * s + 1] : most;
    return unit[1] + most;
}

/* `stretches` {first token, length}; `sums` [T, heads]: log-sum-exp of the scores. */
void packed_forward(const stored *q, const stored *k, const stored *v, stored *out, float *sums, const int64_t *units,
                    const int64_t *stretches, int64_t num_units, int64_t heads, int64_t kv_heads, float scaling) {
    int64_t shared = heads / kv_heads;
#pragma omp parallel for schedule(dynamic)
    for (int64_t job = 0; job < num_units * kv_heads; job++) {
        const int64_t *unit = units + job / kv_heads * UNIT;
        int64_t kv_head = job % kv_heads, prefix = unit[1];
        scratch s = make_room(longest(unit, stretches));
        fetch_both(k, v, &s, unit[0], prefix, 0, kv_head, kv_heads);
        for (int64_t n = unit[2]; n < unit[2] + unit[3]; n++) {
            int64_t start = stretches[2 * n], length = stretches[2 * n + 1];
            fetch_both(k, v, &s, start, length, prefix, kv_head, kv_heads);
            for (int64_t head = kv_head * shared; head < (kv_head + 1) * shared; head++)
                for (int64_t first = 0; first < length; first += ROWS) {
                    int64_t rows = length - first < ROWS ? length - first : ROWS, width = PAD(prefix + first + rows);
                    int64_t whole = (rows + TILE - 1) / TILE * TILE;
                    float total[ROWS] = {0}, most[ROWS] = {0};
                    fetch_rows(q, s.q, start + first, rows, head, heads, scaling);
                    product(whole, width, SIZE, s.q, SIZE, 1, s.k_turned, WIDE, WIDE * SIZE, s.probs, s.room, 0);
                    for (int64_t r = 0; r < rows; r++)
                        softmax(s.probs + r * s.room, prefix + first + r + 1, width, total + r, most + r);
                    product(whole, SIZE, width, s.probs, s.room, 1, s.v, SIZE, WIDE, s.result, SIZE, 0);
                    for (int64_t r = 0; r < rows; r++) {
                        int64_t place = (start + first + r) * heads + head;
                        for (int64_t d = 0; d < SIZE; d += W)
                            store(out + place * SIZE + d, load_score(s.result + r * SIZE + d) / total[r]);
                        sums[place] = most[r] + logf(total[r]);
                    }
                }
        }
    }
}

/* Probabilities of one row from its log-sum-exp, and the slopes of the scores: probs (slopes - delta). */
static void differentiate(float *probs, float *slopes, int64_t seen, int64_t width, float logsumexp, float delta) {
    for (int64_t j = 0; j < width; j += W) {
        vf above = load_score(probs + j) - logsumexp;
        vf weight = exp_vector(choose(above > 0.0f, above * 0.0f, above));
        weight = choose(lanes_from(j) < (int32_t)seen, weight, weight * 0.0f);
        store_score(probs + j, weight);
        store_score(slopes + j, weight * (load_score(slopes + j) - delta));
    }
}

/* Write the gradients of one kv head's tokens: `count` rows to `to` [.., kv_heads, SIZE]. */
static void put(const float *rows, float *to, int64_t start, int64_t count, int64_t head, int64_t heads) {
    for (int64_t t = 0; t < count; t++)
        memcpy(to + ((start + t) * heads + head) * SIZE, rows + t * SIZE, SIZE * sizeof(float));
}

/* Gradients: `dq` as stored, `dk`, `dv` [T, kv_heads, SIZE] of each stretch's own tokens, `dk_partial`, `dv_partial`
   of the prefix of each unit that has one, at the unit's place. */
void packed_backward(const stored *q, const stored *k, const stored *v, const stored *out, const float *sums,
                     const stored *dout, stored *dq, float *dk, float *dv, float *dk_partial, float *dv_partial,
                     const int64_t *units, const int64_t *stretches, int64_t num_units, int64_t heads,
                     int64_t kv_heads, float scaling) {
    int64_t shared = heads / kv_heads;
#pragma omp parallel for schedule(dynamic)
    for (int64_t job = 0; job < num_units * kv_heads; job++) {
        const int64_t *unit = units + job / kv_heads * UNIT;
        int64_t kv_head = job % kv_heads, prefix = unit[1];
        scratch s = make_room(longest(unit, stretches));
        fetch_both(k, v, &s, unit[0], prefix, 0, kv_head, kv_heads);
        memset(s.dk, 0, prefix * SIZE * sizeof(float));
        memset(s.dv, 0, prefix * SIZE * sizeof(float));
        for (int64_t n = unit[2]; n < unit[2] + unit[3]; n++) {
            int64_t start = stretches[2 * n], length = stretches[2 * n + 1];
            fetch_both(k, v, &s, start, length, prefix, kv_head, kv_heads);
            memset(s.dk + prefix * SIZE, 0, (length + W) * SIZE * sizeof(float));
            memset(s.dv + prefix * SIZE, 0, (length + W) * SIZE * sizeof(float));
            for (int64_t head = kv_head * shared; head < (kv_head + 1) * shared; head++)
                for (int64_t first = 0; first < length; first += ROWS) {
                    int64_t rows = length - first < ROWS ? length - first : ROWS, width = PAD(prefix + first + rows);
                    int64_t whole = (rows + TILE - 1) / TILE * TILE;
                    fetch_rows(q, s.q, start + first, rows, head, heads, scaling);
                    fetch_rows(dout, s.dout, start + first, rows, head, heads, 1.0f);
                    product(whole, width, SIZE, s.q, SIZE, 1, s.k_turned, WIDE, WIDE * SIZE, s.probs, s.room, 0);
                    product(whole, width, SIZE, s.dout, SIZE, 1, s.v_turned, WIDE, WIDE * SIZE, s.slopes, s.room, 0);
                    for (int64_t r = 0; r < rows; r++) {
                        int64_t place = (start + first + r) * heads + head;
                        vf dots = {0};
                        for (int64_t d = 0; d < SIZE; d += W)
                            dots += load_score(s.dout + r * SIZE + d) * load(out + place * SIZE + d);
                        float delta = 0;
                        for (int j = 0; j < W; j++) delta += dots[j];
                        differentiate(s.probs + r * s.room, s.slopes + r * s.room, prefix + first + r + 1, width,
                                      sums[place], delta);
                    }
                    product(whole, SIZE, width, s.slopes, s.room, 1, s.k, SIZE, WIDE, s.result, SIZE, 0);
                    product(width, SIZE, rows, s.slopes, 1, s.room, s.q, SIZE, WIDE, s.dk, SIZE, 1);
                    product(width, SIZE, rows, s.probs, 1, s.room, s.dout, SIZE, WIDE, s.dv, SIZE, 1);
                    for (int64_t r = 0; r < rows; r++)
                        for (int64_t d = 0; d < SIZE; d += W)
                            store(dq + ((start + first + r) * heads + head) * SIZE + d,
                                  load_score(s.result + r * SIZE + d) * scaling);
                }
            put(s.dk + prefix * SIZE, dk, start, length, kv_head, kv_heads);
            put(s.dv + prefix * SIZE, dv, start, length, kv_head, kv_heads);
        }
        put(s.dk, dk_partial, unit[4], prefix, kv_head, kv_heads);
        put(s.dv, dv_partial, unit[4], prefix, kv_head, kv_heads);
    }
}
