"""Read the codes of a data set, as it spells them: which code of which code system each one is. No JAX here."""

import dataclasses

import numpy as np

from medtok_jax.lookup.code_names import CodeNames
from medtok_jax.records.event_codes import unfolded
from preprocessing.codes import SYSTEMS, CodeRecord, display_code, is_wellformed

_NAMES = CodeNames(list(SYSTEMS))


@dataclasses.dataclass(frozen=True)
class EventCodes:
    """Hold the distinct codes of a data set.

    Attributes:
        spelled: `[codes]` str, as the data set spells them.
        keys: `[codes]` str, `SYSTEM/code` in normal form; empty for an event outside of all code systems.
    """

    spelled: np.ndarray
    keys: np.ndarray

    @classmethod
    def read(cls, spelled: np.ndarray) -> "EventCodes":
        """Return what each of the codes `[codes]` str is."""
        keys = [read_code(text) for text in np.asarray(spelled).tolist()]
        return cls(np.asarray(spelled), np.array(keys, dtype=str))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def medical(self) -> np.ndarray:
        """Return a `[codes]` bool mask of the codes that name a code system."""
        return self.keys != ""

    def records(self) -> list[CodeRecord | None]:
        """Return the code and system of each code, None for an event outside of all code systems."""
        return [CodeRecord(*key.split("/", 1), "") if key else None for key in self.keys.tolist()]


def read_code(text: str) -> str:
    """Return the key of a code, which must name its system and have the shape of its codes; empty for other texts."""
    named, code = _NAMES.split(unfolded(text))
    fitting = [name for name in named or () if is_wellformed(name, code)]
    return f"{fitting[0]}/{display_code(fitting[0], code)}" if len(fitting) == 1 else ""
