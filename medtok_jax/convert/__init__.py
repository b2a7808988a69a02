"""Convert trained tokenizers to the formats of other libraries and models: `python -m medtok_jax.convert --help`."""
