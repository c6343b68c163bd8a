/* Sixteen floats at a time with the vector extension of GCC and clang, whatever the processor has.
   IS_BF16 chooses how numbers are stored; arithmetic is fp32. */

#include <stdint.h>
#include <string.h>

#define W 16  /* floats per vector, tokens per block of keys */

typedef float vf __attribute__((vector_size(4 * W), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * W), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(4 * W), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(2 * W), aligned(2)));
#define INLINE static inline __attribute__((always_inline))

#if IS_BF16
typedef uint16_t stored;
INLINE vf load(const stored *p) {
    vh half;
    memcpy(&half, p, sizeof half);
    return (vf)(__builtin_convertvector(half, vu) << 16);
}
INLINE void store(stored *p, vf value) { /* to nearest, ties to even */
    vu bits = (vu)value;
    vh half = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, vh);
    memcpy(p, &half, sizeof half);
}
INLINE float get(const stored *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
#else
typedef float stored;
INLINE vf load(const stored *p) {
    vf value;
    memcpy(&value, p, sizeof value);
    return value;
}
INLINE void store(stored *p, vf value) { memcpy(p, &value, sizeof value); }
INLINE float get(const stored *p) { return *p; }
#endif

INLINE vf rounded(vf value) { /* as it would be stored */
    stored kept[W];
    store(kept, value);
    return load(kept);
}

INLINE vf load_score(const float *p) {
    vf value;
    memcpy(&value, p, sizeof value);
    return value;
}
INLINE void store_score(float *p, vf value) { memcpy(p, &value, sizeof value); }
INLINE vf choose(vi where, vf yes, vf no) { return (vf)(((vi)yes & where) | ((vi)no & ~where)); }

/* exp for x <= 0 within 2e-7 relative: 2^whole times a polynomial of the rest; 0 far below zero. */
INLINE vf exp_vector(vf x) {
    vi is_tiny = x < -87.0f;
    x = choose(is_tiny, x * 0.0f, x);
    vi whole = __builtin_convertvector(x * 1.44269504088896341f - 0.5f, vi); /* truncation rounds to nearest */
    vf n = __builtin_convertvector(whole, vf);
    vf rest = x - n * 0.693145751953125f - n * 1.42860682030941723e-6f;
    vf p = rest * (1.0f / 5040) + 1.0f / 720;
    p = p * rest + 1.0f / 120;
    p = p * rest + 1.0f / 24;
    p = p * rest + 1.0f / 6;
    p = p * rest + 0.5f;
    p = p * rest * rest + rest + 1.0f;
    vf value = (vf)((vi)p + (whole << 23));
    return choose(is_tiny, value * 0.0f, value);
}

INLINE vf sigmoid(vf x) {
    vi is_negative = x < 0.0f;
    vf decay = exp_vector(choose(is_negative, x, -x)); /* exp(-|x|), never above 1 */
    return choose(is_negative, decay, decay * 0.0f + 1.0f) / (decay + 1.0f);
}
