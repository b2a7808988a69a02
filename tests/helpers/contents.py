"""Compare what files hold by digests."""

import hashlib

import numpy as np


def content_of(tree) -> str:
    """Return a digest of nested dictionaries, lists and arrays."""
    if isinstance(tree, dict):
        tree = sorted((str(name), content_of(value)) for name, value in tree.items())
    elif isinstance(tree, list | tuple):
        tree = [content_of(value) for value in tree]
    elif isinstance(tree, np.ndarray) or hasattr(tree, "__array__"):
        array = np.asarray(tree)
        tree = (array.shape, str(array.dtype), array.tolist() if array.dtype == object else array.tobytes())
    return hashlib.sha256(repr(tree).encode()).hexdigest()
