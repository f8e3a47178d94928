"""The record of a run: what is picked up, what is refused, and that a written record can be read back."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from hepinf.core.errors import RunError, UsageError
from hepinf.runs.notebook import store
from hepinf.runs.papers import check_parameters, coerce_parameter, papers, parameters_of, parse_literal
from hepinf.runs.record import Run, read_result, results_table


@pytest.fixture
def run(tiny, tmp_path):
    """A run of the tiny paper that writes to `out`."""
    return Run("tiny", parameters_of(tiny) | {"output": str(tmp_path / "out"), "device": "cpu", "unrelated": object()})


def test_a_run_knows_its_parameters_and_nothing_else(run):
    names = ["scale", "seed", "device", "benchmark", "rate", "betas", "label", "fail"]
    assert list(run.parameters) == names
    assert (run.scale, run.seed, run.device) == ("smoke", 1, torch.device("cpu"))


def test_a_forgotten_parameters_cell_and_an_absent_gpu_are_named(tiny):
    values = parameters_of(tiny)
    with pytest.raises(ValueError, match="no parameter 'rate'"):
        Run("tiny", {name: value for name, value in values.items() if name != "rate"})
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        Run("tinny", values)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no GPU"):
            Run("tiny", values | {"device": "cuda"})


def test_the_written_record_is_the_one_that_is_read(run):
    run.add("a/b", torch.tensor(16.95), low=16.8, high=17.1, published=16.95, unit="events", source="Table 1")
    run.add("a/nan", math.nan, high=math.inf, low=1)
    run.add("a/none", None, reason="did not converge")
    run.write()
    result = read_result(run.output / "result.json")
    assert list(result) == [
        "schema", "paper", "scale", "parameters", "seed", "seconds", "environment", "results", "figures",
    ]  # fmt: skip
    assert result["results"] == run.results
    full, nan, none = result["results"]
    assert list(full) == [
        "name", "value", "low", "high", "published", "published_low", "published_high", "limit", "unit", "source",
    ]  # fmt: skip
    assert full["value"] == float(torch.tensor(16.95)) and full["published_low"] is None
    assert (nan["value"], nan["high"], nan["low"], nan["reason"]) == (None, None, 1, "value is nan, high is inf")
    assert (none["value"], none["reason"]) == (None, "did not converge")
    assert [path.name for path in run.output.iterdir()] == ["result.json"], "no temporary file is left"


def test_a_name_is_used_once_and_a_missing_value_has_a_reason(run):
    run.add("x", 1.0)
    with pytest.raises(ValueError, match="'x' was added before"):
        run.add("x", 2.0)
    with pytest.raises(ValueError, match="'y' has no value"):
        run.add("y", None)
    assert len(run.results) == 1


def test_without_output_nothing_is_written(tiny, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    run = Run("tiny", parameters_of(tiny))
    run.figure(SimpleNamespace(savefig=pytest.fail), "map")
    run.write()
    assert sorted(tmp_path.rglob("*")) == before
    assert run.figures == ["figures/map.png"]


def test_a_figure_is_saved_once_under_a_plain_name(run):
    from matplotlib.figure import Figure

    assert run.figure(Figure(), "map") is None
    assert (run.output / "figures" / "map.png").read_bytes().startswith(b"\x89PNG")
    for name in ("map", "../map", ""):
        with pytest.raises(ValueError, match="a new name"):
            run.figure(Figure(), name)


def test_an_artefact_is_strict_json_under_a_plain_name(run, tiny):
    run.artefact("workspace.json", {"channels": []})
    assert json.loads((run.output / "workspace.json").read_text()) == {"channels": []}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.artefact("workspace.json", {"channels": [math.nan]})
    for name in ("../x.json", "/x.json", ".json", "result.json", "notebook.ipynb", ""):
        with pytest.raises(ValueError, match="a plain file name"):
            run.artefact(name, {})
    assert [path.name for path in run.output.iterdir()] == ["workspace.json"]
    Run("tiny", parameters_of(tiny)).artefact("elsewhere.json", {})
    assert not list(tiny.parent.parent.rglob("elsewhere.json")), "without output nothing is written"


def test_the_table_shows_only_filled_columns_and_gives_reasons(run):
    run.add("t/a", 17.0, low=16.0, high=18.0, published=16.0, source="Table 1")
    run.add("t/b", math.nan, reason="dead bins")
    run.add("u", 1.0, limit=0.5)
    lines = run.table("t/").splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "name",
        "published",
        "here",
        "here against published",
    ]
    assert "17.00 [16.00, 18.00]" in lines[2] and "+6.2 %" in lines[2]
    assert "(dead bins)" in lines[3]
    assert lines[-1] == "Published: Table 1"
    assert "limit" in run.table("u") and len({len(line) for line in lines[:4]}) == 1
    assert results_table([]).count("\n") == 1


def test_the_table_about_the_run_names_what_a_reader_needs_and_no_folder(run, tmp_path):
    about = run.about()
    for fact in ("scale", "seed", "benchmark", "torch", "python", "device", "commit", "seconds"):
        assert f"\n| {fact} " in about
    assert str(tmp_path) not in about


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda r: r.update(schema=2), "its schema is not 1"),
        (lambda r: r.pop("seed"), "'seed' is missing"),
        (lambda r: r["environment"].pop("commit"), "'environment' lacks commit"),
        (lambda r: r["results"][0].pop("limit"), "result 'x': 'limit' is missing"),
        (lambda r: r["results"][0].update(value="1"), "result 'x': 'value' is missing or of the wrong type"),
        (lambda r: r["results"][0].update(value=None), "result 'x' has neither a value nor a reason"),
        (lambda r: r.update(results=[3]), "is not a hepinf result"),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(run, damage, said):
    run.add("x", 1.0)
    run.write()
    path = run.output / "result.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=said) as caught:
        read_result(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is not a hepinf result"):
        read_result(run.output / "absent.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("1e-3", 1e-3), ("true", True), ("None", None), ("null", None), ("[1, 2]", [1, 2]),
     ("[a, b]", ["a", "b"]), ("word", "word"), ("a: [", "a: [")],
)  # fmt: skip
def test_values_are_read_as_a_user_means_them(text, value):
    assert parse_literal(text) == value and type(parse_literal(text)) is type(value)


def test_a_value_takes_the_type_of_the_default():
    assert type(coerce_parameter("x", 2, 0.5)) is float
    assert coerce_parameter("x", [1, 2.5], [0.1]) == [1.0, 2.5]
    assert coerce_parameter("x", [], [1]) == [] and coerce_parameter("x", "anything", None) == "anything"
    for value, default in [
        (1.0, 1),
        (True, 1),
        (1, True),
        (1, "a"),
        ([1], 1),
        (1, [1]),
        ([1.5], [1]),
        (math.inf, None),
    ]:
        with pytest.raises(UsageError):
            coerce_parameter("x", value, default)


def test_the_scale_lies_under_the_given_values(tiny):
    assert check_parameters("tiny", "laptop", {"rate": "2e-3", "label": "12"}) == {
        "scale": "laptop", "benchmark": 2, "rate": 0.002, "label": "12",
    }  # fmt: skip
    tiny.with_suffix(".laptop.yaml").write_text("# cost: x\nscale: laptop\nrates: 1\n")
    with pytest.raises(UsageError, match="did you mean 'rate'"):
        check_parameters("tiny", "laptop")


def test_a_parameters_cell_holds_plain_literals(tiny):
    good = tiny.read_text()
    for line in ("rate = 1 / 2", "rate, b = 1, 2", "import os", "rate = x = 1"):
        tiny.write_text(good.replace("rate = 0.5", line))
        with pytest.raises(ValueError, match="not 'name = literal'"):
            parameters_of(tiny)
    tiny.write_text(good.replace('"parameters"\n', '"params"\n'))
    with pytest.raises(ValueError, match="0 cells are tagged"):
        parameters_of(tiny)


def test_packaged_papers_are_never_overwritten_by_stored_outputs(tiny, monkeypatch, tmp_path):
    import hepinf

    monkeypatch.setattr(hepinf, "__file__", str(tmp_path / "__init__.py"))
    assert papers()["tiny"].path == tiny
    with pytest.raises(UsageError, match="only in a checkout"):
        store("tiny", tmp_path)


def test_a_notebook_that_would_grow_beyond_a_megabyte_is_not_stored(tiny, tmp_path):
    import nbformat

    notebook = nbformat.read(tiny, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="x" * 1_000_001)]
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    before = tiny.read_text()
    with pytest.raises(RunError, match="the limit is 1 MB"):
        store("tiny", tmp_path)
    assert tiny.read_text() == before
