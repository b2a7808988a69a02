"""Tokenize codes by the frozen text embedding under one linear map that is trained on crosswalks: no graph network.

The map takes the text embedding to the width d. It is trained on the batches that MedTok is trained on (`Sampler`: each
code beside a code that `loss.positive_relations` join to it in the graph of the data set, so on the crosswalks that are
not held out), with MedTok's contrast of the joined embeddings and MedTok's distillation of text similarities, each
weighted as there, for as many passes. Its output is quantized as that of other baselines (`pursuit.py`). What MedTok
adds beside this is the graph, and what is not linear.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.baselines import defaults
from eval.baselines.data import Codes
from eval.baselines.pursuit import PURSUIT, PursuitOptions, fit_and_quantize, sample_codes
from eval.baselines.text_pursuit import principal_axes
from eval.baselines.training import Trainer
from eval.common.representation import Representation
from medtok_jax.data.sampling import Sampler
from medtok_jax.training.losses import info_nce, not_negatives, similarity_distillation

_LOSS, _AUGMENT = defaults.DEFAULT_CONFIG.loss, defaults.DEFAULT_CONFIG.augment


@dataclasses.dataclass(frozen=True)
class TextCrosswalkOptions:
    """Hold the settings of the linear map; losses are weighted as by `configs/default.py`.

    Attributes:
        width: width d of its output.
        steps: number of training steps; 0 for as many passes as the default MedTok takes.
        batch_size: number of codes of a batch, half of them partners of the others.
        learning_rate: peak learning rate.
        relations: names of the relations between positives.
        contrast_weight, distillation_weight: weights of the two losses: the sums of MedTok's for all and for its text.
        feature_dropout: share of the components of a text that its second view lacks.
    """

    width: int = defaults.WIDTH
    steps: int = 0
    batch_size: int = defaults.BATCH_SIZE
    learning_rate: float = defaults.LEARNING_RATE
    relations: tuple[str, ...] = tuple(_LOSS.positive_relations)
    contrast_weight: float = _LOSS.joint_weight + _LOSS.text_joint_weight
    distillation_weight: float = _LOSS.distillation_weight + _LOSS.text_distillation_weight
    feature_dropout: float = _AUGMENT.feature_dropout


class TextBatch(NamedTuple):
    """Hold a batch of texts.

    Attributes:
        texts: `[batch, hidden]` float32 frozen text embeddings.
        view: `[batch, hidden]` float32, the same with some components dropped.
        text_id: `[batch]` int32, equal for codes of identical description.
        partner: `[batch]` int32, slot of a code that a crosswalk joins to this one, -1 for none.
    """

    texts: np.ndarray
    view: np.ndarray
    text_id: np.ndarray
    partner: np.ndarray


class LinearMap(nnx.Module):
    """Map text embeddings linearly; the map begins as the projection onto their principal components.

    Args:
        kernel: `[hidden, width]` float32, the map before training.
    """

    def __init__(self, kernel: np.ndarray):
        self.kernel = nnx.Param(jnp.asarray(kernel))

    def losses(self, batch: TextBatch, options: TextCrosswalkOptions) -> dict[str, jax.Array]:
        """Return the weighted losses `contrast` and `distillation`, see `medtok_jax.training.losses`."""
        mapped, view = batch.texts @ self.kernel[...], batch.view @ self.kernel[...]
        valid = jnp.ones(len(batch.texts), bool)
        contrast = info_nce(
            mapped,
            view,
            valid,
            temperature=_LOSS.infonce_temperature,
            excluded=not_negatives(batch.text_id, batch.text_id),
            partners=batch.partner[:, None] == jnp.arange(len(batch.partner)),
        )
        distilled = similarity_distillation(mapped, batch.texts, valid, temperature=_LOSS.distillation_temperature)
        return {
            "contrast": options.contrast_weight * contrast,
            "distillation": options.distillation_weight * distilled,
        }


def draw_rows(
    codes: Codes, options: TextCrosswalkOptions, steps: int, *, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the table rows of each batch and the slot of each one's partner, `[batch]` each, -1 for none.

    Partners are the training codes that the graph of the data set joins: a crosswalk that it holds out is no edge of
    it, so that none is read.
    """
    rows = codes.data.rows("train")
    sampler = Sampler(codes.data, rows, seed=seed, batch_size=options.batch_size, positive_relations=options.relations)
    return (sampler.batch_rows(step) for step in range(steps))


def train(
    codes: Codes, texts: np.ndarray, options: TextCrosswalkOptions, *, seed: int, progress: bool = True
) -> Trainer:
    """Train the map on the training codes.

    Args:
        codes: codes of a data set.
        texts: `[n, hidden]` float32, their frozen text embeddings.
        options: settings.
        seed: seed of batches and views.
        progress: whether to show a progress bar.
    """
    is_train = codes.is_train()
    steps = options.steps or defaults.steps_for(np.count_nonzero(is_train), options.batch_size)
    place = np.full(len(codes.data.table), -1)
    place[codes.rows] = np.arange(len(codes))

    def batches() -> Iterator[TextBatch]:
        for step, (rows, partner) in enumerate(draw_rows(codes, options, steps, seed=seed)):
            part = texts[place[rows]]
            kept = np.random.default_rng([seed, step]).random(part.shape) >= options.feature_dropout
            yield TextBatch(part, part * kept, codes.data.text_id[rows], partner.astype(np.int32))

    trainer = Trainer(
        LinearMap(principal_axes(texts[is_train], options.width)),
        lambda model, batch: model.losses(batch, options),
        steps=steps,
        learning_rate=options.learning_rate,
    )
    trainer.run(batches(), {}, name="text_crosswalk", progress=progress)
    return trainer


def text_crosswalk(
    codes: Codes,
    options: TextCrosswalkOptions,
    quantizer: PursuitOptions,
    *,
    seed: int,
    progress: bool = True,
) -> Representation:
    """Train the map, fit rows to its output for training codes, and tokenize all codes.

    Args:
        codes: codes of a data set.
        options: settings of the map.
        quantizer: settings of the quantizer.
        seed: seed of all random draws.
        progress: whether to show progress bars.
    """
    texts = codes.text_vectors(progress)
    trainer = train(codes, texts, options, seed=seed, progress=progress)
    projection = np.asarray(trainer.model.kernel[...])
    sampled = sample_codes(codes.is_train(), quantizer, seed=seed)
    arrays = fit_and_quantize(texts @ projection, sampled, quantizer, seed=seed)
    about = dataclasses.asdict(options) | dataclasses.asdict(quantizer) | {"seed": seed, "quantizer": PURSUIT}
    about |= {"steps": len(trainer.history), "losses": trainer.history[-1], "relations": list(options.relations)}
    # Of the graph it read crosswalks alone.
    about |= {"graph": False, "trained_on": list(options.relations)}
    return codes.representation("text_crosswalk", about, projection=projection, **arrays)
