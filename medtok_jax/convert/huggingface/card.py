"""Write the model card of a tokenizer: its data, training, measurements, limits and license."""

import json
import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from medtok_jax.lookup.config import TokenizerConfig
from preprocessing.common.checksums import unsealed

SUMMARY = "summary.json"
# Terms of use of the codes and descriptions of each system.
TERMS = {
    "ICD10CM": "public domain (NCHS, CMS)",
    "ICD10PCS": "public domain (CMS)",
    "ICD9CM": "public domain (NCHS, CMS)",
    "ICD9Proc": "public domain (CMS)",
    "HCPCS": "public domain (CMS)",
    "NDC": "public domain (FDA)",
    "RxNorm": "RxNorm's own names are free (NLM); names of other sources in it have their own terms",
    "SNOMED": "SNOMED International affiliate license; free of charge in member countries",
    "CPT4": "American Medical Association license",
    "ATC": "WHO Collaborating Centre for Drug Statistics Methodology; not for resale, not to be changed",
}
FREE = "public domain"
# Code systems whose descriptions may not be distributed without a license.
LICENSED = ("CPT4", "SNOMED", "ATC")
GRAPHS = {
    "icd": "the trees and crosswalks of the four ICD systems (public domain) and the Human Phenotype Ontology (HPO"
    " license)",
    "primekg": "PrimeKG (Harvard Dataverse doi:10.7910/DVN/IXA7BM, CC0 with the terms of its sources)",
    "release": "PrimeKG subgraphs of the authors' release (Harvard Dataverse doi:10.7910/DVN/7XNT3M)",
}
METRICS = {
    "codebook_utilization": "Share of the codebook in use",
    "codebook_perplexity": "Codebook perplexity",
    "cosine": "Cosine of embeddings and their quantization",
    "reconstruction_error": "Relative quantization error",
    "spread": "Spread of the embeddings",
}
REGIONAL = ("text", "graph", "shared")
SCALES = ("embedding_dim", "graph_encoder_type", "text_encoder_type", "quantizer_kind", "num_top_k_tokens")
CITATION = """@inproceedings{su2025medtok,
  title = {Multimodal Medical Code Tokenizer},
  author = {Su, Xiaorui and others},
  booktitle = {International Conference on Machine Learning},
  year = {2025},
  note = {arXiv:2502.04397},
}"""


def model_card(config: TokenizerConfig, workdir: Path | None, withheld: dict[str, int]) -> str:
    """Return the text of `README.md`: YAML metadata, then the card.

    Args:
        config: configuration of the tokenizer directory.
        workdir: work directory of the run, whose `summary.json` has the figures, or None.
        withheld: number of codes of each system whose descriptions were left out.
    """
    summary = read_summary(config, workdir)
    parts = [
        f"---\n{_metadata(config, summary).to_yaml()}\n---\n",
        f"# {_title(config)}\n",
        _introduction(config),
        f"## Use\n\n{_use(config)}",
        f"## Data\n\n{_data(config, withheld)}",
        f"## Training\n\n{_training(config)}",
        f"## Figures\n\n{_figures(summary)}",
        f"## Limits\n\n{_limits(summary)}",
        f"## License\n\n{_license(config)}",
        f"## Citation\n\n```bibtex\n{CITATION}\n```\n",
    ]
    return "\n".join(parts)


def read_summary(config: TokenizerConfig, workdir: Path | None) -> dict:
    """Read the summary of a run; return an empty dict if there is none, or if its number of codes differs."""
    try:
        summary = unsealed(json.loads((workdir / SUMMARY).read_text(encoding="utf-8"))) if workdir else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if summary.get("codes") == config.codes else {}


def _title(config: TokenizerConfig) -> str:
    return f"MedTok tokenizer of {config.codes:,} medical codes"


def _metadata(config: TokenizerConfig, summary: dict) -> ModelCardData:
    figures = summary.get("all_codes", {})
    results = [
        EvalResult(
            task_type="feature-extraction",
            task_name="Tokenization of medical codes",
            dataset_type=config.data_set["name"],
            dataset_name=f"{config.data_set['name']}, all {config.codes:,} codes",
            metric_type=name,
            metric_name=shown,
            metric_value=round(figures[name], 4),
        )
        for name, shown in METRICS.items()
        if name in figures
    ]
    return ModelCardData(
        language="en",
        license="other",
        license_name="terms-of-the-code-systems",
        library_name="transformers",
        tags=["medtok", "medical-codes", "tokenizer", "ehr", "vector-quantization", *sorted(config.systems)],
        model_name=_title(config) if results else None,
        eval_results=results or None,
    )


# What the tokens of an embedding speak of.
_SUBJECTS = {
    "text_specific": "its description",
    "graph_specific": "its neighborhood in a knowledge graph",
    "shared": "what both have in common",
    "text_cross": "the description seen from the neighborhood",
    "graph_cross": "the neighborhood seen from the description",
}


