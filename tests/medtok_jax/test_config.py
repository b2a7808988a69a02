"""Every refusal of a configuration: one sentence that names the field, its value and what is allowed."""

import importlib
from pathlib import Path

import pytest

from configs import default, paper, pipeline
from medtok_jax import config as configuration
from medtok_jax.config import check_overrides, differences, field_names, get_field, total_steps, validate
from medtok_jax.regions import REGIONS, Regions, parts_of
from preprocessing.common.errors import InputError

K_EACH = {"model.text_token_share": 0.25, "model.graph_token_share": 0.25}
WITHOUT_MEANING = {"loss.shared_joint_weight": 0.0, "loss.shared_distillation_weight": 0.0}

CONFIGS = Path(default.__file__).parent


@pytest.fixture
def config():
    """The default configuration, unlocked."""
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    return config


def change(config, **fields):
    for name, value in fields.items():
        section, _, leaf = name.rpartition(".")
        (get_field(config, section) if section else config)[leaf] = value


def refusal(config, num_devices: int = 1) -> str:
    with pytest.raises(InputError) as caught:
        validate(config, num_devices)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_every_configuration_is_valid():
    files = [path for path in CONFIGS.glob("*.py") if path.stem != "__init__"]
    assert {path.stem for path in files} >= {"default", "pipeline", "paper", "published"}
    for path in files:
        config = importlib.import_module(f"configs.{path.stem}").get_config()
        assert config.is_locked
        validate(config, 1)
        assert field_names(config) == field_names(default.get_config()), "all have the same fields"


@pytest.mark.parametrize(("module", "variant"), [("default", "smoke"), ("paper", "21000"), ("published", "12000")])
def test_variants(module, variant):
    config = importlib.import_module(f"configs.{module}").get_config(variant)
    validate(config, 1)
    assert config.to_dict() != importlib.import_module(f"configs.{module}").get_config().to_dict()
    with pytest.raises(ValueError, match="no variant 'nothing'"):
        importlib.import_module(f"configs.{module}").get_config("nothing")


def test_documented_values():
    """The three configurations."""
    model, loss = default.get_config().model, default.get_config().loss
    assert (model.codebook_size, model.embedding_dim, model.num_top_k_tokens) == (12000, 256, 2)
    assert (model.text_specific_ratio, model.graph_specific_ratio, model.shared_ratio) == (0.5, 0.2, 0.3)
    assert [part.num_tokens for part in parts_of(model)] == [5, 1, 2]
    assert [part.num_nearest for part in parts_of(model)] == [2, 1, 1]
    assert (loss.alpha, loss.beta, loss.lambda_val) == (0.25, 0.2, 0.1)
    assert pipeline.get_config().model.embedding_dim == 768
    assert pipeline.get_config().model.text_encoder_model == "bert-base-uncased"
    published = paper.get_config()
    assert (published.model.codebook_size, published.model.embedding_dim) == (12000, 64)
    assert (published.model.quantizer_kind, published.model.num_top_k_tokens) == ("top_k", 4)
    assert [part.num_tokens for part in parts_of(published.model)] == [4, 4, 4, 4]
    assert published.loss.contrasted == "quantized"
    assert not any((published.loss.joint_weight, published.loss.distillation_weight, published.loss.positive_relations))
    assert not any((published.augment.mask_positives, published.augment.modality_dropout))
    assert published.loss.beta == published.loss.lambda_val == 0.1
    assert published.loss.infonce_temperature == published.loss.kl_temperature == 1.0
    assert (published.train.steps, published.train.batch_size) == (3000, 1024)
    assert paper.get_config("21000").model.codebook_size == 21000


@pytest.mark.parametrize("name", ["loss.link_weight", "model.quantizer_kind", "augment.node_dropout"])
def test_the_configuration_of_another_version(config, name):
    section, field = name.split(".")
    del config[section][field]
    sentence = refusal(config)
    assert sentence.startswith(f"The configuration has no field {name}: another version")
    assert "train again" in sentence


