"""Read the codes of a data set, their frozen texts and their subgraphs for the baselines, as training reads them."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from configs import default
from eval.baselines import defaults
from eval.common.representation import Representation
from medtok_jax.data.dataset import Data, load_data
from medtok_jax.text.encoder_files import resolve_text_encoder
from preprocessing.common.progress import Bar

CHUNK = 8192


@dataclasses.dataclass(frozen=True)
class Codes:
    """Hold the codes that a baseline is made for, in the order of their keys.

    Attributes:
        config: configuration that names the data set and the text encoder.
        data: the opened data set.
        rows: `[n]` int64, rows of the codes in the table of the data set.
    """

    config: ConfigDict
    data: Data
    rows: np.ndarray

    @classmethod
    def open(
        cls, name: str, data_dir: str = "", *, text_encoder: str = "", sample_size: int = 0, progress: bool = True
    ) -> "Codes":
        """Open a data set; build it and encode its texts first where needed.

        Args:
            name: name of the data set.
            data_dir: directory of the data sets; empty for the default.
            text_encoder: value of `model.text_encoder_model`; empty for the default.
            sample_size: number of codes, drawn as training draws them; 0 for all.
            progress: whether to show progress bars.
        """
        config = default.get_config().copy_and_resolve_references().unlock()
        config.data.update(name=name, data_dir=data_dir, sample_size=sample_size)
        config.model.text_encoder_model = text_encoder or config.model.text_encoder_model
        encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
        return cls.of(config, load_data(config, encoder_dir=encoder_dir, progress=progress))

    @classmethod
    def of(cls, config: ConfigDict, data: Data) -> "Codes":
        """Return the codes in use of an opened data set."""
        keys = data.table.key[data.selected].astype(str)
        return cls(config, data, data.selected[np.argsort(keys)])

    def __len__(self) -> int:
        return len(self.rows)

    def is_train(self) -> np.ndarray:
        """Return a mask of the codes of the training split: bool `[n]`."""
        return np.isin(self.rows, self.data.rows("train"))

    def representation(self, name: str, about: dict, **arrays) -> Representation:
        """Return a representation of these codes.

        Args:
            name: name of the baseline.
            about: provenance to add to that of the data set.
            arrays: fields of `Representation`, with a row for each code.
        """
        table = self.data.table
        facts = {"data_set": {"name": self.config.data.name, "fingerprint": table.fingerprint}}
        facts |= {"text_encoder": self.config.model.text_encoder_model, "trials": defaults.TRIALS, "trained_on": []}
        return Representation(
            name=name,
            keys=table.key[self.rows].astype(str),
            descriptions=table.description[self.rows],
            about={"kind": name} | facts | about,
            **arrays,
        )

    def text_vectors(self, progress: bool = True) -> np.ndarray:
        """Return the mean of the frozen token states of each description at unit length: float32 `[n, hidden]`."""
        cache = self.data.cache
        text = self.data.text_id[self.rows]
        mean = np.empty((self.data.num_texts, cache.states.shape[1]), np.float32)
        for start in Bar(range(0, len(mean), CHUNK), desc="Reading texts", show=progress):
            stop = min(start + CHUNK, len(mean))
            offsets = cache.offsets[start : stop + 1]
            states = np.asarray(cache.states[offsets[0] : offsets[-1]], np.float32)
            mean[start:stop] = np.add.reduceat(states, offsets[:-1] - offsets[0], axis=0)
        # The sum has the direction of the mean.
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return mean[text]
