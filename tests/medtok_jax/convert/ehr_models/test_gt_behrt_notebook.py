"""The changes to GT-BEHRT's notebook: each is run on a converted data set, in cells with the names of the notebook."""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric.data")
metrics = pytest.importorskip("sklearn.metrics")

from eval.ehr import external  # noqa: E402
from eval.ehr.external import ExternalModel  # noqa: E402
from medtok_jax.convert.ehr_models import gt_behrt, gt_behrt_notebook  # noqa: E402
from medtok_jax.convert.ehr_models.notebook import changed  # noqa: E402
from medtok_jax.records.samples import Labels  # noqa: E402

# What the cells of the notebook define, as far as the changes need it; all other lines would fail without its packages.
CELLS = {
    0: "raise RuntimeError('Colab')",
    1: "raise RuntimeError('Colab')",
    4: "raise RuntimeError('the data of the authors')",
    6: "model_config = {'vocab_size': 7204, 'hidden_size': 540, 'hidden_act': 'gelu'}",
    7: "raise RuntimeError('the split of the authors')",
    8: "conf = model_config\nbehrt = BertForMTR(conf)\nbehrt = behrt.to('cpu')",
    9: "def save_model(_model_dict, file_name):\n    raise OSError(file_name)",
    11: "raise RuntimeError('the weights of the authors')",
    12: "save_model(behrt.state_dict(), '/content/drive/My Drive/GANBEHRT/models/v_behrt')",
}


class Model(torch.nn.Module):
    """Has the table of nodes where the notebook's model has it, initialized by its constructor."""

    def __init__(self, config):
        super().__init__()
        embeddings = torch.nn.Module()
        embeddings.word_embeddings = torch.nn.Module()
        embeddings.word_embeddings.embed = torch.nn.Embedding(config["vocab_size"], config["hidden_size"] // 5)
        self.bert = torch.nn.Module()
        self.bert.embeddings = embeddings

    def forward(self, nodes):
        return self.bert.embeddings.word_embeddings.embed(nodes).sum()


def evaluate(model, batches):
    """Return like the notebook's `eval`: sum, time, and the last batch's logits, labels and masks."""
    for patients in batches:
        logits = torch.stack([model(patient[0].x) for patient in patients])
        labels = torch.tensor([float(patient[0].label) for patient in patients])
    return 0.0, 0.0, logits.detach(), labels, None


@pytest.fixture(scope="module")
def output(small_tokenizer_dir, small_meds, tmp_path_factory):
    from medtok_jax.convert.request import make_request

    folder = tmp_path_factory.mktemp("gt") / "it's here"
    gt_behrt.convert(make_request(output=folder, tokenizer=small_tokenizer_dir, events=small_meds))
    return folder


@pytest.fixture
def imports(monkeypatch):
    """Leave no trace of what a notebook imports from the folder of its data."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert "visit_graphs" not in sys.modules
    yield
    sys.modules.pop("visit_graphs", None)


@pytest.mark.usefixtures("imports")
def test_the_changed_cells_load_train_save_and_score(output, capsys):
    samples = json.loads((output / "samples.json").read_text())
    # Patient 1 dies in the stay after the second history, and the others do not.
    samples["split"] = ["held_out", "held_out", "train", "tuning"]
    (output / "samples.json").write_text(json.dumps(samples))
    cells = changed([CELLS.get(number, "") for number in range(13)], gt_behrt_notebook.changes(output))
    assert len(cells) == 14
    space = {
        **{"torch": torch, "np": np, "skm": metrics, "BertForMTR": Model, "GDSet": list},
        "train_params": {"batch_size": 1, "device": "cpu"},
        "GraphLoader": lambda patients, batch_size: [
            patients[i : i + batch_size] for i in range(0, len(patients), batch_size)
        ],
    }
    space["eval"] = lambda batches, saving, device: evaluate(space["behrt"], batches)
    for number, code in enumerate(cells[:13]):
        exec(compile(code, f"cell {number}", "exec"), space)
    sizes = json.loads((output / "model_config.json").read_text())
    assert space["model_config"] == {"hidden_act": "gelu", **sizes}
    split_up = [len(space[name]) for name in ("trainDSet", "valDSet", "testDSet")]
    assert split_up == [1, 1, 2]
    assert Path(sys.modules["visit_graphs"].__file__) == output / "visit_graphs.py"
    table = space["behrt"].bert.embeddings.word_embeddings.embed.weight.detach().numpy()
    np.testing.assert_array_equal(table, np.load(output / "initial_nodes.npy"))
    assert (output / "v_behrt.pt").is_file()
    # Two histories in batches of one: the score needs both.
    labels = [patient[0].label for patient in space["testDSet"]]
    assert labels == [0, 1]
    scores = [space["behrt"](patient[0].x).item() for patient in space["testDSet"]]
    capsys.readouterr()
    exec(compile(cells[13], "cell 13", "exec"), space)
    assert f"AUROC {metrics.roc_auc_score(labels, scores)} AUPRC" in capsys.readouterr().out
    # The benchmark reads them as the predictions of another program.
    given = Labels(np.array(samples["subject_id"][:2]), np.array(samples["prediction_time"][:2], "M8[us]"), labels)
    found = external.read(ExternalModel("mortality", "GT-BEHRT", output / "predictions.parquet"), given)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.array(scores))), rtol=1e-6)


def test_the_steps_print_every_line_and_package(output):
    printed = gt_behrt_notebook.steps(output)
    for change in gt_behrt_notebook.changes(output):
        ast.parse(change.code)
        assert all(line in printed for line in change.code.splitlines())
        assert change.line in printed
    for package in ("sparse", "transformers", "pytorch_pretrained_bert", "einops"):
        assert f" {package}" in printed.replace("\n", " ")


def test_a_notebook_without_the_line_is_refused(output):
    with pytest.raises(ValueError, match="Cell 8 does not hold the line"):
        changed([""] * 13, gt_behrt_notebook.changes(output))


def test_splits_without_histories_are_told():
    found = gt_behrt.split_counts(np.array(["train", "train", "tuning"]))
    assert found.splitlines()[0] == "Histories by split: 2 train, 1 tuning, 0 held_out."
    assert "without histories in held_out" in found
    assert "Warning" not in gt_behrt.split_counts(np.array(["train", "tuning", "held_out"]))


def test_names_are_quoted_in_python(output):
    code = gt_behrt_notebook.changes(output)[2].code
    assert str(output) in {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
