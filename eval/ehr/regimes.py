"""Decide which samples and codes a model is fitted and tested on, alike for every tokenizer. No JAX here.

    full              all samples
    few_shot          k training and k tuning samples of each class, at most one of a person; more for a larger k are
                      added to those of a smaller one; samples are never repeated, so a class with fewer ends the curve
    few_patients      n training persons with all of their samples, and a quarter as many to tune by: a learning curve
                      at the prevalence of the records, nested as above, for tasks of every kind
    rare              fitted as full; tested on samples whose most informative code hardly any training patient has; it
                      is a code of a code system, as tokenizers have nothing to say of other events
    unseen            three in ten codes, chosen by a hash, are hidden from all training and tuning samples; of records
                      that state each diagnosis in both editions of ICD those of ICD-10 are hidden from all samples
    cross_vocabulary  fitted on codes of ICD-9 alone and tested on those of ICD-10, and as a control on those of ICD-9;
                      once more without age, sex and number of codes, and once more with all other events; records of
                      ICD-9 alone are tested on translations, see `tokenizers.translation`

The split of the data set decides on training, tuning and test; small data sets are instead cross-fitted, so that each
sample is tested once, by a model that has seen no other sample of its person. Test samples are never drawn or weighted.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from eval.ehr.history import Histories
from eval.ehr.inputs import Inputs, bags
from eval.ehr.split import Split
from medtok_jax.lookup.code_names import CodeNames
from medtok_jax.records.event_codes import unfolded
from preprocessing import codes
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.hashing import hash_string, hash_strings, mix, uniform
from preprocessing.meds.splits import HELD_OUT, TRAIN, TUNING

sparse = load("scipy.sparse")

REGIMES = FULL, FEW_SHOT, FEW_PATIENTS, RARE, UNSEEN, CROSS_VOCABULARY = (
    *("full", "few_shot", "few_patients", "rare", "unseen", "cross_vocabulary"),
)
# Settings of `cross_vocabulary` beside its headline.
CODES_ALONE, ALL_EVENTS = "codes alone", "all events"
# Numbers of samples a class of EHRSHOT's benchmark.
SHOTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
# Numbers of training persons of `few_patients`, and how many of them there are for each one to tune by.
SIZES, TRAINING_A_TUNING = (100, 500, 2000, 10_000), 4
# A code is rare if fewer training patients have it; share of codes that `unseen` hides.
RARE_BELOW, UNSEEN_SHARE = 10, 0.3
# Share of the persons outside the tested fold by which settings are chosen.
TUNING_SHARE = 0.2
# With more than this share of visits coded in both vocabularies, the records state each diagnosis in both.
_BOTH = 0.5
_EDITIONS = {codes.ICD9CM: 9, codes.ICD9PROC: 9, codes.ICD10CM: 10, codes.ICD10PCS: 10}


def splits(
    regime: str,
    inputs: Inputs,
    y: np.ndarray,
    dataset_split: np.ndarray,
    *,
    seed: int,
    folds: int | None = None,
    shots: Sequence[int] = SHOTS,
    sizes: Sequence[int] = SIZES,
) -> Iterator[tuple[dict, Split]]:
    """Yield the splits of a regime, each with its settings: `setting`, a name for reports, and `fold`.

    All folds of a setting follow one another. A setting that cannot be drawn in all folds is left out.

    Args:
        regime: one of `REGIMES`.
        inputs: the samples of a task.
        y: their outcomes, `[n]` bool or int64, or `[n, classes]` bool.
        dataset_split: `[n]` str, the split of each sample by the data set; not read with folds.
        seed: of folds, drawn samples and hidden codes.
        folds: number of folds by person; None or 0 for the splits of the data set.
        shots: numbers of samples a class, for `few_shot`.
        sizes: numbers of training persons, for `few_patients`.

    Raises:
        InputError: the regime is unknown or does not fit the records, or a split has a fault, see `Split`.
    """
    if regime not in REGIMES:
        raise InputError(f"The regime {regime!r} is unknown; it must be one of {', '.join(REGIMES)}.")
    parts = [
        _split(inputs, y, roles) for roles in (_folds(inputs, seed, folds) if folds else [_published(dataset_split)])
    ]
    if regime == FULL:
        yield from _named("", parts)
    elif regime == FEW_SHOT:
        yield from _few_shot(parts, seed, shots)
    elif regime == FEW_PATIENTS:
        yield from _few_patients(parts, seed, sizes)
    elif regime == RARE:
        yield from _named(f"<{RARE_BELOW} patients", _rare(parts))
    elif regime == UNSEEN:
        hidden = unseen_codes(inputs.histories.codes, seed)
        shown = _stated_once(inputs)
        yield from _named(f"{UNSEEN_SHARE:.0%} unseen", [_masked(part, shown & ~hidden, shown) for part in parts])
    else:
        yield from _cross_vocabulary(inputs, parts)


def _named(setting: str, parts: Sequence[Split]) -> Iterator[tuple[dict, Split]]:
    for fold, part in enumerate(parts):
        yield {"setting": setting, "fold": fold}, part


def _published(split: np.ndarray) -> np.ndarray:
    """Return the role of each sample by the data set: 0 train, 1 tune, 2 test, -1 none."""
    roles = np.full(len(split), -1)
    for role, name in enumerate((TRAIN, TUNING, HELD_OUT)):
        roles[split == name] = role
    return roles


def _folds(inputs: Inputs, seed: int, folds: int) -> Iterator[np.ndarray]:
    """Yield the role of each sample in each fold, by hashes of its person."""
    if folds < 2:
        raise InputError(
            f"--folds={folds} tests on what was trained on; give 2 or more, or 0 for the data set's splits."
        )
    fold = np.floor(_chance(inputs.person, "fold", seed) * folds)
    for number in range(folds):
        chance, others = _chance(inputs.person, f"tuning of fold {number}", seed), fold != number
        # Of a few persons at least one tunes.
        tunes = (chance < TUNING_SHARE) | (chance == chance[others].min(initial=1))
        yield np.where(fold == number, 2, tunes.astype(np.int64))


def _chance(person: np.ndarray, salt: str, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each person, `[n]` float64, that depends on nothing but the arguments."""
    return uniform(mix(mix(person.view(np.uint64)) ^ np.uint64(hash_string(salt, str(seed)))))


