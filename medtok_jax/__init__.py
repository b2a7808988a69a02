"""MedTok, the multimodal tokenizer of medical codes (Su et al., ICML 2025), in JAX/Flax."""
