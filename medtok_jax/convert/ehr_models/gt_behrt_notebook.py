"""List the changes to GT-BEHRT's notebook with which it trains on converted records."""

from pathlib import Path

from medtok_jax.convert.ehr_models import notebook
from medtok_jax.convert.ehr_models.notebook import AFTER, END, INSTEAD, NEW, OMIT, Change

PREDICTIONS = "predictions.parquet"
PACKAGES = "torch torch_geometric pytorch_pretrained_bert sparse transformers einops scikit-learn pandas pyarrow"


def changes(output: Path) -> list[Change]:
    """Return the changes for the files in `output`, in the order of cells."""
    folder = repr(str(output))
    sizes = repr(str(output / "model_config.json"))
    vectors = repr(str(output / "initial_nodes.npy"))
    model = repr(str(output / "v_behrt.pt"))
    samples = repr(str(output / "samples.json"))
    predictions = repr(str(output / PREDICTIONS))
    return [
        Change(0, OMIT, why="it installs packages in Colab"),
        Change(1, OMIT, why="it installs packages in Colab"),
        Change(
            4,
            INSTEAD,
            f"import sys\nsys.path.insert(0, {folder})\n"
            f"from visit_graphs import VisitGraphs\ndataset = VisitGraphs({folder})",
        ),
        Change(6, END, f"import json\nmodel_config.update(json.load(open({sizes})))"),
        Change(
            7,
            INSTEAD,
            "trainDSet, valDSet, testDSet = (dataset.of(name) for name in ('train', 'tuning', 'held_out'))",
            why="its own split separates histories of one patient, and it trains on 5 % of them",
        ),
        Change(
            8,
            AFTER,
            "behrt.bert.embeddings.word_embeddings.embed.weight.data.copy_(\n"
            f"    torch.from_numpy(np.load({vectors})))",
            "behrt = BertForMTR(conf)",
            "the constructor initializes all embeddings",
        ),
        Change(
            9,
            END,
            f"def save_model(_model_dict, file_name):\n    torch.save(_model_dict, {model})",
            why="it saves the model after the first epoch, into a folder of the authors' drive",
        ),
        Change(11, OMIT, why="it loads weights that the authors pretrained"),
        Change(
            13,
            NEW,
            f"behrt.load_state_dict(torch.load({model}))\n"
            "testload = GraphLoader(GDSet(testDSet), batch_size=train_params['batch_size'])\n"
            "with torch.no_grad():\n"
            "    parts = [eval([batch], False, train_params['device'])[2:4] for batch in testload]\n"
            "logits, labels = (torch.cat(part).cpu().numpy() for part in zip(*parts))\n"
            "import pyarrow as pa\n"
            "from pyarrow import parquet\n"
            f"samples = {{name: np.array(values) for name, values in json.load(open({samples})).items()}}\n"
            "tested = samples['split'] == 'held_out'\n"
            "parquet.write_table(pa.table({\n"
            "    'subject_id': samples['subject_id'][tested],\n"
            "    'prediction_time': samples['prediction_time'][tested].astype('datetime64[us]'),\n"
            "    'predicted_boolean_probability': 1 / (1 + np.exp(-logits.astype(float))),\n"
            f"}}), {predictions})\n"
            "print('AUROC', skm.roc_auc_score(labels, logits), 'AUPRC', skm.average_precision_score(labels, logits))",
            why="the notebook's eval returns the last batch only, and writes no probabilities",
        ),
    ]


def steps(output: Path) -> str:
    """Return the changes as steps for a reader."""
    return f"""Next (git clone https://github.com/healthylaife/GT-BEHRT; pip install
{PACKAGES}), in GT-BEHRT_Notebook.ipynb:
{notebook.steps(changes(output))}"""
