"""Tokenize codes by the quantizer of MedTok on the frozen text embedding alone: no graph and no training.

A code has as many tokens as with MedTok, all of its text (`pursuit.py`). What MedTok adds beside this is the graph, its
crosswalks and contrasts.

Rows are as wide as the text embedding: reduced to 128 of 384 components, the width of MedTok's rows, they serve worse
(ICD-9-CM to ICD-10-CM on eICU, AUROC .68 instead of .71), and a baseline that is beaten must not be hobbled.
"""

import dataclasses

import numpy as np

from eval.baselines.data import Codes
from eval.baselines.pursuit import PURSUIT, PursuitOptions, fit_and_quantize, sample_codes
from eval.common.representation import Representation


def text_pursuit(
    codes: Codes, options: PursuitOptions, *, width: int = 0, seed: int, progress: bool = True
) -> Representation:
    """Fit rows to the texts of training codes and tokenize all codes.

    Args:
        codes: codes of a data set.
        options: settings of the quantizer.
        width: width d of the rows, to which text embeddings are reduced by their principal components; 0, or a width
            that is not below theirs, leaves them as they are.
        seed: seed of the sample and of the first centers of k-means.
        progress: whether to show a progress bar.
    """
    texts = codes.text_vectors(progress)
    sampled = sample_codes(codes.is_train(), options, seed=seed)
    projection = principal_axes(texts[sampled], width)
    arrays = fit_and_quantize(texts @ projection, sampled, options, seed=seed)
    about = dataclasses.asdict(options) | {
        "width": projection.shape[1],
        "seed": seed,
        "quantizer": PURSUIT,
        "graph": False,
    }
    return codes.representation("text_pursuit", about, projection=projection, **arrays)


def principal_axes(points: np.ndarray, width: int) -> np.ndarray:
    """Return the directions of largest second moment of points as columns: float32 `[hidden, width]`.

    The mean is not subtracted, so that inner products, by which rows are searched, change as little as possible.

    Args:
        points: `[n, hidden]`.
        width: number of directions; 0, or a number that is not below `hidden`, gives the identity.
    """
    hidden = points.shape[1]
    if not 0 < width < hidden:
        return np.eye(hidden, dtype=np.float32)
    wide = points.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    axes = vectors[:, ::-1][:, :width]
    # The sign of an axis is arbitrary; its largest component decides.
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(width)])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)
