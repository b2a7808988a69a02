"""Convert a tokenizer directory to one that transformers' `AutoTokenizer` opens without this package.

OUT/tokenization_medtok.py   the tokenizer, one file, run by `trust_remote_code=True`
OUT/tokens.safetensors       codes, descriptions, tokens, weights and codebook; nothing is pickled
OUT/tokenizer_config.json    configuration that transformers reads first
OUT/README.md                the model card
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import save

from medtok_jax.convert.huggingface import card as huggingface_card
from medtok_jax.convert.request import Request
from medtok_jax.lookup.code_index import AmbiguousCodeError, SortedStrings
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import REGIONS
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import UserError

MODULE = "tokenization_medtok.py"
TABLE = "tokens.safetensors"
SAMPLE = 500


def convert(request: Request) -> None:
    """Write the directory, compare it with `MedTokTokenizer`, and print the command that publishes it.

    Raises:
        InputError: there is no tokenizer directory, or it is damaged.
        UserError: the written tokenizer gives other tokens.
    """
    directory = TokenizerDirectory.read(request.tokenizer)
    withheld = {name: count for name, count in directory.config.systems.items() if name in huggingface_card.LICENSED}
    with whole_folder(request.output) as folder:
        write(folder, directory)
        card = huggingface_card.model_card(directory.config, request.workdir, withheld)
        (folder / "README.md").write_text(card, encoding="utf-8")
        compared = check_same(folder, MedTokTokenizer(directory))
    print(
        f"Wrote {directory.config.codes:,} codes to {request.output}; {compared:,} spellings give the same tokens as"
        " the tokenizer directory."
    )
    for name, count in withheld.items():
        print(f"  The descriptions of {count:,} codes of {name} were left out, as distributing them needs a license.")
    print(f'  AutoTokenizer.from_pretrained("{request.output}", trust_remote_code=True)')
    print(f"  hf auth login && hf upload TEAM/NAME {request.output} .    # publishes it; add --private to hide it")


def write(folder: Path, directory: TokenizerDirectory) -> None:
    """Write the table, the module and the configuration into an empty directory."""
    (folder / TABLE).write_bytes(save(to_arrays(directory), {"medtok": json.dumps(metadata(directory))}))
    shutil.copyfile(Path(__file__).with_name(MODULE), folder / MODULE)
    config = {
        "tokenizer_class": "MedTokTokenizer",
        "auto_map": {"AutoTokenizer": [f"{Path(MODULE).stem}.MedTokTokenizer", None]},
        "prefer": directory.config.prefer,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def metadata(directory: TokenizerDirectory) -> dict:
    """Return the metadata of the table."""
    config = directory.config
    return {
        "format_version": 1,
        "identity": config.identity,
        "systems": _systems(directory).dictionary.to_pylist(),
        "regions": {name: config.regions.bounds(name) for name in REGIONS},
        "num_top_k_tokens": config.num_top_k_tokens,
        "quantizer_kind": config.quantizer_kind,
    }


def to_arrays(directory: TokenizerDirectory) -> dict[str, np.ndarray]:
    """Return the table as arrays; a column of strings is one array of bytes and one of offsets `[strings + 1]`.

    `compact_text` holds the codes in capitals and without dots, sorted, and `compact_row` the row of each.
    """
    table = directory.table
    system, code = (table[name].combine_chunks() for name in ("system", "code"))
    compact = SortedStrings(pc.replace_substring(pc.ascii_upper(code), ".", ""))
    public = pc.invert(pc.is_in(system, pa.array(huggingface_card.LICENSED)))
    descriptions = pc.if_else(public, table["description"].combine_chunks(), "")
    strings = {"key": table["key"].combine_chunks(), "description": descriptions, "compact": compact.strings}
    arrays = {
        "ids": directory.ids.astype(np.int32),
        "weights": directory.weights.astype(np.float32),
        "codebook": directory.codebook.astype(np.float32),
        "system": _systems(directory).indices.to_numpy().astype(np.int32),
        "compact_row": compact.order.astype(np.int32),
    }
    for name, column in strings.items():
        arrays |= _bytes(name, column)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _systems(directory: TokenizerDirectory) -> pa.DictionaryArray:
    return directory.table["system"].combine_chunks().dictionary_encode()


def _bytes(name: str, strings: pa.StringArray) -> dict[str, np.ndarray]:
    lengths = pc.binary_length(strings).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    content = "".join(strings.to_pylist()).encode()
    # A file with an empty array cannot be mapped.
    return {f"{name}_text": np.frombuffer(content or b"\0", np.uint8), f"{name}_offsets": offsets}


def check_same(folder: Path, tokenizer: MedTokTokenizer, count: int = SAMPLE) -> int:
    """Compare the written tokenizer with its source, on several spellings of a sample of codes.

    Returns:
        The number of spellings.

    Raises:
        UserError: tokens or embeddings differ.
    """
    exported = load_module(folder).MedTokTokenizer.from_pretrained(folder)
    rows = np.unique(np.linspace(0, len(tokenizer) - 1, count).astype(int))
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
        return [int(number) for number in tokenizer.encode(text)]
    except ValueError as error:
        ambiguous = type(error).__name__ == AmbiguousCodeError.__name__
        return f"several codes: {', '.join(error.candidates)}" if ambiguous else "no code"


def load_module(folder: Path) -> ModuleType:
    """Import the module file of a written directory, without leaving bytecode there."""
    spec = importlib.util.spec_from_file_location("tokenization_medtok", folder / MODULE)
    module = importlib.util.module_from_spec(spec)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module