def _split(inputs: Inputs, y: np.ndarray, roles: np.ndarray) -> Split:
    train, tune, test = (np.flatnonzero(roles == role) for role in range(3))
    return Split(inputs.take(train), y[train], inputs.take(tune), y[tune], inputs.take(test), y[test], test)


def _masked(part: Split, fitted: np.ndarray, tested: np.ndarray | None) -> Split:
    """Return a split whose samples to train and tune on see only some codes, and those to test on others or all."""
    test = part.test if tested is None else part.test.masked(tested)
    return dataclasses.replace(part, train=part.train.masked(fitted), tuning=part.tuning.masked(fitted), test=test)


def unseen_codes(names: np.ndarray, seed: int) -> np.ndarray:
    """Return which codes of code systems the regime `unseen` hides, `[codes]` str -> `[codes]` bool."""
    return _of_systems(names) & (uniform(hash_strings(f"unseen {seed}", names)) < UNSEEN_SHARE)


def _of_systems(names: np.ndarray) -> np.ndarray:
    """Return which codes are of code systems, `[codes]` str -> `[codes]` bool."""
    splitter = _splitter()
    return np.array([splitter.split(unfolded(name))[0] is not None for name in names], bool)


def _stated_once(inputs: Inputs) -> np.ndarray:
    """Return which codes state each diagnosis once, `[codes]` bool: without ICD-10 where records state it in both."""
    edition = editions(inputs.histories.codes)
    return (edition != 10) | (not _is_double(inputs.histories, edition))


def editions(names: np.ndarray) -> np.ndarray:
    """Return the edition of ICD of each code, `[codes]` str -> `[codes]` int64: 9, 10, or 0 for all other codes."""
    splitter = _splitter()
    named = [splitter.split(unfolded(name))[0] for name in names]
    return np.array([_EDITIONS.get(systems[0], 0) if systems else 0 for systems in named], np.int64)


def _splitter() -> CodeNames:
    return CodeNames(list(codes.SYSTEMS))


def _cross_vocabulary(inputs: Inputs, parts: Sequence[Split]) -> Iterator[tuple[dict, Split]]:
    """Yield splits whose training samples see codes of ICD-9, and whose test samples see codes of one edition.

    Other events, such as drugs, are spelled alike in training and test and would carry a model across by themselves, so
    that samples see them in one setting only. If the records state each diagnosis in both vocabularies, all samples are
    used. Otherwise a patient is coded in that of his time: samples without a code of the edition that is read are left
    out. Where the codes have translations, the test samples see these.
    """
    edition = editions(inputs.histories.codes)
    if inputs.histories.translation is not None:
        yield from _across(parts, [_translated(part) for part in parts], edition)
        return
    seen = bags(inputs)
    has = {number: seen[:, edition == number].nnz > 0 for number in (9, 10)}
    if not all(has.values()):
        lacking = 9 if not has[9] else 10
        raise InputError(f"No sample sees a code of ICD-{lacking}, so cross_vocabulary does not fit these records.")
    yield from _across(parts, parts, edition, by_time=not _is_double(inputs.histories, edition))


