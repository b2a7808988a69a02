"""The PyTorch module against the Flax model, option by option, and back again; what is refused."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from tests.helpers import guide_examples, small_tokenizer

torch = pytest.importorskip("torch")

from medtok_jax.batch import InputSizes  # noqa: E402
from medtok_jax.convert.pytorch import check, convert, restore  # noqa: E402
from medtok_jax.convert.pytorch import weights as pytorch_weights  # noqa: E402
from medtok_jax.convert.request import make_request  # noqa: E402
from medtok_jax.inference import model_reader  # noqa: E402
from medtok_jax.inference.model_reader import Neighborhood, SavedModel  # noqa: E402
from medtok_jax.inference.model_writer import flatten  # noqa: E402
from medtok_jax.inference.new_codes import NewCodeEncoder  # noqa: E402
from medtok_jax.text.encoder_files import encoder_identity  # noqa: E402
from medtok_jax.training import checkpoints  # noqa: E402
from preprocessing.common.checksums import sealed, sha256_of_files  # noqa: E402
from preprocessing.common.errors import InputError, UserError  # noqa: E402

HIDDEN = 16
# Together they take every path through the model.
VARIANTS = {
    "hierarchical": {},
    "pursuit, one shared embedding": {"shared_embedding": "one", "num_top_k_tokens": 2},
    "gat, residual, CLS, lengths kept, moving averages, node ids, trained text encoder with tanh": {
        "graph_encoder_type": "gat",
        "quantizer_kind": "residual",
        "text_encoder_type": "default",
        "normalize": False,
        "ema_decay": 0.9,
        "node_id_features": True,
        "text_encoder_trainable": True,
        "text_encoder_gelu": "tanh",
    },
    "gcn, lengths kept, simvq, rotation, the whole book, ids instead of names, tanh": {
        "graph_encoder_type": "default",
        "text_encoder_gelu": "tanh",
        "normalize": False,
        "simvq": True,
        "gradient_estimator": "rotation",
        "shared_search": "book",
        "node_id_features": True,
        "node_name_features": False,
    },
}
# A code that is a node, one that hangs on nodes, what the model never saw, too many and too far nodes, and nothing.
GRAPH = {
    "nodes": [
        {"id": "X/1", "name": "not read", "type": "code"},
        {"id": "X/3", "name": "code 3", "type": "Code", "node_id": 3},
        {"id": "HPO/10", "name": "phenotype 10", "type": "phenotype", "node_id": 10},
        {"id": "X/8", "name": "code 8", "type": "code", "node_id": 8},
        {"id": "far", "name": "three hops away", "type": "code"},
    ],
    "links": [
        {"source": "X/1", "target": "X/3", "relation": "parent_of"},
        {"source": "HPO/10", "target": "X/1", "relation": "phenotype_of"},
        {"source": "X/3", "target": "X/8", "relation": "maps_to"},
        {"source": "X/8", "target": "X/3", "relation": "maps_to"},
        {"source": "X/8", "target": "far", "relation": "maps_to"},
        {"source": "X/8", "target": "nowhere", "relation": "maps_to"},
        {"source": "far", "target": "far", "relation": "maps_to"},
    ],
}
STRANGE = {
    "nodes": [{"id": 1, "name": "one", "anchor": True}, {"id": 2, "name": "two", "type": "moon"}, {"id": 1}],
    "edges": [{"source": 2, "target": 1, "relation": "orbits"}],
}
STAR = {
    "nodes": [{"id": f"leaf {number}", "type": "phenotype"} for number in range(9)] + [{"id": "hub", "type": "code"}],
    "links": [{"source": "hub", "target": f"leaf {number}", "relation": "has_phenotype"} for number in range(9)],
}
NAMED = {"graph": {"self_node": 5}, "nodes": [{"id": 5}, {"id": 6}], "links": [{"source": 6, "target": 5}]}
CODES = [
    {"system": "X", "code": "1", "description": "a disease of the heart", "graph": GRAPH},
    {"system": "X", "code": "none", "description": "a heart " * 30, "graph": STRANGE},
    {"system": "X", "code": "7.7", "description": "a disease", "graph": STAR},
    {"system": "X", "code": "1", "description": None, "graph": GRAPH},
    {"system": "X", "code": "5", "description": "the heart of a disease", "graph": None},
    {"system": "X", "code": "6", "description": "phenotype", "graph": NAMED},
]


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory):
    """A BERT of two layers with random weights and a vocabulary of letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "heart", "disease", "code", "phenotype"]
    words += [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789" for prefix in ("", "##")]
    tokenizer = Tokenizer(models.WordPiece({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 24}
    BertModel(BertConfig(vocab_size=len(words), hidden_size=HIDDEN, **shape)).save_pretrained(folder)
    return folder


def make_saved(base, graph, encoder_dir, **model) -> SavedModel:
    """A model of random weights, every one of them other than zero and one."""
    config = ConfigDict(base.to_dict())
    config.data.update(max_length=20, cache_dtype="float32")
    config.model.update(graph_layers=2, cross_layers=2, **model)
    saved = SavedModel(
        config=ConfigDict({name: config[name] for name in model_reader.SECTIONS}),
        sizes=InputSizes(
            text_width=HIDDEN,
            num_node_types=len(graph.node_types),
            num_relations=len(graph.relation_names),
            num_nodes=graph.num_nodes,
            max_nodes=8,
        ),
        node_types=tuple(graph.node_types),
        relation_names=tuple(graph.relation_names),
        reverse=tuple(graph.reverse),
        neighborhood=Neighborhood(8, 4, (), (), True),
        learned_missing_graph=True,
        encoder=encoder_identity(encoder_dir),
        fingerprint="0" * 64,
        variables={},
        graph=graph,
    )
    _, params, fixed = model_reader.structure(saved, saved.sizes, encoder_dir)
    shapes = flatten({"params": nnx.to_pure_dict(params), "fixed": nnx.to_pure_dict(fixed)})
    rng = np.random.default_rng(0)
    for name, leaf in shapes.items():
        saved.variables[name] = (rng.normal(size=leaf.shape) * 0.4 + name.endswith(".scale")).astype(np.float32)
    return saved


def about(saved: SavedModel) -> dict:
    names = {"node_types": list(saved.node_types), "relation_names": list(saved.relation_names)}
    identity = {"fingerprint": saved.fingerprint, "encoder": saved.encoder}
    return {"config": saved.config.to_dict(), "step": 7} | names | identity


@pytest.fixture(scope="module")
def base():
    """The configuration of `conftest.config`, for the whole module."""
    from configs import default

    config = default.get_config("smoke").copy_and_resolve_references().unlock()
    config.data.length_buckets = (12, 20)
    config.model.update(codebook_size=40, embedding_dim=8, graph_width=8, graph_heads=2, cross_width=8, cross_heads=2)
    config.model.num_top_k_tokens = 2
    return config


@pytest.fixture(scope="module")
def pairs(base, table, encoder_dir, tmp_path_factory):
    """Flax models and the PyTorch directories of them, by the name of the variant."""

    def make(model: dict):
        saved = make_saved(base, table.graph, encoder_dir, **model)
        folder = tmp_path_factory.mktemp("torch") / "out"
        folder.mkdir()
        convert.write(folder, saved, about(saved), encoder_dir)
        return saved, folder

    return {name: make(model) for name, model in VARIANTS.items()}


@pytest.fixture(scope="module", params=VARIANTS, ids=VARIANTS)
def pair(request, pairs):
    return pairs[request.param]


@pytest.fixture(scope="module")
def default_folder(pairs):
    return pairs["hierarchical"][1]


def open_model(folder, **options):
    module = check.load_module(folder)
    return module, module.MedTok.from_pretrained(folder, **options)


def test_both_models_compute_the_same(pair, encoder_dir):
    saved, folder = pair
    flax = NewCodeEncoder(saved, encoder_dir).encode([check._new_code(code) for code in CODES])
    _, model = open_model(folder)
    output = model(model.collate(CODES))
    ids = output.token_ids.numpy()
    # Both round in single precision, on each processor otherwise, so each is compared with double precision.
    double = open_model(folder)[1].double()
    wanted = double(double.collate(CODES))
    exact = wanted.embeddings.detach().numpy()
    # Rounding grows with the numbers, which have unit length only where they are normalized.
    scale = max(1.0, float(np.abs(exact).max()))
    for embeddings in (output.embeddings.detach().numpy(), flax.unquantized):
        np.testing.assert_allclose(embeddings / scale, exact / scale, atol=2e-6)
    np.testing.assert_array_equal(ids, flax.ids.reshape(ids.shape))
    weights = wanted.weights.numpy().reshape(len(CODES), -1)
    for found in (output.weights.numpy().reshape(len(CODES), -1), flax.weights):
        np.testing.assert_allclose(found / scale, weights / scale, atol=1e-5)
    for tensor in (output.vectors, output.quantized):
        np.testing.assert_allclose(tensor.detach().numpy(), flax.embeddings, atol=1e-5)
    assert np.ptp(flax.unquantized, axis=0).min() > 1e-4, "the codes must differ, or nothing is compared"


def test_there_and_back_bit_for_bit(pair, tmp_path):
    saved, folder = pair
    restore.restore(folder, tmp_path / "run")
    found = checkpoints.find(tmp_path / "run", prefer="best")
    restored = flatten(found.restore_variables())
    assert restored.keys() == saved.variables.keys()
    for name, array in saved.variables.items():
        np.testing.assert_array_equal(restored[name], array)
    assert (found.step, found.metadata()["encoder"]) == (7, saved.encoder)
    assert found.metadata()["config"]["model"] == saved.config.model.to_dict()


def test_alone_or_in_a_padded_batch(default_folder):
    _, model = open_model(default_folder)
    together = model(model.collate(CODES, multiple_of=16))
    alone = torch.cat([model(model.collate([code])).embeddings for code in CODES])
    torch.testing.assert_close(together.embeddings, alone, atol=1e-6, rtol=0)
    encoded = model.encode(CODES, batch_size=2)
    torch.testing.assert_close(encoded.token_ids, together.token_ids)
    states = model.collate(CODES)
    states = states._replace(text=model.text_states(states), names=model.name_vectors(states))
    torch.testing.assert_close(model(states).embeddings, alone, atol=1e-6, rtol=0)


def test_gradients_go_where_they_should(pair):
    saved, folder = pair
    module, model = open_model(folder, train_text_encoder=True)
    model.train()
    batch = model.collate(CODES)
    model(batch).quantized.square().sum().backward()
    rows = model.quantizer.rows
    assert rows.grad is None, "straight-through passes the codebook by"
    silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert [name for name in silent if not name.startswith("quantizer.")] == []
    model.zero_grad()
    learned = {name for name, p in model.quantizer.named_parameters() if p.requires_grad}
    assert learned == (
        {"projection"} if saved.config.model.simvq else set() if saved.config.model.ema_decay else {"rows"}
    )
    if learned:
        model(batch).vectors.sum().backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {f"quantizer.{name}" for name in learned}, "vectors pass the encoders by"
    assert torch.isfinite(module.MedTok.quantization_loss(model(batch)))


def test_straight_through_leaves_the_gradient_as_it_is(default_folder):
    _, model = open_model(default_folder)
    batch, direction = model.collate(CODES), torch.randn(len(CODES), 3, 8)
    gradients = []
    for field in ("quantized", "embeddings"):
        model.zero_grad()
        (getattr(model(batch), field) * direction).sum().backward()
        gradients.append(model.text_head.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(default_folder, dtype):
    _, model = open_model(default_folder)
    _, half = open_model(default_folder, dtype=dtype)
    exact, output = model(model.collate(CODES)), half(half.collate(CODES))
    assert half.text_head.weight.dtype == dtype
    assert half.quantizer.rows.dtype == output.quantized.dtype == torch.float32
    torch.testing.assert_close(output.embeddings, exact.embeddings, atol=0.1, rtol=0)
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(model(model.collate(CODES)).embeddings, exact.embeddings, atol=0.1, rtol=0)


def test_compiles_without_breaks(default_folder):
    _, model = open_model(default_folder)
    batch = model.collate(CODES)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch).token_ids, model(batch).token_ids)


def test_states_are_rounded_as_the_cache_rounds_them(default_folder):
    _, model = open_model(default_folder)
    batch = model.collate(CODES)
    exact = model.text_states(batch)
    model.config["text_state_dtype"] = "bfloat16"
    rounded = model.text_states(batch)
    torch.testing.assert_close(rounded, exact.to(torch.bfloat16).float(), atol=0, rtol=0)
    assert not torch.equal(rounded, exact)


def test_fine_tuned_weights_come_back(default_folder, tmp_path):
    module, model = open_model(default_folder, train_text_encoder=True)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    output = model(model.collate(CODES))
    (output.quantized.square().mean() + module.MedTok.quantization_loss(output)).backward()
    optimizer.step()
    model.save_pretrained(tmp_path / "tuned")
    again = open_model(tmp_path / "tuned")[1]
    torch.testing.assert_close(again(again.collate(CODES)), model.eval()(model.collate(CODES)), atol=0, rtol=0)
    restore.restore(tmp_path / "tuned", tmp_path / "run")
    found = checkpoints.find(tmp_path / "run", prefer="best")
    restored = flatten(found.restore_variables())
    for name, weight in pytorch_weights.to_torch(restored).items():
        np.testing.assert_array_equal(weight, model.state_dict()[name].numpy(), err_msg=name)
    assert found.metadata()["config"]["model"]["text_encoder_trainable"]
    before = pytorch_weights.read_weights(default_folder / "model.safetensors")
    assert not np.array_equal(restored["params.text_head.kernel"].T, before["text_head.weight"])
    with pytest.raises(ValueError, match="not empty"):
        model.save_pretrained(tmp_path / "tuned")


@pytest.fixture(scope="module")
def tokenizer_dir(pairs, encoder_dir, tmp_path_factory):
    """A tokenizer directory with a model, whose codes are nodes of its graph or hang on some."""
    saved, _ = pairs["hierarchical"]
    config = saved.config.to_dict()
    config["model"]["text_encoder_model"] = str(encoder_dir)

    def add_model(folder) -> None:
        save_file(saved.variables, folder / model_reader.VARIABLES)
        saved.graph.save(folder / model_reader.GRAPH)
        digests = {
            model_reader.VARIABLES: sha256_of_files([folder / model_reader.VARIABLES]),
            model_reader.GRAPH: sha256_of_files(sorted((folder / model_reader.GRAPH).iterdir())),
        }
        named = {name: getattr(saved, name) for name in ("node_types", "relation_names", "reverse", "encoder")}
        named |= {"fingerprint": saved.fingerprint, "learned_missing_graph": True, "step": 7, "config": config}
        parts = {name: dataclasses.asdict(getattr(saved, name)) for name in ("sizes", "neighborhood")}
        content = {"format_version": model_reader.FORMAT_VERSION, "sha256": digests} | named | parts
        (folder / model_reader.CONFIG).write_text(json.dumps(sealed(content)))

    keys = [f"X/{number}" for number in range(8)] + ["ICD10CM/E11.9", "ICD10CM/I10"]
    path = tmp_path_factory.mktemp("source") / "tok"
    return small_tokenizer.write(path, small_tokenizer.make_tokens(keys), add=add_model)


def test_conversion_from_end_to_end(tokenizer_dir, tmp_path, capsys, monkeypatch):
    convert.convert(make_request(output=tmp_path / "out", tokenizer=tokenizer_dir))
    told = capsys.readouterr().out
    assert "Both models encoded 10 codes: embeddings differ by at most" in told
    assert "100.000% of token ids are equal" in told
    assert f"--from=pytorch --input={tmp_path / 'out'}" in told
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert content["checkpoint"]["step"] == 7
    assert not {"data_dir", "cache_dir"} & content["checkpoint"]["config"]["data"].keys()
    restore.restore(tmp_path / "out", tmp_path / "run")
    config = checkpoints.find(tmp_path / "run", prefer="best").metadata()["config"]
    assert config["augment"]["fact_dropout"] == 0.1, "what the directory does not keep is as in configs/default.py"
    monkeypatch.setattr(pytorch_weights, "to_torch", lambda variables: {n: -x for n, x in to_torch(variables).items()})
    with pytest.raises(UserError, match="differs from the Flax model"):
        convert.convert(make_request(output=tmp_path / "wrong", tokenizer=tokenizer_dir))
    assert {path.name for path in tmp_path.iterdir()} == {"out", "run"}


to_torch = pytorch_weights.to_torch

ELSEWHERE = """
import json, sys
for name in ("jax", "jaxlib", "flax", "medtok_jax", "preprocessing", "pyarrow", "torch_geometric"):
    sys.modules[name] = None  # As if it were not installed.
sys.path.insert(0, sys.argv[1])
from modeling_medtok import MedTok
print(MedTok.from_pretrained(sys.argv[1]).encode(json.loads(sys.argv[2])).token_ids.tolist())
"""


def test_examples_of_the_guide(default_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "modeling_medtok", raising=False)
    shutil.copytree(default_folder, "medtok_pytorch")
    names: dict = {}
    for example in guide_examples.examples("PyTorch", "python"):
        exec(compile(example, "docs/integration_guide.md", "exec"), names)
    assert names["tokens"].shape == (1, 8)
    kinds = names["model"].collate([names["code"]]).node_kind.tolist()
    assert kinds == [[1, 0]], "the code's own node comes first"
    assert {path.name for path in Path().iterdir()} == {"medtok_pytorch", "medtok_tuned"}
    monkeypatch.delitem(sys.modules, "modeling_medtok")


@pytest.mark.integration
def test_runs_where_neither_jax_nor_this_package_is(default_folder, tmp_path):
    command = [sys.executable, "-I", "-B", "-c", ELSEWHERE, str(default_folder), json.dumps(CODES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, model = open_model(default_folder)
    assert json.loads(done.stdout) == model.encode(CODES).token_ids.tolist()


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"nodes": [{"id": 1}]}, "is not node-link JSON"),
        ({"nodes": [{"name": "no id"}], "links": []}, "is not node-link JSON"),
        ({"nodes": "text", "links": []}, "is not node-link JSON"),
        ({"nodes": [{"id": 1, "self": True}, {"id": 2, "self": True}], "links": []}, "marks 2 nodes"),
    ],
)
def test_refuses_graphs_that_are_none(default_folder, graph, message):
    _, model = open_model(default_folder)
    with pytest.raises(ValueError, match=message):
        model.collate([{"code": "X/1", "graph": graph}])


