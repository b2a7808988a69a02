"""Turn official files into data sets (the ground floor), without JAX and without imports from medtok_jax."""
