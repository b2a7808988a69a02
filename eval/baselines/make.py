"""Make the tokenizers that MedTok is compared with."""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from configs import ablation, default
from medtok_jax.regions import positions_of

KINDS = ("raw_text", "text_vq", "kmeans_text", "wordpieces", "vqgraph", "random", "one_token", "published")
DEFAULT_CODES = ablation.HELD_OUT
SIZE, TOKENS = 12_000, len(positions_of(default.get_config().model.num_top_k_tokens))


def make(kind: str, codes, *, size: int = SIZE, tokens: int = TOKENS, seed: int = 0, steps: int = 0, **options):
    """Return the representation by one kind of baseline, except `published`, for which see `train_published`.

    Args:
        kind: one of `KINDS`.
        codes: `eval.baselines.data.Codes` of the data set.
        size: number of rows of the codebook.
        tokens: number of tokens of each code.
        seed: seed of all random draws.
        steps: number of training steps; 0 for the default of the kind.
        options: `residual` (whether k-means is residual) and `progress` (whether to show progress bars).
    """
    from eval.baselines import simple, text_vq, vqgraph
    from eval.baselines.vqgraph_training import vqgraph as train_vqgraph

    progress = options.get("progress", True)
    residual = options.get("residual", False)
    trained = {"codebook_size": size} | ({"steps": steps} if steps else {})
    kinds: dict[str, Callable] = {
        "raw_text": lambda: simple.raw_text(codes, progress=progress),
        "wordpieces": lambda: simple.wordpieces(codes),
        "random": lambda: simple.random_tokens(codes, size=size, num_tokens=tokens, seed=seed),
        "one_token": lambda: simple.one_token(codes),
        "kmeans_text": lambda: simple.kmeans_text(codes, size=size, num_tokens=tokens, seed=seed, residual=residual),
        "text_vq": lambda: text_vq.text_vq(
            codes, text_vq.TextVQOptions(num_tokens=tokens, **trained), seed=seed, progress=progress
        ),
        "vqgraph": lambda: train_vqgraph(
            codes, vqgraph.VQGraphOptions(**trained), num_tokens=tokens, seed=seed, progress=progress
        ),
    }
    return kinds[kind]()


def train_published(given: flags.FlagValues):
    """Train MedTok by `configs/published.py` in `OUTPUT.run`, from the last checkpoint there, and return its tokens."""
    from configs import published
    from eval.common.representation import load
    from medtok_jax import train

    config = published.get_config().copy_and_resolve_references().unlock()
    config.data.update(name=given.codes, data_dir=given.data_dir, sample_size=given.sample_size)
    if given.text_encoder:
        config.model.text_encoder_model = given.text_encoder
    config.model.codebook_size = given.size
    config.seed = given.seed
    if given.steps:
        config.train.steps = given.steps
    workdir = Path(f"{given.output}.run").expanduser()
    train.train_and_evaluate(config.lock(), workdir)
    return load(workdir, "published")
