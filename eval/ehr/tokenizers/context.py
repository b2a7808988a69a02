"""Hold what the tokenizers of a benchmark need beside the codes of the data set."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from configs import default
from preprocessing.common.extras import load

sparse = load("scipy.sparse")

_CONFIG = default.get_config()


@dataclasses.dataclass(frozen=True)
class TokenizerContext:
    """Hold what the tokenizers of a benchmark need beside the codes of the data set.

    Attributes:
        folder: folder where baselines that take long are kept.
        descriptions: descriptions by the data set (`metadata/codes.parquet`), by the code as it spells it.
        first: the first run or tokenizer directory of the benchmark, whose tokens are shuffled, and whose data set and
            sizes baselines have; empty for the defaults.
        seed: seed of random draws; of `shuffled` it chooses the permutation.
        text_encoder: value of `model.text_encoder_model`.
        data_set: name of the data set that baselines are made of; empty for that of `first`.
        data_dir: directory of the data sets; empty for the default.
        train_bags: `[samples, codes]` csr counts of the codes of training samples, for `cooccurrence`; None for none.
        progress: whether to show progress bars.
    """

    folder: Path
    descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    first: str = ""
    seed: int = 0
    text_encoder: str = _CONFIG.model.text_encoder_model
    data_set: str = ""
    data_dir: str = ""
    train_bags: "sparse.csr_matrix | None" = None
    progress: bool = True
