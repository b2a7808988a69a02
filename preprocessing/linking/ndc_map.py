"""Read a user's map of NDCs to codes of other systems, such as RxNorm or ATC, that a tokenizer may hold instead."""

from collections.abc import Sequence
from pathlib import Path

from preprocessing.codes import ATC, NDC, RXNORM, display_code, is_wellformed
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import SEPARATORS, table

# Columns that hold the code of a system, and other names of these.
_SYSTEMS = {RXNORM: ("rxcui", "rxnorm_code"), ATC: ("atc_code", "atc4", "atc5")}


class NdcMap:
    """Hold the codes of other systems that stand for each NDC.

    Args:
        path: CSV or TSV with a column `ndc` and one or more of `key` (`RxNorm/860975`), `rxnorm` (`rxcui`) and `atc`;
            several rows of one NDC add up.

    Attributes:
        rejected: number of rows that were not used.

    Raises:
        InputError: the file cannot be read, lacks these columns, or has no row that can be used.
    """

    def __init__(self, path: Path):
        self._codes: dict[str, list[str]] = {}
        columns = {"key": (), **{system.lower(): names for system, names in _SYSTEMS.items()}}
        with Rejects(None) as rejects:
            rows = table(
                path,
                rejects,
                columns={"ndc": ("ndc11",)},
                optional=columns,
                separators=SEPARATORS,
                quoted=True,
                users=True,
            )
            for line, (ndc, key, *codes), text in rows:
                named = [
                    f"{system}/{code.strip()}" for system, code in zip(_SYSTEMS, codes, strict=True) if code.strip()
                ]
                found = [key.strip(), *named] if key.strip() else named
                if not found or not is_wellformed(NDC, ndc):
                    rejects.add(path, line, "no NDC or no code", "the row names no NDC or no other code", text)
                    continue
                held = self._codes.setdefault(display_code(NDC, ndc), [])
                held.extend(code for code in found if code not in held)
            self.rejected = rejects.counts.total()
        if not self._codes:
            raise InputError(
                f"{path} maps no NDC; it needs a column 'ndc' of 11 digits and one of 'key', 'rxnorm' and 'atc'."
            )

    def __len__(self) -> int:
        """Return the number of NDCs."""
        return len(self._codes)

    def codes_of(self, text: str) -> Sequence[str]:
        """Return the keys that stand for an NDC in any spelling: those of the package, then those of its product."""
        bare = text.rpartition("/")[2].strip()
        if not is_wellformed(NDC, bare):
            return ()
        package = display_code(NDC, bare)
        return (*self._codes.get(package, ()), *(self._codes.get(package[:9], ()) if len(package) > 9 else ()))
