"""Say in sentences what a run found: the primary family first, then what is exploratory."""

from collections.abc import Sequence

from eval.ehr.regimes import CROSS_VOCABULARY, FULL
from eval.ehr.report import names
from eval.ehr.report.description import PAPER, DescribedTask, RunDescription
from eval.ehr.report.family import NOT_RUN, TOO_FEW, PrimaryComparison
from eval.ehr.report.study import BETTER, NOISE, WORSE, SetupResult, verdict
from eval.ehr.statistics import AUPRC, AUROC, FEWEST_PERSONS, FEWEST_POSITIVES, PairedDifference
from eval.reports import writer

METRIC_TITLES = {AUPRC: "AUPRC", AUROC: "AUROC"}
WORDS_OF = {BETTER: "better than", WORSE: "worse than", NOISE: "within noise of"}
SMALL = (
    f"This test set has fewer than {FEWEST_POSITIVES} positive samples or {FEWEST_PERSONS} persons: its values are"
    " shown, but no tokenizer is ranked by them."
)


def selects(task: DescribedTask) -> str:
    """Return the warning of a task of the paper's protocol."""
    return (
        "This task follows the published protocol, which selects on the future or shows it, as its cohort says"
        f" ({task.cohort.split('. ')[0]}). It is here to compare with published tables, not to say how a model would do"
        " in a hospital."
    )


def signed(difference: PairedDifference) -> str:
    """Return a difference with its sign and interval."""
    low, high = (writer.number(bound) for bound in (difference.low, difference.high))
    return f"{difference.value:+.3f} [{low}, {high}]" if difference.value == difference.value else "none"


