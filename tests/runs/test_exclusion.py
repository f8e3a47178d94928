"""The paper on exclusions: its numbers have their names, and a second run takes the finished points of the first."""

import json

import pytest

from hepinf.runs.notebook import execute

pytest.importorskip("papermill")


def test_an_exclusion_is_recorded_and_resumed(tmp_path):
    folder = execute("exclusion", "smoke", {"pyhf_points": 0}, output=tmp_path / "run", progress=False)
    results = {entry["name"]: entry for entry in json.loads((folder / "result.json").read_text())["results"]}
    points, read = results["points"]["value"], results["read"]["value"]
    assert points == read > 50 and results["failed"]["value"] == 0 and results["seconds"]["value"] > 0
    observed = {name: entry["value"] for name, entry in results.items() if name.startswith("cls/")}
    assert len(observed) == 2 * points and all(0 <= value <= 1 for value in observed.values())
    assert observed["cls/600_200_60/observed"] < 0.05 < observed["cls/1200_200_60/observed"]
    assert 600 < results["reach/MN1=60/observed"]["value"] < 1200
    # a mark in the file of finished points comes back, so it was not computed again
    file = folder / "points_hard.json"
    kept = json.loads(file.read_text())
    marked = next(row for row in kept["points"].values() if row["name"] == "S_600_200_60")
    marked["observed"], marked["expected"] = 0.0123, [0.0] * 5
    file.write_text(json.dumps(kept))
    execute("exclusion", "smoke", {"pyhf_points": 0}, output=folder, progress=False)
    again = {entry["name"]: entry["value"] for entry in json.loads((folder / "result.json").read_text())["results"]}
    assert again["cls/600_200_60/observed"] == 0.0123
