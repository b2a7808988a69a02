"""Make the tokenizers that MedTok is compared with.

    python -m eval.baselines --kind=text_vq --output=baselines/text_vq

The command writes a folder that `eval.tokenization` and `eval.compare` read like a tokenizer directory. Kinds:

- `raw_text`: the frozen text embedding, neither quantized nor tokenized: the reference for text alone.
- `text_vq`: a VQ-VAE of the text embedding (`text_vq.py`).
- `text_pursuit`: the quantizer of MedTok on the text embedding alone (`text_pursuit.py`).
- `text_crosswalk`: the same on a linear map of the text embedding that is trained on crosswalks (`text_crosswalk.py`).
- `kmeans_text`: the nearest k-means centers of the text embedding; with `--residual` residual k-means.
- `wordpieces`: the BERT wordpieces of the description, weighted by tf-idf.
- `bag_of_nodes`: the same quantizer on the mean names of a code's neighbors, without edges (`bag_of_nodes.py`).
- `vqgraph`: graph-only vector quantization (`vqgraph.py`).
- `random`: random tokens.
- `one_token`: a separate token for each code.
- `published`: MedTok with the settings of the published PyTorch code (`configs/published.py`).

Rows are fitted to the training codes, texts are read from the text cache, and all codes of the data set are tokenized.
Where the kind allows it, a code gets `--tokens` tokens, by default as many as with `configs/default.py`. Rows,
width and the number of passes over the training codes are those of `configs/default.py` too (`defaults.py`).
"""

from pathlib import Path

from absl import flags

from eval.baselines.make import DEFAULT_CODES, KINDS, SIZE, TOKENS, make, train_published
from preprocessing.common import command_line
from preprocessing.common.errors import InputError


def main(argv: list[str]) -> None:
    """Make the baseline that the flags name."""
    command_line.expect_arguments(argv, 0, "python -m eval.baselines --kind=raw_text --output=DIR")
    given = flags.FLAGS
    if not 0 < given.tokens <= given.size:
        raise InputError(f"--tokens is {given.tokens}; it must be 1 to --size={given.size}.")
    if given.residual and given.kind != "kmeans_text":
        raise InputError(f"--residual can only be given with --kind=kmeans_text, not with --kind={given.kind}.")
    from eval.common.representation import FILE
    from preprocessing.dataset.name import parse_name

    parse_name(given.codes)
    output = Path(given.output).expanduser()
    if output.exists() and not (output / FILE).is_file():
        raise InputError(f"{output} exists and is not a representation; give another --output.")
    command_line.output_folder(output.parent)
    if given.kind == "published":
        representation = train_published(given)
    else:
        from eval.baselines.data import Codes

        names = {"text_encoder": given.text_encoder, "sample_size": given.sample_size}
        codes = Codes.open(given.codes, given.data_dir, **names)
        options = {name: given[name].value for name in ("size", "width", "seed", "steps", "residual")}
        representation = make(given.kind, codes, tokens=given.tokens, **options)
    print(f"wrote {representation.save(given.output)}: {len(representation):,} codes")


if __name__ == "__main__":
    from medtok_jax.devices.huge_pages import restart_with_huge_pages

    flags.DEFINE_enum("kind", None, KINDS, "kind of baseline", required=True)
    flags.DEFINE_string("output", None, "folder for the representation", required=True)
    flags.DEFINE_string("codes", DEFAULT_CODES, "data set of codes, with its options in its name")
    flags.DEFINE_string(
        "data_dir", "", "directory of the data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets if not given"
    )
    flags.DEFINE_string("text_encoder", "", "value of model.text_encoder_model; the packaged encoder if not given")
    flags.DEFINE_integer("sample_size", 0, "number of codes, drawn as by data.sample_size; 0 for all", lower_bound=0)
    flags.DEFINE_integer("size", SIZE, "rows of the codebook, for kinds that can choose it", lower_bound=1)
    flags.DEFINE_integer("tokens", TOKENS, "tokens of each code, for kinds that can choose it")
    flags.DEFINE_integer("width", 0, "width of the rows; 0 for that of the kind", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "seed of all random draws", lower_bound=0)
    flags.DEFINE_integer("steps", 0, "training steps of kinds that train; 0 for those of the default", lower_bound=0)
    flags.DEFINE_bool("residual", False, "kmeans_text: fit each token to the residual of the tokens before it")
    restart_with_huge_pages()
    command_line.run(main)