def enumerated(parts: Sequence[str]) -> str:
    """Return parts joined by commas and a last `and`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def primary(comparisons: Sequence[PrimaryComparison], run: RunDescription) -> list[str]:
    """Return a summary of the primary family, and a sentence for each of its comparisons."""
    if not comparisons:
        return ["No primary family was declared for this run: everything below is exploratory."]
    medtok = names.title(run.family.tokenizer, run.family.tokenizer)
    counts = [
        f"{word} in {sum(one.verdict == key for one in comparisons)}"
        for key, word in ((BETTER, "better"), (WORSE, "worse"), (NOISE, "within noise"))
    ]
    unjudged = sum(one.verdict in (TOO_FEW, NOT_RUN) for one in comparisons)
    counts += [f"not judged in {unjudged}"] if unjudged else []
    number = len(comparisons)
    those = f"the {number} comparisons by AUPRC that were" if number > 1 else "the one comparison by AUPRC that was"
    summary = (
        f"Of {those} declared before the run, {medtok} is {enumerated(counts)}, after Holm's correction of all of them"
        " at a level of 5 %."
    )
    return [summary, *(_primary_sentence(one, medtok, run) for one in comparisons)]


def _primary_sentence(one: PrimaryComparison, medtok: str, run: RunDescription) -> str:
    where = f"{run.task(one.setup.task).title} ({one.setup.title})"
    if one.verdict == NOT_RUN:
        return f"{where}: the comparison of {medtok} with {one.other} was not run, and counts as not significant."
    difference = one.difference
    if one.verdict == TOO_FEW:
        return (
            f"{where}: there are too few positive samples or persons to judge {medtok} against {one.other}"
            f" ({signed(difference)})."
        )
    ending = f"; a true difference of {difference.detectable:.3f} could be detected" if one.verdict == NOISE else ""
    if one.verdict == NOISE and not difference.is_noise:
        ending = ": its interval does not include 0, but the correction leaves no significance"
    return (
        f"{where}: {medtok} is {WORDS_OF[one.verdict]} {one.other}, {signed(difference)}, p {difference.p:.3f},"
        f" corrected {one.corrected:.3f}{ending}."
    )


def standing(result: SetupResult, metric: str, run: RunDescription) -> str | None:
    """Return how the primary tokenizer stands against each other one in one setup, None if it or they are not there.

    Joined tokenizers are left out, and only differences from `names.OPPONENTS` are given in numbers. On a small test
    set no tokenizer is called better or worse.
    """
    first = run.family.tokenizer
    others = [name for name in result.tokenizers if name != first and not names.is_joined(name)]
    if first not in result.tokenizers or not others:
        return None
    found: dict[str, list[str]] = {}
    for name in others:
        difference = result.difference(first, name, metric)
        shown = f"{name} ({signed(difference)})" if names.is_opponent(name) else name
        found.setdefault(verdict(difference, metric), []).append(shown)
    parts = [f"{WORDS_OF[key]} {enumerated(found[key])}" for key in (BETTER, WORSE, NOISE) if key in found]
    value = writer.number(result.tokenizers[first].draws[metric].interval().value)
    stands = f"it is {'; '.join(parts)}"
    if result.is_small:
        numbers = [one for shown in found.values() for one in shown if one.endswith(")")]
        less = f"; its differences, which are not judged: {enumerated(numbers)}" if numbers else ""
        stands = f"there are too few events to rank it{less}"
    return (
        f"{run.task(result.setup.task).title} ({result.setup.title}), {METRIC_TITLES[metric]}:"
        f" {names.title(first, first)} has {value}; {stands}."
    )


def exploratory(results: Sequence[SetupResult], run: RunDescription) -> list[str]:
    """Return sentences about setups outside of the primary family, of which none is corrected for their number.

    With all training samples these are of the first model, with the variants of the headline among them; tables have
    the others. Those that count setups leave out small test sets.
    """
    found, primary = [], run.family.setups
    model = next((setup.model for setup in (*primary, *(result.setup for result in results))), "")
    for result in results:
        if result.setup.regime == CROSS_VOCABULARY:
            found += filter(None, (standing(result, metric, run) for metric in (AUPRC, AUROC)))
        elif result.setup.regime == FULL and result.setup.model == model:
            # The primary comparisons tell AUPRC of their setups.
            metrics = (AUROC,) if result.setup in primary else (AUPRC, AUROC)
            found += filter(None, (standing(result, metric, run) for metric in metrics))
    found += filter(None, (_few_shot(series, run) for series in few_shot_series(results)))
    judged = [result for result in results if not result.is_small]
    return [*found, *_tallies(judged, run), *_control(judged, run), *_joined(judged, run)]


def few_shot_series(results: Sequence[SetupResult]) -> list[list[SetupResult]]:
    """Return the few-shot results of each task, model and input rule, by the number of patients."""
    series: dict[tuple, list[SetupResult]] = {}
    for result in results:
        if result.setup.shots is not None:
            series.setdefault(result.setup[:3], []).append(result)
    return [sorted(one, key=lambda result: result.setup.shots) for one in series.values()]


def _few_shot(series: Sequence[SetupResult], run: RunDescription) -> str | None:
    first, setup = run.family.tokenizer, series[0].setup
    parts = []
    for name in series[0].tokenizers if first in series[0].tokenizers else ():
        if name == first or not names.is_opponent(name):
            continue
        at: dict[str, list[str]] = {}
        for result in series:
            difference = result.difference(first, name, AUPRC)
            if difference is not None and not result.is_small:
                at.setdefault(verdict(difference, AUPRC), []).append(str(result.setup.shots))
        stated = [f"{key} at k = {enumerated(at[key])}" for key in (BETTER, WORSE) if key in at]
        parts += [f"{name}: {' and '.join(stated) or 'within noise at every k'}"] if at else []
    if not parts:
        return None
    return (
        f"{run.task(setup.task).title} with few training patients ({setup.model}, {setup.input}),"
        f" {names.title(first, first)} by AUPRC against {'; '.join(parts)}."
    )


def _tallies(results: Sequence[SetupResult], run: RunDescription) -> list[str]:
    """Say how often the primary tokenizer differs from each opponent, over all setups."""
    first = run.family.tokenizer
    found = []
    for name in [name for name in names.OPPONENTS if name != first]:
        differences = [result.difference(first, name, AUPRC) for result in results]
        words = [verdict(one, AUPRC) for one in differences if one is not None]
        if words:
            better, worse, noise = (words.count(word) for word in (BETTER, WORSE, NOISE))
            found.append(
                f"Over all setups with {name} ({len(words)}), {names.title(first, first)} is better in {better}, worse"
                f" in {worse} and within noise in {noise} by AUPRC."
            )
    return found


def _control(results: Sequence[SetupResult], run: RunDescription) -> list[str]:
    """Say where dealing the tokens to wrong codes changes nothing."""
    first = run.family.tokenizer
    controls = sorted({name for result in results for name in result.tokenizers if name.startswith("shuffled")})
    found = []
    for control in controls:
        differences = [result.difference(first, control, AUPRC) for result in results]
        there = [one for one in differences if one is not None]
        noise = sum(one.is_noise for one in there)
        if there:
            found.append(
                f"In {noise} of {len(there)} setups {names.title(first, first)} is within noise of {control}, its own"
                " tokens dealt to the wrong codes, by AUPRC: there the meaning of tokens shows no effect."
            )
    return found


def _joined(results: Sequence[SetupResult], run: RunDescription) -> list[str]:
    first = run.family.tokenizer
    found = []
    for name in sorted({name for result in results for name in result.tokenizers if names.is_joined(name)}):
        differences = [result.difference(name, first, AUPRC) for result in results]
        there = [verdict(one, AUPRC) for one in differences if one is not None]
        if there:
            found.append(
                f"{name} together, against {names.title(first, first)} alone by AUPRC: better in"
                f" {there.count(BETTER)}, worse in {there.count(WORSE)} and within noise in {there.count(NOISE)} of"
                f" {len(there)} setups."
            )
    return found


def notes(run: RunDescription, results: Sequence[SetupResult]) -> list[str]:
    """Return what a reader must know before any figure: small test sets, tasks that select on the future, gaps."""
    found = []
    if small := _small(run, results):
        found.append(
            f"Too few events to rank tokenizers (fewer than {FEWEST_POSITIVES} positive samples or {FEWEST_PERSONS}"
            f" persons in a test set): {', '.join(small)}."
        )
    paper = sorted({run.task(result.setup.task).title for result in results if is_paper(run, result.setup.task)})
    if paper:
        found.append(f"These tasks follow the published protocol, which selects on the future: {', '.join(paper)}.")
    if any(len(one.draws[AUPRC].seeds) == 2 for result in results for one in result.tokenizers.values()):
        found.append(
            "Some figures are of two seeds, whose intervals are huge, as a deviation from two values is hardly known:"
            " give --seeds=3 or more to add the others, or --seeds=1 for a first look."
        )
    return [*found, *run.left_out]


def _small(run: RunDescription, results: Sequence[SetupResult]) -> list[str]:
    """Return the tasks with small test sets; where only some of a task are small, with their regimes and settings."""
    found: dict[str, None] = {}
    for task in sorted({result.setup.task for result in results}, key=lambda name: run.task(name).title):
        mine, title = [result for result in results if result.setup.task == task], run.task(task).title
        small = [", ".join(filter(None, result.setup[3:])) for result in mine if result.is_small]
        if len(small) == len(mine):
            found[title] = None
        elif small:
            found[f"{title} ({'; '.join(dict.fromkeys(small))})"] = None
    return list(found)


def is_paper(run: RunDescription, task: str) -> bool:
    """Return True if a task follows the protocol of the paper, which selects on the future."""
    return run.task(task).protocol == PAPER