@pytest.mark.parametrize("name", configuration.CHOICES)
def test_choices(config, name):
    if name == "model.shared_search":
        change(config, **{"model.quantizer_kind": "top_k"})
    if name in ("loss.contrasted", "model.shared_embedding"):
        change(config, **{"model.shared_embedding": "two"}, **K_EACH, **WITHOUT_MEANING)
    for allowed in configuration.CHOICES[name]:
        change(config, **{name: allowed})
        validate(config, 1)
    change(config, **{name: "nonsense"})
    sentence = refusal(config)
    assert sentence.startswith(f"{name} is 'nonsense'")
    assert all(allowed in sentence for allowed in configuration.CHOICES[name])


@pytest.mark.parametrize(
    ("names", "values", "allowed"),
    [
        (configuration.POSITIVE, (0, -1), "it must be more than 0."),
        (configuration.NOT_NEGATIVE, (-1,), "it must be 0 or more."),
        (configuration.RATES, (-1.0, 1.0), "it must be at least 0 and less than 1."),
    ],
    ids=["positive", "not negative", "rates"],
)
def test_numbers(config, names, values, allowed):
    for name in names:
        before = get_field(config, name)
        for value in values:
            number = type(before)(value)
            change(config, **{name: number})
            assert refusal(config) == f"{name} is {number}; {allowed}"
        change(config, **{name: before})
    validate(config, 1)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"model.shared_ratio": 0.5},
            ["model.text_specific_ratio=0.5", "model.shared_ratio=0.5", "add up to 1.2", "add up to 1."],
        ),
        (
            {"model.text_specific_ratio": -0.1, "model.shared_ratio": 0.9},
            ["model.text_specific_ratio=-0.1", "positive"],
        ),
        (
            {"model.codebook_size": 10, "model.num_top_k_tokens": 4},
            [
                "model.num_top_k_tokens is 4",
                "an embedding of the text_specific region has 10 tokens, but the region has only 5 rows",
                "model.codebook_size=10 x 0.5",
            ],
        ),
        (
            {"model.text_token_share": 0.9, "model.graph_token_share": 0.5},
            [
                "model.text_token_share=0.9, model.graph_token_share=0.5 leave 0 of 8 tokens",
                "needs 1; make them smaller",
            ],
        ),
        (
            {"model.shared_embedding": "two", "model.text_token_share": 0.5, **WITHOUT_MEANING},
            ["model.text_token_share=0.5", "leave 3 tokens to the two embeddings", "set both to 0.25"],
        ),
        ({"model.graph_token_share": 0.0}, ["model.graph_token_share is 0.0"]),
        ({"model.simvq": True, "model.ema_decay": 0.9}, ["model.simvq=True", "model.ema_decay=0.9", "one of the two"]),
        ({"model.graph_width": 130}, ["model.graph_width=130", "not divisible", "model.graph_heads=4"]),
        ({"model.cross_heads": 5}, ["model.cross_width=64", "not divisible", "model.cross_heads=5"]),
        ({"train.batch_size": 9, "loss.positive_relations": ("is_a",)}, ["train.batch_size=9", "even", "('is_a',)"]),
        (
            {"model.shared_embedding": "two", **K_EACH, "loss.shared_joint_weight": 1.0},
            ["loss.shared_joint_weight=1.0", "model.shared_embedding='two'"],
        ),
        ({"augment.mask_positives": 1.1}, ["augment.mask_positives is 1.1", "between 0 and 1"]),
        ({"data.hard_negatives": 1.1}, ["data.hard_negatives is 1.1", "between 0 and 1"]),
        (
            {"train.batch_size": 9, "loss.positive_relations": (), "data.hard_negatives": 0.3},
            ["train.batch_size=9", "even", "data.hard_negatives=0.3"],
        ),
        (
            {"data.modalities": "graph", "data.hard_negatives": 0.3},
            ["data.modalities='graph'", "data.hard_negatives=0.3"],
        ),
        ({"augment.modality_dropout": 0.6}, ["augment.modality_dropout is 0.6", "at most 0.5"]),
        ({"model.num_nearest_tokens": 9}, ["model.num_nearest_tokens is 9", "model.num_top_k_tokens"]),
        ({"model.shared_search": "book"}, ["model.shared_search='book'", "model.quantizer_kind='pursuit'"]),
        ({"train.epochs": 0}, ["train.steps", "train.epochs", "both 0"]),
        ({"data.length_buckets": ()}, ["data.length_buckets=()", "ascending"]),
        ({"data.length_buckets": (32, 16)}, ["data.length_buckets=(32, 16)", "ascending"]),
        ({"data.length_buckets": (16, 16)}, ["data.length_buckets=(16, 16)", "ascending"]),
        ({"data.length_buckets": (1, 64)}, ["data.length_buckets=(1, 64)", "2 or more"]),
        ({"data.max_length": 200}, ["data.max_length=200", "data.length_buckets=(16, 32, 64, 128)"]),
    ],
    ids=lambda value: ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_combinations(config, fields, parts):
    validate(config, 1)
    change(config, **fields)
    sentence = refusal(config)
    assert all(part in sentence for part in parts), sentence


