"""Predict outcomes by models on sequences of codes: one way to fit Transformer, BEHRT and GT-BEHRT to a tokenizer."""

import dataclasses
import time
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx

from eval.ehr.inputs import Inputs, Sequences
from eval.ehr.models import tuning as tuned
from eval.ehr.models.batches import Patients, Shape, fit_shape, read_sequences, standardized_statics
from eval.ehr.models.classifier import Classifier, MakeBackbone
from eval.ehr.models.embedding import CodeEmbedding, CodeLookup, first_table, make_lookup, power_of_two, used_features
from eval.ehr.models.model import Fitted
from eval.ehr.models.outcomes import check, columns, prevalence, untaught, with_prevalence
from eval.ehr.models.pretraining import MaskedCodes
from eval.ehr.models.training import Run, Setting, TrainingOptions, predict, tune
from eval.ehr.results import BINARY, MULTICLASS
from eval.ehr.split import Split
from eval.ehr.tokenizers.matrix import CodeMatrix
from medtok_jax.devices.memory import free_programs
from medtok_jax.training.steps import NonFiniteLoss

# The settings that are tried, in this order.
SETTINGS = tuple(Setting(rate, share) for share in (0.1, 0.4) for rate in (1e-3, 3e-4, 3e-3))
OPTIONS = TrainingOptions()
PRETRAINING = Setting(learning_rate=1e-3, dropout=0.1)
# Test samples whose codes are in memory at once.
_CHUNK = 1 << 15


