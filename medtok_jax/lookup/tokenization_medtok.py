# SPDX-License-Identifier: Apache-2.0
"""Look up the discrete tokens of medical codes in a table: the MedTok tokenizer for transformers.

MedTok (Su et al., "Multimodal Medical Code Tokenizer", ICML 2025, arXiv 2502.04397). This file and those it imports lie
in every tokenizer directory and need only transformers and numpy; nothing is unpickled.

    tokenizer = AutoTokenizer.from_pretrained("runs/default/tokenizer", trust_remote_code=True)
    tokenizer("E11.9").input_ids                                # the token ids of a code
    tokenizer(["E11.9", "I10"], return_tensors="np")            # a row for each code
    tokenizer([["E11.9", "I10"], ["N18.6"]], padding=True)      # a row for each sequence of codes
    tokenizer.encode_patient([["E11.9", "I10"], ["N18.6"]])     # visits of a patient: [CLS] visit [SEP] visit [SEP]
"""

import dataclasses
import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer

from medtok_jax.lookup.batch_encoding import (
    CODE,
    CodeTokenRun,
    Grouping,
    Layout,
    as_list,
    as_token_ids,
    flat_systems,
    group_codes,
    group_patients,
    is_list,
    lay_out,
    pad,
)
from medtok_jax.lookup.code_index import UNKNOWN, CodeIndex
from medtok_jax.lookup.code_lookup import ADDED, CodeLookup
from medtok_jax.lookup.code_names import PAPER_ORDER
from medtok_jax.lookup.config import CONFIG, SPECIAL_TOKENS, TokenizerConfig
from medtok_jax.lookup.similarity import Similarity
from medtok_jax.lookup.token_table import TABLE, TokenTable
from preprocessing.common.errors import InputError


