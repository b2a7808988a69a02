"""Compare two tokenizers: which codes one of them lacks, and whose tokens or descriptions changed. No JAX here."""

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medtok_jax.lookup.directory import TokenizerDirectory
from preprocessing.common.atomic import whole_file
from preprocessing.common.spreadsheets import TableWriter

# Below this mean cosine, rows of the same id have nothing to do with one another.
SAME_ROWS = 0.5


@dataclasses.dataclass(frozen=True)
class Difference:
    """Hold what two tokenizers have in common, and what not.

    Attributes:
        settings: sentences, one for each setting in which they differ.
        before, after: the tokenizers.
        common: `[n, 2]` rows of both tables, of the codes that both hold.
        removed, added: keys that only the earlier or only the later one holds, sorted.
        renamed: `[n]` bool, codes in common whose descriptions differ.
        same_first: `[n, E]` bool, whether the first token of each embedding is the same; None where the ids of the two
            are not comparable, as they have other positions or another codebook size.
        same_all: `[n]` bool, whether all tokens are the same; None likewise.
        row_cosine: mean cosine of the codebook rows of the same id; None where their number or width differs.
    """

    settings: list[str]
    before: TokenizerDirectory
    after: TokenizerDirectory
    common: np.ndarray
    removed: list[str]
    added: list[str]
    renamed: np.ndarray
    same_first: np.ndarray | None
    same_all: np.ndarray | None
    row_cosine: float | None

    def sentences(self) -> list[str]:
        """Return what differs, in sentences."""
        count = len(self.common)
        found = [*self.settings, f"{count:,} codes are in both."]
        for keys, which in ((self.removed, "first"), (self.added, "second")):
            if keys:
                systems = collections.Counter(key.partition("/")[0] for key in keys).most_common()
                listed = ", ".join(f"{system} {number:,}" for system, number in systems)
                found.append(f"{len(keys):,} codes are only in the {which} ({listed}).")
        if not count:
            return found
        found.append(f"{int(self.renamed.sum()):,} of the codes in both have another description.")
        if self.same_all is None:
            return [*found, "Their token ids are of other codebooks or positions, and are not compared."]
        firsts = ", ".join(
            f"{name} {share:.1%}"
            for name, share in zip(self.after.config.embeddings, self.same_first.mean(axis=0), strict=True)
        )
        found.append(f"{self.same_all.mean():.1%} of them have the same tokens; same first token: {firsts}.")
        if self.row_cosine is not None:
            meaning = "the ids keep their meaning" if self.row_cosine >= SAME_ROWS else "the same id means another row"
            found.append(f"Codebook rows of the same id have a mean cosine of {self.row_cosine:.3f}: {meaning}.")
        return found

    def changes(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield key, kind of change, and tokens before and after, of each code that differs, sorted by key."""
        found = [(key, "removed", ids, "") for key, ids in _spelled(self.before, self.removed)]
        found += [(key, "added", "", ids) for key, ids in _spelled(self.after, self.added)]
        keys = self.after.table["key"]
        moved = np.zeros(len(self.common), bool) if self.same_all is None else ~self.same_all
        for place in np.flatnonzero(self.renamed | moved):
            kinds = [name for name, flags in (("tokens", moved), ("description", self.renamed)) if flags[place]]
            rows = zip((self.before, self.after), self.common[place], strict=True)
            ids = [" ".join(map(str, directory.ids[row].tolist())) for directory, row in rows]
            found.append((keys[int(self.common[place, 1])].as_py(), " and ".join(kinds), *ids))
        yield from sorted(found)

    def write(self, path: Path) -> int:
        """Write `changes` as CSV, and return the number of codes in it.

        Raises:
            InputError: the file cannot be written.
        """
        count = 0
        with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = TableWriter(file, line_end="\r\n")
            writer.row(["key", "change", "tokens_before", "tokens_after"])
            for change in self.changes():
                writer.row(change)
                count += 1
        return count


def _spelled(directory: TokenizerDirectory, keys: list[str]) -> list[tuple[str, str]]:
    """Return each of some keys of a tokenizer with its token ids."""
    rows = {key: row for row, key in enumerate(directory.table["key"].to_pylist())}
    return [(key, " ".join(map(str, directory.ids[rows[key]].tolist()))) for key in keys]


def compare(before: TokenizerDirectory, after: TokenizerDirectory) -> Difference:
    """Compare two tokenizers, of any data set and any size."""
    keys = [np.asarray(directory.table["key"].to_pylist()) for directory in (before, after)]
    _, first, second = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    common = np.stack([first, second], axis=1)
    texts = [
        np.asarray(directory.table["description"].to_pylist())[rows]
        for directory, rows in ((before, first), (after, second))
    ]
    comparable = before.config.positions == after.config.positions and before.config.regions == after.config.regions
    same = before.ids[first] == after.ids[second] if comparable else None
    starts = [start for start, _ in after.config.bounds]
    return Difference(
        settings=_settings(before, after),
        before=before,
        after=after,
        common=common,
        removed=np.setdiff1d(*keys, assume_unique=True).tolist(),
        added=np.setdiff1d(*keys[::-1], assume_unique=True).tolist(),
        renamed=texts[0] != texts[1],
        same_first=None if same is None else same[:, starts],
        same_all=None if same is None else same.all(axis=1),
        row_cosine=_row_cosine(before.codebook, after.codebook),
    )


def _row_cosine(before: np.ndarray, after: np.ndarray) -> float | None:
    if before.shape != after.shape:
        return None
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return float(np.mean(np.sum(before * after, axis=1) / np.maximum(lengths, 1e-12)))


def _settings(before: TokenizerDirectory, after: TokenizerDirectory) -> list[str]:
    def described(directory: TokenizerDirectory) -> dict[str, str]:
        config = directory.config
        named = zip(config.embeddings, config.bounds, strict=True)
        counts = [f"{stop - start} {name}" for name, (start, stop) in named]
        regions = config.regions
        shares = f"{regions.text} text, {regions.graph} graph, {regions.shared} shared"
        return {
            "data set": f"{config.data_set['name']} ({config.data_set['fingerprint'][:12]})",
            "text encoder": f"{config.text_encoder['name']} ({config.text_encoder['identity'][:12]})",
            "number of codebook rows": f"{regions.size} ({shares})",
            "number of tokens of a code": f"{config.tokens_per_code} ({', '.join(counts)})",
            "width": str(config.embedding_dim),
            "quantizer": config.quantizer_kind,
            "training step": str(config.training.get("step")),
        }

    pairs = zip(described(before).items(), described(after).values(), strict=True)
    return [f"The {name} is {old} in the first, {new} in the second." for (name, old), new in pairs if old != new]
