"""Make a tokenizer directory ready for publication on the Hugging Face hub.

The result is a tokenizer directory, which transformers' `AutoTokenizer` and `MedTokTokenizer` open, without
descriptions that need a license and without the model, and with a model card, `README.md`.
"""

import dataclasses
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from medtok_jax.convert.huggingface import card
from medtok_jax.convert.request import Request
from medtok_jax.lookup import directory as tokenizer_directory
from medtok_jax.lookup.code_index import AmbiguousCodeError
from medtok_jax.lookup.config import CODE_FILE, CONFIG
from medtok_jax.lookup.directory import TokenizerDirectory, Tokens
from medtok_jax.lookup.token_table import TABLE
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import UserError

SAMPLE = 500
# Fields of the configuration that follow from the tokens.
_DERIVED = ("identity", "rows", "codes", "known_codes", "systems", "embedding_dim", "special_tokens", "files")


def convert(request: Request) -> None:
    """Write the directory, compare it with `MedTokTokenizer`, and print the command that publishes it.

    Raises:
        InputError: there is no tokenizer directory, or it is damaged.
        UserError: the written tokenizer gives other tokens.
    """
    directory = TokenizerDirectory.read(request.tokenizer)
    withheld = {name: count for name, count in directory.config.systems.items() if name in card.LICENSED}
    with whole_folder(request.output) as folder:
        write(folder, directory)
        text = card.model_card(directory.config, request.workdir, withheld)
        (folder / "README.md").write_text(text, encoding="utf-8")
        compared = check_same(folder, MedTokTokenizer.from_pretrained(request.tokenizer))
    print(
        f"Wrote {directory.config.rows:,} codes to {request.output}; {compared:,} spellings give the same tokens as"
        " the tokenizer directory."
    )
    for name, count in withheld.items():
        print(f"  The descriptions of {count:,} codes of {name} were left out, as distributing them needs a license.")
    print(f"  AutoTokenizer.from_pretrained({str(request.output)!r}, trust_remote_code=True)")
    output = shlex.quote(str(request.output))
    print(f"  hf auth login && hf upload TEAM/NAME {output} .    # publishes it; add --private to hide it")


def write(folder: Path, directory: TokenizerDirectory) -> None:
    """Write the tokenizer without licensed descriptions into an empty directory."""
    fields = {field.name: getattr(directory.config, field.name) for field in dataclasses.fields(directory.config)}
    about = {name: value for name, value in fields.items() if name not in _DERIVED}
    tokenizer_directory.write(folder, without_licensed(directory.to_tokens()), about)


def without_licensed(tokens: Tokens) -> Tokens:
    """Return the tokens with empty descriptions of the code systems whose descriptions need a license."""
    licensed = np.array([key.split("/", 1)[0] in card.LICENSED for key in tokens.strings["key"]])
    described = np.where(licensed, "", tokens.strings["description"])
    return dataclasses.replace(tokens, strings={**tokens.strings, "description": described})


def check_same(folder: Path, tokenizer: MedTokTokenizer, count: int = SAMPLE) -> int:
    """Compare the written tokenizer with its source, on several spellings of a sample of codes.

    Returns:
        The number of spellings.

    Raises:
        UserError: tokens or embeddings differ.
    """
    exported = open_alone(folder)
    rows = np.unique(np.linspace(0, tokenizer.num_codes - 1, count).astype(int))
    spellings = [spelling for row in rows for spelling in spellings_of(tokenizer.key_at(int(row)))]
    for text in spellings:
        if (expected := _outcome(tokenizer, text)) != (found := _outcome(exported, text)):
            raise UserError(f"{text!r} gives {found}, but must give {expected}; the directory was not written.")
    keys = [tokenizer.key_at(int(row)) for row in rows]
    if not np.array_equal(exported.embed(keys), tokenizer.embed(keys)):
        raise UserError("The embeddings differ from those of the tokenizer; the directory was not written.")
    return len(spellings)


def spellings_of(key: str) -> list[str]:
    """Return valid and invalid spellings of a code."""
    system, code = key.split("/", 1)
    plain = code.replace(".", "")
    return [key, code, plain.lower(), f"{system.lower()}:{plain}", f"{code[:2]}.{plain[2:]}", f"{plain}Z"]


def _outcome(tokenizer, text: str) -> list[int] | str:
    """Return the token ids of a text, or the reason for having none."""
    try:
        return tokenizer.encode(text)
    except ValueError as error:
        ambiguous = type(error).__name__ == AmbiguousCodeError.__name__
        return f"several codes: {', '.join(error.candidates)}" if ambiguous else "no code"


def open_alone(folder: Path):
    """Open a written directory by the code that lies in it, as `AutoTokenizer` does."""
    module = load_module(folder)
    return module.MedTokTokenizer(str(folder / TABLE), str(folder / CONFIG))


def load_module(folder: Path) -> ModuleType:
    """Import the code of a written directory as a package of its own, without leaving bytecode there."""
    package = f"medtok_directory_{abs(hash(folder))}"
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        root = ModuleType(package)
        root.__path__ = [str(folder)]
        sys.modules[package] = root
        spec = importlib.util.spec_from_file_location(f"{package}.{Path(CODE_FILE).stem}", folder / CODE_FILE)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.dont_write_bytecode = writes
