"""Tokenize codes by the names of the nodes in their subgraphs: a graph without edges, and no training.

For each distance from the code, the frozen vectors of the names of the nodes at that distance are averaged and scaled
to unit length; the means of all distances end to end, reduced by their principal components to the width of MedTok's
rows, are quantized as texts are (`pursuit.py`). The node that is the code itself is left out, as its name is the
description of the code. What MedTok's graph network adds beside this is message passing over the edges.
"""

import dataclasses

import numpy as np
import scipy.sparse as sp

from eval.baselines import defaults
from eval.baselines.data import Codes
from eval.baselines.pursuit import PURSUIT, PursuitOptions, fit_and_quantize, sample_codes
from eval.baselines.text_pursuit import principal_axes
from eval.common.representation import Representation
from preprocessing.common.ragged import positions

# Codes whose nodes are averaged at once.
CHUNK = 8192


def bag_of_nodes(
    codes: Codes, options: PursuitOptions, *, width: int = 0, seed: int, progress: bool = True
) -> Representation:
    """Fit rows to the names around training codes and tokenize all codes.

    Args:
        codes: codes of a data set.
        options: settings of the quantizer.
        width: width d of the rows; 0 for that of MedTok's rows. A width that is not below that of the means of all
            distances leaves them as they are.
        seed: seed of the sample and of the first centers of k-means.
        progress: accepted as by other baselines; nothing here takes long.
    """
    points = mean_names(codes)
    sampled = sample_codes(codes.is_train(), options, seed=seed)
    points = points @ principal_axes(points[sampled], width or defaults.WIDTH)
    arrays = fit_and_quantize(points, sampled, options, seed=seed)
    about = dataclasses.asdict(options) | {"width": points.shape[1], "seed": seed, "quantizer": PURSUIT}
    return codes.representation("bag_of_nodes", about, **arrays)


def mean_names(codes: Codes) -> np.ndarray:
    """Return the means of the names of the nodes at each distance, end to end: float32 `[n, distances * hidden]`.

    The mean of a distance has unit length, and is zero where there is no node but the code itself.
    """
    table, names = codes.data.table, np.asarray(codes.data.cache.name_embedding, np.float32)
    distances = int(table.hops.max(initial=0)) + 1
    found = np.zeros((len(codes), distances, names.shape[1]), np.float32)
    for start in range(0, len(codes), CHUNK):
        rows = codes.rows[start : start + CHUNK]
        where, counts = positions(table.node_offsets, rows)
        owner = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(where)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = place != np.asarray(table.self_node)[rows][owner]
        name = codes.data.node_name[table.nodes[where]]
        for distance in range(distances):
            chosen = kept & (table.hops[where] == distance)
            ones = np.ones(np.count_nonzero(chosen), np.float32)
            shape = (len(rows), len(names))
            found[start : start + len(rows), distance] = (
                sp.csr_array((ones, (owner[chosen], name[chosen])), shape) @ names
            )
    found /= np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
    return found.reshape(len(codes), -1)