def _is_double(histories: Histories, edition: np.ndarray) -> bool:
    """Return whether records state each diagnosis in both editions of ICD: in most visits that have any.

    Patients who are seen for years have both editions too, but one a visit.
    """
    subject = np.repeat(np.arange(len(histories)), np.diff(histories.offsets))
    of_event = edition[histories.code]
    visit = subject * (int(histories.visit.max(initial=0)) + 1) + histories.visit
    nine, ten = (np.unique(visit[of_event == number]) for number in (9, 10))
    both = len(np.intersect1d(nine, ten, assume_unique=True))
    return both > _BOTH * (len(nine) + len(ten) - both)


def _across(
    parts: Sequence[Split], into_ten: Sequence[Split], edition: np.ndarray, *, by_time: bool = False
) -> Iterator[tuple[dict, Split]]:
    """Yield the settings of `cross_vocabulary`.

    Args:
        parts: the folds.
        into_ten: the folds whose test samples may see ICD-10; the same where the records hold both editions.
        edition: `[codes]` int64, see `editions`.
        by_time: whether to leave out samples without a code of the edition that is read.
    """

    def masked(part: Split, fitted: np.ndarray, seen: np.ndarray, tested: int) -> Split:
        made = _masked(part, fitted, seen)
        return _coded_in(made, edition, tested) if by_time else made

    made = [masked(part, edition == 9, edition == 10, 10) for part in into_ten]
    yield from _named("icd9->icd10", made)
    yield from _named(f"icd9->icd10, {CODES_ALONE}", [_alone(part) for part in made])
    wide = [masked(part, edition != 10, edition != 9, 10) for part in into_ten]
    yield from _named(f"icd9->icd10, {ALL_EVENTS}", wide)
    yield from _named("icd9->icd9", [masked(part, edition == 9, edition == 9, 9) for part in parts])


def _translated(part: Split) -> Split:
    return dataclasses.replace(part, test=dataclasses.replace(part.test, is_translated=True))


def _alone(part: Split) -> Split:
    """Return a split whose samples tell codes and nothing else."""
    names = ("train", "tuning", "test")
    return dataclasses.replace(
        part, **{name: dataclasses.replace(getattr(part, name), codes_alone=True) for name in names}
    )


def _coded_in(part: Split, edition: np.ndarray, tested: int) -> Split:
    """Return a split without the samples that see no code of the edition: 9 to train and tune, `tested` to test."""

    def kept(samples: Inputs, number: int) -> np.ndarray:
        return np.flatnonzero(np.asarray(bags(samples)[:, edition == number].sum(1)).ravel() > 0)

    train, tuning, test = kept(part.train, 9), kept(part.tuning, 9), kept(part.test, tested)
    return Split(
        train=part.train.take(train),
        y=part.y[train],
        tuning=part.tuning.take(tuning),
        y_tuning=part.y_tuning[tuning],
        test=part.test.take(test),
        y_test=part.y_test[test],
        rows=part.rows[test],
    )


def _few_shot(parts: Sequence[Split], seed: int, shots: Sequence[int]) -> Iterator[tuple[dict, Split]]:
    if parts[0].y.ndim > 1:
        raise InputError(f"{FEW_SHOT} needs classes that exclude one another; give --regime={FEW_PATIENTS} instead.")
    classes = np.unique(np.concatenate([part.y for part in parts]))
    drawn = [
        (
            draw_shots(part.train, part.y, classes, max(shots), f"training {fold}", seed),
            draw_shots(part.tuning, part.y_tuning, classes, max(shots), f"tuning {fold}", seed),
        )
        for fold, part in enumerate(parts)
    ]
    most = min(len(rows) for pair in drawn for rows in pair)
    if not most:
        raise InputError("few_shot needs a training and a tuning sample of every class, and one of them has none.")
    for k in shots:
        if k <= most:
            few = [_first(part, train[:k], tuning[:k]) for part, (train, tuning) in zip(parts, drawn, strict=True)]
            yield from _named(f"k={k}", few)


def _first(part: Split, train: np.ndarray, tuning: np.ndarray) -> Split:
    train, tuning = np.sort(train, axis=None), np.sort(tuning, axis=None)
    return dataclasses.replace(
        part,
        train=part.train.take(train),
        y=part.y[train],
        tuning=part.tuning.take(tuning),
        y_tuning=part.y_tuning[tuning],
    )


