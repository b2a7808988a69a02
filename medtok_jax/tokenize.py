"""Tokens of codes from the command line: `python -m medtok_jax.tokenize code E11.9 --workdir=DIR`."""

import textwrap
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from medtok_jax.vocabulary import TokenTable, embedding_names
from preprocessing import command_line
from preprocessing.errors import InputError

WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a finished training run.")
NEIGHBORS = flags.DEFINE_integer("neighbors", 10, "Codes to list that share most tokens.", lower_bound=0)

USAGE = "python -m medtok_jax.tokenize code CODE [CODE ...] --workdir=DIR"


def show_code(table: TokenTable, code: str, neighbors: int, console: Console) -> None:
    """Prints the tokens of one code and the codes that share most of them."""
    row = table.find(code)
    console.print(f"\n[bold]{table.key[row]}[/bold]  {table.description[row]}", highlight=False)
    tokens = Table("embedding", "region", *(f"token {n + 1}" for n in range(table.num_tokens)))
    ids = table.ids[row].reshape(4, -1)
    weights = table.weights[row].reshape(4, -1)
    for name, some_ids, some_weights in zip(embedding_names(1), ids, weights, strict=True):
        region = "shared" if name.endswith("cross") else name.split("_")[0]
        tokens.add_row(
            name.replace("_specific", "").replace("_", " "),
            region,
            *(f"{i} ({w:.2f})" for i, w in zip(some_ids, some_weights, strict=True)),
        )
    console.print(tokens)
    if not neighbors:
        return
    overlap = table.overlap(row)
    overlap[row] = -1.0
    shared = Table("overlap", "code", "description", title=f"Codes that share most tokens with {table.key[row]}")
    for other in (-overlap).argsort(kind="stable")[:neighbors]:
        text = textwrap.shorten(table.description[other], 80, placeholder=" ...")
        shared.add_row(f"{overlap[other]:.2f}", table.key[other], text)
    console.print(shared)


def main(arguments: list[str]) -> None:
    if len(arguments) < 3 or arguments[1] != "code":
        raise InputError(f"Say which codes: {USAGE}.")
    if not WORKDIR.value:
        raise InputError(f"Say which trained run: {USAGE}.")
    table, console = TokenTable.read(Path(WORKDIR.value)), Console()
    rows = [table.find(code) for code in arguments[2:]]
    show_code(table, table.key[rows[0]], NEIGHBORS.value, console)
    for row in rows[1:]:
        show_code(table, table.key[row], 0, console)


if __name__ == "__main__":
    command_line.run(main)
