"""Tokenize a file as the command does, and read back what became of each row."""

import csv
import json
from pathlib import Path

from medtok_jax.tokenize import files
from medtok_jax.tokenizer import MedTokTokenizer


def tokenize(tokenizer: MedTokTokenizer, path: Path, **options) -> tuple[dict[int, str], dict[int, str], list[str]]:
    """Return the key of each row with tokens, the reason for each rejected row, and the sentences of the summary."""
    output, told = path.with_name("tokens.jsonl"), []
    options = {"columns": {}, "progress": False, "tell": told.append} | options
    counts = files.tokenize_file(tokenizer, path, output, **options)
    keys = {row["row"]: row["key"] for row in map(json.loads, output.read_text().splitlines())}
    reasons = {}
    if counts["rejected"]:
        with open(f"{output}.rejects.csv", newline="") as file:
            reasons = {int(row["row"]): row["reason"] for row in csv.DictReader(file)}
    assert sorted([*keys, *reasons]) == list(range(1, counts.total() + 1))
    return keys, reasons, told
