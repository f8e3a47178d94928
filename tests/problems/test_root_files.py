"""ROOT files that are cut off, and trees with several cycles."""

import numpy as np
import pytest

from hepinf.core.errors import InputError
from hepinf.problems.htautau.files import read_columns

uproot = pytest.importorskip("uproot")


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.root"
    with uproot.recreate(path) as file:
        file["events"] = {"x": np.arange(500.0)}
    with uproot.update(path) as file:
        file["events"] = {"x": np.arange(3.0) * 7}
    return path


def test_cycles(whole):
    for tree, expected in ((None, 3), ("events", 3), ("events;1", 500), ("events;2", 3)):
        assert len(read_columns(whole, ["x"], tree)["x"]) == expected
    for tree, message in (
        ("events;7", "tree 'events' has no cycle 7; there are 1, 2"),
        ("event;1", "unknown tree 'event'; did you mean 'events'?"),
    ):
        with pytest.raises(InputError) as caught:
            read_columns(whole, ["x"], tree)
        assert str(caught.value) == f"{whole}: {message}"


@pytest.mark.parametrize("length", [0, 3, 50, 300, 700, 1500, 3000])
def test_a_file_that_is_cut_off_is_one_line(whole, length):
    path = whole.with_name("cut.root")
    path.write_bytes(whole.read_bytes()[:length])
    with pytest.raises(InputError, match="cut.root: it cannot be read, is it cut off") as caught:
        read_columns(path, ["x"])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_columns(tmp_path / "none.root", ["x"])
    (tmp_path / "words.root").write_text("hello")
    with pytest.raises(InputError, match="of another kind"):
        read_columns(tmp_path / "words.root", ["x"])
    with uproot.recreate(tmp_path / "h.root") as file:
        file["h"] = np.histogram([1.0, 2.0])
    with pytest.raises(InputError, match="there is no tree in this file"):
        read_columns(tmp_path / "h.root", ["x"])
