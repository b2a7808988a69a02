# SPDX-License-Identifier: Apache-2.0
"""Look up the discrete tokens of medical codes in a table: the MedTok tokenizer for transformers.

MedTok (Su et al., "Multimodal Medical Code Tokenizer", ICML 2025, arXiv 2502.04397). This file needs only the table
beside it, `tokens.safetensors`, and transformers and numpy; it unpickles nothing.

    tokenizer = AutoTokenizer.from_pretrained("team/medtok-icd", trust_remote_code=True)
    tokenizer("E11.9").input_ids                            # 4K token ids
    tokenizer(["E11.9", "I10"], return_tensors="np")        # a row for each code
    tokenizer([["E11.9", "I10"], ["N18.3"]], padding=True)  # a patient's history: [CLS] visit [SEP] visit [SEP]
"""

import bisect
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer

TABLE = "tokens.safetensors"
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# Embeddings of a code, in the order of its 4K tokens.
EMBEDDINGS = ("text_specific", "graph_specific", "text_cross", "graph_cross")
UNKNOWN = -1

# The paper's order of code systems, for `prefer="paper"`.
PAPER_ORDER = ("ICD9CM", "ICD9Proc", "ICD10CM", "ICD10PCS", "SNOMED", "ATC", "NDC", "CPT4", "HCPCS", "RxNorm")
# Other names of code systems, in capitals and without anything but letters and digits.
ALIASES = {
    "ICD10": ("ICD10CM", "ICD10PCS"),
    "ICD9": ("ICD9CM", "ICD9Proc"),
    "ICD9PCS": ("ICD9Proc",),
    "ICD9PROCEDURE": ("ICD9Proc",),
    "SNOMEDCT": ("SNOMED",),
    "SNOMEDCTUS": ("SNOMED",),
    "SCT": ("SNOMED",),
    "CPT": ("CPT4",),
    "RXCUI": ("RxNorm",),
    "NDC11": ("NDC",),
    "ATCWHO": ("ATC",),
}
# Code systems by the first two parts of a MEDS code such as `DIAGNOSIS//ICD//10//E119`.
MEDS_ICD = {
    ("DIAGNOSIS", "ICD10"): ("ICD10CM",),
    ("DIAGNOSIS", "ICD9"): ("ICD9CM",),
    ("PROCEDURE", "ICD10"): ("ICD10PCS",),
    ("PROCEDURE", "ICD9"): ("ICD9Proc",),
}
_PREFIXED = re.compile(r"([A-Za-z][A-Za-z0-9 _.-]{0,40}?) *[/:|] *(.+)", re.DOTALL)
_NOT_NAME = re.compile(r"[^A-Z0-9]")
# Digits of labeler, product and, for a package, package (21 CFR 207.33).
_NDC_SHAPES = {(4, 4, 2), (5, 3, 2), (5, 4, 1), (5, 4, 2), (4, 4), (5, 3), (5, 4)}
_ATC_SHAPE = re.compile(r"[ABCDGHJLMNPRSV](?:[0-9]{2}(?:[A-Z](?:[A-Z](?:[0-9]{2})?)?)?)?")


class UnknownCodeError(ValueError):
    """Report a code that the tokenizer does not hold."""


class AmbiguousCodeError(ValueError):
    """Report a bare code that several code systems have; `candidates` holds the key of each."""

    def __init__(self, message: str, candidates: Sequence[str]):
        super().__init__(message)
        self.candidates = tuple(candidates)


class Neighbor(NamedTuple):
    """Hold a code that shares tokens with another: its key, the overlap (1 for all), and its description."""

    key: str
    score: float
    description: str


class Strings(Sequence):
    """Hold many strings as one array of their bytes and one of their offsets."""

    def __init__(self, content: np.ndarray, offsets: np.ndarray):
        self.content = content
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> bytes:
        return self.content[self.offsets[position] : self.offsets[position + 1]].tobytes()


