"""Every paper can be run by its name, at every scale, and read without being run."""

import io
import json
import tokenize
from pathlib import Path

import pytest
import yaml

from hepinf.runs.papers import coerce_parameter, papers, parameters_of

PAPERS = [pytest.param(paper, id=paper.name) for paper in papers().values()]


@pytest.mark.parametrize("paper", PAPERS)
def test_defaults_are_smoke_and_every_parameter_is_explained(paper):
    defaults = parameters_of(paper.path)
    assert (defaults["scale"], defaults["device"], defaults["output"]) == ("smoke", "auto", "")
    assert type(defaults["seed"]) is int
    cells = json.loads(paper.path.read_text())["cells"]
    (source,) = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    ends = {token.end[0] for token in tokens if token.type == tokenize.NEWLINE}
    explained = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    assert ends <= explained, f"no comment in line {sorted(ends - explained)} of the parameters cell"


@pytest.mark.parametrize("paper", PAPERS)
def test_scales_name_known_parameters_and_their_cost(paper):
    """Plain papermill injects a scale file as it stands: names and types must be right without our checks."""
    defaults = parameters_of(paper.path)
    assert set(paper.scales) == {"smoke", "laptop", "paper"}
    for scale, cost in paper.scales.items():
        assert cost, f"{paper.name}.{scale}.yaml does not begin with '# cost: ...'"
        values = yaml.safe_load(paper.path.with_suffix(f".{scale}.yaml").read_text())
        assert values["scale"] == scale
        for name, value in values.items():
            assert name in defaults, f"{name} in {paper.name}.{scale}.yaml is no parameter"
            coerce_parameter(name, value, defaults[name])
        if scale == "smoke":
            assert values == {"scale": "smoke"}, "the notebook's defaults are the smoke scale"


@pytest.mark.parametrize("paper", PAPERS)
def test_the_notebook_is_small(paper):
    assert Path(paper.path).stat().st_size < 1_000_000
