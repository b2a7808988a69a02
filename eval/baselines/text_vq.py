"""Train the text-only baseline: a VQ-VAE of the frozen text embedding (van den Oord et al. 2017).

A linear map projects the embedding to the width of MedTok's rows, K rows of one codebook replace it, and a linear
decoder reconstructs the embedding from them. Tokens are found by matching pursuit, as those of MedTok, or as the K
nearest rows (paper, equations 3 and 4). It has as many tokens as a complete MedTok code, all N rows, and as many passes
over the training codes. The gain of MedTok over this baseline is that of the graph and its contrast; MedTok without its
graph is the ablation `graph_off`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.baselines import defaults
from eval.baselines.data import Codes
from eval.baselines.nearest_rows import quantize_points
from eval.baselines.pursuit import PURSUIT, PursuitOptions, sample_codes
from eval.baselines.training import Trainer
from eval.common.representation import Representation
from medtok_jax.data.sampling import draw
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.kmeans import fit_region
from medtok_jax.models.search import l2_normalize
from medtok_jax.regions import Regions, nearest_of
from medtok_jax.training.losses import quantization_loss


@dataclasses.dataclass(frozen=True)
class TextVQOptions:
    """Hold the settings of the text-only baseline.

    Attributes:
        codebook_size: number of rows N.
        width: width d of the rows.
        num_tokens: number of tokens K of each code.
        quantizer: `pursuit` or `top_k`.
        alpha, commitment_weight: weights of the codebook and the commitment term, as in the defaults of MedTok.
        steps: number of training steps; 0 for as many passes as the default MedTok takes.
        batch_size: number of texts of a batch.
        kmeans_step: step before which the codebook is fitted; at most a third of the steps. It is fitted once more
            after the last step.
        kmeans_samples: number of texts that it is fitted to at most.
        learning_rate: peak learning rate.
    """

    codebook_size: int = defaults.SIZE
    width: int = defaults.WIDTH
    num_tokens: int = defaults.TOKENS
    quantizer: str = PURSUIT
    alpha: float = defaults.DEFAULT_CONFIG.loss.alpha
    commitment_weight: float = defaults.DEFAULT_CONFIG.loss.commitment_weight
    steps: int = 0
    batch_size: int = defaults.BATCH_SIZE
    kmeans_step: int = defaults.DEFAULT_CONFIG.model.kmeans_step
    kmeans_samples: int = defaults.KMEANS_SAMPLES
    learning_rate: float = defaults.LEARNING_RATE


class TextVQ(nnx.Module):
    """Encode, quantize and reconstruct text embeddings.

    Args:
        options: settings.
        text_width: width of the text embeddings.
        rngs: random streams of the initialization.
    """

    def __init__(self, options: TextVQOptions, text_width: int, *, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(text_width, options.width, use_bias=False, rngs=rngs)
        regions = Regions(text=options.codebook_size, graph=0, shared=0)
        nearest = nearest_of(options.num_tokens)
        sizes = {"num_tokens": options.num_tokens, "num_nearest": nearest, "kind": options.quantizer}
        self.quantizer = Quantizer(regions, options.width, **sizes, rngs=rngs)
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
    steps = options.steps or defaults.steps_for(len(texts), options.batch_size)
    trainer = Trainer(
        model,
        lambda model, batch: model.losses(batch, options),
        steps=steps,
        learning_rate=options.learning_rate,
    )
    batches = (texts[draw(seed, step, options.batch_size, len(texts))] for step in range(steps))
    sizes = PursuitOptions(kmeans_samples=options.kmeans_samples)
    sampled = texts[sample_codes(np.ones(len(texts), bool), sizes, seed=seed)]

    def fit() -> None:
        model = trainer.model
        points = model.encode(jnp.asarray(sampled))
        fit = {"iterations": defaults.KMEANS_ITERATIONS, "rounds": defaults.JOINT_FIT_ROUNDS}
        trainer.set_codebook(fit_region(jax.random.key(seed), points, model.quantizer, "text", **fit))

    trainer.run(batches, {min(options.kmeans_step, steps // 3): fit}, name="text_vq", progress=progress)
    fit()
    return trainer


def text_vq(codes: Codes, options: TextVQOptions, *, seed: int, progress: bool = True) -> Representation:
    """Train on the training codes and tokenize all codes."""
    texts = codes.text_vectors(progress)
    trainer = train(texts[codes.is_train()], options, seed=seed, progress=progress)
    model = trainer.model
    projection = np.asarray(model.encoder.kernel[...])
    arrays = quantize_points(model.quantizer, texts @ projection)
    about = dataclasses.asdict(options) | {"seed": seed, "losses": trainer.history[-1], "graph": False}
    return codes.representation("text_vq", about | {"steps": len(trainer.history)}, projection=projection, **arrays)
