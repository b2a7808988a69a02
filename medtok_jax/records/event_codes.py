"""Map the codes of patient events to rows of a tokenizer's table, and report the codes without a row. No JAX here.

Patient records write a code in several ways: `ICD10CM/E11.9`, `ICD10CM/E119`, `DIAGNOSIS//ICD//10//E119`,
`PROCEDURE//ICD//9//0010`, `NDC/00002143380`, `MEDICATION//NDC//00002143380`, `SNOMED//44054006`. A code is mapped only
if it names its system: the meaning of a bare `250.00` or `10021` in patient records would be a guess. A code that the
tokenizer does not hold gets other tokens only if the caller asks for `nearest`: those of the nearest code above it in
its hierarchy, else of the first of its parents in the records (`parent_codes` of MEDS) that has some, else those that
the model of the tokenizer made of its description, if it was encoded.
"""

import collections
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from medtok_jax.lookup.code_index import AmbiguousCodeError, CodeIndex, UnknownCodeError
from medtok_jax.lookup.code_names import CodeNames
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.token_table import KINDS
from medtok_jax.records.choices import NEAREST, UNMAPPED
from medtok_jax.records.token_rows import EncodedCodes
from preprocessing import codes
from preprocessing.common.atomic import write_json
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load

pl = load("polars")

# Below this share of mapped events, results say little about the tokenizer.
FEW = 0.5
MISSING = -1
# The report lists at most this many events outside of all code systems, for each kind of event.
LISTED_OTHERS = 20
_NDC_PART = re.compile(r"[0-9]{11}|[0-9]{4,5}-[0-9]{3,4}-[0-9]{1,2}")
# Reasons that a report gives for a code without a row.
_ABSENT = "not in the vocabulary"
_MALFORMED = "not the shape of a code of this system"
_AMBIGUOUS = "a code of several systems"
# Sources of the row of a code that the table lacks: the nearest code above it, a parent in the records, or the model.
ANCESTOR, PARENT, MODEL = "ancestor", "parent", "model"


_NAMES = CodeNames(list(codes.SYSTEMS))


class _Resolved(NamedTuple):
    """Hold what a code was found to be.

    Attributes:
        row: row of the table, `MISSING` where it has none.
        name: its system, or the kind of another event.
        reason: why the table has no row of it; empty for codes with one and for events outside of all code systems.
        source: `ancestor`, `parent` or `model` if the row is none that the table has of this code, else empty.
    """

    row: int
    name: str
    reason: str
    source: str = ""

    @property
    def is_medical(self) -> bool:
        return bool(self.reason) or self.row >= 0


