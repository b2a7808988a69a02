"""Makes the tokenizers that MedTok is compared with.

    python -m eval.baselines --kind=text_vq --output=baselines/text_vq

writes a folder that `eval.tokenization` and `eval.compare` read like a tokenizer directory. Kinds:

- `raw_text`: the frozen text embedding, not quantized and without tokens; what text alone can give.
- `text_vq`: a VQ-VAE of it (`text_vq.py`).
- `kmeans_text`: its nearest k-means centres; with `--residual` one k-means after the other.
- `wordpieces`: the BERT wordpieces of the description, weighted by tf-idf.
- `vqgraph`: graph-only vector quantization (`vqgraph.py`).
- `random`: random tokens. `one_token`: a token of its own for each code.
- `published`: MedTok with the settings of the published PyTorch code (`configs/published.py`).

Rows are fitted to the training codes, texts are read from the text cache, and all codes of the data set are tokenized.
Tokens a code are `--tokens`, as many as the 4K of `configs/default.py`, where the kind leaves a choice.
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from configs import ablation, default
from preprocessing.common import command_line
from preprocessing.common.errors import InputError

KINDS = ("raw_text", "text_vq", "kmeans_text", "wordpieces", "vqgraph", "random", "one_token", "published")
DEFAULT_DATASET = ablation.HELD_OUT
SIZE, TOKENS = 12_000, 4 * default.get_config().model.num_top_k_tokens


def make(kind: str, codes, *, size: int = SIZE, tokens: int = TOKENS, seed: int = 0, steps: int = 0, **options):
    """The representation of one kind, but for `published`, which is trained by `train_published`.

    Args:
        kind: one of `KINDS`.
        codes: `baseline_data.Codes` of the data set.
        size: rows of the codebook.
        tokens: tokens a code.
        seed: of everything random.
        steps: of training; 0 for the default of the kind.
        options: `residual` (k-means after k-means), `progress` (bars).
    """
    from eval import simple_baselines, text_vq, vqgraph
    from eval.vqgraph_training import vqgraph as train_vqgraph

    progress, residual = options.get("progress", True), options.get("residual", False)
    trained = {"codebook_size": size} | ({"steps": steps} if steps else {})
    kinds: dict[str, Callable] = {
        "raw_text": lambda: simple_baselines.raw_text(codes, progress=progress),
        "wordpieces": lambda: simple_baselines.wordpieces(codes),
        "random": lambda: simple_baselines.random_tokens(codes, size=size, num_tokens=tokens, seed=seed),
        "one_token": lambda: simple_baselines.one_token(codes),
        "kmeans_text": lambda: simple_baselines.kmeans_text(
            codes, size=size, num_tokens=tokens, seed=seed, residual=residual
        ),
        "text_vq": lambda: text_vq.text_vq(
            codes, text_vq.Options(num_tokens=tokens, **trained), seed=seed, progress=progress
        ),
        "vqgraph": lambda: train_vqgraph(
            codes, vqgraph.Options(**trained), num_tokens=tokens, seed=seed, progress=progress
        ),
    }
    return kinds[kind]()


def train_published(given: flags.FlagValues):
    """Trains MedTok by `configs/published.py`, in `OUTPUT.run`; started again it goes on where it was."""
    from configs import published
    from eval.representation import load
    from medtok_jax import train

    config = published.get_config().copy_and_resolve_references().unlock()
    config.data.update(name=given.dataset, data_dir=given.data_dir, sample_size=given.sample_size)
    if given.text_encoder:
        config.model.text_encoder_model = given.text_encoder
    config.model.codebook_size = given.size
    config.seed = given.seed
    if given.steps:
        config.train.steps = given.steps
    workdir = Path(f"{given.output}.run").expanduser()
    train.train_and_evaluate(config.lock(), workdir)
    return load(workdir, "published")


def main(argv: list[str]) -> None:
    """Makes the baseline that the flags ask for."""
    command_line.expect_arguments(argv, 0, "python -m eval.baselines --kind=raw_text --output=DIR")
    given = flags.FLAGS
    if not 0 < given.tokens <= given.size:
        raise InputError(f"--tokens is {given.tokens}; it must be 1 to --size={given.size}.")
    if given.residual and given.kind != "kmeans_text":
        raise InputError(f"--residual is for --kind=kmeans_text, not for {given.kind}.")
    from eval.representation import FILE
    from preprocessing.dataset.name import parse_name

    parse_name(given.dataset)
    output = Path(given.output).expanduser()
    if output.exists() and not (output / FILE).is_file():
        raise InputError(f"{output} exists and is no representation; choose another place.")
    command_line.output_folder(output.parent)
    if given.kind == "published":
        representation = train_published(given)
    else:
        from eval.baseline_data import Codes

        names = {"text_encoder": given.text_encoder, "sample_size": given.sample_size}
        codes = Codes.open(given.dataset, given.data_dir, **names)
        options = {name: given[name].value for name in ("size", "tokens", "seed", "steps", "residual")}
        representation = make(given.kind, codes, **options)
    print(f"wrote {representation.save(given.output)}: {len(representation):,} codes")


if __name__ == "__main__":
    from medtok_jax.devices.huge_pages import restart_with_huge_pages

    flags.DEFINE_enum("kind", None, KINDS, "which baseline", required=True)
    flags.DEFINE_string("output", None, "folder of the representation", required=True)
    flags.DEFINE_string("dataset", DEFAULT_DATASET, "data set, with its options in its name")
    flags.DEFINE_string("data_dir", "", "where data sets lie; $TFDS_DATA_DIR or ~/tensorflow_datasets without it")
    flags.DEFINE_string("text_encoder", "", "text encoder, as model.text_encoder_model; the packaged one without it")
    flags.DEFINE_integer("sample_size", 0, "codes, drawn as data.sample_size does; 0 for all", lower_bound=0)
    flags.DEFINE_integer("size", SIZE, "rows of the codebook, where the kind leaves a choice", lower_bound=1)
    flags.DEFINE_integer("tokens", TOKENS, "tokens a code, where the kind leaves a choice")
    flags.DEFINE_integer("seed", 0, "of everything random", lower_bound=0)
    flags.DEFINE_integer("steps", 0, "training steps of text_vq, vqgraph, published; 0 for the default", lower_bound=0)
    flags.DEFINE_bool("residual", False, "kmeans_text: fit each token to what those before leave over")
    restart_with_huge_pages()
    command_line.run(main)
