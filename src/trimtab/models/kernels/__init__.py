"""Small compiled kernels for the CPU; everything works without them, slower."""