class CodeMapper:
    """Map the codes of events to rows of a tokenizer's table, and count every code that is looked up.

    Args:
        keys: `SYSTEM/code` of every row of the table.
        unmapped: `keep`, `drop` or `unk`: how the caller treats codes without a row; recorded in the report. `nearest`
            gives them the row of another code or of the model, and keeps the rest.
        kinds: kind of every row, see `token_table.KINDS`; None where all are codes.
        parents: for `nearest`: codes above a code, nearest first, by the code as the events spell it; the first one
            with a row stands for a code without a row of its own or of a code above it.
        encoded: for `nearest`: codes that the table lacks; they are the rows behind those of `keys`, and stand for
            codes that have neither a code above nor a parent with a row.
        index: resolves codes, and knows those without a row too, with which a code may be ambiguous; None for an index
            of `keys` alone.

    Raises:
        InputError: `unmapped` is none of these, or `parents` or `encoded` are given but not `nearest`.
    """

    def __init__(
        self,
        keys: Sequence[str] | np.ndarray | pa.Array,
        unmapped: str = "keep",
        kinds: Sequence[str] | None = None,
        parents: Mapping[str, Sequence[str]] | None = None,
        encoded: EncodedCodes | None = None,
        index: CodeIndex | None = None,
    ):
        if unmapped not in UNMAPPED:
            raise InputError(f"unmapped is {unmapped!r}; it must be one of {', '.join(UNMAPPED)}.")
        if (parents or encoded) and unmapped != NEAREST:
            raise InputError(f"unmapped is {unmapped!r}, which uses no parent codes; choose nearest or leave them out.")
        self.unmapped = unmapped
        self.keys = [str(key) for key in (keys.to_pylist() if hasattr(keys, "to_pylist") else keys)]
        self.kinds = [KINDS[0]] * len(self.keys) if kinds is None else list(kinds)
        self._index = CodeIndex.of_keys(self.keys) if index is None else index
        self._rows_of_keys = {key: row for row, key in enumerate(self.keys)}
        self._parents = parents or {}
        self._encoded = {} if encoded is None else {t: len(self.keys) + n for t, n in encoded.position.items()}
        self.keys += [] if encoded is None else encoded.keys
        self._known: dict[str, _Resolved] = {}
        self._seen: collections.Counter[str] = collections.Counter()

    @classmethod
    def of(
        cls,
        directory: TokenizerDirectory,
        unmapped: str = "keep",
        parents: Mapping[str, Sequence[str]] | None = None,
        encoded: EncodedCodes | None = None,
    ) -> "CodeMapper":
        """Return the mapper to the rows of a tokenizer directory, and to those of `encoded` behind them."""
        tokens = directory.tokens
        index = CodeIndex(tokens.arrays, tokens.metadata["systems"], len(tokens))
        return cls(directory.table["key"], unmapped, directory.table["kind"].to_pylist(), parents, encoded, index)

    @property
    def keeps(self) -> bool:
        """Return whether codes that have no row stay in the records as they are."""
        return self.unmapped in ("keep", NEAREST)

    def rows(self, events: "pl.Series | np.ndarray") -> np.ndarray:
        """Return the row of each event's code, `[events]` int64, `MISSING` (-1) where it has none; count all events.

        Args:
            events: codes, as the data set spells them; null stands for no code, and has no row.
        """
        series = _as_series(events)
        counts = series.drop_nulls().value_counts(name="events")
        for code, count in counts.iter_rows():
            self._seen[code] += count
        return self._look_up(series, [found.row for found in self._resolve(counts["code"])], counts["code"], MISSING)

    def is_medical(self, events: "pl.Series | np.ndarray") -> np.ndarray:
        """Return an `[events]` bool mask of the codes that name a code system, mapped or not; count nothing."""
        series = _as_series(events)
        unique = series.drop_nulls().unique()
        return self._look_up(series, [found.is_medical for found in self._resolve(unique)], unique, False)

    def key(self, text: str, row: int) -> str:
        """Return `SYSTEM/code` of an event's code, as the table spells its row.

        Args:
            text: the code, as the data set spells it.
            row: its row, as `rows` returns it; for `MISSING` the key has the system and the code that the text names,
                or is the text if that names no system.
        """
        if row != MISSING:
            return self.keys[row]
        named, code = systems_and_code(text)
        return f"{named[0]}/{code}" if named else text

    def absent(self, events: Sequence[str]) -> dict[str, str]:
        """Return `SYSTEM/code` of the distinct codes that have no row but the shape of one system's codes; count none.

        The names of the result are the codes as the events spell them.
        """
        unique = list(dict.fromkeys(events))
        found = {}
        for text, resolved in zip(unique, self._resolve(unique), strict=True):
            if resolved.row == MISSING and resolved.reason == _ABSENT and resolved.name in codes.SYSTEMS:
                code = systems_and_code(text)[1]
                found[text] = f"{resolved.name}/{codes.display_code(resolved.name, code)}"
        return found

    def stand_ins(self) -> dict[str, int]:
        """Return the row of every code, as the records spell it, that gets it from a parent or from the model."""
        texts = list(dict.fromkeys([*self._parents, *self._encoded]))
        found = zip(texts, self._resolve(texts), strict=True)
        return {text: resolved.row for text, resolved in found if resolved.source in (PARENT, MODEL)}

    def other_events(self, name: str) -> int:
        """Return the number of events outside of all code systems whose codes begin with `name`."""
        return sum(count for _, _, count in self._grouped().get(("other", name), []))

    def report(self) -> "pl.DataFrame":
        """Return the counts so far: a row for each code system, then one for each kind of other event.

        Columns: `kind` (`code` or `other`), `name` (the system, or the first part of another event's code), `events`,
        `mapped`, and of these `to_category` and `to_retired` (to such rows of the table), `to_ancestor` and `to_parent`
        (to a row of any kind that is that of the nearest code above or of a parent) and `to_model` (to a row that the
        model encoded), `unmapped` (0 for other events, which are never looked up), `codes` (distinct),
        `codes_unmapped`, `most_frequent_unmapped` (a list of up to 10 structs of `code` and `events`; for other events
        the most frequent ones).
        """
        rows = []
        for (kind, name), group in self._grouped().items():
            missing = [(code, count) for code, found, count in group if found.row < 0]
            mapped = [(found, count) for _, found, count in group if found.row >= 0]
            own = [(self.kinds[found.row], count) for found, count in mapped if not found.source]
            rows.append(
                {
                    "kind": kind,
                    "name": name,
                    "events": sum(count for _, _, count in group),
                    "mapped": sum(count for _, count in mapped),
                    **{f"to_{of}": sum(count for kept, count in own if kept == of) for of in KINDS[1:]},
                    **{
                        f"to_{source}": sum(count for found, count in mapped if found.source == source)
                        for source in (ANCESTOR, PARENT, MODEL)
                    },
                    "unmapped": sum(count for _, count in missing) if kind == "code" else 0,
                    "codes": len(group),
                    "codes_unmapped": len(missing) if kind == "code" else 0,
                    "most_frequent_unmapped": [{"code": code, "events": count} for code, count in missing[:10]],
                }
            )
        listed = pl.List(pl.Struct({"code": pl.String, "events": pl.Int64}))
        sources = (f"to_{source}" for source in (*KINDS[1:], ANCESTOR, PARENT, MODEL))
        numbers = ("events", "mapped", *sources, "unmapped", "codes", "codes_unmapped")
        schema = {"kind": pl.String, "name": pl.String, **dict.fromkeys(numbers, pl.Int64)}
        return pl.DataFrame(rows, schema=schema | {"most_frequent_unmapped": listed})

    def write(self, path: Path) -> None:
        """Write the report as JSON, with every code of a code system that has no row, the most frequent first.

        Each such code is listed with the reason and with the nearest ancestor that the tokenizer holds, if any. Codes
        that got another row are listed with the code of that row and its source: `ancestor`, `parent` or `model`, which
        encoded the code itself.
        """
        systems, others = [], []
        for (kind, name), group in self._grouped().items():
            totals = {"name": name, "events": sum(count for _, _, count in group), "codes": len(group)}
            if kind == "other":
                most = [{"code": code, "events": count} for code, _, count in group[:LISTED_OTHERS]]
                others.append({**totals, "most_frequent": most})
                continue
            missing = [
                {"code": code, "events": count, "reason": found.reason, **self._above(code)}
                for code, found, count in group
                if found.row < 0
            ]
            unmapped = sum(code["events"] for code in missing)
            mapped = {"mapped": totals["events"] - unmapped, "unmapped": unmapped, "codes_unmapped": len(missing)}
            replaced = [
                {"code": code, "events": count, "nearest": self.keys[found.row], "source": found.source}
                for code, found, count in group
                if found.source
            ]
            systems.append({**totals, **mapped, "unmapped_codes": missing, "replaced_codes": replaced})
        report = {"unmapped": self.unmapped, "systems": systems, "other_events": others}
        write_json(path, report, ensure_ascii=False)

    def summary(self) -> str:
        """Return one line for each code system: events, share mapped, and the most frequent unmapped code."""
        lines = []
        for row in self.report().filter(pl.col("kind") == "code").iter_rows(named=True):
            # A text without the shape of a code may be anything, where columns are mixed up; it is not printed.
            most = [one for one in row["most_frequent_unmapped"] if self._known[one["code"]].reason != _MALFORMED]
            example = f", most often {most[0]['code']} ({most[0]['events']:,} events)" if most else ""
            kinds = {
                "categories": row["to_category"],
                "codes of earlier editions": row["to_retired"],
                "the nearest code above": row["to_ancestor"],
                "their parent codes": row["to_parent"],
                "tokens by the model": row["to_model"],
            }
            told = "".join(f", {count:,} of them to {kind}" for kind, count in kinds.items() if count)
            share = (
                f"{row['mapped']:,} of {row['events']:,} events are mapped ({row['mapped'] / row['events']:.1%}){told}"
            )
            missing = f"{row['codes_unmapped']:,} of {row['codes']:,} codes are not{example}"
            lines.append(f"{row['name']}: {share}, {missing}")
        return "\n".join(lines)

    def warning(self) -> str:
        """Return a sentence if no event has a code, or fewer than half of those with one have a row; else ""."""
        table = self.report().filter(pl.col("kind") == "code")
        events, mapped = int(table["events"].sum()), int(table["mapped"].sum())
        if self._seen and not events:
            return (
                "Warning: no event names a code with its system, like ICD10CM/E11.9, so that no events are mapped and"
                " the tokenizer takes no part."
            )
        if mapped >= FEW * events:
            return ""
        remedy = "" if self.unmapped == NEAREST else ", or give --unmapped=nearest"
        return (
            f"Warning: only {mapped:,} of {events:,} events with a code are mapped ({mapped / events:.1%}), so that the"
            f" tokenizer hardly takes part; take one with the code systems above{remedy}."
        )

    def _look_up(self, series: "pl.Series", values: list, unique: "pl.Series", default: int | bool) -> np.ndarray:
        """Return for each event in `series` the value of its code: `values` holds one for each of `unique`."""
        table = pl.DataFrame(
            {"code": unique, "value": pl.Series(values, dtype=pl.Boolean if default is False else pl.Int64)}
        )
        joined = series.to_frame("code").join(table, on="code", how="left", maintain_order="left")
        return joined["value"].fill_null(default).to_numpy()

    def _resolve(self, unique: "pl.Series | list[str]") -> list[_Resolved]:
        """Return what each distinct code is, cached from one call to the next."""
        for code in unique:
            if code not in self._known:
                found = self._resolve_one(code)
                if found.row == MISSING and self.unmapped == NEAREST:
                    found = self._nearest(code, found)
                self._known[code] = found
        return [self._known[code] for code in unique]

    def _nearest(self, text: str, found: _Resolved) -> _Resolved:
        """Return for a code without a row that of the nearest code above it, of its first parent, or of the model."""
        above = self._ancestor(text) if found.is_medical else MISSING
        if above != MISSING:
            return found._replace(row=above, source=ANCESTOR)
        for parent in self._parents.get(text) or ():
            row = self._resolve_one(parent).row
            if row != MISSING:
                return found._replace(row=row, source=PARENT)
        encoded = self._encoded.get(text, MISSING)
        return found if encoded == MISSING else found._replace(row=encoded, source=MODEL)

    def _resolve_one(self, text: str) -> _Resolved:
        row = self._rows_of_keys.get(text)
        if row is not None:
            return _Resolved(row, text.partition("/")[0], "")
        named, code = systems_and_code(text)
        if named is None:
            return _Resolved(MISSING, _kind(text), "")
        system = "/".join(named)
        shaped = [name for name in named if codes.is_wellformed(name, code)]
        try:
            row = self._index.find(f"{named[0]}/{code}" if len(named) == 1 else text)
        except AmbiguousCodeError:
            return _Resolved(MISSING, system, _AMBIGUOUS)
        except UnknownCodeError:
            return _Resolved(MISSING, shaped[0] if len(shaped) == 1 else system, _ABSENT if shaped else _MALFORMED)
        return _Resolved(row, self.keys[row].partition("/")[0], "")

    def _ancestor(self, text: str) -> int:
        """Return the row of the nearest code above a code, `MISSING` if there is none."""
        try:
            return self._index.find_ancestor(unfolded(text))[1]
        except InputError:
            return MISSING

    def _above(self, text: str) -> dict[str, str]:
        row = self._ancestor(text)
        return {} if row == MISSING else {"nearest_above": self.keys[row]}

    def _grouped(self) -> dict[tuple[str, str], list[tuple[str, _Resolved, int]]]:
        """Group codes by (kind, name) into lists of (code, what it is, events), the most frequent codes first.

        Code systems are in the order of `codes.SYSTEMS`, other kinds of events follow in alphabetical order.
        """
        groups: dict[tuple[str, str], list[tuple[str, _Resolved, int]]] = {}
        for code, count in sorted(self._seen.items(), key=lambda item: (-item[1], item[0])):
            found = self._known[code]
            groups.setdefault(("code" if found.is_medical else "other", found.name), []).append((code, found, count))
        rank = {name: number for number, name in enumerate(codes.SYSTEMS)}
        return dict(sorted(groups.items(), key=lambda item: (item[0][0], rank.get(item[0][1], len(rank)), item[0][1])))


