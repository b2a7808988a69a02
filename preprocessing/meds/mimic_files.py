"""Find the tables of MIMIC-III and MIMIC-IV below a directory.

File names may be in upper or lower case, files plain or gzipped, and MIMIC-IV's `hosp/` and `icu/` may be anywhere
below the directory, as wget leaves them.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.meds.mimic_tables import LARGE, MIMIC3, MIMIC4, TABLES, MimicTable, event_tables
from preprocessing.meds.table_files import TableFiles, header_among

# Version -> a column of PATIENTS that only this version has.
_MARKS = {MIMIC3: "dob", MIMIC4: "anchor_age"}
_ENDINGS = (".csv.gz", ".csv")
_DEEPEST = 6
# MIMIC-III and the first versions of MIMIC-IV call race ethnicity; one of these columns is enough.
_SAME = ("race", "ethnicity")


@dataclasses.dataclass(frozen=True)
class MimicFiles(TableFiles):
    """Hold the tables of one copy of MIMIC; `home` is the folder of the table of patients.

    Attributes:
        version: `mimic3` or `mimic4`.
    """

    version: str

    @classmethod
    def find(cls, root: Path, version: str | None = None) -> "MimicFiles":
        """Find the tables below `root`, and detect the version from the columns of the table of patients.

        Raises:
            InputError: there is no copy of MIMIC, more than one, or one of another version than `version`.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root} is not a directory; give the one with the tables of MIMIC.")
        found: dict[Path, dict[str, Path]] = {}
        # Plain files sort before their gzipped twins, which replace them.
        for path in sorted(root.rglob("*")):
            ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), None)
            if ending and len(path.relative_to(root).parts) <= _DEEPEST and path.is_file():
                found.setdefault(path.parent, {})[path.name.lower().removesuffix(ending)] = path
        homes = [folder for folder, tables in found.items() if "patients" in tables]
        if not homes:
            raise InputError(
                f"{root} holds no table of patients of MIMIC (PATIENTS.csv or hosp/patients.csv.gz); check the path."
                " Other sources are known by patient.csv (eICU-CRD), diabetic_data.csv (Diabetes-130) or ehrshot.csv."
            )
        if len(homes) > 1:
            raise InputError(
                f"{root} holds several tables of patients, in {homes[0]} and {homes[1]}; give one of them."
            )
        detected = _detect(found[homes[0]]["patients"])
        if version is not None and version != detected:
            raise InputError(f"{homes[0]} holds {detected}, as its table of patients shows, and not {version}.")
        modules = [homes[0]]
        if detected == MIMIC4:
            modules += [homes[0].parent / name for name in ("core", "hosp", "icu") if name != homes[0].name]
        paths = {name: path for module in reversed(modules) for name, path in found.get(module, {}).items()}
        return cls(root, paths, homes[0], detected)

    def path(self, table: str) -> Path:
        """Return the file of a table.

        Raises:
            InputError: the table does not exist.
        """
        if table not in self.paths:
            name = table.upper() if self.version == MIMIC3 else table
            raise InputError(f"{self.root} lacks the table {name}.csv or {name}.csv.gz; fetch it.")
        return self.paths[table]

    def chosen(self, also: Sequence[str]) -> list[MimicTable]:
        """Return the tables to read, among those that exist.

        Args:
            also: names of large tables that are read, too.

        Raises:
            InputError: a table that is needed or asked for does not exist.
        """
        names = [table.name for table in event_tables(self.version) if table.scope is LARGE]
        unknown = [name for name in also if name not in names]
        if unknown:
            raise InputError(f"--also={unknown[0]} is not known; for {self.version} give one of: {', '.join(names)}.")
        chosen = []
        for table in event_tables(self.version):
            if table.needed or table.name in also:
                self.path(table.name)
            if table.name in self.paths and (table.scope is not LARGE or table.name in also):
                chosen.append(table)
        return chosen

    def read_with(self, tables: Iterable[MimicTable]) -> list[Path]:
        """Return the files of tables, and of all dictionaries, that are read for them, sorted."""
        dictionaries = {path for name, path in self.paths.items() if name.startswith("d_")}
        return sorted(dictionaries | {self.paths[table.name] for table in tables})

    def unknown(self, output: Path) -> list[str]:
        """Return the sorted names of the files below `root` that are neither tables of this version nor in `output`."""
        return self.others((self.paths[t.name] for t in TABLES[self.version] if t.name in self.paths), output)

    def absent(self, table: MimicTable) -> list[str]:
        """Return the optional columns that the file of a table lacks; none if the file has no rows."""
        lacking = self.lacking(table.name, table.optional)
        return lacking if set(_SAME) <= set(lacking) else [name for name in lacking if name not in _SAME]


def _detect(path: Path) -> str:
    marks = header_among(path, _MARKS.values()) or ()
    versions = [version for version, mark in _MARKS.items() if mark in marks]
    if len(versions) != 1:
        raise InputError(
            f"{path} is not a table of patients of MIMIC-III (column dob) or MIMIC-IV (column anchor_age), or has no "
            "rows; fetch it again."
        )
    return versions[0]
