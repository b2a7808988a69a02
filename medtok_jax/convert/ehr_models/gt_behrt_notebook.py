"""List the changes to GT-BEHRT's notebook with which it trains on converted records, and print them as steps.

Cells are numbered from 0, as in the notebook's file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

INSTEAD, END, AFTER, OMIT, NEW = "instead of it", "at its end", "after the line", "leave it out", "a new cell"
PACKAGES = "torch torch_geometric pytorch_pretrained_bert sparse transformers einops scikit-learn pandas"


class Change(NamedTuple):
    """Describe the change of one cell.

    Attributes:
        cell: number of the cell; `NEW` ones follow the last.
        how: `INSTEAD` of the cell, at its `END`, `AFTER` the line `line`, `OMIT` the cell, or a `NEW` one.
        code: lines of Python; empty for `OMIT`.
        line: see `how`.
        why: the reason, if it is not obvious.
    """

    cell: int
    how: str
    code: str = ""
    line: str = ""
    why: str = ""


def changes(output: Path) -> list[Change]:
    """Return the changes for the files in `output`, in the order of cells."""
    data = repr(str(output / "data.pickle"))
    sizes = repr(str(output / "model_config.json"))
    samples = repr(str(output / "samples.json"))
    vectors = repr(str(output / "initial_nodes.npy"))
    model = repr(str(output / "v_behrt.pt"))
    return [
        Change(0, OMIT, why="it installs packages in Colab"),
        Change(1, OMIT, why="it installs packages in Colab"),
        Change(4, INSTEAD, f"import pickle\nwith open({data}, 'rb') as handle:\n    dataset = pickle.load(handle)"),
        Change(6, END, f"import json\nmodel_config.update(json.load(open({sizes})))"),
        Change(
            7,
            INSTEAD,
            f"split = json.load(open({samples}))['split']\n"
            "trainDSet, valDSet, testDSet = ([p for p, s in zip(dataset, split) if s == name]\n"
            "                                for name in ('train', 'tuning', 'held_out'))",
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
            "print('AUROC', skm.roc_auc_score(labels, logits), 'AUPRC', skm.average_precision_score(labels, logits))",
            why="the notebook's eval returns the last batch only",
        ),
    ]


def changed(cells: Sequence[str], output: Path) -> list[str]:
    """Return the code of all cells of the notebook with the changes made; cells that are left out are empty.

    Raises:
        ValueError: a line that a change follows is not in its cell exactly once.
    """
    result = list(cells)
    for change in changes(output):
        if change.how == NEW:
            result.append(change.code)
        elif change.how == END:
            result[change.cell] += "\n" + change.code
        elif change.how == AFTER:
            if result[change.cell].count(change.line) != 1:
                raise ValueError(f"Cell {change.cell} does not hold the line {change.line!r} once.")
            result[change.cell] = result[change.cell].replace(change.line, f"{change.line}\n{change.code}")
        else:
            result[change.cell] = change.code
    return result


def steps(output: Path) -> str:
    """Return the changes as steps for a reader."""
    lines = [
        "Next (git clone https://github.com/healthylaife/GT-BEHRT; pip install",
        f"{PACKAGES}), in GT-BEHRT_Notebook.ipynb:",
    ]
    for change in changes(output):
        how = f"{change.how} {change.line}" if change.line else change.how
        lines.append(f"  cell {change.cell:<3} {how}" + (f" ({change.why})" if change.why else ""))
        lines += [f"           {line}" for line in change.code.splitlines()]
    return "\n".join(lines)
