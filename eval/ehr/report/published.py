"""List published results of MedTok, for a table of their own: they were measured on other cohorts.

The figures are AUPRC from Su et al., Multimodal Medical Code Tokenizer (2025, https://arxiv.org/abs/2502.04397). Their
cohorts have one sample a patient, of patients with at least two visits that all have diagnoses, procedures and
prescriptions, and their labels come from the next visit, which selects on the future.
"""

from typing import NamedTuple

SOURCE = "Su et al., Multimodal Medical Code Tokenizer (2025), https://arxiv.org/abs/2502.04397"


class PublishedResult(NamedTuple):
    """Hold the published AUPRC of a model on a task, as its authors coded events and with MedTok."""

    dataset: str
    task: str
    model: str
    without: float
    with_medtok: float


PUBLISHED_RESULTS = (
    PublishedResult("mimic3", "mortality", "ETHOS", 0.617, 0.634),
    PublishedResult("mimic3", "readmission", "ETHOS", 0.421, 0.463),
    PublishedResult("mimic3", "mortality", "GT-BEHRT", 0.160, 0.193),
    PublishedResult("mimic3", "drug recommendation", "GT-BEHRT", 0.715, 0.740),
    PublishedResult("mimic4", "mortality", "ETHOS", 0.282, 0.412),
    PublishedResult("mimic4", "readmission", "ETHOS", 0.648, 0.690),
    PublishedResult("mimic4", "mortality", "GT-BEHRT", 0.028, 0.034),
    PublishedResult("mimic4", "drug recommendation", "GT-BEHRT", 0.736, 0.783),
    PublishedResult("ehrshot", "mortality", "ETHOS", 0.102, 0.339),
    PublishedResult("ehrshot", "mortality", "GT-BEHRT", 0.239, 0.444),
)
