"""Print the tokens of a code as tables in a terminal."""

import textwrap
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medtok_jax.lookup.code_tokens import CodeTokens
from medtok_jax.lookup.similarity import Neighbor
from medtok_jax.lookup.token_table import KINDS
from medtok_jax.tokenizer import MedTokTokenizer

# Number of codes to name of those that share a token.
SHARERS = 3


def show_code(
    tokenizer: MedTokTokenizer, tokens: CodeTokens, console: Console, *, neighbors: int = 0, verbose: bool = False
) -> None:
    """Print the tokens of a code and, with `neighbors`, the codes that share most of them.

    Args:
        tokenizer: the tokenizer that the tokens come from.
        tokens: tokens of the code.
        console: console to print to.
        neighbors: number of codes to list.
        verbose: whether each token gets a line of its own, with codes that share it.
    """
    title = f"\n[bold]{escape(_plain(tokens.key))}[/bold]  {escape(_plain(tokens.description))}"
    console.print(title, highlight=False)
    if tokens.source in KINDS:
        console.print(f"This is a {tokens.source} code.", highlight=False)
    elif tokens.source != "table":
        console.print(f"This code is not in the table; its tokens are from: {escape(tokens.source)}", highlight=False)
    for note in tokens.notes:
        console.print(escape(_plain(note)), highlight=False)
    console.print(_each_token(tokenizer, tokens) if verbose else _by_embedding(tokenizer, tokens))
    if neighbors:
        console.print(_neighbors(tokenizer, tokens, neighbors))


def _by_embedding(tokenizer: MedTokTokenizer, tokens: CodeTokens) -> Table:
    bounds = tokenizer.config.bounds
    table = Table("embedding", *map(str, range(1, max(stop - start for start, stop in bounds) + 1)))
    for start, stop in bounds:
        place = tokenizer.config.positions[start]
        # Without the leading zero, eight tokens of five digits and their weights fit a terminal of 80 columns.
        shown = (f"({weight:.2f})".replace("0.", ".", 1) for weight in tokens.weights[start:stop])
        cells = (f"{number}\n{weight}" for number, weight in zip(tokens.ids[start:stop], shown, strict=True))
        table.add_row(f"{_label(place.embedding)} ({place.region})", *cells)
    return table


def _each_token(tokenizer: MedTokTokenizer, tokens: CodeTokens) -> Table:
    table = Table("embedding", "region", "token", "weight", "codes", "other codes that share it, nearest first")
    ends = {stop - 1 for _, stop in tokenizer.config.bounds}
    rows, scores = tokenizer.similarity.overlap(tokens.ids, tokenizer.similarity.shares(tokens.weights[None])[0])
    overlap = np.zeros(tokenizer.num_codes, np.float32)
    overlap[rows] = scores
    for position, (number, weight) in enumerate(zip(tokens.ids.tolist(), tokens.weights, strict=True)):
        place = tokenizer.config.positions[position]
        holders = tokenizer.similarity.codes_with(number)
        keys = [tokenizer.key_at(row) for row in holders[np.argsort(-overlap[holders], kind="stable")][: SHARERS + 1]]
        others = [key for key in keys if key != tokens.key][:SHARERS]
        cells = (
            _label(place.embedding),
            place.region,
            tokenizer.token_of(number),
            f"{weight:.3f}",
            f"{len(holders):,}",
        )
        table.add_row(*cells, escape(", ".join(others)), end_section=position in ends)
    return table


def _neighbors(tokenizer: MedTokTokenizer, tokens: CodeTokens, count: int) -> Table:
    found = tokenizer.nearest(tokens.ids, count + 1, weights=tokenizer.similarity.shares(tokens.weights[None])[0])
    others = [neighbor for neighbor in found if neighbor.key != tokens.key][:count]
    return table_of_codes(others, measure="overlap", title=f"Codes that share most tokens with {escape(tokens.key)}")


def table_of_codes(found: Sequence[Neighbor], *, measure: str, title: str) -> Table:
    """Return a table of codes, each with its description and how similar it is by `measure`."""
    table = Table(measure, "code", "description", title=title)
    for neighbor in found:
        text = textwrap.shorten(_plain(neighbor.description), 80, placeholder=" ...")
        table.add_row(f"{neighbor.score:.2f}", escape(neighbor.key), escape(text))
    return table


def _label(embedding: str) -> str:
    return embedding.replace("_specific", "").replace("_", " ")


def _plain(text: str) -> str:
    """Replace control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
