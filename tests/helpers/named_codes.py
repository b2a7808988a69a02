"""A trained tokenizer whose table contains the codes that the documentation names."""

import dataclasses
import shutil
from pathlib import Path

from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import TokenizerDirectory

# Codes that the documentation names; the data set of the tests may lack them.
NAMED = (
    *("ICD10CM/E11.8", "ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/E10.9", "ICD10CM/I10", "ICD10CM/N18.6"),
    *("ICD9CM/250.00", "ICD9CM/401.9", "ICD9CM/401.0", "ICD9CM/001.0", "ICD9Proc/00.10"),
)


def with_named_codes(source: Path, target: Path) -> None:
    """Write the tokenizer directory `source`, model included, to `target` with `NAMED` in place of other codes."""
    trained = TokenizerDirectory.read(source)
    tokens = trained.to_tokens()
    keys = tokens.strings["key"]
    others = [row for row, key in enumerate(keys) if key not in NAMED]
    missing = [key for key in NAMED if key not in keys]
    for row, key in zip(others, missing, strict=False):
        keys[row] = key
        tokens.strings["kind"][row] = "code"
    about = {field.name: getattr(trained.config, field.name) for field in dataclasses.fields(trained.config)}
    for name in ("identity", "rows", "codes", "known_codes", "systems", "embedding_dim", "special_tokens", "files"):
        del about[name]

    def add(folder: Path) -> None:
        for name in ("model.safetensors", "model_config.json"):
            shutil.copy(trained.path / name, folder / name)
        shutil.copytree(trained.path / "graph", folder / "graph")

    directory.write(target, tokens, about, add)
