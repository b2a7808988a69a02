"""Find orders of the five drugs of the MedTok paper (Su et al. 2025) by ATC code, RxNorm ingredient, or name."""

import dataclasses
from collections.abc import Mapping, Sequence

from preprocessing.codes import ATC, RXNORM
from preprocessing.common.extras import load

pl = load("polars")


@dataclasses.dataclass(frozen=True)
class Drug:
    """Hold what identifies a drug.

    Attributes:
        atc: code of ATC.
        rxnorm: code of the ingredient in RxNorm.
        names: names of the drug, in lower case, its brands in the records of the USA included.
        other_forms: regular expression of names, in lower case, of forms that have another code of ATC.
        other_routes: regular expression of routes, in upper case, of such forms.
    """

    atc: str
    rxnorm: str
    names: tuple[str, ...]
    other_forms: str = ""
    other_routes: str = ""


_EYES = {"other_forms": r"ophth|\beye\b|\botic\b", "other_routes": r"^(?:OU|OS|OD|AU|AS|AD|BOTH EYES|OPHTHALMIC)$"}
# Vancomycin by mouth is A07AA09, levofloxacin in the eye S01AE05.
DRUGS = {
    "vancomycin": Drug(
        "J01XA01",
        "11124",
        ("vancomycin", "vancocin"),
        other_forms=r"\boral\b|enema|capsule|\bpo\b|\brectal\b",
        other_routes=r"^(?:PO|NG|PO/NG|PR|ORAL|G TUBE|J TUBE|RECTAL|ENTERAL.*)$",
    ),
    "levofloxacin": Drug("J01MA12", "82122", ("levofloxacin", "levaquin"), **_EYES),
    "heparin": Drug("B01AB01", "5224", ("heparin",)),
    "metoprolol": Drug("C07AB02", "6918", ("metoprolol", "lopressor", "toprol")),
    "atorvastatin": Drug("C10AA05", "83367", ("atorvastatin", "lipitor")),
}
# Columns that tell which drug an event orders.
_KEY = ["code", "text_value", "route"]
# Events that order or give a drug.
ORDER = rf"^(?:{ATC}|{RXNORM}|NDC)/|^MEDICATION//"


def orders(
    events: "pl.DataFrame", names: Mapping[str, str] | None = None, parents: Mapping[str, Sequence[str]] | None = None
) -> "pl.DataFrame":
    """Return the orders of the five drugs among events, with the column `drug`, an int64 position in `DRUGS`.

    Args:
        events: columns `code`, `text_value` (the name of the drug, or null) and perhaps `route`.
        names: description of each code, if there is one.
        parents: codes above each code, of ATC or RxNorm.
    """
    if "route" not in events.columns:
        events = events.with_columns(route=pl.lit(None, pl.String))
    events = events.filter(pl.col("code").str.contains(ORDER))
    # Orders repeat: each distinct one is looked at once.
    names_of = _drugs_of(events.select(*_KEY).unique(), names or {}, parents or {})
    return events.join(names_of, on=_KEY, how="inner", nulls_equal=True, maintain_order="left")


def _drugs_of(
    distinct: "pl.DataFrame", names: Mapping[str, str], parents: Mapping[str, Sequence[str]]
) -> "pl.DataFrame":
    """Return those of some distinct orders that are of a drug, with the column `drug`."""
    codes = distinct["code"].to_list()
    distinct = distinct.with_columns(described=pl.Series([names.get(code) for code in codes], dtype=pl.String))
    # The description of a code is the name of one of its events, which may differ in form from that of another.
    in_code = pl.when(pl.col("code").str.starts_with("MEDICATION//")).then("code")
    other = pl.concat_str(["described", in_code], separator=" ", ignore_nulls=True)
    is_number = pl.col("code").str.contains(rf"^(?:{ATC}|{RXNORM})/")
    text = pl.when(is_number).then("described").otherwise(pl.coalesce("text_value", other)).str.to_lowercase()
    of_code = {f"{ATC}/{drug.atc}": place for place, drug in enumerate(DRUGS.values())}
    of_code |= {f"{RXNORM}/{drug.rxnorm}": place for place, drug in enumerate(DRUGS.values())}
    coded = [{of_code[one] for one in (code, *(parents.get(code) or ())) if one in of_code} for code in codes]
    found = []
    for place, drug in enumerate(DRUGS.values()):
        by_name = text.str.contains(rf"\b(?:{'|'.join(drug.names)})\b").fill_null(False)
        if drug.other_forms:
            by_name &= ~text.str.contains(drug.other_forms).fill_null(False)
            by_name &= ~pl.col("route").str.to_uppercase().str.contains(drug.other_routes).fill_null(False)
        by_code = pl.Series([place in places for places in coded], dtype=pl.Boolean)
        found.append(distinct.filter(by_code | by_name).select(*_KEY, drug=pl.lit(place, pl.Int64)))
    return pl.concat(found)