def test_a_trained_text_encoder_may_be_distilled(config):
    change(config, **{"model.text_encoder_trainable": True})
    assert config.loss.distillation_weight > 0
    assert config.train.text_encoder_lr == 2e-5
    validate(config, 1)


def test_batches_are_divisible_by_devices(config):
    config.train.batch_size = 12
    validate(config, 4)
    sentence = refusal(config, 8)
    assert "train.batch_size=12" in sentence
    assert "8 devices" in sentence
    assert "train.num_devices" in sentence


def test_devices_that_share_a_codebook_see_the_same_codes(config):
    change(config, **{"train.batch_size": 12, "train.model_parallel": 2})
    validate(config, 8)
    assert "does not divide the 9 devices" in refusal(config, 9)
    assert "in groups of train.model_parallel=2" in refusal(config, 16)
    config.model.codebook_size = 601
    assert "model.codebook_size=601" in refusal(config, 8)


@pytest.mark.parametrize("size", [5, 7, 10, 23, 101])
@pytest.mark.parametrize("ratios", [(0.3, 0.3, 0.4), (0.25, 0.25, 0.5), (0.34, 0.33, 0.33)])
@pytest.mark.parametrize(("shared", "share"), [("two", 1), ("one", 2)])
def test_k_is_held_against_the_regions_that_the_quantizer_has(config, size, ratios, shared, share):
    regions = Regions.from_ratios(size, *ratios[:2])
    most = {name: getattr(regions, name) // (share if name == "shared" else 1) for name in REGIONS}
    largest = min(most.values())
    names = ("model.text_specific_ratio", "model.graph_specific_ratio", "model.shared_ratio")
    change(config, **dict(zip(names, ratios, strict=True)), **{"model.codebook_size": size})
    change(config, **WITHOUT_MEANING, **K_EACH, **{"model.shared_embedding": shared})
    if largest:
        config.model.num_top_k_tokens = largest
        validate(config, 1)
    config.model.num_top_k_tokens = largest + 1
    scarce = [getattr(regions, name) for name in REGIONS if most[name] == largest]
    assert any(f"region has only {rows} rows" in refusal(config) for rows in scarce)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("train.batchsize", "train.batch_size"),
        ("batch_size", "train.batch_size"),
        ("model.codebok_size", "model.codebook_size"),
        ("loss.lambda", "loss.lambda_val"),
        ("train.alpha", "loss.alpha"),
        ("sed", "seed"),
        ("train.learning_rate", "train.lr"),
        ("num_gpus", "train.num_devices"),
    ],
)
def test_unknown_fields_and_the_nearest(config, given, nearest):
    with pytest.raises(InputError) as caught:
        check_overrides(["--config.train.lr=1", f"--config.{given}=3"], config)
    assert str(caught.value) == (
        f"--config.{given} is not a field of the configuration; the nearest is --config.{nearest}."
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--lr=1e-4", "--lr is not a flag; use --config.train.lr."),
        ("--output_dir", "--output_dir is not a flag; use --workdir."),
        ("--num_gpus", "--num_gpus is not a flag; use --config.train.num_devices."),
        ("--resume_from=x", "--resume_from is not a flag; use --config.resume_from."),
        (
            "--config.output_dir=x",
            "--config.output_dir is not a field of the configuration; the nearest is --workdir.",
        ),
    ],
)
def test_spellings_of_the_pipeline_document(config, given, meant):
    with pytest.raises(InputError) as caught:
        check_overrides([given], config)
    assert str(caught.value) == meant


