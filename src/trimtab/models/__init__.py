"""Models: loading, scoring tokens, value and reward heads, the optimizer, and the attention seam."""
