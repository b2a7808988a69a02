"""Read and write `tokenizer_config.json`, and check the files of a tokenizer directory against it."""

import dataclasses
import json
from pathlib import Path

from medtok_jax.regions import REGION_OF_EMBEDDING, Regions
from preprocessing.common.atomic import recover
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError

FORMAT_VERSION = 1
CONFIG = "tokenizer_config.json"
TOKENS = "tokens.parquet"
CODEBOOK = "codebook.safetensors"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Files of up to this many bytes have their contents checked whenever a directory is opened.
SMALL = 1 << 20
AGAIN = "copy the directory again, or write it again with `python -m medtok_jax.tokenize vocabulary`"


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Hold the contents of `tokenizer_config.json`.

    Attributes:
        identity: digest of keys, descriptions, tokens, weights and codebook.
        codes: number of codes.
        systems: number of codes of each code system.
        regions: sizes of the codebook's regions; N is their sum.
        num_top_k_tokens: K; a code has 4K tokens.
        embedding_dim: d.
        quantizer_kind: `top_k` (the K rows are mixed by weights that sum to one), `residual` (they are added up) or
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
    codes: int
    systems: dict[str, int]
    regions: Regions
    num_top_k_tokens: int
    embedding_dim: int
    quantizer_kind: str
    special_tokens: dict[str, int]
    prefer: list[str]
    data_set: dict[str, str]
    text_encoder: dict[str, str]
    training: dict
    files: dict[str, dict]

    @property
    def codebook_size(self) -> int:
        """Return the number of codebook rows, N; the ids of special tokens follow."""
        return self.regions.size

    def searched(self, embedding: str) -> tuple[int, int]:
        """Return the first codebook row, and one past the last, that the tokens of an embedding may come from."""
        region = REGION_OF_EMBEDDING[embedding]
        searches_all = region == "shared" and self.training.get("model", {}).get("shared_search") == "book"
        return (0, self.codebook_size) if searches_all else self.regions.bounds(region)

    def to_json(self) -> str:
        return json.dumps({"format_version": FORMAT_VERSION} | dataclasses.asdict(self), indent=1) + "\n"

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
            fields["regions"] = Regions(**fields["regions"])
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


def read_config(path: Path) -> TokenizerConfig:
    """Read the configuration of a tokenizer directory.

    Raises:
        InputError: the directory has none, or it cannot be used.
    """
    recover(path)
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        problem = "is not a directory" if not path.is_dir() else f"holds no readable {CONFIG}"
        raise InputError(
            f"{path} {problem}; a tokenizer is written by training (WORKDIR/tokenizer) and by"
            " `python -m medtok_jax.tokenize vocabulary`."
        ) from error
    config = TokenizerConfig.from_json(text, path / CONFIG)
    for name in (TOKENS, CODEBOOK):
        if name not in config.files:
            raise damaged(path / CONFIG, f"it does not list {name}")
    return config


def check_files(path: Path, config: TokenizerConfig, *, verify: bool = False) -> None:
    """Compare the files of a directory with the sizes and sha256 digests that the configuration lists.

    Large files are hashed only with `verify`: their metadata hold the identity of the tokenizer that they belong to.

    Raises:
        InputError: a file is missing or differs.
    """
    for name, wanted in config.files.items():
        file = path / name
        if not file.is_file():
            raise InputError(f"{file} is missing; {AGAIN}.")
        size = file.stat().st_size
        if size != wanted["size"]:
            raise damaged(file, f"it has {size:,} bytes where {CONFIG} lists {wanted['size']:,}")
        if (verify or size <= SMALL) and sha256_of(file) != wanted["sha256"]:
            raise damaged(file, f"its sha256 is not the one in {CONFIG}")


def damaged(path: Path, what: object) -> InputError:
    """Return the error to raise for a file that does not match the configuration."""
    return InputError(f"{path} is damaged ({what}); {AGAIN}.")


def foreign(path: Path) -> InputError:
    """Return the error to raise for a file of another tokenizer."""
    return InputError(f"{path} belongs to another tokenizer than the {CONFIG} beside it; {AGAIN}.")
