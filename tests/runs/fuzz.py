"""Inputs that nobody meant: each public reader gets a good input with some of its values exchanged for odd ones.

A reader may accept what it gets or refuse it by `ValueError` (`InputError` is one); anything else is a surprise.
`python tests/runs/fuzz.py FOLDER NUMBER SEED` prints as JSON what each reader said.
"""

import copy
import json
import math
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepinf.binned.model import BinnedModel
from hepinf.core.checkpoint import read_checkpoint, write_checkpoint
from hepinf.flows.flow import Flow, maf
from hepinf.problems import bump
from hepinf.problems.dijet import events as dijet
from hepinf.runs import record
from hepinf.runs.papers import check_parameters, find_paper, papers, parameters_of
from hepinf.runs.sweep import read_sweep
from hepinf.summaries.histogram import histogram
from hepinf.summaries.simulation import Simulation
from hepinf.unbinned.conditional import ConditionalFlow
from hepinf.unbinned.coordinates import Coordinates, Expression
from hepinf.unbinned.mixture import Mixture
from hepinf.unbinned.parametric import ParametricDensity1D
from hepinf.workspaces.schema import example_workspace

ODD = [
    None, True, 0, -1, 1, 2.5, 50.0, 1e-12, 1e6, 10**400, 1e308, -0.0, -1e-320, math.nan, math.inf, "", "mu", "\n",
    "é" * 300, "1e400", "None", "../../etc/passwd", [], [[]], {}, [None], [math.nan], {"a": None}, [1, 2, 3],
]  # fmt: skip


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """The ways to all values inside lists and dictionaries."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in ((*path, key), *places(value, (*path, key)))]


def mutate(tree: Any, chance: random.Random) -> Any:
    """A copy with one to three changes: a value made odd, taken away, doubled, put elsewhere, or its key renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        found = places(tree)
        if not found:
            return chance.choice(ODD)
        *way, key = chance.choice(found)
        parent = tree
        for step in way:
            parent = parent[step]
        what = chance.randrange(8)
        if what == 0:
            del parent[key]
        elif what == 1 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif what == 2 and isinstance(parent, dict):
            parent[chance.choice(["name", "data", "x", "", "lumi"])] = parent.pop(key)
        elif what == 3:
            *other, last = chance.choice(found)
            source = tree
            try:
                for step in (*other, last):
                    source = source[step]
                parent[key] = copy.deepcopy(source)
            except (KeyError, IndexError, TypeError):
                parent[key] = None
        else:
            parent[key] = copy.deepcopy(chance.choice(ODD))
    return tree


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes with some flipped, cut off, put in or all gone."""
    what, at = chance.randrange(4), chance.randrange(len(data))
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
    if what == 2:
        return data[:at] + chance.randbytes(chance.randint(1, 40)) + data[at:]
    return chance.randbytes(chance.randint(0, 200))


def odd_numbers(values: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """A tensor with some values exchanged, of another shape, or of another type."""
    values, what = values.clone(), chance.randrange(8)
    if what == 0:
        return values[: chance.randrange(len(values))]
    if what == 1:
        return values[..., None]
    if what == 2:
        return values.long()
    if what == 3:
        return values.reshape(-1)[:0]
    flat = values.reshape(-1)
    for _ in range(chance.randint(1, 3)):
        flat[chance.randrange(len(flat))] = chance.choice([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e38, 1e-38])
    return values


class Readers:
    """The public functions that read foreign input; each method gives one of them one odd input."""

    def __init__(self, folder: Path, chance: random.Random):
        self.folder, self.chance = folder, chance
        self.workspace = example_workspace()
        self.flow = maf(3, transforms=1, hidden=(8,))
        self.flow.save(folder / "flow")
        coordinates = Coordinates({"x": "log(x / m)"}, {"x": (1.0, 9.0)}, ["m"])
        ConditionalFlow(coordinates, ["m"], {"m": (2.0, 5.0)}, [maf(1, 1, transforms=1, hidden=(8,))]).save(
            folder / "conditional"
        )
        ParametricDensity1D("x", (0.0, 1.0), {"m": (0.0, 1.0)}).save(folder / "head")
        write_checkpoint(folder / "state", {"w": torch.arange(9.0)}, {"epoch": 3}, {"seed": 1})
        entry = dict.fromkeys(record.NUMBERS, 1.0) | {"name": "a", "unit": "", "source": ""}
        about = dict.fromkeys(("hepinf", "torch", "python", "device", "commit"), "1")
        self.result = {
            "schema": 1, "paper": "inferno", "scale": "smoke", "parameters": {"seed": 1}, "seed": 1, "seconds": 1.0,
            "environment": about, "results": [entry], "figures": [],
        }  # fmt: skip
        self.sweep = {"notebook": "inferno", "scale": "smoke", "fixed": {}, "grid": {}, "seeds": [1, 2]}
        self.defaults = {name: parameters_of(find_paper(name)) for name in papers()}
        self.events = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
        self.dijets = dijet.dijet_samples()["background"].x[:30]

    def a_workspace(self) -> None:
        model = BinnedModel.from_workspace(mutate(self.workspace, self.chance))
        value = model.log_prob(model.nominal, model.observed)
        assert value.dtype == torch.float64 and not bool(value.isnan())

    def a_workspace_file(self) -> None:
        path = self.folder / "workspace.json"
        path.write_bytes(damaged(json.dumps(self.workspace).encode(), self.chance))
        BinnedModel.from_workspace(path)

    def events_of_a_simulation(self) -> None:
        chance, n = self.chance, len(self.events)
        labels = ["signal"] * (n // 2) + ["background"] * (n - n // 2)
        arguments = {
            "events": self.events, "labels": labels, "weights": torch.ones(n), "features": ["a", "b", "c"],
            "variations": {"jes": (torch.ones(n), torch.ones(n)), "smear": (self.events, self.events)},
        }  # fmt: skip
        name = chance.choice(list(arguments))
        if name in ("events", "weights"):
            arguments[name] = chance.choice([odd_numbers(arguments[name], chance), *ODD])
        elif name == "variations" and chance.random() < 0.5:
            arguments[name]["jes"] = (odd_numbers(torch.ones(n), chance), torch.ones(n))
        else:
            arguments[name] = chance.choice([*ODD, labels[:-1], ["signal"] * n])
        assert math.isfinite(sum(Simulation.from_arrays(**arguments).yields.values()))

    def a_histogram(self) -> None:
        chance = self.chance
        arguments = {"values": self.events[:, 0], "edges": torch.linspace(0, 1, 6), "weights": torch.ones(40, 2)}
        name = chance.choice(list(arguments))
        arguments[name] = odd_numbers(arguments[name], chance)
        options = {"gradient": "soft", "bandwidth": 0.1, "outside": "drop"}
        if chance.random() < 0.3:
            words = ["", "softer", "keep", "kde", "gaussian", "within-bin", "sigmoid"]
            odd = {"gradient": words, "outside": words, "bandwidth": [0.0, -1.0, math.nan, math.inf, 1e-300, 1e300]}
            name = chance.choice(list(options))
            options[name] = chance.choice(odd[name])
        assert bool(histogram(**arguments, **options).isfinite().all())

    def an_artefact(self) -> None:
        kind, load = self.chance.choice(
            [("flow", Flow.load), ("conditional", ConditionalFlow.load), ("head", ParametricDensity1D.load)]
        )
        path = self.folder / kind / self.chance.choice(["card.json", "model.safetensors"])
        good = path.read_bytes()
        path.write_bytes(damaged(good, self.chance))
        try:
            load(self.folder / kind)
        finally:
            path.write_bytes(good)

    def a_card_with_a_right_checksum(self) -> None:
        from hepinf.core.artefacts import _digest

        path = self.folder / "flow" / "card.json"
        good = path.read_text()
        card = mutate(json.loads(good), self.chance)
        if isinstance(card, dict):
            try:
                card["sha256"] = _digest(card)
            except (ValueError, TypeError):  # a NaN: JSON does not have it
                pass
        path.write_text(json.dumps(card))
        try:
            flow = Flow.load(self.folder / "flow")
            assert not bool(flow.log_prob(torch.zeros(2, flow.dim)).isnan().any())
        finally:
            path.write_text(good)

    def a_checkpoint(self) -> None:
        path = self.folder / "state"
        good = path.read_bytes()
        path.write_bytes(damaged(good, self.chance))
        try:
            read_checkpoint(path, {"seed": 1})
        finally:
            path.write_bytes(good)

    def a_result(self) -> None:
        path = self.folder / "result.json"
        text = json.dumps(mutate(self.result, self.chance)).encode()
        path.write_bytes(text if self.chance.random() < 0.7 else damaged(text, self.chance))
        record.results_table(record.read_result(path)["results"])

    def a_sweep(self) -> None:
        path = self.folder / "sweep.yaml"
        text = json.dumps(mutate(self.sweep, self.chance)).encode()  # JSON is YAML
        path.write_bytes(text if self.chance.random() < 0.7 else damaged(text, self.chance))
        read_sweep(path)

    def parameters_of_a_paper(self) -> None:
        chance = self.chance
        paper = chance.choice(list(self.defaults))
        name = chance.choice([*self.defaults[paper], "seeed", ""])
        value = chance.choice([*ODD, "[1", "{", "!!python/object/apply:os.system ['true']", "0x10", "1_000"])
        check_parameters(chance.choice([paper] * 9 + ["infernal"]), "smoke", {name: value})

    def a_formula(self) -> None:
        words = [
            "x",
            "m",
            "log",
            "exp",
            "(",
            ")",
            "+",
            "-",
            "*",
            "/",
            "**",
            "2",
            "1e999",
            ".",
            "[0]",
            "lambda:",
            "__",
            ",",
        ]
        text = "".join(self.chance.choice(words) for _ in range(self.chance.randint(0, 9)))
        values = {name: torch.tensor([1.5], dtype=torch.float64) for name in ("x", "m")}
        Expression(text, ["x", "m"]).with_slope(values, "x")

    def events_of_a_likelihood(self) -> None:
        chance, weights = self.chance, None
        x = torch.rand(50, 1, generator=torch.Generator().manual_seed(1)) * 500 + 50
        if chance.random() < 0.5:
            x = odd_numbers(x, chance)
        else:
            weights = odd_numbers(torch.ones(50), chance)
        mixture = Mixture({"signal": bump.BreitWigner(), "background": bump.Exponential()})
        value, slope = mixture.at(x, weights, counts=chance.random() < 0.5).value_and_gradient(
            torch.tensor([300.0, 10.0, 100.0])
        )
        assert not bool(value.isnan())

    def a_file_of_dijets(self) -> None:
        path, chance = self.folder / "events.npz", self.chance
        columns = {name: self.dijets[:, k].numpy().copy() for k, name in enumerate(dijet.FEATURES)}
        name = chance.choice(list(columns))
        what = chance.randrange(5)
        if what == 0:
            columns[name] = columns[name][:-1]
        elif what == 1:
            columns[name][3] = chance.choice([math.nan, math.inf, -5.0, 1e30])
        elif what == 2:
            columns[chance.choice(["mjj", "x", "weights", "masses"])] = columns.pop(name)
        elif what == 3:
            columns[name] = np.array(["a"] * 30, dtype=object if chance.random() < 0.5 else None)
        np.savez(path, **columns)
        if what == 4:
            path.write_bytes(damaged(path.read_bytes(), chance))
        dijet.read_dijet_events(path)


def fuzz(folder: Path, n: int, seed: int = 1) -> dict[str, dict[str, Any]]:
    """n odd inputs over all readers: for each the numbers of accepted and refused ones, and the surprises."""
    chance = random.Random(seed)
    readers = Readers(folder, chance)
    names = [name for name in vars(Readers) if not name.startswith("_")]
    counts = {name: {"accepted": 0, "refused": 0, "surprises": []} for name in names}
    for k in range(n):
        name = names[k % len(names)]
        chance.seed(f"{seed} {k}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(readers, name)()
            counts[name]["accepted"] += 1
        except ValueError as error:
            if str(error).strip():
                counts[name]["refused"] += 1
            else:
                counts[name]["surprises"].append(f"case {k}: a refusal without a word")
        except Exception as error:
            counts[name]["surprises"].append(f"case {k}: {type(error).__name__}: {error}"[:200])
    return counts


if __name__ == "__main__":
    where, number, begin = sys.argv[1:]
    torch.set_num_threads(1)
    json.dump(fuzz(Path(where), int(number), int(begin)), sys.stdout)
