"""Open a tokenizer directory as transformers does, by the code that lies in it."""

import functools
import os
import tempfile
from pathlib import Path
from unittest import mock


@functools.cache
def _modules() -> str:
    """Return the folder of a process to which transformers copies code, from where it imports one package only."""
    return tempfile.mkdtemp(prefix="modules-", dir=os.environ.get("MEDTOK_TESTS_SHARED"))


def open_auto(folder: Path, **options):
    """Return what `AutoTokenizer` makes of a directory."""
    from transformers import AutoTokenizer, dynamic_module_utils

    with mock.patch.object(dynamic_module_utils, "HF_MODULES_CACHE", _modules()):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True, **options)
