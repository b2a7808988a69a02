"""The tokens of one code, and where they come from."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class CodeTokens:
    """The tokens of one code.

    Attributes:
        key: `SYSTEM/code` of the code asked for.
        description: of the code; of the ancestor where the source is that.
        ids: `[4K]` int32: K each of text-specific, graph-specific, text cross, graph cross.
        weights: `[4K]` float32.
        has_text, has_graph: whether there was a description and a subgraph.
        source: `table`; `ancestor SYSTEM/code`; or `model: ` and what it read: `text`, `graph`, `text+graph`, or
            `text+hierarchy` (see `new_codes.NewTokens`).
        notes: what was cut, left out or assumed on the way, one sentence each.
    """

    key: str
    description: str
    ids: np.ndarray
    weights: np.ndarray
    has_text: bool
    has_graph: bool
    source: str = "table"
    notes: tuple[str, ...] = ()
