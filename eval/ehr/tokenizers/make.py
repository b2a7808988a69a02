"""Make the matrix of codes of a tokenizer by its name.

| name | what a model reads of a code |
|---|---|
| `codes` | the code itself (code-as-token) |
| `rollup` | its category |
| `gem` | the code, ICD-10-CM translated to ICD-9-CM by the official mapping |
| `words` | words of its description |
| `wordpieces` | wordpieces of its description |
| `raw_text` | the frozen text vector of its description |
| `text_pursuit`, `text_vq`, `vqgraph` | tokens of a baseline (`eval.baselines`) |
| `shuffled` | tokens (of `:embeddings` the vectors) of the first run, dealt to wrong codes |
| `random` | random tokens, as many as of the first run |
| `cooccurrence` | vectors of the co-occurrence of codes in training samples |
| a path | pooled tokens of a run, a tokenizer directory, a tokenizer on the hub or a saved representation |

A path or a baseline takes suffixes: `:unweighted` counts its tokens equally, `:expanded` lets sequence models read each
token as a position, `:embeddings` gives frozen vectors. `A+B` sets the tokens of two tokenizers side by side, each with
half of the weight. `NAME=PATH` gives a path another name in reports than its own.
"""

from pathlib import Path

import numpy as np

from configs import default
from eval.baselines.make import SIZE, TOKENS, make_once, sizes_like
from eval.common.representation import load
from eval.ehr.tokenizers import code_features, controls, medtok, text
from eval.ehr.tokenizers.context import TokenizerContext
from eval.ehr.tokenizers.descriptions import describe
from eval.ehr.tokenizers.matrix import CodeMatrix, side_by_side
from eval.ehr.tokenizers.spelling import EventCodes
from medtok_jax.lookup import hub
from preprocessing.common.errors import InputError, did_you_mean

MADE = ("text_pursuit", "text_vq", "vqgraph")
NAMES = (
    *("codes", "words", "wordpieces", "raw_text", *MADE, "rollup", "gem", "shuffled", "random"),
    "cooccurrence",
)
SUFFIXES = ("unweighted", "expanded", "embeddings")
# Width of the rows of `random` where there is no run.
_WIDTH = 64


def make(name: str, codes: np.ndarray, context: TokenizerContext) -> CodeMatrix:
    """Return the matrix of the codes of a data set by a tokenizer.

    Args:
        name: name or path of the tokenizer, see the docstring of this module.
        codes: `[codes]` str, distinct codes as the data set spells them.
        context: what else tokenizers need.

    Raises:
        InputError: there is no such tokenizer (the nearest name is given), or it cannot be made.
    """
    return _make(check_name(name), EventCodes.read(codes), context)


def check_name(name: str) -> str:
    """Return the name of a tokenizer that can be looked for.

    Raises:
        InputError: it is neither a known name nor a path, a package or a name on the hub; the nearest name is given.
    """
    parts = parts_of(name)
    if len(parts) > 2:
        raise InputError(f"{name!r} names {len(parts)} tokenizers; give at most two, joined by a plus.")
    for part in parts:
        base, suffixes = _split(part)
        if base in NAMES and base not in MADE and suffixes:
            raise InputError(f"{part!r}: {base} takes no suffix; leave :{suffixes[0]} out.")
        if "embeddings" in suffixes and len(suffixes) > 1:
            raise InputError(f"{part!r} asks for embeddings, which have no tokens; leave the other suffix out.")
        if base in NAMES or Path(base).expanduser().exists() or "/" in base or hub.in_package(base):
            continue
        raise InputError(f"{base!r} is no tokenizer: neither a directory nor a known name; {did_you_mean(base, NAMES)}")
    return name


def data_sets_of(name: str) -> list[str]:
    """Return the names of the data sets of codes that the runs and directories in a tokenizer say they are made of."""
    bases = [base_of(part) for part in parts_of(name)]
    abouts = [medtok.some_codes(base).about for base in bases if base not in NAMES]
    return [about["data_set"]["name"] for about in abouts if (about.get("data_set") or {}).get("name")]


def parts_of(name: str) -> list[str]:
    """Return the two names of `A+B`, or the only one; a path that exists may contain a plus."""
    without_suffixes = name
    while "+" in without_suffixes:
        if Path(without_suffixes).expanduser().exists():
            return [name]
        without_suffixes = without_suffixes.rpartition(":")[0]
    return name.split("+")


def base_of(name: str) -> str:
    """Return the name or path of a tokenizer, not of two that are joined, without its label and suffixes.

    Raises:
        InputError: a suffix is not known.
    """
    return _split(name)[0]


