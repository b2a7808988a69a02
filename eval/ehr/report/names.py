"""Know the roles of tokenizers by their names, and order tokenizers, regimes and settings as tables show them."""

import re

# In the order of tables, behind the tokenizers that were trained.
BASELINE_NAMES = (
    "codes",
    "words",
    "wordpieces",
    "raw_text",
    "text_pursuit",
    "text_vq",
    "vqgraph",
    "rollup",
    "gem",
    "shuffled",
    "random",
    "cooccurrence",
)
# Those whose differences the text states with their intervals; all others stand in the tables.
OPPONENTS = ("codes", "words", "text_pursuit", "gem", "shuffled")
REGIME_TITLES = {
    "full": "all training patients",
    "cross_vocabulary": "across vocabularies",
    "unseen": "codes unseen in training",
    "rare": "rare codes",
    "few_patients": "fewer training patients, as they come",
    "few_shot": "few training patients of each class",
}
FEW_SHOT = "few_shot"


def is_joined(tokenizer: str) -> bool:
    """Return True if a name joins several tokenizers by `+`: such rows are shown, but neither ranked nor starred."""
    return "+" in tokenizer


def is_opponent(tokenizer: str) -> bool:
    """Return True if the text states how the primary tokenizer stands against this one, in numbers."""
    return tokenizer.partition(":")[0] in OPPONENTS and not is_joined(tokenizer)


def order(tokenizer: str, primary: str) -> tuple:
    """Return the key that sorts tokenizers: the primary one, other trained ones, baselines, controls, joined ones."""
    base = tokenizer.partition(":")[0]
    known = BASELINE_NAMES.index(base) + 1 if base in BASELINE_NAMES else 0
    return is_joined(tokenizer), tokenizer != primary, known, tokenizer


def regime_order(regime: str) -> tuple:
    """Return the key that sorts regimes."""
    titles = list(REGIME_TITLES)
    return titles.index(regime) if regime in titles else len(titles), regime


def setting_order(setting: str) -> tuple:
    """Return the key that sorts settings, with numbers by their value."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", setting))


def shots(regime: str, setting: str) -> int | None:
    """Return k of a few-shot setting `k=8`, None for any other regime or setting."""
    found = re.fullmatch(r"k=(\d+)", setting) if regime == FEW_SHOT else None
    return int(found[1]) if found else None


def title(tokenizer: str, primary: str) -> str:
    """Return the name of a tokenizer in tables and sentences."""
    is_trained = tokenizer.partition(":")[0] not in BASELINE_NAMES
    return f"MedTok ({tokenizer})" if tokenizer == primary and is_trained else tokenizer
