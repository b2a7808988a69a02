"""Ground floor: official files in, data set out. Imports no JAX and nothing of medtok_jax."""
