"""Read codes that pandas or a spreadsheet wrote as numbers: 4280.0 is 4280, NaN and 0.0 are missing.

A number has lost its leading zeros and the zeros behind a dot, so digits are taken from it only where nothing else can
be meant. `401.0` alone is a code of ICD-9-CM with its dot (and so is the float 401.0, once pandas read it); only if
another number of the column has four digits or more before the dot, which no code with a dot has, were all of them
whole numbers. Among texts, a number of so many digits is still 4280.
"""

import dataclasses
import re

from medtok_jax.lookup import code_names

# Words for a missing value in capitals, as data frames, databases and hospitals write them, and 0 in place of a code.
_MISSING = {"", "NAN", "NONE", "NULL", "NA", "N/A", "<NA>", "NAT", "?"}
_ZERO = re.compile(r"0(?:\.0*)?")
_WHOLE = re.compile(r"([0-9]+)\.0+")
_LARGE_WHOLE = re.compile(r"[1-9][0-9]{3,}\.0+")
_SMALL_WHOLE = re.compile(r"[1-9][0-9]{1,2}\.0")
_FRACTION = re.compile(r"[0-9]+\.[0-9]+")
_DIGITS = re.compile(r"[0-9]+")
# From here on a float does not hold every whole number.
_EXACT = 2**53
# Numbers of this size have more digits than any code has before its dot.
_LARGE = 1000
# Digits of an NDC: of a product, and of a package. Fewer than `_FEWEST` digits are no NDC, whatever zeros it lost.
_PRODUCT, _PACKAGE, _FEWEST = 9, 11, 4
_EDITION_NAME = re.compile(r"ICD[ _-]?(9|10)(?:[ _-]?(?:CM|PCS))?", re.IGNORECASE)


def is_absent(value: object, *, zero: bool = False) -> bool:
    """Return whether a cell holds nothing: None, NaN, an empty text or a word for it; with `zero`, also 0 and 0.0."""
    if isinstance(value, str):
        text = value.strip()
        return text.upper() in _MISSING or (zero and text[:1] == "0" and _ZERO.fullmatch(text) is not None)
    if value is None or value != value:
        return True
    return zero and isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0


def edition_of(value: object) -> str | None:
    """Return the name of the edition of a cell, such as `ICD9` for 9, `9.0` or `ICD-9`; None if it is no edition."""
    if isinstance(value, str):
        named = _EDITION_NAME.fullmatch(value.strip())
        value = named[1] if named else value
    edition = code_names.edition_of(value)
    return f"ICD{edition}" if edition else None


def is_short(code: str) -> bool:
    """Return whether a code is one or two digits, as diagnoses of ICD-9-CM are that lost their leading zeros."""
    return is_digits(code.strip()) and len(code.strip()) <= 2


def digits_of(value: object) -> str | None:
    """Return the digits of a whole number, as a number or as text such as `4280.0`; None of anything else."""
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value.strip())
        return whole[1] if whole else None
    if isinstance(value, bool) or value != value or not isinstance(value, (int, float)) or value < 0:
        return None
    if isinstance(value, float) and (value >= _EXACT or value != int(value)):
        return None
    return str(int(value))


def is_large_number(value: object) -> bool:
    """Return whether a text such as `4280.0` has four digits or more before `.0`, as no code with a dot has."""
    return isinstance(value, str) and _LARGE_WHOLE.fullmatch(value.strip()) is not None


def is_small_number(code: str) -> bool:
    """Return whether a code such as `401.0` may be the number 401, as well as the code with its dot."""
    return _SMALL_WHOLE.fullmatch(code.strip()) is not None


@dataclasses.dataclass(slots=True)
class WrittenNumbers:
    """Count how the codes of a column are written, to tell whether they are numbers.

    Attributes:
        integers: number of values that are of an integer type.
        floats: number of whole numbers of a float type, or written as such.
        digits: number of texts of digits.
        others: number of all other values that are not missing.
        fractions: number of texts of digits with a dot among them, such as `250.13`.
        is_large: whether a float has four digits or more before its dot.
        has_zeros: whether a text of digits begins with 0.
    """

    integers: int = 0
    floats: int = 0
    digits: int = 0
    others: int = 0
    fractions: int = 0
    is_large: bool = False
    has_zeros: bool = False

    def add(self, value: object) -> None:
        """Count one value; a missing one says nothing."""
        if is_absent(value, zero=True):
            return
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            self.digits += 1
            self.has_zeros |= value.strip().startswith("0")
            return
        digits = digits_of(value)
        if digits is None:
            self.others += 1
            self.fractions += isinstance(value, str) and _FRACTION.fullmatch(value.strip()) is not None
        elif isinstance(value, int):
            self.integers += 1
        else:
            self.floats += 1
            self.is_large |= int(digits) >= _LARGE

    @property
    def may_be_whole(self) -> bool:
        """Return whether nothing was counted yet that rules whole numbers out."""
        return not (self.others or self.digits)

    @property
    def are_whole(self) -> bool:
        """Return whether all codes were written as whole numbers, so that their digits are the code."""
        return self.may_be_whole and (self.is_large or not self.floats)

    @property
    def may_lack_zeros(self) -> bool:
        """Return whether codes of digits were numbers at some time, which costs leading zeros.

        A spreadsheet makes 414 of 0414 and leaves V3001 beside it. Where codes of digits have dots, one that lost its
        zero is malformed instead.
        """
        as_text = self.digits and not (self.fractions or self.floats or self.integers or self.has_zeros)
        return bool(as_text) or (self.are_whole and bool(self.integers or self.floats))


def lacks_ndc_zeros(code: str, *, products: bool) -> bool:
    """Return whether an NDC probably lost leading zeros; with `products`, 9 digits are the code of a product.

    One that begins with 0 lost none.
    """
    code = code.strip()
    if not _DIGITS.fullmatch(code) or code.startswith("0") or not _FEWEST <= len(code) < _PACKAGE:
        return False
    return not (products and len(code) == _PRODUCT)


def is_digits(code: str) -> bool:
    """Return whether a code consists of ASCII digits."""
    return _DIGITS.fullmatch(code) is not None
