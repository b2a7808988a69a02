"""The changes to BEHRT's notebooks: run on a converted data set, in cells with the names of the notebooks."""

import ast
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")

from medtok_jax.convert.ehr_models import behrt, behrt_notebooks  # noqa: E402
from medtok_jax.convert.ehr_models.notebook import changed, steps  # noqa: E402
from medtok_jax.convert.request import make_request  # noqa: E402

# What the cells of the notebooks define, as far as the changes need it.
MASKED = {
    3: "file_config = {\n    'vocab':'',\n    'model_path': ''\n}\ncreate_folder(file_config['model_path'])",
    4: "global_params = {'max_seq_len': 64, 'min_visit': 5}\ntrain_params = {'max_len_seq': 64, 'device': 'cuda:0'}",
    5: "BertVocab = load_obj(file_config['vocab'])",
    6: "data = read(file_config['data'])\nassert len(data) >= 1",
    7: "trainload = [data]",
    8: "model_config = {'vocab_size': len(BertVocab['token2idx']), 'hidden_size': 288}",
    9: "conf = model_config\nmodel = BertForMaskedLM(conf)",
    12: "torch.save(model.state_dict(), file_config['model_path'] + '/' + file_config['model_name'])",
    13: "loss = 1.0 / data_len",
}
NEXT = {
    2: "file_config = {'vocab': ''}\nglobal_params = {'max_len_seq': 100}\npretrain_model_path = ''",
    3: "BertVocab = load_obj(file_config['vocab'])",
    4: "labelVocab = {token: 0 for token in BertVocab['token2idx']}",
    5: "model_config = {'hidden_size': 288}",
    7: "train = read(file_config['train'])",
    8: "test = read(file_config['test'])",
    10: "state = torch.load(pretrain_model_path)",
}


def load_obj(name):
    """Read as the repository's function does, which appends the ending."""
    with open(f"{name}.pkl", "rb") as file:
        return pickle.load(file)


class Model(torch.nn.Module):
    """Has the table of tokens where the repository's model has it."""

    def __init__(self, config):
        super().__init__()
        self.bert = torch.nn.Module()
        self.bert.embeddings = torch.nn.Module()
        self.bert.embeddings.word_embeddings = torch.nn.Embedding(config["vocab_size"], config["hidden_size"])


@pytest.fixture(scope="module")
def output(small_tokenizer_dir, small_meds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("behrt") / "it's here"
    request = make_request(output=folder, tokenizer=small_tokenizer_dir, events=small_meds, options={"width": 24})
    behrt.convert(request)
    return folder


def test_the_changed_cells_read_every_file(output):
    sizes = json.loads((output / "model_config.json").read_text())
    max_len, width = sizes["max_len_seq"], sizes["hidden_size"]
    given = {"torch": torch, "np": np, "load_obj": load_obj, "read": pq.read_table, "BertForMaskedLM": Model}
    space = {**given, "create_folder": lambda path: Path(path).mkdir(exist_ok=True)}
    cells = [MASKED.get(number, "") for number in range(14)]
    for code in changed(cells, behrt_notebooks.masked_tokens(output, max_len, width)):
        exec(compile(code, "MLM", "exec"), space)
    table = space["model"].bert.embeddings.word_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(table, np.load(output / "word_embeddings.npy"))
    assert space["loss"] == 1.0
    assert (space["train_params"]["max_len_seq"], space["global_params"]["min_visit"]) == (max_len, 1)

    space = {**given, "pd": type("pandas", (), {"read_parquet": staticmethod(pq.read_table)})}
    cells = changed([NEXT.get(number, "") for number in range(16)], behrt_notebooks.next_visit(output, max_len, width))
    for code in cells[:16]:
        exec(compile(code, "NextXVisit", "exec"), space)
    assert space["labelVocab"] == load_obj(output / "label_vocabulary")["token2idx"]
    assert (space["model_config"]["hidden_size"], space["global_params"]["max_len_seq"]) == (width, max_len)
    assert space["test"].num_rows == pq.read_table(output / "tuning.parquet").num_rows
    assert space["state"].keys() == {"bert.embeddings.word_embeddings.weight"}
    assert str(output / "test.parquet") in {
        n.value for n in ast.walk(ast.parse(cells[16])) if isinstance(n, ast.Constant)
    }


def test_the_steps_print_every_line(output):
    printed = behrt_notebooks.steps(output, 64, 24)
    for change in [*behrt_notebooks.masked_tokens(output, 64, 24), *behrt_notebooks.next_visit(output, 64, 24)]:
        assert steps([change]) in printed
        assert all(line in printed for line in change.code.splitlines())
    assert "data_len = len(trainload)" in printed
