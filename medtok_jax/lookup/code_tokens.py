"""Define the tokens of one code together with their provenance."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class CodeTokens:
    """Hold the tokens of one code.

    Attributes:
        key: `SYSTEM/code` of the requested code.
        description: of the code; of the ancestor if the tokens are an ancestor's.
        ids: `[T]` int32, see `TokenizerConfig.positions`.
        weights: `[T]` float32.
        has_text, has_graph: whether the code has a description and a subgraph.
        source: `table`, or `category` or `retired` for such a row of the table; `ancestor SYSTEM/code`; `parent
            SYSTEM/code`; or `model: ` and the model's inputs: `text`, `graph`, `text+graph`, or `text+hierarchy` (see
            `new_codes.NewTokens`).
        notes: one sentence for each input that was cut, ignored or assumed.
    """

    key: str
    description: str
    ids: np.ndarray
    weights: np.ndarray
    has_text: bool
    has_graph: bool
    source: str = "table"
    notes: tuple[str, ...] = ()