class MedTokTokenizer(CodeLookup, PreTrainedTokenizer):
    """Tokenize medical codes by look-up.

    Ids 0 to N-1 are rows of the codebook, in the regions text, graph and shared; `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and
    `[MASK]` are N to N+4, so that the first rows of a model's embedding matrix can be initialized with the codebook.
    Every code has `tokens_per_code` tokens, T, known or not, so that a model may pool each T positions to one code.

    A code may be written with its dot or without, in upper or lower case, and with its system as a prefix
    (`ICD10CM/E11.9`, `icd10cm:E119`, `DIAGNOSIS//ICD//10//E119`) or as the argument `system`: a name of the system, its
    FHIR URI or OID, or an edition (9, 10), for all codes or, as a list, for each. A bare code that several systems know
    is refused.

    Args:
        table_file: path of `tokens.safetensors`.
        config_file: path of `medtok.json`.
        prefer: code systems in the order in which a bare code of several systems is looked up, or `paper`; None for
            the order in the directory, empty to refuse such a code.
    """

    vocab_files_names = {"table_file": TABLE, "config_file": CONFIG}  # noqa: RUF012
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    slow_tokenizer_class = None

    def __init__(self, table_file: str, config_file: str, prefer: str | Sequence[str] | None = None, **kwargs: Any):
        self.table_file, self.config_file = str(table_file), str(config_file)
        self._prefer = prefer
        self._open()
        for name in SPECIAL_TOKENS:
            kwargs.setdefault(f"{name.strip('[]').lower()}_token", name)
        super().__init__(prefer=prefer, **kwargs)

    def _open(self) -> None:
        self.config = TokenizerConfig.from_json(Path(self.config_file).read_text("utf-8"), Path(self.config_file))
        self.table = TokenTable(self.table_file, self.config.files[TABLE]["sha256"])
        if self.table.metadata["identity"] != self.config.identity:
            raise InputError(
                f"{self.table_file} belongs to another tokenizer than {self.config_file}; copy both again."
            )
        order = self.config.prefer if self._prefer is None else self._prefer
        order = PAPER_ORDER if order == "paper" else [order] if isinstance(order, str) else order
        self.index = CodeIndex(self.table.arrays, self.table.metadata["systems"], len(self.table), order)
        self.similarity = Similarity(self.table, self.config.bounds)
        regions = self.config.regions
        names = [f"<{name}_{row}>" for name in ("text", "graph", "shared") for row in range(*regions.bounds(name))]
        self._names = [*names, *SPECIAL_TOKENS]
        self._ids = {name: number for number, name in enumerate(self._names)}

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself; its contents are not pickled.
        opened = ("table", "index", "similarity", "config", "_names", "_ids")
        return {name: value for name, value in self.__dict__.items() if name not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __repr__(self) -> str:
        folder = str(Path(self.table_file).parent)
        return f"MedTokTokenizer({folder!r}, codes={self.num_codes:,}, vocab_size={self.vocab_size:,})"

    @property
    def vocab_size(self) -> int:
        """Return the number of token ids without added ones, N + 5 with the special tokens."""
        return len(self._names)

    @property
    def added(self) -> dict[str, int]:
        """Return the ids of tokens that stand for themselves: the special ones, and added ones such as `[TIME]`."""
        return self.added_tokens_encoder

    def _add_tokens(self, new_tokens: Sequence[object], special_tokens: bool = False) -> int:
        """Add tokens, none of which may be a code, because it would take the place of the code's tokens.

        Raises:
            InputError: one is a code that the tokenizer knows.
        """
        for token in new_tokens if hasattr(self, "index") else ():
            if self.index.candidates(str(token)):
                raise InputError(f"{str(token)!r} is a code; give the added token another name, such as '[{token}]'.")
        return super()._add_tokens(new_tokens, special_tokens)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token."""
        return self._ids | getattr(self, "_added_tokens_encoder", {})

    def token_of(self, number: int) -> str:
        """Return the text of a token id: `<text_17>`, `<graph_4021>`, `<shared_9000>`, or a special token."""
        return self.convert_ids_to_tokens(int(number))

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self._ids["[UNK]"])

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index] if 0 <= index < len(self._names) else "[UNK]"

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens by spaces."""
        return " ".join(tokens)

    # One code.

    def tokenize(
        self, text: str, pair: object = None, add_special_tokens: bool = False, system: object = None, **options: Any
    ) -> list[str]:
        """Return the tokens of a code as text: `<text_17>`, `<graph_4021>`, `<shared_9000>`.

        See `look_up` for args and errors.
        """
        if pair is not None:
            raise InputError("A pair of texts is not supported; give a list of codes.")
        if isinstance(text, str) and text in self._added_tokens_encoder:
            return [text]
        ids = self.look_up(text, system, **options).ids.tolist()
        if add_special_tokens:
            ids = self.build_inputs_with_special_tokens(ids)
        return self.convert_ids_to_tokens(ids)

    def encode(self, text: object, text_pair: object = None, system: object = None, **options: Any) -> list[Any]:
        """Return the token ids of codes, given as for `__call__`, which has the options too."""
        if isinstance(text, str) and text_pair is None and not options and text not in self._added_tokens_encoder:
            # One code, as most often: a tenth of the time that a batch of one takes.
            return self.table.ids[self.index.find(text, system)].tolist()
        return self(text, text_pair, system=system, **options)["input_ids"]

    # Batches.

    def __call__(
        self,
        text: object,
        text_pair: object = None,
        *,
        system: object = None,
        errors: str | None = None,
        fallback: str | None = None,
        add_special_tokens: bool = False,
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
        verbose: bool = True,
    ) -> BatchEncoding:
        """Encode codes for a sequence model.

        Args:
            text: a code; a list of codes, each a sequence of its own; or a list of sequences, each a list of codes. A
                column of pandas or polars is such a list. None stands for a missing code. A special token such as
                `[SEP]`, or one that was added by `add_tokens`, becomes one id.
            text_pair: not supported.
            system: code system of all codes, or a list with one for each code, nested as `text` is.
            errors: `raise` to raise an error for an unknown code, `unk` to encode it as T times `[UNK]`, which warns
                once, `skip` to leave it out. None for `raise` where one code is given and `unk` for all else. A bare
                code of several systems is always an error, unless there is an order of preference.
            fallback: see `look_up`.
            add_special_tokens: whether a sequence is `[CLS] codes [SEP]`.
            is_split_into_words: True if a list of codes is one sequence.
            padding, padding_side, pad_to_multiple_of: see `PreTrainedTokenizer`.
            truncation, max_length: keep as many complete codes as fit, the last ones if `truncation_side` is `left`.
            return_tensors: None for lists, `np` for NumPy arrays, which JAX takes too, `pt` for PyTorch.
            return_attention_mask: False to leave the mask out.
            return_weights: whether to return `weights`, the weight of each token in its embedding; 0 at padding.
            verbose: has no effect.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `errors`.
            InputError: an argument cannot be used, or codes are nested three levels deep (see `encode_patients`).
        """
        if text_pair is not None:
            raise InputError("text_pair is not supported; give a list of codes.")
        is_sequence = is_split_into_words and _is_flat(text)
        grouping = group_codes([as_list(text)] if is_sequence else text)
        single = grouping.form == CODE or is_sequence
        layout = Layout(
            *(padding, truncation or False, self._most(max_length)),
            *(padding_side or self.padding_side, truncation_side or self.truncation_side),
            *(pad_to_multiple_of, return_tensors),
        )
        return self._encode_grouping(
            grouping,
            layout,
            system=flat_systems(system, grouping, group_codes),
            errors=errors,
            fallback=fallback,
            special=add_special_tokens,
            names=["attention_mask"] * (return_attention_mask is not False) + ["weights"] * return_weights,
            single=single,
        )

    def encode_patient(self, visits: object, *, system: object = None, **options: Any) -> BatchEncoding:
        """Encode the visits of a patient, each a list of codes: `[CLS] visit [SEP] visit [SEP]`.

        See `encode_patients` for the options and what is returned; a list of systems is nested as `visits` is.
        """
        system = [system] if is_list(system) else system
        encoded = self.encode_patients([visits], system=system, **options)
        if options.get("return_tensors") is not None:
            return encoded
        return BatchEncoding({name: rows[0] for name, rows in encoded.items()})

    def encode_patients(
        self,
        patients: object,
        *,
        system: object = None,
        errors: str | None = None,
        fallback: str | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_weights: bool = False,
    ) -> BatchEncoding:
        """Encode the histories of patients, each a list of visits, each a list of codes.

        Args:
            patients: a list of patients. Visits without codes are left out.
            add_special_tokens: whether a patient is `[CLS] visit [SEP] visit [SEP] ...`.
            system, errors, fallback, padding, truncation, max_length, padding_side, truncation_side: see `__call__`.
            pad_to_multiple_of, return_tensors, return_weights: see `__call__`.

        Returns:
            `input_ids`, `attention_mask`, and `visit_ids`: 1 for the first visit with codes, 2 for the second, 0 for
            `[CLS]` and padding.

        Raises:
            UnknownCodeError, AmbiguousCodeError, InputError: see `__call__`.
        """
        layout = Layout(
            *(padding, truncation or False, self._most(max_length)),
            *(padding_side or self.padding_side, truncation_side or self.truncation_side),
            *(pad_to_multiple_of, return_tensors),
        )
        grouping = group_patients(patients)
        return self._encode_grouping(
            grouping,
            layout,
            system=flat_systems(system, grouping, group_patients),
            errors=errors,
            fallback=fallback,
            special=add_special_tokens,
            names=["attention_mask", "visit_ids", *["weights"] * return_weights],
            single=False,
        )

    def encode_plus(self, text: object, *args: Any, **options: Any) -> BatchEncoding:
        """Encode codes; see `__call__`."""
        return self(text, *args, **options)

    batch_encode_plus = encode_plus

    def _most(self, max_length: int | None) -> int | None:
        """Return the number of tokens that a sequence may have, None where there is no limit."""
        return self.model_max_length if max_length is None and self.model_max_length < 1 << 40 else max_length

    def _encode_grouping(
        self,
        grouping: Grouping,
        layout: Layout,
        *,
        system: object,
        errors: str | None,
        fallback: str | None,
        special: bool,
        names: list[str],
        single: bool,
    ) -> BatchEncoding:
        errors = errors or ("raise" if grouping.form == CODE else "unk")
        rows = self._rows(grouping.codes, system, errors, fallback, with_added=True)
        run = self._run_of(rows, grouping.codes, skip=errors == "skip")
        ids = self.config.special_tokens
        flat, lengths = lay_out(run, grouping, layout, special=ids if special else None, least=self.tokens_per_code)
        flat = {name: flat[name] for name in ("input_ids", "weights", "visit_ids") if name in ("input_ids", *names)}
        arrays = pad(flat, lengths, layout, ids["[PAD]"])
        if "attention_mask" not in names:
            del arrays["attention_mask"]
        if layout.return_tensors is None:
            lists = {name: [row.tolist() for row in rows] for name, rows in arrays.items()}
            return BatchEncoding({name: rows[0] for name, rows in lists.items()} if single else lists)
        return BatchEncoding(
            {name: self._to_tensor(np.asarray(array), layout.return_tensors) for name, array in arrays.items()}
        )

    def _to_tensor(self, array: np.ndarray, kind: str) -> Any:
        """Return an array as a tensor of NumPy (`np`) or PyTorch (`pt`, with 64-bit indices)."""
        if kind != "pt":
            return array
        torch = importlib.import_module("torch")
        return torch.from_numpy(np.ascontiguousarray(array if array.dtype == np.float32 else array.astype(np.int64)))

    def _run_of(self, rows: np.ndarray, codes: list[Any], *, skip: bool) -> CodeTokenRun:
        """Return the tokens of rows one after the other; a special or added token is one id."""
        width = self.tokens_per_code
        ids, weights = self._tokens_of(np.maximum(rows, UNKNOWN))
        added, standing = rows == ADDED, self.added
        if not added.any() and not skip:
            return CodeTokenRun(ids.reshape(-1), weights.reshape(-1), np.full(len(rows), width))
        for position in np.flatnonzero(added):
            ids[position, 0] = standing[codes[position]]
            weights[position, 0] = 1.0
        widths = np.where(added, 1, np.where(rows == UNKNOWN, 0, width) if skip else width)
        kept = np.arange(width) < widths[:, None]
        return CodeTokenRun(ids[kept], weights[kept], widths)

    def _pad(self, encoded_inputs: dict[str, Any], *args: Any, **options: Any) -> dict[str, Any]:
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

    def decode(self, token_ids: object, skip_special_tokens: bool = False, **_: Any) -> str | list[str]:
        """Return the keys of the codes nearest to the tokens, joined by spaces; a list of texts for a batch.

        Ids outside of the vocabulary, as padded rows of an embedding matrix or labels of -100 are, count as special.

        Args:
            token_ids: T ids for each code, with special tokens in between.
            skip_special_tokens: whether to leave out special tokens, `[UNK]` too.

        Raises:
            InputError: an id is no number.
        """
        if is_list(token_ids) and any(is_list(row) for row in as_list(token_ids)):
            return self.batch_decode(token_ids, skip_special_tokens)
        words: list[str] = []
        group: list[int] = []
        unknown, codebook = self._ids["[UNK]"], self.config.codebook_size

        def flush() -> None:
            if group:
                found = self.nearest(group, 1)
                words.extend([found[0].key] if found else [] if skip_special_tokens else ["[UNK]"])
                group.clear()

        for number in as_token_ids(token_ids):
            if 0 <= number < codebook or number == unknown:
                group.append(number)
                if len(group) == self.tokens_per_code:
                    flush()
                continue
            flush()
            word = self.convert_ids_to_tokens(number) if number >= 0 else "[PAD]"
            if number in self._added_tokens_decoder or not skip_special_tokens:
                special = number in self.all_special_ids or word in SPECIAL_TOKENS
                if not (special and skip_special_tokens):
                    words.append(word)
        flush()
        return " ".join(words)

    def batch_decode(self, sequences: object, skip_special_tokens: bool = False, **_: Any) -> list[Any]:
        """Decode each row; see `decode`."""
        rows = as_list(sequences) if is_list(sequences) else [sequences]
        return [self.decode(row, skip_special_tokens) for row in rows]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy the table and the other files of the directory that are here, and return their paths."""
        if filename_prefix:
            raise InputError("filename_prefix is not supported; give a directory of its own.")
        source, target = Path(self.table_file).parent, Path(save_directory)
        there = {name: entry for name, entry in self.config.files.items() if (source / name).is_file()}
        if source.resolve() != target.resolve():
            for name in there:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, target / name)
            kept = dataclasses.replace(self.config, files=there)
            (target / CONFIG).write_text(kept.to_json(), encoding="utf-8")
        return tuple(str(target / name) for name in (*there, CONFIG))


def _is_flat(text: object) -> bool:
    return is_list(text) and not any(is_list(item) for item in as_list(text))
