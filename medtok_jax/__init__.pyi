"""Declare the public names for type checkers; `__init__.py` imports them when they are first used."""

from medtok_jax.inference.new_codes import NewCode as NewCode
from medtok_jax.lookup.code_index import AmbiguousCodeError as AmbiguousCodeError
from medtok_jax.lookup.code_index import UnknownCodeError as UnknownCodeError
from medtok_jax.lookup.code_lookup import UnknownCodeWarning as UnknownCodeWarning
from medtok_jax.lookup.code_tokens import CodeTokens as CodeTokens
from medtok_jax.lookup.similarity import Neighbor as Neighbor
from medtok_jax.tokenizer import MedTokTokenizer as MedTokTokenizer