def _introduction(config: TokenizerConfig) -> str:
    parts = [
        f"{stop - start} for {_SUBJECTS.get(name, name)}"
        for name, (start, stop) in zip(config.embeddings, config.bounds, strict=True)
    ]
    return (
        f"Every code has {config.tokens_per_code} tokens out of {config.codebook_size:,}: {', '.join(parts)}. Codes of"
        " similar meaning share tokens (Su et al., *Multimodal Medical Code Tokenizer*, ICML 2025,"
        " [arXiv:2502.04397](https://arxiv.org/abs/2502.04397)). This tokenizer was made with medtok_jax.\n"
    )


def _use(config: TokenizerConfig) -> str:
    code = "ICD10CM/E11.9" if "ICD10CM" in config.systems else f"{min(config.systems)}/..."
    return f"""```python
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("TEAM/NAME", trust_remote_code=True)  # or this directory
tokenizer("{code}").input_ids
tokenizer([["{code}"], ["{code}", "{code}"]], padding=True, return_tensors="np")  # sequences of codes
tokenizer.encode_patient([["{code}"], ["{code}", "{code}"]])  # visits of a patient: [CLS] visit [SEP] ...
tokenizer.decode(tokenizer("{code}").input_ids)
tokenizer.embed("{code}")  # [4, {config.embedding_dim}]
```

A model may initialize its embedding matrix with the rows of `tokenizer.codebook`: token ids are row numbers, and the
special tokens follow. The code that runs is `tokenization_medtok.py` and the files that it imports; it reads
`tokens.safetensors` and unpickles nothing.
"""


def _data(config: TokenizerConfig, withheld: dict[str, int]) -> str:
    name = config.data_set["name"]
    rows = [
        f"| {system} | {count:,} | {TERMS.get(system, 'unknown')} |" for system, count in sorted(config.systems.items())
    ]
    table = "\n".join(["| code system | codes | terms |", "|---|---|---|", *rows])
    known = (text for source, text in GRAPHS.items() if re.match(rf"medtok_codes/{source}\b", name))
    graph = next(known, "not recorded")
    left_out = "".join(
        f"\nThe descriptions of the {count:,} codes of {system} are not in this repository, as distributing them needs"
        " a license.\n"
        for system, count in withheld.items()
    )
    return (
        f"The data set is `{name}` (fingerprint `{config.data_set['fingerprint'][:16]}`). The knowledge graph is"
        f" {graph}. No patient data was used.\n\n{table}\n{left_out}"
    )


def _training(config: TokenizerConfig) -> str:
    model = config.training.get("model", {})
    train = config.training.get("train", {})
    facts = [f"- step {config.training.get('step')}, seed {config.training.get('seed')}"]
    facts += [f"- batch size {train['batch_size']}, learning rate {train['lr']:g}"] if "lr" in train else []
    facts += [f"- text encoder `{config.text_encoder['name']}` (`{config.text_encoder['identity'][:16]}`)"]
    facts += [
        f"- codebook of {config.codebook_size:,} rows: "
        + ", ".join(f"{getattr(config.regions, name):,} {name}" for name in REGIONAL)
    ]
    facts += [f"- `{name}` {model[name]}" for name in SCALES if name in model]
    return "\n".join(facts) + "\n"


def _figures(summary: dict) -> str:
    figures = summary.get("all_codes", {})
    if not figures:
        return "The figures are not known, as the summary of the run was not available.\n"
    rows = []
    for name, shown in METRICS.items():
        rows += [f"| {shown} | {figures[name]:,.4g} |"] if name in figures else []
        rows += [
            f"| {shown}, {part} | {figures[key]:,.4g} |"
            for key, part in ((key, key.removeprefix(f"{name}_").replace("_", " ")) for key in sorted(figures))
            if key.startswith(f"{name}_")
        ]
    losses = summary.get("validation", {})
    rows += [f"| Validation {name.replace('_', ' ')} | {value:,.4g} |" for name, value in losses.items()]
    head = f"The figures are measured over all {summary['codes']:,} codes.\n"
    return "\n".join([head, "| figure | value |", "|---|---|", *rows]) + "\n"


def _limits(summary: dict) -> str:
    lines = [
        "- Codes that are not in the table become `[UNK]`; later releases of a code system have such codes.",
        "- A bare code that several systems have is refused, unless `prefer` gives an order.",
        "- Tokens represent the meaning of a code by its description and graph, not its use in practice or billing.",
        "- The tokenizer is for research; it is not a medical device and must not be used for decisions on patients.",
    ]
    for name, missing in (("missing_graph", "subgraph"), ("missing_description", "description")):
        lines += [f"- {summary[name]:,} codes have no {missing}."] if summary.get(name) else []
    return "\n".join(lines) + "\n"


def _license(config: TokenizerConfig) -> str:
    licensed = [name for name in config.systems if not TERMS.get(name, "").startswith(FREE)]
    text = (
        "The Python files have the license Apache-2.0. Codes and descriptions stay under the terms of"
        " their systems, listed above."
    )
    if licensed:
        text += f" Check whether {', '.join(licensed)} may be published before you make this repository public."
    return text + "\n"
