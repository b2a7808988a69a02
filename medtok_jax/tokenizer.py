"""Define `MedTokTokenizer`, which looks up tokens of medical codes without JAX, an accelerator or the data set.

tokenizer = MedTokTokenizer.from_pretrained("runs/default/tokenizer")
tokenizer.tokenize("E11.9")
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medtok_jax.lookup import directory as tokenizer_directory
from medtok_jax.lookup import hub, tokenization_medtok
from medtok_jax.lookup.batch_encoding import as_list
from medtok_jax.lookup.code_index import UnknownCodeError
from medtok_jax.lookup.code_tokens import CodeTokens
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.similarity import Neighbor, best

if TYPE_CHECKING:
    from medtok_jax.inference.new_codes import NewCode, NewCodeEncoder


class MedTokTokenizer(tokenization_medtok.MedTokTokenizer):
    """Tokenize medical codes by look-up, and codes that the table lacks by the model of the directory.

    This is the class that transformers' `AutoTokenizer` makes of the same directory (see `tokenization_medtok`), with
    what needs more than the table: codes never seen are encoded from a description or a graph, which needs JAX.
    """

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        prefer: str | Sequence[str] | None = None,
        verify: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> "MedTokTokenizer":
        """Open a tokenizer directory, that of an installed package, or one of the hub. Code in it is never run.

        Args:
            name_or_path: a directory, a package, or a name on the hub such as `team/medtok`.
            prefer: see the class of `tokenization_medtok`.
            verify: whether to read all files and compare their sha256.
            revision: branch, tag or commit on the hub.
            **options: fields of `PreTrainedTokenizer`, such as `padding_side`; and for the hub those of
                `snapshot_download`: `token`, `cache_dir`, `local_files_only`, `force_download`.

        Raises:
            InputError: there is no tokenizer, its files are damaged or of different tokenizers, or its version differs.
        """
        of_hub = {name: options.pop(name) for name in hub.OPTIONS if name in options}
        path = hub.resolve_tokenizer(name_or_path, revision, **of_hub)
        directory = TokenizerDirectory.read(path, verify=verify)
        given = options if prefer is None else {**options, "prefer": prefer}
        tokenizer = super().from_pretrained(str(path), **given)
        tokenizer.__dict__["directory"] = directory
        return tokenizer

    @functools.cached_property
    def directory(self) -> TokenizerDirectory:
        """Return the directory of the tokenizer, read and checked."""
        return TokenizerDirectory.read(Path(self.table_file).parent)

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("directory", "new_code_encoder")
        return {name: value for name, value in super().__getstate__().items() if name not in left_out}

    def save_pretrained(
        self,
        save_directory: str | Path,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Copy the directory, with the settings of this tokenizer: its order of preference and added tokens.

        Args:
            save_directory: the directory, which appears when it is complete. In the directory of this tokenizer only
                the settings are written.
            legacy_format, filename_prefix, push_to_hub, **kwargs: see `PreTrainedTokenizer`.

        Returns:
            The paths of the files.

        Raises:
            InputError: `save_directory` cannot be written, or exists and is not a tokenizer directory.
        """
        path = Path(save_directory)
        given = kwargs | {"legacy_format": legacy_format, "filename_prefix": filename_prefix}
        if push_to_hub:
            given |= {"push_to_hub": True, "repo_id": kwargs.get("repo_id", path.name)}
        if path.exists() and path.resolve() == self.directory.path.resolve():
            return super().save_pretrained(str(path), **given)
        with tokenizer_directory.replacing(path) as folder:
            written = super().save_pretrained(str(folder), **given)
        return tuple(str(path / Path(file).relative_to(folder)) for file in written)

    def look_up(
        self,
        code: str,
        system: object = None,
        *,
        description: str | None = None,
        graph: dict[str, Any] | list[Any] | None = None,
        fallback: str | None = None,
        parents: Sequence[str] = (),
    ) -> CodeTokens:
        """Return the tokens of a code with its description and their source.

        The first of these that has tokens for the code: the table, the nearest code above it if `fallback` is given,
        `parents`, and the model, if a description or a graph is given.

        Args:
            code, system, fallback, parents: see `tokenization_medtok.MedTokTokenizer.look_up`.
            description, graph: inputs with which the model of the directory encodes a code that has no tokens (see
                `new_codes.NewCode`).

        Raises:
            UnknownCodeError: the tokenizer has no tokens for the code; the message says what was tried.
            AmbiguousCodeError: several systems have the code.
            InputError: an argument cannot be used.
        """
        given = description is not None or graph is not None
        try:
            found = super().look_up(code, system, fallback=fallback, parents=parents)
        except UnknownCodeError:
            if given:
                return self.encode_new([self.new_code(code, system, description, graph)])[0]
            raise
        if not given:
            return found
        note = f"The description or graph was not used, as the tokens come from the {found.source.split()[0]}."
        return dataclasses.replace(found, notes=(note,))

    @property
    def has_model(self) -> bool:
        """Return True if the directory holds the model, so that new codes can be encoded."""
        return self.directory.has_model

    def new_code(
        self,
        code: str,
        system: object = None,
        description: str | None = None,
        graph: dict[str, Any] | list[Any] | None = None,
    ) -> "NewCode":
        """Return a code to encode (see `new_codes.NewCode`), inferring its system from its shape if it is not given.

        Raises:
            InputError: the code system is not given and cannot be inferred.
        """
        from medtok_jax.inference.new_codes import NewCode

        return NewCode(*self.index.infer_system(code, system), description, graph)

    def encode_new(self, codes: Sequence["NewCode"], progress: bool = False) -> list[CodeTokens]:
        """Encode codes that the table does not hold with the model of the directory. This needs JAX.

        Raises:
            InputError: the directory holds no model, or a code has neither description nor graph.
        """
        new = self.new_code_encoder.encode(codes, progress)
        return [
            CodeTokens(
                key=key,
                description=code.description or "",
                ids=ids,
                weights=weights,
                has_text="text" in source,
                has_graph=source != "text",
                source=f"model: {source}",
                notes=tuple(notes),
            )
            for code, key, ids, weights, source, notes in zip(
                codes, new.keys, new.ids, new.weights, new.source, new.notes, strict=True
            )
        ]

    def search(self, text: str, k: int = 10, *, within: object = None) -> list[Neighbor]:
        """Return the codes that a text describes best, by the model of the directory. This needs JAX.

        The text is compared as it is before quantization with the quantized embeddings of the codes (asymmetric
        distance, Jegou et al. 2011), which loses about half as much as if both were quantized. Categories and codes of
        earlier editions are found too.

        Args:
            text: what is looked for, such as "kidney failure".
            k: number of codes to return.
            within: code system of the codes to return; None for all.

        Returns:
            The codes, best first, each with the cosine of its embeddings and those of the text.

        Raises:
            InputError: the directory holds no model, the text has no word, or the code system is not known.
        """
        rows = np.arange(self.num_codes)
        kept = rows if within is None else rows[self.index.is_of(rows, within)]
        scores = self.similarity.cosine(self.new_code_encoder.encode_texts([text]).queries[0])
        return self.similarity.describe(*best(kept, scores[kept], k))

    @functools.cached_property
    def new_code_encoder(self) -> "NewCodeEncoder":
        """Return the model of the directory, which is loaded once."""
        from medtok_jax.inference.new_codes import NewCodeEncoder

        return NewCodeEncoder.from_directory(self.directory.path)

    def embed(
        self, code: str | Sequence[str], system: object = None, *, pooled: bool = False, quantized: bool = True
    ) -> np.ndarray:
        """Return the embeddings of a code, `[E, d]` float32, or of a list of codes, `[codes, E, d]`.

        Args:
            code, system: see `look_up`.
            pooled: whether to return the mean of the embeddings, `[d]` or `[codes, d]`.
            quantized: True for the weighted sums of codebook rows; False for the embeddings before quantization, if
                the directory was written with them.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `look_up`.
            InputError: the directory holds no embeddings before quantization.
        """
        if quantized:
            return super().embed(code, system, pooled=pooled)
        single = isinstance(code, str)
        vectors = self.directory.embeddings(self._rows([code] if single else as_list(code), system, "raise", None))
        vectors = vectors.mean(1) if pooled else vectors
        return vectors[0] if single else vectors
