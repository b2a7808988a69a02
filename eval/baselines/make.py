"""Make the tokenizers that MedTok is compared with."""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from configs import ablation
from eval.baselines.defaults import DEFAULT_CONFIG, SIZE, TOKENS, TRIALS

KINDS = (
    *("raw_text", "text_vq", "text_pursuit", "text_crosswalk", "kmeans_text", "wordpieces", "bag_of_nodes", "vqgraph"),
    *("random", "one_token", "published"),
)
# Names of baselines that can be made for a data set: `bert` is the bag of wordpieces, the others are kinds.
BASELINES = {"bert": "wordpieces"} | {kind: kind for kind in KINDS if kind != "published"}
DEFAULT_CODES = ablation.HELD_OUT


def make(
    kind: str,
    codes,
    *,
    size: int = SIZE,
    tokens: int = TOKENS,
    width: int = 0,
    seed: int = 0,
    steps: int = 0,
    **options,
):
    """Return the representation by one kind of baseline, except `published`, for which see `train_published`.

    Args:
        kind: one of `KINDS`.
        codes: `eval.baselines.data.Codes` of the data set.
        size: number of rows of the codebook.
        tokens: number of tokens of each code.
        width: width of the rows; 0 for that of the text encoder with `text_pursuit`, for that of MedTok with others.
        seed: seed of all random draws.
        steps: number of training steps; 0 for the default of the kind.
        options: `residual` (whether k-means is residual) and `progress` (whether to show progress bars).
    """
    from eval.baselines import simple, text_crosswalk, text_vq, vqgraph
    from eval.baselines.bag_of_nodes import bag_of_nodes
    from eval.baselines.pursuit import PursuitOptions
    from eval.baselines.text_pursuit import text_pursuit
    from eval.baselines.vqgraph_training import vqgraph as train_vqgraph

    progress = options.get("progress", True)
    residual = options.get("residual", False)
    wide = {"width": width} if width else {}
    trained = {"codebook_size": size, "steps": steps} | wide
    quantizer = PursuitOptions(codebook_size=size, num_tokens=tokens)
    drawn = {"seed": seed, "progress": progress}
    kinds: dict[str, Callable] = {
        "raw_text": lambda: simple.raw_text(codes, progress=progress),
        "wordpieces": lambda: simple.wordpieces(codes),
        "random": lambda: simple.random_tokens(codes, size=size, num_tokens=tokens, seed=seed),
        "one_token": lambda: simple.one_token(codes),
        "kmeans_text": lambda: simple.kmeans_text(codes, size=size, num_tokens=tokens, seed=seed, residual=residual),
        "text_vq": lambda: text_vq.text_vq(codes, text_vq.TextVQOptions(num_tokens=tokens, **trained), **drawn),
        "text_pursuit": lambda: text_pursuit(codes, quantizer, width=width, **drawn),
        "text_crosswalk": lambda: text_crosswalk.text_crosswalk(
            codes, text_crosswalk.TextCrosswalkOptions(steps=steps, **wide), quantizer, **drawn
        ),
        "bag_of_nodes": lambda: bag_of_nodes(codes, quantizer, width=width, **drawn),
        "vqgraph": lambda: train_vqgraph(codes, vqgraph.VQGraphOptions(**trained), num_tokens=tokens, **drawn),
    }
    return kinds[kind]()


def sizes_like(representation) -> dict[str, int]:
    """Return `size` and `tokens` of a baseline that is as large as a representation; empty without tokens.

    Args:
        representation: the `eval.common.representation.Representation` of a tokenizer.
    """
    if representation.tokens is None:
        return {}
    return {"size": representation.num_ids, "tokens": representation.tokens.shape[1]}


def make_once(
    name: str,
    data_set: str,
    data_dir: str,
    folder: Path,
    sizes: dict[str, int],
    *,
    text_encoder: str = DEFAULT_CONFIG.model.text_encoder_model,
    progress: bool = True,
) -> Path:
    """Return the folder of a baseline, which is made unless it exists with this data set and text encoder.

    Args:
        name: name of the baseline, a key of `BASELINES`.
        data_set: name of the data set of the codes.
        data_dir: directory of the data sets; empty for the default.
        folder: folder of the baselines.
        sizes: the result of `sizes_like`; empty for the defaults.
        text_encoder: value of `model.text_encoder_model`.
        progress: whether to show progress bars.
    """
    from eval.baselines.data import Codes
    from eval.common.representation import FILE, load

    path = folder / "-".join([name, *map(str, sizes.values())])
    if (path / FILE).is_file():
        about = load(path).about
        # Baselines of before settings were counted were smaller and trained for less.
        made = (about.get("data_set", {}).get("name"), about.get("text_encoder"), about.get("trials"))
        if made == (data_set, text_encoder, TRIALS):
            return path
    codes = Codes.open(data_set, data_dir, text_encoder=text_encoder, progress=progress)
    return make(BASELINES[name], codes, progress=progress, **sizes).save(path)


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