def draw_shots(samples: Inputs, y: np.ndarray, classes: np.ndarray, most: int, salt: str, seed: int) -> np.ndarray:
    """Draw samples of each class one after another, no two of one person.

    Args:
        samples: samples to draw from.
        y: their classes, `[n]`.
        classes: the classes, `[classes]`.
        most: number of samples a class.
        salt: another text gives other samples, and so does another `seed`.
        seed: see `salt`.

    Returns:
        `[drawn, classes]` int64 places among the samples; `drawn` is below `most` where a class runs out of persons.
    """
    person = samples.person
    first = _chance(person, salt, seed)
    # Among the samples of a person, a hash of the prediction time decides.
    moment = _chance(person ^ samples.time.astype(np.int64), salt, seed)
    queues = []
    for value in classes:
        mine = np.flatnonzero(y == value)
        mine = mine[np.lexsort((mine, moment[mine], first[mine]))]
        queues.append(iter(mine.tolist()))
    taken: set[int] = set()
    rows: list[list[int]] = []
    while len(rows) < most:
        row = []
        for queue in queues:
            place = next((place for place in queue if int(person[place]) not in taken), None)
            if place is None:
                return np.array(rows, np.int64).reshape(-1, len(classes))
            taken.add(int(person[place]))
            row.append(place)
        rows.append(row)
    return np.array(rows, np.int64)


def _few_patients(parts: Sequence[Split], seed: int, sizes: Sequence[int]) -> Iterator[tuple[dict, Split]]:
    orders = [
        (
            _drawn_persons(part.train, f"training persons {fold}", seed),
            _drawn_persons(part.tuning, f"tuning persons {fold}", seed),
        )
        for fold, part in enumerate(parts)
    ]
    is_drawn = False
    for size in sizes:
        few = []
        for part, (training, tuning) in zip(parts, orders, strict=True):
            train, tune = (training < size).nonzero()[0], (tuning < size // TRAINING_A_TUNING).nonzero()[0]
            # All persons are the regime `full`; outcomes that do not differ teach nothing.
            if len(train) < len(training) and len(np.unique(part.y[train], axis=0)) > 1:
                few.append(_first(part, train, tune))
        if len(few) == len(parts):
            is_drawn = True
            yield from _named(f"n={size}", few)
    if not is_drawn:
        raise InputError(f"{FEW_PATIENTS} needs more than {min(sizes):,} training persons, and both outcomes in them.")


def _drawn_persons(samples: Inputs, salt: str, seed: int) -> np.ndarray:
    """Return for each sample how many persons are drawn before its own, `[n]` int64."""
    persons, number = np.unique(samples.person, return_inverse=True)
    rank = np.empty(len(persons), np.int64)
    rank[np.lexsort((persons, _chance(persons, salt, seed)))] = np.arange(len(persons))
    return rank[number]


def _rare(parts: Sequence[Split]) -> list[Split]:
    made = []
    for part in parts:
        rare = np.flatnonzero(rarest_evidence(part) < RARE_BELOW)
        made.append(
            dataclasses.replace(part, test=part.test.take(rare), y_test=part.y_test[rare], rows=part.rows[rare])
        )
    return made


def rarest_evidence(part: Split) -> np.ndarray:
    """Return how many training persons have the most informative code of each test sample, `[n]` int64.

    The most informative code of a sample is that of a code system with the largest absolute log odds ratio of an
    outcome among training samples, after adding to the samples with the code one at the rate of all samples; a code
    that no training sample has says nothing. Samples without codes count as seen by all.
    """
    of_system = _of_systems(part.train.histories.codes)
    train, test = (_present(bags(samples)[:, of_system]) for samples in (part.train, part.test))
    score = np.zeros(train.shape[1])
    with_code = np.asarray(train.sum(0)).ravel()
    for outcome in _outcomes(part.y):
        rate = outcome.mean()
        positive = train.T @ outcome
        odds = (positive + rate) / (with_code - positive + 1 - rate)
        score = np.maximum(score, np.abs(np.log(odds * (1 - rate) / rate)))
    _, number = np.unique(part.train.person, return_inverse=True)
    rows = np.arange(len(number))
    by_person = sparse.csr_matrix((np.ones(len(number)), (number, rows))) @ train
    persons = np.asarray((by_person > 0).sum(0)).ravel()
    sample = np.repeat(np.arange(test.shape[0]), np.diff(test.indptr))
    order = np.lexsort((persons[test.indices], -score[test.indices], sample))
    found = np.full(test.shape[0], max(RARE_BELOW, len(number)))
    samples, first = np.unique(sample[order], return_index=True)
    found[samples] = persons[test.indices[order][first]]
    return found


def _present(counts: "sparse.csr_matrix") -> "sparse.csr_matrix":
    return (counts > 0).astype(np.float64).tocsr()


def _outcomes(y: np.ndarray) -> Iterator[np.ndarray]:
    """Yield each outcome that some but not all samples have, `[n]` float64."""
    columns = y.T if y.ndim > 1 else [y == value for value in np.unique(y)]
    for column in columns:
        if 0 < np.count_nonzero(column) < len(column):
            yield np.asarray(column, np.float64)
