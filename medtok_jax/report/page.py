"""Assemble the page of a report from template, style, scripts and data: one file that loads nothing from a network."""

import base64
import functools
import hashlib
import html
import json
import string
from importlib import resources

from preprocessing.common import extras

# They are joined in this order to one script; each may use the names that those before it define.
SCRIPTS = ("data.js", "search.js", "palette.js", "code_map.js", "code_view.js", "heat_map.js", "codebook.js", "main.js")
# Whatever a description holds, the page opens no address and runs no script but the two whose digests are listed.
# Plotly compiles functions for WebGL from text, and makes style sheets and images from text as well.
POLICY = (
    "default-src 'none'; script-src {digests} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:;"
    " base-uri 'none'; form-action 'none'"
)
# Characters that could end a script element or, unescaped, a line of JavaScript.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def build(title: str, data: dict) -> str:
    """Return the page as HTML.

    Args:
        title: plain text.
        data: values that JSON can represent; numbers must be finite.

    Raises:
        InputError: plotly is not installed.
    """
    # The Python package of plotly contains the complete JavaScript library, WebGL included.
    plotly = extras.load("plotly.offline").get_plotlyjs()
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
    """Return JSON that is safe inside a script element, whatever its strings hold."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


@functools.cache
def _asset(name: str) -> str:
    return resources.files("medtok_jax.report").joinpath("assets", name).read_text(encoding="utf-8")


def _asset_script() -> str:
    parts = "\n".join(_asset(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