def test_refuses_a_configuration_that_it_does_not_know(base, table, encoder_dir):
    saved = make_saved(base, table.graph, encoder_dir)
    convert.check_known(saved)
    for section, field, value, message in (
        ("model", "attention_sinks", 3, "does not know model.attention_sinks"),
        ("model", "graph_encoder_type", "transformer", "graph_encoder_type is 'transformer'"),
        ("data", "modalities", "text", "data.modalities is 'text'"),
    ):
        config = ConfigDict(saved.config.to_dict())
        config[section][field] = value
        with pytest.raises(InputError, match=message):
            convert.check_known(dataclasses.replace(saved, config=config))


def test_refuses_to_restore_what_does_not_belong_together(default_folder, tmp_path):
    def broken(change) -> None:
        shutil.rmtree(tmp_path / "broken", ignore_errors=True)
        shutil.copytree(default_folder, tmp_path / "broken")
        change(tmp_path / "broken")
        with pytest.raises(InputError):
            restore.restore(tmp_path / "broken", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def edit(folder, **changes) -> None:
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | changes))

    broken(lambda folder: (folder / "config.json").unlink())
    broken(lambda folder: edit(folder, format_version=2))
    broken(lambda folder: edit(folder, model_type="bert"))
    broken(lambda folder: edit(folder, sizes={}))
    broken(lambda folder: (folder / "model.safetensors").write_bytes(b"none"))
    broken(lambda folder: (folder / "text_encoder" / "config.json").write_text("{}"))
    weights = pytorch_weights.read_weights(default_folder / "model.safetensors")
    less = {name: array for name, array in weights.items() if name != "text_head.bias"}
    broken(lambda folder: save_file(less, folder / "model.safetensors"))
    broken(lambda folder: save_file(weights | {"more": weights["text_head.bias"]}, folder / "model.safetensors"))
    other = weights | {"text_head.bias": np.zeros(9, np.float32)}
    broken(lambda folder: save_file(other, folder / "model.safetensors"))


