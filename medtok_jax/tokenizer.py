"""Define `MedTokTokenizer`, which looks up tokens of medical codes without JAX, an accelerator or the data set.

tokenizer = MedTokTokenizer.from_pretrained("runs/default/tokenizer")
tokenizer.tokenize("E11.9")
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from medtok_jax.lookup import batch_encoding, hub
from medtok_jax.lookup import directory as tokenizer_directory
from medtok_jax.lookup.batch_encoding import BatchEncoding, Layout
from medtok_jax.lookup.code_index import AMBIGUOUS, UNKNOWN, CodeIndex, UnknownCodeError, is_missing, text_at
from medtok_jax.lookup.code_names import PAPER_ORDER, shown
from medtok_jax.lookup.code_tokens import CodeTokens
from medtok_jax.lookup.config import CONFIG, TokenizerConfig
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.similarity import Neighbor, Similarity, best
from preprocessing.common import extras
from preprocessing.common.errors import InputError


class MedTokTokenizer:
    """Tokenize medical codes by look-up.

    Ids 0 to N-1 are rows of the codebook, in the regions text, graph and shared; the special tokens `[PAD]`, `[UNK]`,
    `[CLS]`, `[SEP]`, `[MASK]` are N to N+4, so that the first rows of a model's embedding matrix can be initialized
    with the codebook. Every code has 4K tokens.

    A code may be written with its dot or without, in upper or lower case, and with its system as a prefix
    (`ICD10CM/E11.9`, `icd10cm:E119`, `DIAGNOSIS//ICD//10//E119`) or as the argument `system`. Text that is not a code
    of the tokenizer raises an `InputError` (`UnknownCodeError`, `AmbiguousCodeError`).

    Args:
        directory: the directory, as `from_pretrained` reads it.
        prefer: code systems in the order in which a bare code of several systems is looked up, or `paper`; None for
            the order in the directory, empty to refuse such a code.
    """

    def __init__(self, directory: TokenizerDirectory, prefer: str | Sequence[str] | None = None):
        self.directory = directory
        prefer = directory.config.prefer if prefer is None else PAPER_ORDER if prefer == "paper" else prefer
        self.index = CodeIndex(directory.table, [prefer] if isinstance(prefer, str) else prefer)
        self.similarity = Similarity(directory)
        # Decoding and sorting took as much memory as the table; it is given back.
        pa.default_memory_pool().release_unused()
        self._special_names = {number: name for name, number in self.config.special_tokens.items()}

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        prefer: str | Sequence[str] | None = None,
        verify: bool = False,
        revision: str | None = None,
    ) -> "MedTokTokenizer":
        """Open a tokenizer directory, or download one from the Hugging Face hub. Code in it is never run.

        Args:
            name_or_path: a directory, or a name on the hub such as `team/medtok`.
            prefer: see the class.
            verify: whether to read all files and compare their sha256.
            revision: branch, tag or commit on the hub.

        Raises:
            InputError: there is no tokenizer, its files are damaged or of different tokenizers, or its version differs.
        """
        path = hub.resolve_tokenizer(name_or_path, revision)
        return cls(TokenizerDirectory.read(path, verify=verify), prefer)

    def save_pretrained(self, path: str | Path) -> None:
        """Copy the directory, byte for byte.

        Raises:
            InputError: `path` cannot be written, or exists and is not a tokenizer directory.
        """
        source = self.directory.path
        path = Path(path)
        if path.exists() and path.resolve() == source.resolve():
            return
        with tokenizer_directory.replacing(path) as folder:
            for name in (*self.config.files, CONFIG):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)

    def __reduce__(self):
        # A worker process opens the directory itself; its tables are not pickled.
        return _reopen, (str(self.directory.path), self.index.prefer)

    def __repr__(self) -> str:
        return f"MedTokTokenizer({str(self.directory.path)!r}, codes={len(self):,}, vocab_size={self.vocab_size:,})"

    @property
    def config(self) -> TokenizerConfig:
        """Return the configuration of the directory."""
        return self.directory.config

    @property
    def tokens_per_code(self) -> int:
        """Return the number of tokens of a code, 4K."""
        return 4 * self.config.num_top_k_tokens

    @property
    def vocab_size(self) -> int:
        """Return the number of token ids, N + 5 with the special tokens."""
        return self.config.codebook_size + len(self.config.special_tokens)

    def __len__(self) -> int:
        """Return the number of codes in the table."""
        return self.config.codes

    def __contains__(self, code: str) -> bool:
        return isinstance(code, str) and bool(self.index.candidates(code))

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token."""
        return {self.token_of(number): number for number in range(self.vocab_size)}

    def token_of(self, number: int) -> str:
        """Return the text of a token id: `<text_17>`, `<graph_4021>`, `<shared_9000>`, or a special token."""
        return self._special_names.get(number) or f"<{self.config.regions.region_of(number)}_{number}>"

    pad_token_id = property(lambda self: self.config.special_tokens["[PAD]"], doc="Id of `[PAD]`.")
    unk_token_id = property(lambda self: self.config.special_tokens["[UNK]"], doc="Id of `[UNK]`.")
    cls_token_id = property(lambda self: self.config.special_tokens["[CLS]"], doc="Id of `[CLS]`.")
    sep_token_id = property(lambda self: self.config.special_tokens["[SEP]"], doc="Id of `[SEP]`.")
    mask_token_id = property(lambda self: self.config.special_tokens["[MASK]"], doc="Id of `[MASK]`.")

    def look_up(
        self,
        code: str,
        system: str | None = None,
        *,
        description: str | None = None,
        graph: dict | list | None = None,
        fallback: str | None = None,
    ) -> CodeTokens:
        """Return the tokens of a code with its description and their source.

        Args:
            code: see the class.
            system: its code system, for a `code` without a prefix.
            description, graph: inputs with which the model of the directory encodes a code that the table does not
                hold (see `new_codes.NewCode`).
            fallback: `ancestors` to use the tokens of the nearest ancestor for an unknown code without these inputs.

        Raises:
            UnknownCodeError: the table does not hold the code, and it cannot be encoded or replaced by an ancestor.
            AmbiguousCodeError: several systems have the code.
            InputError: an argument cannot be used.
        """
        if fallback not in (None, "ancestors"):
            raise InputError(f"fallback is {shown(fallback)}; it must be None or 'ancestors'.")
        given = description is not None or graph is not None
        try:
            row = self.index.find(code, system)
        except UnknownCodeError:
            if given:
                return self.encode_new([self.new_code(code, system, description, graph)])[0]
            if fallback is None:
                raise
            key, row = self.index.find_ancestor(code, system)
            return dataclasses.replace(self._from_table(row), key=key, source=f"ancestor {self.key_at(row)}")
        notes = ("The table holds this code, so the given description or graph was not used.",) if given else ()
        return dataclasses.replace(self._from_table(row), notes=notes)

    def tokenize(self, code: str, system: str | None = None, **options) -> list[str]:
        """Return the 4K tokens of a code as text: `<text_17>`, `<graph_4021>`, `<shared_9000>`.

        See `look_up` for args and errors.
        """
        return [self.token_of(int(number)) for number in self.look_up(code, system, **options).ids]

    def encode(self, code: str, system: str | None = None, **options) -> np.ndarray:
        """Return the token ids of a code, `[4K]` int32, read-only; see `look_up` for args and errors."""
        if not options:
            return self.directory.ids[self.index.find(code, system)]
        return self.look_up(code, system, **options).ids

    def encode_many(
        self,
        codes: Sequence[str] | pa.Array,
        system: str | None = None,
        *,
        errors: str = "raise",
        fallback: str | None = None,
    ) -> np.ndarray:
        """Return the token ids of many codes, `[codes, 4K]` int32.

        Args:
            codes: list or array of text.
            system: code system of all codes.
            errors: `raise` to raise an error for an unknown code, `unk` to encode it as 4K times `[UNK]`.
            fallback: see `look_up`.

        Raises:
            UnknownCodeError, AmbiguousCodeError, InputError: see `look_up`.
        """
        return self._ids_and_weights(self._rows(codes, system, errors, fallback))[0]

    @property
    def has_model(self) -> bool:
        """Return True if the directory holds the model, so that new codes can be encoded."""
        return "model.safetensors" in self.config.files

    def new_code(
        self,
        code: str,
        system: str | None = None,
        description: str | None = None,
        graph: dict | list | None = None,
    ) -> "NewCode":  # noqa: F821
        """Return a code to encode (see `new_codes.NewCode`), inferring its system from its shape if it is not given.

        Raises:
            InputError: the code system is not given and cannot be inferred.
        """
        from medtok_jax.inference.new_codes import NewCode

        return NewCode(*self.index.infer_system(code, system), description, graph)

    def encode_new(self, codes: Sequence["NewCode"], progress: bool = False) -> list[CodeTokens]:  # noqa: F821
        """Encode codes that the table does not hold with the model of the directory. This needs JAX.

        Raises:
            InputError: the directory holds no model, or a code has neither description nor graph.
        """
        new = self.new_code_encoder.encode(codes, progress)
        return [
            CodeTokens(
                key=f"{code.system}/{code.code}",
                description=code.description or "",
                ids=ids,
                weights=weights,
                has_text="text" in source,
                has_graph=source != "text",
                source=f"model: {source}",
                notes=tuple(notes),
            )
            for code, ids, weights, source, notes in zip(
                codes, new.ids, new.weights, new.source, new.notes, strict=True
            )
        ]

    @functools.cached_property
    def new_code_encoder(self) -> "NewCodeEncoder":  # noqa: F821
        """Return the model of the directory, which is loaded once."""
        from medtok_jax.inference.new_codes import NewCodeEncoder

        return NewCodeEncoder.from_directory(self.directory.path)

    def decode(
        self, ids: Sequence[int], weights: Sequence[float] | None = None, k: int = 1
    ) -> list[Neighbor] | list[list[Neighbor]]:
        """Return the codes that share most tokens with the given ones; special tokens are left out.

        Args:
            ids: token ids of one code, or of a sequence of codes.
            weights: weights of the tokens; None to weigh all tokens alike, those of the codes too.
            k: number of codes to return.

        Returns:
            The nearest codes, best first; for tokens of several codes a list of such lists.

        Raises:
            InputError: the ids or weights cannot be used, or the ids are not a whole number of codes.
        """
        groups = batch_encoding.groups_of(ids, weights, self.tokens_per_code, self.config.special_tokens)
        found = [self.similarity.describe(*best(*self.similarity.overlap(*group), k)) for group in groups]
        return found if len(found) > 1 else found[0] if found else []

    def embed(
        self, code: str | Sequence[str], system: str | None = None, *, pooled: bool = False, quantized: bool = True
    ) -> np.ndarray:
        """Return the four embeddings of a code, `[4, d]` float32, or of a list of codes, `[codes, 4, d]`.

        Args:
            code, system: see `look_up`.
            pooled: whether to return the mean of the four, `[d]` or `[codes, d]`.
            quantized: True for the weighted sums of codebook rows; False for the embeddings before quantization, if
                the directory was written with them.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `look_up`.
            InputError: the directory holds no embeddings before quantization.
        """
        single = isinstance(code, str)
        rows = self._rows([code] if single else code, system, "raise", None)
        vectors = self.similarity.quantized(rows) if quantized else self.directory.embeddings(rows)
        vectors = vectors.mean(1) if pooled else vectors
        return vectors[0] if single else vectors

    def neighbors(
        self, code: str, k: int = 10, *, by: str = "tokens", system: str | None = None, within: str | None = None
    ) -> list[Neighbor]:
        """Return the codes most similar to a code, best first, without the code itself.

        Args:
            code, system: see `look_up`.
            k: number of codes to return.
            by: `tokens` for the weighted overlap of tokens (only codes that share one), `embedding` for the cosine of
                the quantized embeddings.
            within: code system of the codes to return; None for all.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `look_up`.
            InputError: `by` or `within` is not known.
        """
        row = self.index.find(code, system)
        if by == "tokens":
            shares = self.similarity.shares(self.directory.weights[row : row + 1])[0]
            rows, scores = self.similarity.overlap(self.directory.ids[row], shares)
        elif by == "embedding":
            rows = np.arange(len(self))
            scores = self.similarity.cosine(self.similarity.quantized(np.array([row]))[0])
        else:
            raise InputError(f"by is {shown(by)}; it must be 'tokens' or 'embedding'.")
        kept = rows != row
        if within is not None:
            kept &= self.index.is_of(rows, within)
        return self.similarity.describe(*best(rows[kept], scores[kept], k))

    def __call__(
        self,
        codes: object,
        system: str | None = None,
        *,
        errors: str = "unk",
        fallback: str | None = None,
        **layout,
    ) -> BatchEncoding:
        """Encode codes for a sequence model: `input_ids`, `attention_mask` and `weights`.

        Args:
            codes: a code; a list of codes, each a row of its own; a patient's history, which is a list of visits, each
                a list of codes; or a list of histories. None stands for a missing code.
            system: code system of all codes.
            errors: `unk` to encode an unknown code as 4K times `[UNK]`, `raise` to raise an error. A bare code of
                several systems is always an error, unless there is an order of preference.
            fallback: see `look_up`.
            **layout: `padding` (False, True or `longest`, `max_length`), `truncation` (to complete codes),
                `max_length`, `padding_side`, `truncation_side` (`left` keeps the last codes), `return_tensors` (None,
                `np`, `jax`, `pt`), `add_special_tokens` (None: `[CLS]` and `[SEP]` only for histories).

        Returns:
            Arrays of int32 (int64 for `pt`) and float32. Histories are lists of arrays unless they are padded, and have
            `visit_ids` too: 1 for the first visit with codes, 2 for the second; 0 for `[CLS]` and padding.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `errors`.
            InputError: an option or the nesting of `codes` is not allowed.
        """
        try:
            wanted = Layout(**layout)
        except TypeError as error:
            raise InputError(f"{error.args[0].split(' ', 1)[-1]}.") from error
        kind, flat, visits, patients = batch_encoding.flatten(codes)
        arrays = self._ids_and_weights(self._rows(flat, system, errors, fallback))
        encoding = batch_encoding.lay_out(
            *arrays, visits, patients, kind=kind, layout=wanted, special=self.config.special_tokens
        )
        return _as_tensors(encoding, wanted.return_tensors)

    def _rows(
        self, codes: Sequence[str] | pa.Array, system: str | None, errors: str, fallback: str | None
    ) -> np.ndarray:
        if not batch_encoding.is_list(codes):
            raise InputError(f"Codes must be a list or an array, not {shown(codes)}.")
        if errors not in ("raise", "unk") or fallback not in (None, "ancestors"):
            raise InputError("errors must be 'raise' or 'unk', and fallback None or 'ancestors'.")
        rows = self.index.find_many(codes, system)
        if fallback:
            self._fall_back(rows, codes, system)
        bad = np.flatnonzero(rows == AMBIGUOUS) if errors == "unk" else np.flatnonzero(rows < 0)
        if len(bad):
            self.index.find(text_at(codes, int(bad[0])), system)
        return rows

    def _fall_back(self, rows: np.ndarray, codes: Sequence[str] | pa.Array, system: str | None) -> None:
        """Set the rows of unknown codes to those of their nearest ancestors."""
        for position in np.flatnonzero(rows == UNKNOWN):
            code = text_at(codes, int(position))
            with contextlib.suppress(UnknownCodeError):
                rows[position] = UNKNOWN if is_missing(code) else self.index.find_ancestor(code, system)[1]

    def _ids_and_weights(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and weights, `[codes, 4K]` each; an unknown code is 4K times `[UNK]`, with weights of 1/K."""
        ids, weights = (np.take(array, rows, axis=0) for array in (self.directory.ids, self.directory.weights))
        unknown = rows == UNKNOWN
        ids[unknown] = self.unk_token_id
        weights[unknown] = 1 / self.config.num_top_k_tokens
        return ids, weights

    def _from_table(self, row: int) -> CodeTokens:
        columns = ("key", "description", "has_text", "has_graph")
        fields = {name: self.directory.table[name][row].as_py() for name in columns}
        return CodeTokens(ids=self.directory.ids[row], weights=self.directory.weights[row], **fields)

    def key_at(self, row: int) -> str:
        """Return the key, `SYSTEM/code`, of a row of the table."""
        return self.directory.table["key"][row].as_py()


def _reopen(path: str, prefer: Sequence[str]) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(path, prefer=prefer)


def _as_tensors(encoding: BatchEncoding, kind: str | None) -> BatchEncoding:
    """Return the arrays of an encoding as tensors of `jax` or `pt` (PyTorch); as they are for `np` and None."""
    if kind == "jax":
        import jax.numpy as jnp

        return BatchEncoding({name: jnp.asarray(array) for name, array in encoding.items()})
    if kind == "pt":
        torch = extras.load("torch")
        # Indices are 64 bit in PyTorch.
        arrays = {n: array if array.dtype == np.float32 else array.astype(np.int64) for n, array in encoding.items()}
        return BatchEncoding({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})
    return encoding
