"""Hold the description of a tokenizer directory, `medtok.json`. This file imports nothing beyond Python."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from medtok_jax.regions import REGIONS, Position, Regions
from preprocessing.common.checksums import sealed, unsealed
from preprocessing.common.errors import InputError

FORMAT_VERSION = 1
CONFIG = "medtok.json"
CODE_FILE = "tokenization_medtok.py"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
AGAIN = "copy the directory again, or write it again with `python -m medtok_jax.tokenize vocabulary`"


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Hold the contents of `medtok.json`.

    Attributes:
        identity: digest of keys, descriptions, tokens, weights and codebook.
        rows: number of codes with tokens: codes of the data set, categories and codes of earlier editions.
        codes: number of codes of the data set among them.
        known_codes: number of codes of the whole vocabulary from which the data set may be a sample.
        systems: number of codes of the data set in each code system.
        regions: sizes of the codebook's regions; N is their sum.
        positions: meaning of each of the T tokens of a code, in order.
        embedding_dim: width of the codebook, d.
        quantizer_kind: `top_k` (the rows are mixed by weights that sum to one), `residual` (they are added up) or
            `pursuit` (they are added up, times their weights).
        special_tokens: ids of the special tokens, which follow those of the codebook: `[PAD]` is N.
        prefer: code systems in the order in which a bare code of several systems is looked up; empty to refuse such a
            code.
        data_set: name and fingerprint of the data set.
        text_encoder: name and identity of the text encoder.
        training: step of the checkpoint, and the configuration of model and training.
        files: size in bytes and sha256 of each other file, by its path in the directory.
    """

    identity: str
    rows: int
    codes: int
    known_codes: int
    systems: dict[str, int]
    regions: Regions
    positions: tuple[Position, ...]
    embedding_dim: int
    quantizer_kind: str
    special_tokens: dict[str, int]
    prefer: list[str]
    data_set: dict[str, str]
    text_encoder: dict[str, str]
    training: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def codebook_size(self) -> int:
        """Return the number of codebook rows, N; the ids of special tokens follow."""
        return self.regions.size

    @property
    def tokens_per_code(self) -> int:
        """Return the number of tokens of a code, T."""
        return len(self.positions)

    @property
    def embeddings(self) -> tuple[str, ...]:
        """Return the names of the embeddings that the tokens quantize, in the order of the positions."""
        return tuple(name for name, _ in itertools.groupby(place.embedding for place in self.positions))

    @property
    def levels(self) -> tuple[int, ...]:
        """Return the level of each position: its place among the tokens of its embedding."""
        return tuple(place.level for place in self.positions)

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Return the first and one past the last position of each embedding, in order."""
        ends = list(
            itertools.accumulate(len(list(g)) for _, g in itertools.groupby(p.embedding for p in self.positions))
        )
        return tuple(zip([0, *ends[:-1]], ends, strict=True))

    def searched(self, position: int) -> tuple[int, int]:
        """Return the first codebook row, and one past the last, that the token of a position may come from."""
        region = self.positions[position].region
        return (0, self.codebook_size) if region == "all" else self.regions.bounds(region)

    def to_json(self) -> str:
        fields = dataclasses.asdict(self) | {"positions": [dataclasses.astuple(place) for place in self.positions]}
        return json.dumps(sealed({"format_version": FORMAT_VERSION} | fields), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, path: Path) -> "TokenizerConfig":
        """Parse the text of the file at `path`.

        Raises:
            InputError: the text is not that of a tokenizer configuration, or is of another version of the format.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("format_version")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not the configuration of a tokenizer ({error!r}); {AGAIN}.") from error
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path} is of format version {version!r}, but this release reads version {FORMAT_VERSION};"
                " use the release that wrote it, or write the directory again."
            )
        try:
            fields = unsealed({"format_version": version} | fields)
            del fields["format_version"]
            fields["regions"] = Regions(**fields["regions"])
            fields["positions"] = tuple(Position(*place) for place in fields["positions"])
            config = cls(**fields)
            config._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}); {AGAIN}.") from error
        return config

    def _check(self) -> None:
        for name, kind in self.__annotations__.items():
            kind = getattr(kind, "__origin__", kind)
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is not of type {kind.__name__}")
        if not all(isinstance(size, int) and size > 0 for size in dataclasses.astuple(self.regions)):
            raise ValueError("the sizes of the regions are not positive integers")
        if not self.positions or len(set(self.embeddings)) != len(self.embeddings):
            raise ValueError("there are no positions, or the tokens of an embedding do not stand side by side")
        if any(place.region not in (*REGIONS, "all") or not isinstance(place.level, int) for place in self.positions):
            raise ValueError("a position names no region or level")
        if self.special_tokens != special_token_ids(self.codebook_size):
            raise ValueError("special tokens do not follow the codebook")
        for name, entry in self.files.items():
            if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
                raise ValueError(f"{name!r} lies outside of the directory")
            if not (isinstance(entry["size"], int) and isinstance(entry["sha256"], str)):
                raise ValueError(f"{name} has no size and sha256")


def special_token_ids(codebook_size: int) -> dict[str, int]:
    """Return the ids of the special tokens: they follow the codebook, so that the id of a code's token is its row."""
    return {name: codebook_size + number for number, name in enumerate(SPECIAL_TOKENS)}
