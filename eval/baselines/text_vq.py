"""Text-only vector quantization: a VQ-VAE of the frozen text embedding (van den Oord et al. 2017).

A linear map takes the embedding to width d, the K nearest rows of one codebook stand for it as in MedTok (paper
eq. 3-5), and a linear map must bring the embedding back from them. It has the tokens of a whole MedTok code, 16 with
K = 16, and all N rows. This is what the graph, and the contrast with it, have to beat; MedTok itself without its graph
is the ablation `graph_off`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.baselines.data import Codes
from eval.baselines.nearest_rows import fit_rows, nearest_rows
from eval.baselines.training import Trainer
from eval.common.representation import Representation
from medtok_jax.data.sampling import draw
from medtok_jax.models.quantizer import Quantizer, l2_normalize
from medtok_jax.regions import Regions
from medtok_jax.training.losses import quantization_loss


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of the baseline.

    Attributes:
        codebook_size: N. width: d. num_tokens: K.
        alpha, commitment_weight: of the codebook and the commitment term, as in MedTok's defaults.
        steps, batch_size: of training. kmeans_step: step before which the codebook is fitted.
        learning_rate: peak.
    """

    codebook_size: int = 12_000
    width: int = 64
    num_tokens: int = 16
    alpha: float = 0.25
    commitment_weight: float = 1.0
    steps: int = 1000
    batch_size: int = 512
    kmeans_step: int = 300
    learning_rate: float = 1e-3


class TextVQ(nnx.Module):
    """The autoencoder of embeddings of width `text_width`."""

    def __init__(self, options: Options, text_width: int, *, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(text_width, options.width, rngs=rngs)
        regions = Regions(text=options.codebook_size, graph=0, shared=0)
        self.quantizer = Quantizer(regions, options.width, num_tokens=options.num_tokens, rngs=rngs)
        self.decoder = nnx.Linear(options.width, text_width, rngs=rngs)

    def encode(self, texts: jax.Array) -> jax.Array:
        """`[batch, text width]` -> prepared embeddings `[batch, d]`."""
        return self.quantizer.prepare(self.encoder(texts))

    def losses(self, texts: jax.Array, options: Options) -> dict[str, jax.Array]:
        """`reconstruction`, one less the mean cosine of what comes back, and `quantization` (paper eq. 5)."""
        embedding = self.encode(texts)
        quantized = self.quantizer(embedding, "text")
        back = l2_normalize(self.decoder(quantized.output))
        weights = {"alpha": options.alpha, "commitment_weight": options.commitment_weight}
        valid = jnp.ones(len(texts), bool)
        return {
            "reconstruction": 1.0 - jnp.mean(jnp.sum(back * l2_normalize(texts), -1)),
            "quantization": quantization_loss(embedding, quantized, valid, **weights),
        }


def train(texts: np.ndarray, options: Options, *, seed: int, progress: bool = True) -> Trainer:
    """Trains on `[n, text width]` embeddings of unit length."""
    model = TextVQ(options, texts.shape[1], rngs=nnx.Rngs(seed))
    trainer = Trainer(
        model,
        lambda model, batch: model.losses(batch, options),
        steps=options.steps,
        learning_rate=options.learning_rate,
    )
    batches = (texts[draw(seed, step, options.batch_size, len(texts))] for step in range(options.steps))

    def fit() -> None:
        trainer.set_codebook(fit_rows(_encode(trainer.model, texts), options.codebook_size, seed=seed))

    trainer.run(batches, {min(options.kmeans_step, options.steps // 3): fit}, name="text_vq", progress=progress)
    return trainer


def _encode(model: TextVQ, texts: np.ndarray) -> np.ndarray:
    kernel, bias = np.asarray(model.encoder.kernel[...]), np.asarray(model.encoder.bias[...])
    return np.asarray(l2_normalize(jnp.asarray(texts @ kernel + bias)))


def text_vq(codes: Codes, options: Options, *, seed: int, progress: bool = True) -> Representation:
    """Trains on the training codes and quantizes all."""
    texts = codes.text_vectors(progress)
    trainer = train(texts[codes.is_train()], options, seed=seed, progress=progress)
    model = trainer.model
    arrays = nearest_rows(_encode(model, texts), np.asarray(model.quantizer.codebook()), options.num_tokens)
    about = dataclasses.asdict(options) | {"seed": seed, "losses": trainer.history[-1]}
    return codes.representation("text_vq", about, **arrays)