def _as_series(events: "pl.Series | np.ndarray") -> "pl.Series":
    series = events if isinstance(events, pl.Series) else pl.Series(np.asarray(events).tolist(), dtype=pl.String)
    return series.cast(pl.String).alias("code")


def systems_and_code(text: str) -> tuple[tuple[str, ...] | None, str]:
    """Return the code systems that an event's code names, even those without codes in a table, and the code in them.

    The systems are None where it names none.
    """
    return _NAMES.split(unfolded(text))


def unfolded(text: str) -> str:
    """Return `NDC/00002143380` for `MEDICATION//00002143380//Administered`, and every other text as it is.

    A drug that names another system keeps it: `MEDICATION//RxNorm//860975//Held` is `RxNorm//860975`.
    """
    kind, *parts = text.split("//")
    if kind.strip().upper() == "MEDICATION":
        for place, part in enumerate(parts[:-1]):
            # A name of a drug may hold slashes and look like a code, so only the name of a system alone counts.
            named = None if "/" in part else _NAMES.split(f"{part}/0")[0]
            if named is not None and codes.NDC not in named:
                return f"{part}//{parts[place + 1]}"
        ndc = [part.strip() for part in parts if _NDC_PART.fullmatch(part.strip())]
        if ndc:
            return f"NDC/{ndc[0]}"
    return text


def _kind(text: str) -> str:
    """Return the first part of an event's code outside of all code systems: `LAB`, `HOSPITAL_ADMISSION`, `LOINC`."""
    return re.split(r"//|/", text, maxsplit=1)[0].strip() or text