def test_overrides_that_are_fine_or_none_of_ours(config):
    check_overrides(["--config.train.lr=1", "-config.seed=3", "--workdir=x", "--config=configs/default.py"], config)
    with pytest.raises(InputError, match=r"--config\.model is a section"):
        check_overrides(["--config.model=3"], config)


def test_a_checkpoint_of_other_fields_is_told(config):
    saved = config.to_dict()
    assert differences(saved, config) == []
    change(
        config,
        **{"seed": 1, "train.batch_size": 256, "model.embedding_dim": 32, "loss.beta": 0.1, "data.name": "other"},
    )
    assert differences(saved, config) == [
        "seed: 0 -> 1",
        "train.batch_size: 512 -> 256",
        "data.name: medtok_codes/icd -> other",
        "loss.beta: 0.2 -> 0.1",
        "model.embedding_dim: 256 -> 32",
    ]


def test_training_length_and_directories_may_change(config):
    saved = config.to_dict()
    saved["data"]["length_buckets"] = list(saved["data"]["length_buckets"])  # As JSON gives it back.
    saved["data"]["include"] = list(saved["data"]["include"])
    change(
        config,
        **{
            "train.epochs": 100,
            "train.steps": 7,
            "train.lr": 0.1,
            "train.log_every": 1,
            "train.num_devices": 1,
            "train.model_parallel": 2,
            "data.data_dir": "/else",
            "data.cache_dir": "/where",
            "resume_from": "x",
        },
    )
    assert differences(saved, config) == []


def test_a_field_that_the_checkpoint_does_not_know(config):
    saved = config.to_dict()
    del saved["model"]["simvq"]
    del saved["augment"]
    found = differences(saved, config)
    assert "model.simvq: None -> False" in found
    assert len(found) == 7


def test_directories(config, monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert configuration.data_dir(config) == Path.home() / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert configuration.data_dir(config) == tmp_path
    assert configuration.cache_dir(config) == tmp_path / "medtok_cache"
    change(config, **{"data.data_dir": "~/data", "data.cache_dir": "~/cache"})
    assert configuration.data_dir(config) == Path.home() / "data"
    assert configuration.cache_dir(config) == Path.home() / "cache"


@pytest.mark.parametrize(
    ("epochs", "steps", "codes", "wanted"), [(5, 0, 1024, 10), (1, 0, 1025, 3), (5, 7, 1024, 7), (1, 0, 1, 1)]
)
def test_total_steps(config, epochs, steps, codes, wanted):
    change(config, **{"train.epochs": epochs, "train.steps": steps, "loss.positive_relations": ()})
    assert total_steps(config, codes) == wanted
    # With positives half of a batch are partners, which are no pass over the codes; so it is with hard negatives.
    change(config, **{"data.hard_negatives": 0.3})
    assert total_steps(config, codes) == (steps or -(-epochs * codes // (config.train.batch_size // 2)))
    change(config, **{"data.hard_negatives": 0.0})
    change(config, **{"loss.positive_relations": ("gem_exact",)})
    assert total_steps(config, codes) == (steps or -(-epochs * codes // (config.train.batch_size // 2)))
