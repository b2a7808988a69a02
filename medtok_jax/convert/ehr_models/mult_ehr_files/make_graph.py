"""Make the graphs that MulT-EHR loads from the arrays beside this file: python make_graph.py

The script needs numpy, torch and dgl.
"""

import pickle  # nosec B403 # It only writes.
from pathlib import Path

import dgl
import numpy as np
import torch

NAME = "medtok"
RELATIONS = [
    ("patient", "makes", "visit"),
    ("visit", "diagnosed", "diagnosis"),
    ("visit", "prescribed", "prescription"),
    ("visit", "treated", "procedure"),
]


def main() -> None:
    """Write `medtok.pkl`, the graph, and `medtok_ptr.pkl`, the graph with features, beside this file."""
    folder = Path(__file__).resolve().parent
    arrays = np.load(folder / "graph.npz")
    edges = {relation: tuple(torch.from_numpy(arrays[relation[1]])) for relation in RELATIONS}
    types = ["patient", "visit", "diagnosis", "procedure", "prescription"]
    graph = dgl.heterograph(edges, num_nodes_dict={kind: int(arrays[f"num_{kind}"]) for kind in types})
    save(graph, folder / f"{NAME}.pkl")
    for kind in types:
        graph.nodes[kind].data["feat"] = torch.from_numpy(arrays[f"feat_{kind}"])
    save(graph, folder / f"{NAME}_ptr.pkl")
    print(graph)


def save(graph: dgl.DGLGraph, path: Path) -> None:
    """Pickle a graph as MulT-EHR does."""
    with open(path, "wb") as file:
        pickle.dump(graph, file, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
