"""Name the models of the benchmark, and choose some of them."""

import dataclasses
from collections.abc import Sequence

from eval.ehr.models.batches import Shape
from eval.ehr.models.behrt import Behrt
from eval.ehr.models.counts import LightGBM, Logistic
from eval.ehr.models.gt_behrt import GtBehrt
from eval.ehr.models.model import Model
from eval.ehr.models.sequences import SequenceModel
from eval.ehr.models.training import TrainingOptions
from eval.ehr.models.transformer import Transformer
from preprocessing.common.errors import InputError, did_you_mean

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Logistic(),
        LightGBM(),
        SequenceModel("transformer", Transformer),
        SequenceModel("behrt", Behrt),
        SequenceModel("gt_behrt", GtBehrt, graphs=True),
    )
}
# Compilation takes most of a smoke run: one shape serves all tasks, and programs are small.
_SMOKE = TrainingOptions(batch_size=16, epochs=1, least_steps=8, most_steps=8, evaluations=2)
_SMOKE_LENGTH, _SMOKE_VISITS, _SMOKE_LAYERS = 32, 4, 2


def choose(names: Sequence[str], *, pretrain_steps: int = 0, smoke: bool = False, progress: bool = True) -> list[Model]:
    """Return models by name.

    Args:
        names: names of `MODELS`, each once.
        pretrain_steps: steps of masked codes before sequence models are trained.
        smoke: whether to train a few steps of small models on the latest 32 codes of a sample, to see that it works.
        progress: whether training shows a progress bar.

    Raises:
        InputError: a name is unknown.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in MODELS:
            raise InputError(f"--models: there is no model {name!r}; {did_you_mean(name, MODELS)}")
        model = MODELS[name]
        if isinstance(model, SequenceModel):
            model = dataclasses.replace(model, pretrain_steps=pretrain_steps, progress=progress)
            if smoke:
                model = dataclasses.replace(
                    model,
                    options=_SMOKE,
                    num_layers=_SMOKE_LAYERS,
                    shape=Shape(_SMOKE_LENGTH, _SMOKE_VISITS if model.graphs else 0, is_fixed=True),
                    pretrain_steps=min(pretrain_steps, 4),
                )
        elif smoke and isinstance(model, LightGBM):
            model = dataclasses.replace(model, rounds=10)
        found.append(model)
    return found