def test_a_difference_is_told_from_a_tie():
    model = ConfigDict(
        {"quantizer_kind": "top_k", "num_nearest_tokens": 0, "num_top_k_tokens": 1}
        | {"shared_embedding": "two", "shared_search": "region"}
        | {"text_token_share": 0.25, "graph_token_share": 0.25}
    )

    codebook = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    embedding = np.zeros((1, 4, 2), np.float32) + np.float32(0.5)
    flax, other = np.zeros((1, 4), int), np.zeros((1, 4), int)
    other[0, 1] = 1
    tie = np.zeros((1000, 4), int)
    tie[:1] = other
    many = np.repeat(embedding, 1000, 0)
    ours = np.zeros_like(tie), np.ones_like(tie, np.float32), many
    result = check.judge(["X/1"] * 1000, ours, (tie, many), codebook, model)
    assert [(t.embedding, t.flax, t.torch) for t in result.ties] == [("graph_specific", 0, 1)]
    assert "the others are ties of distance" in result.describe()
    other[0, 1] = 2
    tie[:1] = other
    with pytest.raises(UserError, match="differs from the Flax model"):
        check.judge(["X/1"] * 1000, ours, (tie, many), codebook, model)
    one = flax, np.ones_like(flax, np.float32), embedding
    with pytest.raises(UserError, match="embeddings differ by at most 1"):
        check.judge(["X/1"], one, (flax, embedding + np.float32(1e-3)), codebook, model)
