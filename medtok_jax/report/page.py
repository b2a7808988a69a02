"""The page of a report: template, style, scripts and data in one file that asks no network for anything."""

import base64
import functools
import hashlib
import html
import json
import string
from importlib import resources

from medtok_jax.report.maps import require

# In this order they make up one script; each may use what stands in the ones before.
SCRIPTS = ("data.js", "search.js", "palette.js", "code_map.js", "code_view.js", "heat_map.js", "codebook.js", "main.js")
# No address may be opened, and no script may run but the two whose digests are listed: whatever a description holds.
# Plotly makes functions out of text for WebGL and style sheets and images out of text too.
POLICY = (
    "default-src 'none'; script-src {digests} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:;"
    " base-uri 'none'; form-action 'none'"
)
# Characters that could end a script element or, unescaped, a line of JavaScript.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def build(title: str, data: dict) -> str:
    """The page as text.

    Args:
        title: plain text.
        data: anything JSON holds; numbers must be finite.

    Raises:
        InputError: plotly is not installed.
    """
    # plotly is the JavaScript library in a Python package: the one that comes whole with pip, WebGL included.
    plotly = require("plotly.offline").get_plotlyjs()
    script = _asset_script()
    return string.Template(_asset("report.html")).substitute(
        title=html.escape(title),
        policy=html.escape(POLICY.format(digests=f"{_digest(plotly)} {_digest(script)}")),
        style=_asset("report.css"),
        data=to_json(data),
        plotly=plotly,
        script=script,
    )


def to_json(data: dict) -> str:
    """JSON that may stand inside a script element, whatever its strings hold."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


@functools.cache
def _asset(name: str) -> str:
    return resources.files("medtok_jax.report").joinpath("assets", name).read_text(encoding="utf-8")


def _asset_script() -> str:
    parts = "\n".join(_asset(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