def read_table(path: str | Path) -> tuple[dict[str, np.ndarray], dict]:
    """Return the arrays of a safetensors file, memory-mapped, and the JSON in its metadata.

    Raises:
        ValueError: the file is not a table of MedTok tokens.
    """
    try:
        # It becomes a plain array, as every slice of a memmap costs microseconds.
        content = np.asarray(np.memmap(path, mode="r"))
        start = 8 + int(content[:8].view("<u8")[0])
        header = json.loads(content[8:start].tobytes())
        metadata = json.loads(header.pop("__metadata__")["medtok"])
        arrays = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            flat = content[start + begin : start + end].view(_DTYPES[entry["dtype"]])
            arrays[name] = flat.reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is not a table of MedTok tokens ({error!r})") from error
    return arrays, metadata


_DTYPES = {"I32": "<i4", "I64": "<i8", "F32": "<f4", "U8": "u1"}


class MedTokTokenizer(PreTrainedTokenizer):
    """Tokenize medical codes by look-up.

    Ids 0 to N-1 are rows of the codebook, in the regions text, graph and shared; `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and
    `[MASK]` are N to N+4, so that the first rows of a model's embedding matrix can be initialized with the codebook.
    Every code has 4K tokens.

    A code may be written with its dot or without, in upper or lower case, and with its system as a prefix
    (`ICD10CM/E11.9`, `icd10cm:E119`, `DIAGNOSIS//ICD//10//E119`) or as the argument `system`.

    Args:
        table_file: path of `tokens.safetensors`.
        prefer: code systems in the order in which a bare code of several systems is looked up, or `paper`; empty to
            refuse such a code.
    """

    vocab_files_names = {"table_file": TABLE}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    slow_tokenizer_class = None

    def __init__(self, table_file: str, prefer: str | Sequence[str] = (), **kwargs):
        self.table_file = str(table_file)
        self._open()
        self.prefer = [prefer] if isinstance(prefer, str) and prefer != "paper" else prefer
        order = PAPER_ORDER if prefer == "paper" else self.prefer
        self._rank = [system for name in order for system in self.systems_named(name)]
        for name, token in SPECIAL_TOKENS.items():
            kwargs.setdefault(name, token)
        super().__init__(prefer=self.prefer, **kwargs)

    def _open(self) -> None:
        table, metadata = read_table(self.table_file)
        self.table = table
        self.metadata = metadata
        self.systems = metadata["systems"]
        self.num_top_k_tokens = metadata["num_top_k_tokens"]
        self._named = ALIASES | {_plain(name): (name,) for name in (*PAPER_ORDER, *self.systems)}
        self._keys = Strings(table["key_text"], table["key_offsets"])
        self._descriptions = Strings(table["description_text"], table["description_offsets"])
        self._compact = Strings(table["compact_text"], table["compact_offsets"])
        names = [f"<{region}_{number}>" for region, (a, b) in metadata["regions"].items() for number in range(a, b)]
        self._names = [*names, *SPECIAL_TOKENS.values()]
        self._ids = {name: number for number, name in enumerate(self._names)}

    def __getstate__(self) -> dict:
        # A worker process maps the file itself; its contents are not pickled.
        return {k: v for k, v in self.__dict__.items() if k not in ("table", "_keys", "_descriptions", "_compact")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def tokens_per_code(self) -> int:
        """Return the number of tokens of a code, 4K."""
        return 4 * self.num_top_k_tokens

    @property
    def num_codes(self) -> int:
        """Return the number of codes in the table."""
        return len(self._keys)

    @property
    def vocab_size(self) -> int:
        """Return the number of token ids, N + 5 with the special tokens."""
        return len(self._names)

    @property
    def codebook(self) -> np.ndarray:
        """Return the codebook, `[N, d]` float32, read-only, for the first rows of a model's embedding matrix."""
        return self.table["codebook"]

    def __contains__(self, code: str) -> bool:
        return isinstance(code, str) and bool(self.candidates(code))

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token."""
        return self._ids | getattr(self, "_added_tokens_encoder", {})

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self._ids["[UNK]"])

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index] if 0 <= index < len(self._names) else "[UNK]"

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens by spaces."""
        return " ".join(tokens)

    # Looking up codes.

    def systems_named(self, name: str) -> tuple[str, ...]:
        """Return the code systems of a name, such as `snomed`, `ICD-10-CM`, or `ICD10` for both of its parts."""
        named = self._named.get(_plain(name)) if isinstance(name, str) else None
        if named is None:
            raise ValueError(f"{name!r} is not a code system; it must be one of {', '.join(self.systems)}")
        return named

    def key_at(self, row: int) -> str:
        """Return the key, `SYSTEM/code`, of a row of the table."""
        return self._keys[row].decode()

    def find(self, code: str, system: str | None = None) -> int:
        """Return the row of a code.

        Raises:
            UnknownCodeError: the table does not hold the code.
            AmbiguousCodeError: several systems have it, and no order of preference was given.
        """
        rows = self.candidates(code, system)
        if not rows:
            where = f" as a code of {system}" if system else ""
            raise UnknownCodeError(
                f"{code[:60]!r} is not among the {self.num_codes:,} codes of this tokenizer{where}; keys look like"
                f" {self.key_at(0)}"
            )
        if len(rows) > 1 and self._rank:
            ranks = [
                self._rank.index(s) if (s := self._system_of(row)) in self._rank else len(self._rank) for row in rows
            ]
            rows = [row for row, rank in zip(rows, ranks, strict=True) if rank == min(ranks)]
        if len(rows) > 1:
            keys = [self.key_at(row) for row in rows]
            raise AmbiguousCodeError(
                f"{code[:60]!r} is a code of several systems: {', '.join(keys)}; give one of these, or an order of"
                " preference: from_pretrained(..., prefer=[...])",
                keys,
            )
        return rows[0]

    def candidates(self, code: str, system: str | None = None) -> list[int]:
        """Return the rows of all codes that a text may mean, ascending."""
        if not isinstance(code, str):
            raise ValueError(f"a code must be text, such as 'E11.9' or 'ICD10CM/E11.9', not {type(code).__name__}")
        named, bare = self._split(code.strip())
        if system is not None:
            given = self.systems_named(system)
            named = given if named is None else tuple(name for name in named if name in given)
        rows = self._spelled(_upper(bare), named)
        if rows:
            return rows
        for name, normal in (("NDC", _ndc(bare)), ("ATC", _atc(bare))):
            if normal and name in (self.systems if named is None else named):
                rows += [row for row in self._spelled(normal, (name,)) if row not in rows]
        return sorted(rows)

    def _split(self, text: str) -> tuple[tuple[str, ...] | None, str]:
        """Return the systems that a text names (None where it names none) and the code without the prefix."""
        if "//" in text:
            *names, code = text.split("//")
            kind = _plain(names[0])
            rest = _plain("".join(names[1:]))
            named = MEDS_ICD.get((kind, rest)) or self._named.get(rest or kind)
            return (named, code.strip()) if named else (None, text)
        if match := _PREFIXED.fullmatch(text):
            named = self._named.get(_plain(match[1]))
            if named:
                return named, match[2].strip()
        return None, text

    def _spelled(self, code: str, named: tuple[str, ...] | None) -> list[int]:
        """Return the rows of a code in capitals; a dot in another position makes another code."""
        wanted = code.replace(".", "").encode("utf-8", "surrogatepass")
        position = bisect.bisect_left(self._compact, wanted)
        rows = []
        while position < len(self._compact) and self._compact[position] == wanted:
            rows.append(int(self.table["compact_row"][position]))
            position += 1
        if named is not None:
            rows = [row for row in rows if self._system_of(row) in named]
        if "." in code or len(rows) > 1:
            exact = [row for row in rows if self._display(row) == code.encode("utf-8", "surrogatepass")]
            if "." in code or (exact and named is not None and len(named) == 1):
                return exact
        return sorted(rows)

    def _system_of(self, row: int) -> str:
        return self.systems[self.table["system"][row]]

    def _display(self, row: int) -> bytes:
        # `bytes.upper` changes only ASCII letters.
        return self._keys[row].split(b"/", 1)[1].upper()

    def _rows(self, codes: Sequence[str | None], system: str | None, errors: str) -> np.ndarray:
        """Return the rows `[codes]` int64, `UNKNOWN` for codes without a row if `errors` is `unk`."""
        found = {}
        for code in codes:
            if code not in found:
                found[code] = UNKNOWN
                if not _is_missing(code) or errors == "raise":
                    try:
                        found[code] = self.find(code, system)
                    except UnknownCodeError:
                        if errors == "raise":
                            raise
        return np.array([found[code] for code in codes], np.int64)

    # From codes to tokens.

    def tokenize(
        self, text: str, pair=None, add_special_tokens: bool = False, system: str | None = None, **_
    ) -> list[str]:
        """Return the 4K tokens of a code as text: `<text_17>`, `<graph_4021>`, `<shared_9000>`.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `find`.
        """
        return [
            self._names[number] for number in self.encode(text, system=system, add_special_tokens=add_special_tokens)
        ]

    def encode(self, text, text_pair=None, add_special_tokens: bool | None = None, errors: str = "raise", **options):
        """Return the token ids of codes, given as for `__call__`; an unknown code is an error by default."""
        if text_pair is not None:
            raise ValueError("text_pair is not supported; give a list of codes or a history of visits")
        return self(text, add_special_tokens=add_special_tokens, errors=errors, **options)["input_ids"]

    def __call__(
        self,
        text,
        text_pair=None,
        *,
        system: str | None = None,
        errors: str = "unk",
        add_special_tokens: bool | None = None,
        is_split_into_words: bool = False,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_weights: bool = False,
        return_visit_ids: bool = False,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Encode codes for a sequence model.

        Args:
            text: a code; a list of codes, each a row of its own; a patient's history, which is a list of visits, each a
                list of codes; or a list of histories. None stands for a missing code.
            text_pair: not supported.
            system: code system of all codes.
            errors: `unk` to encode an unknown code as 4K times `[UNK]`, `raise` to raise an error. A bare code of
                several systems is always an error, unless there is an order of preference.
            add_special_tokens: whether a row is `[CLS] visit [SEP] visit [SEP] ...`; None to do so only for histories.
            is_split_into_words: True if `text` is one sequence of codes, or a list of such, without visits.
            truncation, max_length: keep as many complete codes as fit, the last ones if `truncation_side` is `left`.
            return_weights: whether to return `weights`, the share of each token in its embedding; 0 at padding.
            return_visit_ids: whether to return `visit_ids`: 1 for the first visit with codes, 0 for `[CLS]`, padding.
            padding, padding_side, pad_to_multiple_of, return_tensors, return_attention_mask: see `PreTrainedTokenizer`.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `errors`.
            ValueError: an argument cannot be used.
        """
        if text_pair is not None:
            raise ValueError("text_pair is not supported; give a list of codes or a history of visits")
        if errors not in ("raise", "unk"):
            raise ValueError(f"errors is {errors!r}; it must be 'raise' or 'unk'")
        rows, single, is_history = _sequences(_to_list(text), is_split_into_words)
        special = is_history if add_special_tokens is None else add_special_tokens
        limit = None
        if truncation and truncation not in ("do_not_truncate",):
            limit = self.model_max_length if max_length is None else max_length
            if limit < (least := self.tokens_per_code + 2 * special):
                raise ValueError(f"max_length is {limit}; it must be at least {least}, the tokens of one code")
        side = truncation_side or self.truncation_side
        encoded = [self._encode_row(visits, system, errors, special, limit, side) for visits in rows]
        names = ["input_ids", *["weights"] * return_weights, *["visit_ids"] * return_visit_ids]
        encoding = {name: [row[name] for row in encoded] for name in names}
        if single and return_tensors is None:
            encoding = {name: values[0] for name, values in encoding.items()}
        return self.pad(
            encoding,
            padding=padding,
            max_length=max_length if padding == "max_length" else None,
            padding_side=padding_side,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
            verbose=verbose,
        )

    def _encode_row(self, visits, system, errors, special: bool, limit: int | None, side: str) -> dict[str, list]:
        """Return `input_ids`, `weights` and `visit_ids` of one sequence of visits."""
        visits = [self._rows(visit, system, errors) for visit in visits if len(visit)]
        if limit is not None:
            visits = _cut(visits, self.tokens_per_code, special, limit, side)
        ids, weights, visit_ids = ([self._ids["[CLS]"]], [1.0], [0]) if special else ([], [], [])
        for number, rows in enumerate(visits, 1):
            visit_tokens, visit_weights = self._tokens_of(rows)
            ids += visit_tokens.reshape(-1).tolist()
            weights += visit_weights.reshape(-1).tolist()
            if special:
                ids.append(self._ids["[SEP]"])
                weights.append(1.0)
            visit_ids += [number] * (len(ids) - len(visit_ids))
        return {"input_ids": ids, "weights": weights, "visit_ids": visit_ids}

    def _tokens_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and weights `[codes, 4K]`; all tokens of an unknown code are `[UNK]`."""
        ids = self.table["ids"][rows]
        weights = self.table["weights"][rows]
        ids[rows == UNKNOWN] = self._ids["[UNK]"]
        weights[rows == UNKNOWN] = 1 / self.num_top_k_tokens
        return ids, weights

    def encode_plus(self, text, *args, **options) -> BatchEncoding:
        """Encode codes; see `__call__`."""
        return self(text, *args, **options)

    batch_encode_plus = encode_plus

    def _pad(self, encoded_inputs: dict, *args, **options) -> dict:
        before = len(encoded_inputs["input_ids"])
        padded = super()._pad(encoded_inputs, *args, **options)
        missing = len(padded["input_ids"]) - before
        side = options.get("padding_side") or self.padding_side
        for name, value in (("weights", 0.0), ("visit_ids", 0)):
            if name in padded and missing:
                extra = [value] * missing
                own = list(padded[name])
                padded[name] = own + extra if side == "right" else extra + own
        return padded

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return the number of special tokens, `[CLS]` and `[SEP]`, of a sequence without visits."""
        return 2

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return `[CLS] ids [SEP]`, and for a second visit also its ids and `[SEP]`."""
        more = [] if token_ids_1 is None else [*token_ids_1, self._ids["[SEP]"]]
        return [self._ids["[CLS]"], *token_ids_0, self._ids["[SEP]"], *more]

    # From tokens to codes.

    def decode(self, token_ids, skip_special_tokens: bool = False, **_) -> str | list[str]:
        """Return the keys of the codes nearest to the tokens, joined by spaces; a list of texts for a batch.

        Args:
            token_ids: 4K ids for each code, with special tokens in between.
            skip_special_tokens: whether to leave out special tokens, `[UNK]` too.
        """
        ids = _to_list(token_ids)
        if ids and isinstance(ids[0], (list, tuple, np.ndarray)):
            return [self.decode(row, skip_special_tokens) for row in ids]
        words = []
        group = []
        for number in [*([ids] if isinstance(ids, int) else ids), None]:
            name = None if number is None else self._convert_id_to_token(number)
            if number is not None and (name not in SPECIAL_TOKENS.values() or name == "[UNK]"):
                group.append(number)
            if group and (len(group) == self.tokens_per_code or name is None or name in _BETWEEN):
                found = self.nearest(group, 1)
                words += [found[0].key] if found else [] if skip_special_tokens else ["[UNK]"]
                group = []
            if name in _BETWEEN and not skip_special_tokens:
                words.append(name)
        return " ".join(words)

    def batch_decode(self, sequences, skip_special_tokens: bool = False, **_) -> list[str]:
        """Decode each row; see `decode`."""
        return [self.decode(row, skip_special_tokens) for row in _to_list(sequences)]

    def nearest(self, token_ids: Sequence[int], k: int = 1) -> list[Neighbor]:
        """Return the `k` codes that share most tokens with those of one code, best first; `[UNK]` is ignored."""
        ids = np.asarray(token_ids, np.int64)
        ids = ids[ids != self._ids["[UNK]"]]
        bag = np.zeros(self.vocab_size, np.float32)
        np.add.at(bag, ids, np.float32(1 / self.num_top_k_tokens))
        rows = np.flatnonzero((bag[self.table["ids"]] > 0).any(1))
        theirs, shares = _merged(self.table["ids"][rows], 1 / self.num_top_k_tokens)
        both = np.minimum(shares, np.where(shares > 0, bag[theirs], 0.0)).sum(1)
        scores = both / (shares.sum(1) + bag.sum() - both)
        order = np.lexsort((rows, -scores))[:k]
        return [
            Neighbor(self.key_at(row), float(score), self._descriptions[row].decode())
            for row, score in zip(rows[order], scores[order], strict=True)
        ]

    def embed(self, code: str | Sequence[str], system: str | None = None, *, pooled: bool = False) -> np.ndarray:
        """Return the four quantized embeddings of a code, `[4, d]` float32, or of a list of codes, `[codes, 4, d]`.

        Args:
            code, system: see `find`.
            pooled: whether to return the mean of the four, `[d]` or `[codes, d]`.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `find`.
        """
        rows = self._rows([code] if isinstance(code, str) else _to_list(code), system, "raise")
        ids, weights = self._tokens_of(rows)
        vectors = (self.codebook[ids] * weights[..., None]).reshape(len(rows), 4, self.num_top_k_tokens, -1).sum(2)
        vectors = vectors.mean(1) if pooled else vectors
        return vectors[0] if isinstance(code, str) else vectors

    def describe(self, code: str, system: str | None = None) -> str:
        """Return the description of a code, which is empty if the table holds none."""
        return self._descriptions[self.find(code, system)].decode()

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copy the table, and return its path."""
        path = Path(save_directory) / (f"{filename_prefix}-{TABLE}" if filename_prefix else TABLE)
        if path.resolve() != Path(self.table_file).resolve():
            shutil.copyfile(self.table_file, path)
        return (str(path),)


_BETWEEN = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


def _plain(name: str) -> str:
    return _NOT_NAME.sub("", name.upper())


def _upper(code: str) -> str:
    # Other letters keep their case: capitals of `ſ` would be the S of real codes.
    return code.upper() if code.isascii() else code


def _ndc(code: str) -> str | None:
    """Return an NDC with hyphens as 11 digits (package) or 9 (product), or None if it is not one."""
    segments = code.split("-")
    if not code.isascii() or not all(map(str.isdigit, segments)) or tuple(map(len, segments)) not in _NDC_SHAPES:
        return None
    return "".join(segment.zfill(width) for segment, width in zip(segments, (5, 4, 2), strict=False))


def _atc(code: str) -> str | None:
    """Return an ATC code without the blanks between its levels, or None if it is not one."""
    bare = "".join(code.upper().split()) if code.isascii() else ""
    return bare if _ATC_SHAPE.fullmatch(bare) else None


def _is_missing(code: object) -> bool:
    return code is None or (isinstance(code, float) and code != code)


def _to_list(value: object) -> object:
    """Return arrays and tensors as lists, and other values as they are."""
    return value.tolist() if hasattr(value, "tolist") else value


def _sequences(text: object, is_split_into_words: bool) -> tuple[list[list[list]], bool, bool]:
    """Return sequences of visits of codes, whether there is only one, and whether they are histories of visits."""
    depth = 0
    first = text
    while isinstance(first, (list, tuple)):
        depth += 1
        first = next((item for item in first if isinstance(item, (list, tuple))), first[0] if first else None)
    if depth > 3 - is_split_into_words:
        raise ValueError("codes are nested too deeply; give a code, codes, a history of visits, or a list of histories")
    if is_split_into_words:
        if depth == 0:
            raise ValueError("is_split_into_words=True needs a list of codes")
        return ([[list(text)]] if depth == 1 else [[list(codes)] for codes in text]), depth == 1, True
    if depth == 0:
        return [[[text]]], True, False
    if depth == 1:
        return [[[code]] for code in text], False, False
    if depth == 2:
        return [[list(visit) for visit in text]], True, True
    return [[list(visit) for visit in history] for history in text], False, True


def _cut(visits: list[np.ndarray], width: int, special: bool, limit: int, side: str) -> list[np.ndarray]:
    """Keep as many complete codes as fit, the first ones or, if `side` is `left`, the last ones."""
    left = side == "left"
    room = limit - special
    kept = []
    for rows in visits[::-1] if left else visits:
        fits = max((room - special) // width, 0)
        part = rows[-fits:] if left else rows[:fits]
        if not fits or not len(part):
            break
        kept.append(part)
        room -= len(part) * width + special
        if len(part) < len(rows):
            break
    return kept[::-1] if left else kept


def _merged(ids: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Sort ids `[codes, tokens]`, and return them with their shares; the first of equal ids has the sum of theirs."""
    ids = np.sort(ids, axis=1)
    shares = np.full(ids.shape, share, np.float32)
    for column in range(ids.shape[1] - 1, 0, -1):
        same = ids[:, column] == ids[:, column - 1]
        shares[same, column - 1] += shares[same, column]
        shares[same, column] = 0.0
    return ids, shares