@dataclasses.dataclass(frozen=True)
class SequenceModel:
    """Fit a sequence model; all of them differ in their backbone alone.

    Attributes:
        name: name of the model.
        make_backbone: builds the backbone.
        graphs: whether the backbone reads graphs of visits.
        width: width of all states.
        num_layers: number of blocks.
        num_heads: heads of attention.
        inner: width inside the MLPs.
        length: most codes of a sample, the latest ones.
        expanded_length: most positions where each token of a code takes one.
        shape: the shape of all batches, whose length stands for both lengths; None for the least that holds them.
        pretrain_steps: steps of masked codes on the training samples before all settings, 0 for none.
        options: budget of training.
        progress: whether to show a progress bar.
    """

    name: str
    make_backbone: MakeBackbone
    graphs: bool = False
    width: int = 64
    num_layers: int = 4
    num_heads: int = 4
    inner: int = 256
    length: int = 256
    expanded_length: int = 1024
    shape: Shape | None = None
    pretrain_steps: int = 0
    options: TrainingOptions = OPTIONS
    progress: bool = True

    def fit_predict(
        self, split: Split, matrix: CodeMatrix, *, seed: int, trials: int, classes: int, kind: str
    ) -> Fitted:
        """Pretrain if asked, try the first `trials` settings, train the best to the end; see `model.Model`.

        A setting is compared with the others after a quarter of the steps. Parameters are those at the step with the
        best score on tuning.

        Raises:
            NonFiniteLoss: no setting gave finite probabilities.
        """
        y, y_tuning = split.y, split.y_tuning
        check(y, kind, classes)
        started = time.perf_counter()
        length = self.expanded_length if matrix.expanded else self.length
        if self.shape is not None:
            length = self.shape.length
        # Every length of a batch is a program of its own, and a long benchmark compiles thousands.
        free_programs()
        made = [read_sequences(inputs, matrix, length) for inputs in (split.train, split.tuning)]
        shape = self.shape or fit_shape(made, graphs=self.graphs)
        known = standardized_statics(split.train, [split.tuning, split.test])
        outcomes = [_outcome(values, kind, classes) for values in (y, y_tuning)]
        fitted, chosen = (Patients(*parts, shape) for parts in zip(made, known[:2], outcomes, strict=True))
        lookup = make_lookup(matrix)
        start = self._start(matrix, lookup, fitted, seed)
        prior = _logits(prevalence(y, kind, classes), kind)

        def make() -> Classifier:
            embedding, backbone = nnx.clone(start[0]), nnx.clone(start[1])
            return Classifier(embedding, backbone, prior, kind=kind, rngs=nnx.Rngs(seed + 2))

        # With very many tuning samples, the looks in training are at some of them.
        some = np.random.default_rng(seed).permutation(len(y_tuning))[: self.options.most_tuning]
        looked_at = Patients(_rows(made[1], some), known[1][some], outcomes[1][some], shape)

        def score(graphdef: nnx.GraphDef, params: nnx.State) -> float:
            found = predict(graphdef, params, lookup, looked_at, self.options.batch_size)
            return tuned.score(y_tuning[some], _form(found, kind), kind)

        settings = SETTINGS[:trials]
        label = self.name if self.progress else None
        run = tune(make, lookup, fitted, score, settings=settings, options=self.options, seed=seed + 3, name=label)
        if not np.isfinite(run.best_score):
            raise NonFiniteLoss(f"no setting of {self.name} gave finite probabilities; try another seed.")

        def predicted(patients: Patients) -> np.ndarray:
            found = predict(run.graphdef, run.best_params, lookup, patients, self.options.batch_size)
            return with_prevalence(_form(found, kind), y, kind, classes)

        tested = [predicted(patients) for patients in self._test(split.test, known[2], matrix, shape, outcomes[0])]
        about = {
            "setting": dataclasses.asdict(run.setting),
            "trials": len(settings),
            "score": tuned.score_name(y_tuning[some], kind, classes),
            "tuning_score": run.best_score,
            "parameters": _parameters(run, matrix, self.width),
            "positions": float(made[0].mask.sum(axis=1).mean()),
            "length": shape.length,
            "steps": run.done,
            "best_step": run.best_step,
            "pretrain_steps": self.pretrain_steps,
            "untaught_classes": untaught(y, kind, classes),
            "seconds": time.perf_counter() - started,
        }
        return Fitted(probabilities=np.concatenate(tested), tuning=predicted(chosen), about=about)

    def _start(
        self, matrix: CodeMatrix, lookup: CodeLookup, patients: Patients, seed: int
    ) -> tuple[CodeEmbedding, nnx.Module]:
        """Return embedding and backbone from which every setting starts, pretrained if asked."""
        used = used_features(matrix, patients.arrays["code"][patients.arrays["mask"]])
        table = first_table(matrix, self.width, used=used, seed=seed)
        rngs = nnx.Rngs(seed + 1)
        vector_width = 0 if matrix.vectors is None else matrix.vectors.shape[1]
        embedding = CodeEmbedding(table, vector_width, rngs=rngs)
        backbone = self.make_backbone(
            self.width, num_layers=self.num_layers, num_heads=self.num_heads, inner=self.inner, rngs=rngs
        )
        if not self.pretrain_steps:
            return embedding, backbone
        run = Run(
            MaskedCodes(embedding, backbone, rngs=rngs),
            lookup,
            patients,
            setting=PRETRAINING,
            steps=self.pretrain_steps,
            batch_size=self.options.batch_size,
            seed=seed + 4,
            name=None,
        )
        run.advance(self.pretrain_steps)
        model = nnx.merge(run.graphdef, run.params)
        return model.embedding, model.backbone

    def _test(
        self, test: Inputs, known: np.ndarray, matrix: CodeMatrix, shape: Shape, like: np.ndarray
    ) -> Iterator[Patients]:
        """Yield the test samples in parts, with zeros as outcomes; of more codes than fit, the latest are read."""
        for first in range(0, len(test), _CHUNK):
            rows = np.arange(first, min(first + _CHUNK, len(test)))
            made = read_sequences(test.take(rows), matrix, shape.length)
            yield Patients(made, known[rows], np.zeros((len(rows), *like.shape[1:]), like.dtype), shape)


def _outcome(y: np.ndarray, kind: str, classes: int) -> np.ndarray:
    """Return outcomes as the loss reads them: `[n]` int32 if multiclass, else `[n, outputs]` float32."""
    return y.astype(np.int32) if kind == MULTICLASS else columns(y, kind, classes).astype(np.float32)


def _form(probabilities: np.ndarray, kind: str) -> np.ndarray:
    """Return probabilities in the form of `Fitted`."""
    return probabilities[:, 0] if kind == BINARY else probabilities


def _logits(share: np.ndarray, kind: str) -> np.ndarray:
    """Return the logits of the prevalence of each class, kept within what a few samples can tell."""
    share = np.clip(share, 1e-3, 1 - 1e-3)
    return np.log(share) if kind == MULTICLASS else np.log(share) - np.log1p(-share)


def _rows(made: Sequences, rows: np.ndarray) -> Sequences:
    return Sequences(**{field.name: getattr(made, field.name)[rows] for field in dataclasses.fields(made)})


def _parameters(run: Run, matrix: CodeMatrix, width: int) -> int:
    """Return the number of parameters, without the rows that pad the table of the features."""
    padding = power_of_two(matrix.num_features) - matrix.num_features
    return sum(leaf.size for leaf in jax.tree.leaves(run.params)) - padding * width
