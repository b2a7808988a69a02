"""Train and use MedTok, the multimodal tokenizer of medical codes (Su et al., ICML 2025), in JAX/Flax.

`medtok_jax.MedTokTokenizer` looks tokens up without JAX; modules that train and encode are imported when used.
"""

import importlib
import os

# Without PyTorch, transformers says at every start that it has no models; only its tokenizers are needed here.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# Public names and their modules, which are imported when a name is first used.
_PUBLIC = {
    "MedTokTokenizer": "tokenizer",
    "CodeTokens": "lookup.code_tokens",
    "Neighbor": "lookup.similarity",
    "UnknownCodeError": "lookup.code_index",
    "UnknownCodeWarning": "lookup.code_lookup",
    "AmbiguousCodeError": "lookup.code_index",
    "NewCode": "inference.new_codes",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
