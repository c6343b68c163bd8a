"""Units of measurement: what each measures, and how many of the base unit it is. Exact fractions only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

Dimension = tuple[tuple[str, int], ...]  # what it measures and to which power, sorted: (("length", 2),)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Kind → names and their factor. A name with a plural in -s is found by its singular.
_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "mm": "1/1000", "millimeter": "1/1000", "cm": "1/100", "centimeter": "1/100", "centimetre": "1/100",
        "dm": "1/10", "m": "1", "meter": "1", "metre": "1", "km": "1000", "kilometer": "1000",
        "kilometre": "1000", "nm": "1/1000000000", "μm": "1/1000000", "米": "1", "厘米": "1/100",
        "分米": "1/10", "毫米": "1/1000", "千米": "1000", "公里": "1000", "in": "127/5000",
        "inch": "127/5000", "inches": "127/5000", "ft": "381/1250", "foot": "381/1250", "feet": "381/1250",
        "yd": "1143/1250", "yard": "1143/1250", "mile": "201168/125", "mi": "201168/125",
    },
    "mass": {
        "mg": "1/1000000", "g": "1/1000", "gram": "1/1000", "kg": "1", "kilogram": "1", "t": "1000",
        "tonne": "1000", "克": "1/1000", "千克": "1", "公斤": "1", "斤": "1/2", "吨": "1000",
        "oz": "45359237/1600000000", "ounce": "45359237/1600000000", "lb": "45359237/100000000",
    },
    "time": {
        "ms": "1/1000", "s": "1", "sec": "1", "second": "1", "min": "60", "minute": "60", "h": "3600",
        "hr": "3600", "hour": "3600", "day": "86400", "week": "604800", "秒": "1", "分钟": "60",
        "小时": "3600", "天": "86400",
    },
    "months": {"month": "1", "year": "12", "月": "1", "个月": "1", "年": "12"},
    "yuan": {"元": "1", "块": "1", "yuan": "1", "RMB": "1", "角": "1/10", "人民币": "1"},
    "dollars": {"dollar": "1", "USD": "1", "cent": "1/100", "美元": "1"},
    "euros": {"euro": "1", "EUR": "1", "欧元": "1"},
    "pounds": {"pound": "1", "GBP": "1"},  # of money or of weight: not known, so neither is converted
    "area": {"hectare": "10000", "acre": "40468564224/10000000"},
    "volume": {"ml": "1/1000", "mL": "1/1000", "milliliter": "1/1000", "L": "1", "l": "1", "liter": "1",
               "litre": "1", "升": "1", "毫升": "1/1000"},
    "gallons": {"gallon": "1", "quart": "1/4", "pint": "1/8", "cup": "1/16"},
    "angle": {"degrees": "1", "degree": "1", "度": "1"},
    "radians": {"radian": "1", "rad": "1"},
    "celsius": {"°C": "1", "摄氏度": "1"}, "fahrenheit": {"°F": "1"}, "kelvin": {"K": "1"},
    "force": {"N": "1", "newton": "1"}, "energy": {"J": "1", "joule": "1", "kJ": "1000"},
    "power": {"W": "1", "watt": "1", "kW": "1000"}, "voltage": {"V": "1", "volt": "1"},
    "current": {"A": "1", "ampere": "1"}, "resistance": {"ohm": "1", "Ω": "1"},
    "pressure": {"Pa": "1", "kPa": "1000"}, "amount": {"mol": "1", "mole": "1"},
    "frequency": {"Hz": "1", "kHz": "1000"}, "unit": {"unit": "1"},
}  # fmt: skip
_SPEEDS = {"mph": "mile/hour", "kph": "km/h", "千米每小时": "km/h", "米每秒": "m/s"}
_CHINESE_POWERS = {"平方": "2", "立方": "3"}
_WORD_POWERS = {"square": "2", "sq": "2", "cubic": "3"}

UNITS: dict[str, tuple[str, Fraction]] = {
    name: (kind, Fraction(factor)) for kind, names in _TABLE.items() for name, factor in names.items()
}
# What is counted and not measured. Each is a unit of its own, but the Chinese measure words are none.
COUNTED = _words(
    "apple people person student book point item page car dog cat tree boy girl child children man men woman "
    "women egg cookie ticket ball marble coin card chair table box boxes stamp pencil pen flower bird fish "
    "animal bottle bag player team game match matches customer worker employee guest friend slice pizza cake "
    "orange banana way possibility possibilities solution integer digit value edge face side vertex vertices "
    "diagonal triangle square circle step mark vote room house floor bus buses train seat toy "
    "shirt sheep cow "
    "horse chicken duck rabbit letter word song movie photo picture gift lap bolt bead sticker "
    "brick ribbon rose candle candy candies cupcake muffin donut sandwich sandwiches plate dish dishes "
    "number prime term root element subset arrangement outcome combination permutation"
)
MEASURE_WORDS = re.compile(r"[个人只件次本张页辆棵名位条头台套支枚块]")


@dataclass(frozen=True, slots=True)
class Unit:
    """What it measures, and how many of the base unit one of it is.

    Example:
        >>> read_unit("km/h").factor / read_unit("m/s").factor, read_unit("cm^3").dimension
        (Fraction(5, 18), (('length', 3),))
    """

    dimension: Dimension
    factor: Fraction


def read_unit(text: str) -> Unit | None:
    """The unit that a text such as ``cm^2``, ``miles per hour`` or ``平方米`` names, or None."""
    text = " ".join(text.replace("·", " ").split())
    text = re.sub(r"\s*(?:/|\bper\b)\s*", "/", _SPEEDS.get(text, text))
    upper, *lower = text.split("/")
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for number, part in enumerate([upper, *lower]):
        found = _product(part)
        if found is None:
            return None
        for kind, power in found[0].items():
            powers[kind] = powers.get(kind, 0) + (-power if number else power)
        factor = factor / found[1] if number else factor * found[1]
    return Unit(tuple(sorted((k, p) for k, p in powers.items() if p)), factor)


def _product(text: str) -> tuple[dict[str, int], Fraction] | None:
    """Names side by side, each with its power: ``kg m^2``, ``square feet``, ``feet squared``."""
    powers: dict[str, int] = {}
    factor, waiting = Fraction(1), 1
    words = text.split()
    if not words:
        return None
    for index, word in enumerate(words):
        if word in _WORD_POWERS:
            waiting = int(_WORD_POWERS[word])
            continue
        if word in ("squared", "cubed") and index:
            continue
        found = re.fullmatch(r"(平方|立方)?([^\W\d_]+|°[CF])\.?(?:\^?\{?([1-9])\}?)?", word)
        known = _named(found.group(2)) if found else None
        if found is None or known is None:
            return None
        power = int(found.group(3) or _CHINESE_POWERS.get(found.group(1) or "", "1")) * waiting
        following = words[index + 1] if index + 1 < len(words) else ""
        power *= {"squared": 2, "cubed": 3}.get(following, 1)
        kind, size = known
        if kind == "volume":  # a liter is a cubic decimeter
            size /= 1000
        kind, power_of = {"volume": ("length", 3), "area": ("length", 2)}.get(kind, (kind, 1))
        powers[kind] = powers.get(kind, 0) + power * power_of
        factor, waiting = factor * size**power, 1
    return (powers, factor) if waiting == 1 else None


def _named(word: str) -> tuple[str, Fraction] | None:
    """What a name measures; a counted noun is a kind of its own."""
    if word in UNITS:
        return UNITS[word]
    singular = word[:-1] if word.endswith("s") and len(word) > 3 else word
    for name in (word, word.lower(), singular, singular.lower()):
        if len(name) > 2 and name in UNITS:
            return UNITS[name]
        if name in COUNTED:
            return f"number of {singular.lower()}", Fraction(1)
    return None
