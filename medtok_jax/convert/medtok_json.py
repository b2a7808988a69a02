"""Write tokens and embeddings as the two JSON files of MedTok's authors, which the code of their users reads.

    code2tokens.json        {code: [T token ids]}
    code2embeddings.json    {code: [E d numbers]}
    left_out.json           {code: [SYSTEM/code, ...]} of codes that another system has too

A code is written bare, in the spelling of its system (`E11.9`). Where several systems have it, the first in the order
of the authors' data keeps the entry. Both lists go through the E embeddings in the order of the authors'
`inference.py`: text, graph, and what both share, as one or as text given graph and graph given text; token ids are rows
of the tokenizer's codebook. Entries are sorted by code, one a line, so that the files can be read in parts.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medtok_jax.convert.request import Request
from medtok_jax.lookup.code_names import PAPER_ORDER
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.atomic import whole_folder, write_json
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

TOKENS_FILE, EMBEDDINGS_FILE, LEFT_OUT_FILE = "code2tokens.json", "code2embeddings.json", "left_out.json"
# Embeddings are computed for this many codes at once.
CHUNK = 4096
# Enough digits to tell neighboring float32 numbers apart in most cases; the files are half as long as with all.
DIGITS = 7
_BYTES_A_NUMBER = 12


def convert(request: Request) -> None:
    """Write all files into `request.output`, read them back, and print a line that opens them.

    Raises:
        InputError: there is no tokenizer directory, it is damaged, or a written file differs from it.
    """
    tokenizer = MedTokTokenizer.from_pretrained(request.tokenizer)
    table = tokenizer.directory
    keys = table.table["key"].to_pylist()
    rows, left_out = bare_codes(keys)
    numbers = len(tokenizer.config.bounds) * tokenizer.config.embedding_dim
    size = len(rows) * numbers * _BYTES_A_NUMBER
    print(f"Writing {len(rows):,} codes with {numbers:,} numbers each, about {size / 1e9:.1f} GB.")
    order = np.array(list(rows.values()), np.int64)
    with whole_folder(request.output) as folder:
        _write_entries(folder / TOKENS_FILE, rows, (json.dumps(table.ids[row].tolist()) for row in order))
        _write_entries(folder / EMBEDDINGS_FILE, rows, _embeddings(tokenizer, order))
        write_json(folder / LEFT_OUT_FILE, left_out)
        check(folder, list(rows), table.ids[order], numbers)
    print(f"Wrote {len(rows):,} codes to {request.output / TOKENS_FILE} and {request.output / EMBEDDINGS_FILE}.")
    if left_out:
        count = sum(map(len, left_out.values()))
        print(f"{count:,} codes are in {LEFT_OUT_FILE}, as an earlier system of {', '.join(PAPER_ORDER)} has them too.")
    print(f"  import json; json.load(open({str(request.output / EMBEDDINGS_FILE)!r}))[{next(iter(rows))!r}]")


def bare_codes(keys: list[str]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Return the index of the key that keeps the entry of each bare code, sorted by code, and the keys left out.

    Args:
        keys: `SYSTEM/code`.
    """
    rank = {name: number for number, name in enumerate(PAPER_ORDER)}
    owners: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        owners.setdefault(key.partition("/")[2], []).append(index)
    rows, left_out = {}, {}
    for code in sorted(owners):
        first, *others = sorted(owners[code], key=lambda i: (rank.get(keys[i].partition("/")[0], len(rank)), keys[i]))
        rows[code] = first
        if others:
            left_out[code] = [keys[index] for index in others]
    return rows, left_out


def _embeddings(tokenizer: MedTokTokenizer, order: np.ndarray) -> Iterator[str]:
    """Yield the embeddings of each row in `order` as JSON, concatenated."""
    for start in range(0, len(order), CHUNK):
        part = order[start : start + CHUNK]
        for vector in tokenizer.similarity.quantized(part).reshape(len(part), -1).tolist():
            yield "[" + ", ".join(f"{number:.{DIGITS}g}" for number in vector) + "]"


def _write_entries(path: Path, codes: dict[str, int], values: Iterator[str]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for number, (code, value) in enumerate(zip(codes, values, strict=True)):
            file.write("{\n" if number == 0 else ",\n")
            file.write(f"{json.dumps(code)}: {value}")
        file.write("\n}\n")


def entries(path: Path) -> Iterator[tuple[str, list]]:
    """Yield code and list of each entry of a file that `convert` wrote, one at a time.

    Raises:
        InputError: a line is not an entry.
    """
    with reading(path, "entries of codes", "convert again"), open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            text = line.rstrip("\n").removesuffix(",")
            if text in ("{", "}"):
                continue
            try:
                [(code, value)] = json.loads(f"{{{text}}}").items()
            except ValueError as error:
                raise InputError(f"Line {number} of {path} is not an entry of a code; convert again.") from error
            yield code, value


def check(folder: Path, codes: list[str], ids: np.ndarray, numbers: int) -> None:
    """Read both files and compare them with the codes, their token ids `[codes, T]`, and the number of numbers.

    Raises:
        InputError: they differ.
    """
    for name in (TOKENS_FILE, EMBEDDINGS_FILE):
        found = 0
        for code, value in entries(folder / name):
            known = found < len(codes) and code == codes[found]
            right = known and (value == ids[found].tolist() if name == TOKENS_FILE else len(value) == numbers)
            if not right or not np.isfinite(value).all():
                raise InputError(f"Entry {found + 1} of {folder / name} differs from the tokenizer; convert again.")
            found += 1
        if found != len(codes):
            raise InputError(f"{folder / name} holds {found:,} of {len(codes):,} codes; convert again.")
