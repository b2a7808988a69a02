"""Map the codes of patient records to tokens: those of the table, of codes above and parents, and of the model.

Only the model needs JAX, which is imported when it has a code to encode.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.records.choices import NEAREST
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.token_rows import EncodedCodes, TokenRows
from preprocessing.meds.dataset import MedsDataset


class RecordCodes(NamedTuple):
    """Hold the mapper of the codes of records, and the tokens of the rows that it maps them to."""

    mapper: CodeMapper
    rows: TokenRows

    @classmethod
    def of(cls, directory: TokenizerDirectory, unmapped: str, dataset: MedsDataset | None = None) -> "RecordCodes":
        """Return mapper and rows for the records of a data set.

        With `nearest`, the model of the tokenizer, if its directory has one, encodes the codes of the data set that
        have a description there, but neither tokens nor a code above or a parent with tokens.

        Args:
            directory: the tokenizer.
            unmapped: one of `records.choices.UNMAPPED`.
            dataset: the records; None if only their codes are known, so that neither parents nor the model are used.

        Raises:
            InputError: the file of codes of the data set, or the model, cannot be used.
        """
        if unmapped != NEAREST or dataset is None:
            return cls(CodeMapper.of(directory, unmapped), TokenRows.of(directory))
        parents = dataset.parent_codes()
        mapper = CodeMapper.of(directory, unmapped, parents)
        encoded = _encode(directory, mapper, dataset.descriptions()) if directory.has_model else None
        if encoded is not None:
            mapper = CodeMapper.of(directory, unmapped, parents, encoded)
        return cls(mapper, TokenRows.of(directory, encoded))


def _encode(directory: TokenizerDirectory, mapper: CodeMapper, descriptions: Mapping[str, str]) -> EncodedCodes | None:
    """Encode the codes that have a description but no row; return None if there are none."""
    absent = mapper.absent(list(descriptions))
    if not absent:
        return None
    from medtok_jax.inference.new_codes import NewCode, NewCodeEncoder

    encoder = NewCodeEncoder.from_directory(directory.path)
    described: dict[str, NewCode] = {}
    for text, key in absent.items():
        code = NewCode(*key.split("/", 1), descriptions[text])
        # Some spellings of a code may have descriptions of which the model reads nothing.
        if key not in described and encoder.can_encode(code):
            described[key] = code
    if not described:
        return None
    print(f"The model encodes {len(described):,} codes that the tokenizer lacks, from their descriptions.")
    new = encoder.encode(list(described.values()), progress=True)
    place = {key: position for position, key in enumerate(described)}
    position = {text: place[key] for text, key in absent.items() if key in place}
    return EncodedCodes(list(described), position, new.ids, new.weights.astype(np.float32))
