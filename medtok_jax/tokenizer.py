"""`MedTokTokenizer`: the tokens of medical codes in Python, without JAX, an accelerator or the data set.

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
    """Tokens of medical codes.

    Ids 0 to N-1 are rows of the codebook, in the regions text, graph and shared; the special tokens `[PAD]`, `[UNK]`,
    `[CLS]`, `[SEP]`, `[MASK]` are N to N+4, so that a model's embedding matrix may begin as the codebook. Every code
    has 4K tokens.

    A code may be written with its dot or without, in any case, with its system in front (`ICD10CM/E11.9`,
    `icd10cm:E119`, `DIAGNOSIS//ICD//10//E119`) or given as `system`. Whatever is no code raises an `InputError`
    (`UnknownCodeError`, `AmbiguousCodeError`).

    Args:
        directory: what `from_pretrained` read.
        prefer: code systems in the order in which a bare code of several is looked up, or `paper`; None for what the
            directory says, empty to refuse such a code.
    """

    def __init__(self, directory: TokenizerDirectory, prefer: str | Sequence[str] | None = None):
        self.directory = directory
        prefer = directory.config.prefer if prefer is None else PAPER_ORDER if prefer == "paper" else prefer
        self.index = CodeIndex(directory.table, [prefer] if isinstance(prefer, str) else prefer)
        self.similarity = Similarity(directory)
        # What decoding and sorting the table took is as much again as the table.
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
        """Opens a tokenizer directory, or downloads one from the Hugging Face hub. No code of it is ever run.

        Args:
            name_or_path: a directory, or a name on the hub such as `team/medtok`.
            prefer: see the class.
            verify: whether to read all files and compare their sha256.
            revision: branch, tag or commit on the hub.

        Raises:
            InputError: there is none, or it is damaged, mixed or of another version.
        """
        path = hub.resolve_tokenizer(name_or_path, revision)
        return cls(TokenizerDirectory.read(path, verify=verify), prefer)

    def save_pretrained(self, path: str | Path) -> None:
        """Copies the directory, byte for byte.

        Raises:
            InputError: `path` cannot be written, or holds something else.
        """
        source, path = self.directory.path, Path(path)
        if path.exists() and path.resolve() == source.resolve():
            return
        with tokenizer_directory.replacing(path) as folder:
            for name in (*self.config.files, CONFIG):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)

    def __reduce__(self):
        # A worker process opens the directory itself instead of being sent its tables.
        return _reopen, (str(self.directory.path), self.index.prefer)

    def __repr__(self) -> str:
        return f"MedTokTokenizer({str(self.directory.path)!r}, codes={len(self):,}, vocab_size={self.vocab_size:,})"

    @property
    def config(self) -> TokenizerConfig:
        """What the directory says of itself."""
        return self.directory.config

    @property
    def tokens_per_code(self) -> int:
        """4K."""
        return 4 * self.config.num_top_k_tokens

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special tokens included: N + 5."""
        return self.config.codebook_size + len(self.config.special_tokens)

    def __len__(self) -> int:
        """Number of codes in the table."""
        return self.config.codes

    def __contains__(self, code: str) -> bool:
        return isinstance(code, str) and bool(self.index.candidates(code))

    def get_vocab(self) -> dict[str, int]:
        """Id of every token."""
        return {self.token_of(number): number for number in range(self.vocab_size)}

    def token_of(self, number: int) -> str:
        """How a token id is written: `<text_17>`, `<graph_4021>`, `<shared_9000>`, or a special token."""
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
        """All that is known of a code's tokens, and where they come from.

        Args:
            code: see the class.
            system: its code system, where `code` does not say.
            description, graph: of a code that the table does not hold: it is encoded by the model of the directory (see
                `new_codes.NewCode`).
            fallback: `ancestors` to take the tokens of the nearest code above one that has neither of these.

        Raises:
            UnknownCodeError: the table does not hold it and nothing else helps.
            AmbiguousCodeError: several systems have it.
            InputError: something else cannot be used.
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
        notes = ("The table holds this code: what was given of it was not used.",) if given else ()
        return dataclasses.replace(self._from_table(row), notes=notes)

    def tokenize(self, code: str, system: str | None = None, **options) -> list[str]:
        """The 4K tokens of a code as text: `<text_17>`, `<graph_4021>`, `<shared_9000>`.

        Args and errors as `look_up`.
        """
        return [self.token_of(int(number)) for number in self.look_up(code, system, **options).ids]

    def encode(self, code: str, system: str | None = None, **options) -> np.ndarray:
        """The token ids of a code, `[4K]` int32, read-only. Args and errors as `look_up`."""
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
        """The token ids of many codes, `[codes, 4K]` int32.

        Args:
            codes: list or array of text.
            system: of all of them.
            errors: `raise` or `unk`: whether a code that is not there is an error or 4K times `[UNK]`.
            fallback: see `look_up`.
        """
        return self._ids_and_weights(self._rows(codes, system, errors, fallback))[0]

    @property
    def has_model(self) -> bool:
        """Whether the directory holds the model, so that codes never seen can be encoded."""
        return "model.safetensors" in self.config.files

    def new_code(
        self,
        code: str,
        system: str | None = None,
        description: str | None = None,
        graph: dict | list | None = None,
    ) -> "NewCode":  # noqa: F821
        """A code to encode: see `new_codes.NewCode`. Its system is told by the code's shape where nothing else does.

        Raises:
            InputError: nothing tells the code system.
        """
        from medtok_jax.inference.new_codes import NewCode

        return NewCode(*self.index.infer_system(code, system), description, graph)

    def encode_new(self, codes: Sequence["NewCode"], progress: bool = False) -> list[CodeTokens]:  # noqa: F821
        """Tokens of codes that no table holds, by the model in the directory. Needs JAX.

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
        """The model of the directory."""
        from medtok_jax.inference.new_codes import NewCodeEncoder

        return NewCodeEncoder.from_directory(self.directory.path)

    def decode(
        self, ids: Sequence[int], weights: Sequence[float] | None = None, k: int = 1
    ) -> list[Neighbor] | list[list[Neighbor]]:
        """The codes nearest to some tokens, by the tokens they share; special tokens are left out.

        Args:
            ids: tokens of one code, or of a sequence of codes.
            weights: of the tokens; None to count all tokens alike, those of the codes too.
            k: how many codes.

        Returns:
            The nearest codes, best first; for tokens of several codes a list of such lists.

        Raises:
            InputError: these are no token ids, or no whole number of codes.
        """
        groups = batch_encoding.groups_of(ids, weights, self.tokens_per_code, self.config.special_tokens)
        found = [self.similarity.describe(*best(*self.similarity.overlap(*group), k)) for group in groups]
        return found if len(found) > 1 else found[0] if found else []

    def embed(
        self, code: str | Sequence[str], system: str | None = None, *, pooled: bool = False, quantized: bool = True
    ) -> np.ndarray:
        """The four embeddings of a code, `[4, d]` float32, or of a list of codes, `[codes, 4, d]`.

        Args:
            code, system: see `look_up`.
            pooled: whether to take the mean of the four: `[d]`.
            quantized: True for the sum of its codebook rows by weight; False for the embeddings before quantization,
                where the directory was written with them.
        """
        single = isinstance(code, str)
        rows = self._rows([code] if single else code, system, "raise", None)
        vectors = self.similarity.quantized(rows) if quantized else self.directory.embeddings(rows)
        vectors = vectors.mean(1) if pooled else vectors
        return vectors[0] if single else vectors

    def neighbors(
        self, code: str, k: int = 10, *, by: str = "tokens", system: str | None = None, within: str | None = None
    ) -> list[Neighbor]:
        """The codes most like one, without itself, best first.

        Args:
            code, system: see `look_up`.
            k: how many.
            by: `tokens` for the weighted overlap of tokens (only codes that share one), `embedding` for the cosine of
                the quantized embeddings.
            within: only codes of this system.
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
        """Codes as a sequence model reads them: `input_ids`, `attention_mask` and `weights`.

        Args:
            codes: a code; a list of codes, each a row of its own; a patient's history, which is a list of visits, each
                a list of codes; or a list of histories. None stands for a code that is missing.
            system: of all codes.
            errors: `unk` or `raise`: whether a code that is not there is 4K times `[UNK]` or an error. A bare code of
                several systems is always an error, unless there is an order of preference.
            fallback: see `look_up`.
            **layout: `padding` (False, True or `longest`, `max_length`), `truncation` (to whole codes), `max_length`,
                `padding_side`, `truncation_side` (`left` keeps the last codes), `return_tensors` (None, `np`, `jax`,
                `pt`), `add_special_tokens` (None: `[CLS]` and `[SEP]` for histories alone).

        Returns:
            Arrays of int32 (int64 for `pt`) and float32. Histories are lists of arrays unless they are padded, and have
            `visit_ids` too: 1 for the first visit with codes, 2 for the second; 0 for `[CLS]` and padding.
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
            raise InputError(f"Many codes must be a list, not {shown(codes)}.")
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
        """Gives codes that are not in the table the rows of the nearest codes above them."""
        for place in np.flatnonzero(rows == UNKNOWN):
            code = text_at(codes, int(place))
            with contextlib.suppress(UnknownCodeError):
                rows[place] = UNKNOWN if is_missing(code) else self.index.find_ancestor(code, system)[1]

    def _ids_and_weights(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[codes, 4K]` each; an unknown code is `[UNK]` in all its places, which together weigh as much as one."""
        ids, weights = (np.take(array, rows, axis=0) for array in (self.directory.ids, self.directory.weights))
        unknown = rows == UNKNOWN
        ids[unknown], weights[unknown] = self.unk_token_id, 1 / self.config.num_top_k_tokens
        return ids, weights

    def _from_table(self, row: int) -> CodeTokens:
        columns = ("key", "description", "has_text", "has_graph")
        fields = {name: self.directory.table[name][row].as_py() for name in columns}
        return CodeTokens(ids=self.directory.ids[row], weights=self.directory.weights[row], **fields)

    def key_at(self, row: int) -> str:
        """Key of a row of the table."""
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
