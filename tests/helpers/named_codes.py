"""A trained tokenizer whose table contains the codes that the documentation names."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import TokenizerDirectory, Tokens

# Codes that the documentation names; the data set of the tests may lack them.
NAMED = (
    *("ICD10CM/E11.8", "ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/E10.9", "ICD10CM/I10", "ICD10CM/N18.6"),
    *("ICD9CM/250.00", "ICD9CM/401.9", "ICD9CM/401.0", "ICD9CM/001.0", "ICD9Proc/00.10"),
)


def with_named_codes(source: Path, target: Path) -> None:
    """Write the tokenizer directory `source`, model included, to `target` with `NAMED` in place of other codes."""
    trained = TokenizerDirectory.read(source)
    strings = {name: np.array(trained.table[name].to_pylist()).astype(object) for name in directory.STRINGS}
    others = [row for row, key in enumerate(strings["key"]) if key not in NAMED]
    missing = [key for key in NAMED if key not in strings["key"]]
    for row, key in zip(others, missing, strict=False):
        strings["key"][row] = key
        strings["system"][row], strings["code"][row] = key.split("/")
    flags = {name: np.array(trained.table[name].to_pylist()) for name in directory.FLAGS}
    tokens = Tokens(strings=strings, ids=trained.ids, weights=trained.weights, codebook=trained.codebook, **flags)
    about = {field.name: getattr(trained.config, field.name) for field in dataclasses.fields(trained.config)}
    for name in ("identity", "codes", "systems", "embedding_dim", "special_tokens", "files"):
        del about[name]

    def add(folder: Path) -> None:
        for name in ("model.safetensors", "model_config.json"):
            shutil.copy(trained.path / name, folder / name)
        shutil.copytree(trained.path / "graph", folder / "graph")

    directory.write(target, tokens, about, add)
