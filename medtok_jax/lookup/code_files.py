"""Copy the code of the tokenizer into a tokenizer directory, where transformers runs it without this package."""

import re
from pathlib import Path

import medtok_jax
import preprocessing
from medtok_jax.lookup.config import CODE_FILE

# Modules that `tokenization_medtok.py` imports, itself included: they import one another, numpy and transformers.
MODULES = (
    *("preprocessing.codes", "preprocessing.common.checksums", "preprocessing.common.errors", "medtok_jax.regions"),
    *(
        f"medtok_jax.lookup.{name}"
        for name in (
            *(
                "batch_encoding",
                "code_index",
                "code_lookup",
                "code_names",
                "code_tokens",
                "config",
                "similarity",
            ),
            *("token_table", Path(CODE_FILE).stem),
        )
    ),
)
_ROOTS = {package.__name__: Path(package.__path__[0]).parent for package in (medtok_jax, preprocessing)}
_IMPORT = re.compile(rf"^from ({'|'.join(map(re.escape, MODULES))}) import ", re.M)


def names() -> list[str]:
    """Return the names of the files in a tokenizer directory."""
    return [f"{module.rpartition('.')[2]}.py" for module in MODULES]


def write(folder: Path) -> None:
    """Write the files into a folder; they import one another from there."""
    for module, name in zip(MODULES, names(), strict=True):
        path = _ROOTS[module.partition(".")[0]] / Path(*module.split(".")).with_suffix(".py")
        text = _IMPORT.sub(lambda found: f"from .{found[1].rpartition('.')[2]} import ", path.read_text("utf-8"))
        if name == CODE_FILE:
            text += _imports_of_others(text)
        (folder / name).write_text(text, encoding="utf-8")


def _imports_of_others(text: str) -> str:
    """Return lines that import the files which a file does not, as transformers 4 copies no others."""
    modules = [name.removesuffix(".py") for name in names() if name != CODE_FILE]
    others = [name for name in modules if f"from .{name} import" not in text]
    lines = "".join(f"from .{name} import __name__ as _{name}  # noqa: E402\n" for name in others)
    return f"\n\n# transformers 4 copies the files that this one names, and not those that they name.\n{lines}"
