"""Write docs/configuration.md from the commented configurations: `python -m tests.helpers.configuration_page`."""

import re

from ml_collections import ConfigDict

from configs import ablation, default, paper, pipeline, published
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "configuration.md"
CONFIGS = ROOT / "configs"
FIELD = re.compile(r"^    (?:config|(\w+))\.(?:(\w+)\.)?(\w+) = (.+?)  # (.+)$", re.MULTILINE)

HEAD = """\
# Configuration

This page is written by `python -m tests.helpers.configuration_page` from the comments in `configs/`; change those, not
this page.

A configuration is a Python file that returns a locked `ConfigDict`. `--config=configs/default.py:quickstart` chooses a
file and one of its variants, and any field can be overridden by name: `--config.train.lr=3e-4
--config.data.include="('ICD10CM/E11',)"`. An unknown field or a value of the wrong type is refused before any work
starts, and the message names the nearest field.
"""

SECTIONS = {
    "": "The run",
    "data": "Data",
    "model": "Model",
    "loss": "Loss",
    "augment": "Augmentation and masking",
    "train": "Training",
}


def fields(file: str) -> dict[str, tuple[str, str]]:
    """Return the value and the comment of every commented field of a configuration file, by its dotted name."""
    found = FIELD.findall((CONFIGS / file).read_text(encoding="utf-8"))
    return {".".join(filter(None, (first, second, name))): (value, note) for first, second, name, value, note in found}


def flat(config: ConfigDict) -> dict[str, object]:
    """Return the values of a configuration by dotted name."""
    found = {}
    for name, value in config.items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, ConfigDict) else {name: value}
    return found


def differences(config: ConfigDict, base: ConfigDict) -> dict[str, object]:
    """Return the fields in which a configuration differs from another one."""
    before = flat(base)
    return {name: value for name, value in flat(config).items() if value != before[name]}


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(value: object) -> str:
    """Return a value as code, long tuples and fractions shortened."""
    text = repr(round(value, 6)) if isinstance(value, float) else repr(value).replace("'", '"')
    return f"`{text}`" if len(text) <= 60 else f"`{text[:50]} ...`"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, "## Fields and defaults\n\nThe values are those of `configs/default.py`."]
    defaults = fields("default.py")
    for section, title in SECTIONS.items():
        names = [name for name in defaults if name.rpartition(".")[0] == section]
        rows = [(f"`{name}`", f"`{defaults[name][0]}`", defaults[name][1]) for name in names]
        parts += [f"### {title}\n", table(("field", "default", "meaning"), rows)]
    parts.append("## Variants of `configs/default.py`\n")
    for variant in default.VARIANTS:
        changed = differences(default.get_config(variant), default.get_config())
        rows = [(f"`{name}`", shown(value)) for name, value in changed.items()]
        sentence = default.VARIANTS[variant].__doc__.split("\n")[0]
        parts += [f"### `configs/default.py:{variant}`\n\n{sentence}\n", table(("field", "value"), rows)]
    for file, config in {
        "pipeline.py": pipeline.get_config(),
        "paper.py": paper.get_config(),
        "published.py": published.get_config(),
        "ablation.py": ablation.get_config(),
    }.items():
        notes = fields("paper.py") | fields(file)
        before = flat(default.get_config())
        rows = [
            (f"`{name}`", shown(before[name]), shown(value), notes[name][1])
            for name, value in differences(config, default.get_config()).items()
        ]
        title = f"## `configs/{file}`\n\n{SENTENCES[file]}\n"
        parts += [title, table(("field", "default", "here", "comment"), rows)]
    rows = [
        (group, f"`{cell}`", ", ".join(f"`{name}` {shown(value)}" for name, value in changes.items()) or "none")
        for group, cells in ablation.CELLS.items()
        for cell, changes in cells.items()
    ]
    parts += ["### Cells of the ablation\n", table(("group", "cell", "changes"), rows)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


SENTENCES = {
    "pipeline.py": "The values of the training pipeline document.",
    "paper.py": "The values of the paper; the variants `12000` (used without a name) and `21000` are codebook sizes.",
    "published.py": "The settings of the published PyTorch code, as a baseline; the variants `21000` (used without a"
    " name)\nand `12000` are codebook sizes.",
    "ablation.py": "The reference cell `default` of `python -m eval.ablations`; every cell below is a variant of this"
    " file.",
}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
