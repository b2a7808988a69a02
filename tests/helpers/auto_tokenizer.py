"""Open a tokenizer directory as transformers does, by the code that lies in it."""

import os
import tempfile
from pathlib import Path
from unittest import mock

# The folder to which transformers copies code. It stays one in a process: the first is where Python found the package
# `transformers_modules`, and it looks for what lies in the package nowhere else.
MODULES = tempfile.mkdtemp(prefix="modules-", dir=os.environ.get("MEDTOK_TESTS_SHARED"))


def open_auto(folder: Path, **options):
    """Return what `AutoTokenizer` makes of a directory."""
    from transformers import AutoTokenizer, dynamic_module_utils

    with mock.patch.object(dynamic_module_utils, "HF_MODULES_CACHE", MODULES):
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True, **options)
