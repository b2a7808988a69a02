"""Train the text-only baseline: a VQ-VAE of the frozen text embedding (van den Oord et al. 2017).

A linear layer projects the embedding to width d, the K nearest rows of one codebook replace it as in MedTok (paper,
equations 3 to 5), and a linear decoder reconstructs the embedding from them. It has as many tokens as a complete MedTok
code and all N rows. The gain of MedTok over this baseline is that of the graph and its contrast; MedTok without its
graph is the ablation `graph_off`.
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
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.search import l2_normalize
from medtok_jax.regions import Regions
from medtok_jax.training.losses import quantization_loss


@dataclasses.dataclass(frozen=True)
class TextVQOptions:
    """Hold the settings of the text-only baseline.

    Attributes:
        codebook_size: number of rows N.
        width: width d of the rows.
        num_tokens: number of tokens K of each code.
        alpha, commitment_weight: weights of the codebook and the commitment term, as in the defaults of MedTok.
        steps: number of training steps.
        batch_size: number of texts of a batch.
        kmeans_step: step before which the codebook is fitted.
        learning_rate: peak learning rate.
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
    """Encode, quantize and reconstruct text embeddings.

    Args:
        options: settings.
        text_width: width of the text embeddings.
        rngs: random streams of the initialization.
    """

    def __init__(self, options: TextVQOptions, text_width: int, *, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(text_width, options.width, rngs=rngs)
        regions = Regions(text=options.codebook_size, graph=0, shared=0)
        self.quantizer = Quantizer(regions, options.width, num_tokens=options.num_tokens, rngs=rngs)
        self.decoder = nnx.Linear(options.width, text_width, rngs=rngs)

    def encode(self, texts: jax.Array) -> jax.Array:
        """Encode texts `[batch, text width]` to embeddings `[batch, d]`, prepared for the quantizer."""
        return self.quantizer.prepare(self.encoder(texts))

    def losses(self, texts: jax.Array, options: TextVQOptions) -> dict[str, jax.Array]:
        """Return the losses `reconstruction` (one minus the mean cosine) and `quantization` (paper, equation 5)."""
        embedding = self.encode(texts)
        quantized = self.quantizer(embedding, "text")
        decoded = l2_normalize(self.decoder(quantized.output))
        weights = {"alpha": options.alpha, "commitment_weight": options.commitment_weight}
        valid = jnp.ones(len(texts), bool)
        return {
            "reconstruction": 1.0 - jnp.mean(jnp.sum(decoded * l2_normalize(texts), -1)),
            "quantization": quantization_loss(embedding, quantized, valid, **weights),
        }


def train(texts: np.ndarray, options: TextVQOptions, *, seed: int, progress: bool = True) -> Trainer:
    """Train on embeddings `[n, text width]` of unit length."""
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


def text_vq(codes: Codes, options: TextVQOptions, *, seed: int, progress: bool = True) -> Representation:
    """Train on the training codes and tokenize all codes."""
    texts = codes.text_vectors(progress)
    trainer = train(texts[codes.is_train()], options, seed=seed, progress=progress)
    model = trainer.model
    arrays = nearest_rows(_encode(model, texts), np.asarray(model.quantizer.codebook()), options.num_tokens)
    about = dataclasses.asdict(options) | {"seed": seed, "losses": trainer.history[-1]}
    return codes.representation("text_vq", about, **arrays)