def _label(name: str) -> str:
    """Return the label of `LABEL=PATH`, empty where there is none."""
    label, separator, _ = name.partition("=")
    return label if separator and "/" not in label else ""


def _split(name: str) -> tuple[str, list[str]]:
    """Return the name or path of a tokenizer without its label and suffixes, and these suffixes.

    Raises:
        InputError: a suffix is not known.
    """
    name = name.removeprefix(f"{_label(name)}=")
    if Path(name).expanduser().exists():
        return name, []
    base, *suffixes = name.split(":")
    for suffix in suffixes:
        if suffix not in SUFFIXES:
            raise InputError(f"{name!r} has the suffix {suffix!r}; {did_you_mean(suffix, SUFFIXES)}")
    return base, suffixes


def _make(name: str, codes: EventCodes, context: TokenizerContext) -> CodeMatrix:
    parts = parts_of(name)
    if len(parts) == 2:
        first, second = (_make(part, codes, context) for part in parts)
        label = f"{first.name}+{second.name}"
        return side_by_side(label, first, second, medical=codes.medical, seed=context.seed)
    base, suffixes = _split(name)
    if base in _CODE_FEATURES:
        return _CODE_FEATURES[base](codes)
    if base in ("words", "wordpieces", "raw_text"):
        return _of_text(base, codes, context)
    if base == "cooccurrence":
        return controls.cooccurrence(codes, context.train_bags, seed=context.seed)
    if base == "random":
        return controls.random_tokens(codes, **_sizes_of_first(context), seed=context.seed)
    if base == "shuffled":
        opened = medtok.open_tokenizer(_first(base, context), codes)
        of_first = _split(context.first)[1]
        return controls.shuffled(
            opened,
            medical=codes.medical,
            seed=context.seed,
            weighted="unweighted" not in of_first,
            expanded="expanded" in of_first,
            of_vectors="embeddings" in of_first,
        )
    if base == "text_pursuit":
        texts = describe(codes, context.descriptions)
        opened = text.quantized_texts(load(_made(base, context)), texts, context.text_encoder)
    else:
        opened = medtok.open_tokenizer(_made(base, context) if base in MADE else base, codes)
    label = ":".join([base if base in MADE else _label(name) or opened.representation.name, *suffixes])
    if "embeddings" in suffixes:
        return medtok.embedded(opened, label, medical=codes.medical)
    return medtok.pooled(
        opened,
        label,
        medical=codes.medical,
        weighted="unweighted" not in suffixes,
        expanded="expanded" in suffixes,
        seed=context.seed,
    )


_CODE_FEATURES = {
    "codes": code_features.codes_as_tokens,
    "rollup": code_features.rollup,
    "gem": code_features.gem,
}


def _of_text(name: str, codes: EventCodes, context: TokenizerContext) -> CodeMatrix:
    texts = describe(codes, context.descriptions)
    if name == "words":
        return text.words(texts, medical=codes.medical)
    if name == "wordpieces":
        return text.wordpieces(texts, context.text_encoder, medical=codes.medical, seed=context.seed)
    return text.raw_text(texts, context.text_encoder, medical=codes.medical)


def _made(name: str, context: TokenizerContext) -> Path:
    """Return the folder of a baseline of the size and the data set of the first run, made where it does not exist."""
    sizes: dict[str, int] = {}
    data_set = context.data_set
    if context.first:
        representation = medtok.some_codes(_first(name, context))
        sizes = sizes_like(representation)
        data_set = data_set or (representation.about.get("data_set") or {}).get("name")
    data_set = data_set or default.get_config().data.name
    options = {"text_encoder": context.text_encoder, "progress": context.progress}
    return make_once(name, data_set, context.data_dir, context.folder, sizes, **options)


def _first(name: str, context: TokenizerContext) -> str:
    if not context.first:
        raise InputError(f"{name} needs a run or tokenizer directory whose tokens it takes; give one beside it.")
    return _split(context.first)[0]


def _sizes_of_first(context: TokenizerContext) -> dict[str, int]:
    """Return size, number of tokens and width of the tokens of the first run, or the defaults."""
    defaults = {"size": SIZE, "num_tokens": TOKENS, "width": _WIDTH}
    if not context.first:
        return defaults
    representation = medtok.some_codes(_first("random", context))
    if representation.tokens is None:
        return defaults
    width = _WIDTH if representation.codebook is None else representation.codebook.shape[1]
    return {"size": representation.num_ids, "num_tokens": representation.tokens.shape[1], "width": width}
