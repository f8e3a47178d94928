"""Frozen numbers: how they are stored, and how a test says which of them moved."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "golden"

Number = float | None | list[float | None]
Numbers = dict[str, Number]


def read(name: str) -> dict[str, Numbers]:
    """The groups of numbers in a file of the folder."""
    return json.loads((FOLDER / name).read_text())


def write(name: str, groups: dict[str, Numbers]) -> None:
    """Sorted, one line for each key, so that a diff names what moved; floats with all their digits, no NaN."""

    def table(content: dict, inner: Callable) -> str:
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {inner(content[key])}" for key in sorted(content)) + "\n}"

    text = table(groups, lambda numbers: table(numbers, functools.partial(json.dumps, allow_nan=False)))
    (FOLDER / name).write_text(text + "\n")


def near(x: Number, y: Number, relative: float, absolute: float) -> bool:
    """Equal, or nearly; lists element by element."""
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(near(a, b, relative, absolute) for a, b in zip(x, y))
    if isinstance(x, float | int) and isinstance(y, float | int):
        return math.isclose(x, y, rel_tol=relative, abs_tol=absolute)
    return x is None and y is None


def differences(found: Numbers, frozen: Numbers, tolerance: Callable[[str], tuple[float, float]]) -> list[str]:
    """One line for each number that is not where it was; `tolerance` is relative and absolute, by key."""
    lines = [f"{key}: frozen, but not computed" for key in sorted(frozen.keys() - found.keys())]
    for key, value in found.items():
        relative, absolute = tolerance(key)
        if key not in frozen:
            lines.append(f"{key}: computed, but not frozen")
        elif not near(value, frozen[key], relative, absolute):
            lines.append(f"{key}: {value}, frozen as {frozen[key]} (to {relative:g} of it, or {absolute:g})")
    return lines


def sweep_numbers(folder: Path) -> dict[str, Numbers]:
    """Value, low and high of every result of every run of a sweep."""
    results = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("points/*/result.json")}
    return {
        point: {entry["name"]: [entry[key] for key in ("value", "low", "high")] for entry in result["results"]}
        for point, result in results.items()
    }
