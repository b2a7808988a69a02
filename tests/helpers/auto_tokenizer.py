"""Open a tokenizer directory as transformers does, by the code that lies in it."""

from pathlib import Path
from unittest import mock


def open_auto(folder: Path, cache: Path, **options):
    """Return what `AutoTokenizer` makes of a directory; its copies of the code go to `cache`."""
    from transformers import AutoTokenizer, dynamic_module_utils

    with mock.patch.object(dynamic_module_utils, "HF_MODULES_CACHE", str(cache)):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True, **options)
