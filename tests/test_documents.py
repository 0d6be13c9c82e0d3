"""Documents are read safely and strictly."""

from pathlib import Path

import pytest

from netsim.documents import read_yaml
from netsim.errors import InputError


def test_only_true_and_false_are_truth_values(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("on: off\nyes: no\na: true\nb: False\n")
    assert read_yaml(tmp_path / "x.yaml") == {"on": "off", "yes": "no", "a": True, "b": False}


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "", "a: [1\n", "a: !!python/object/apply:os.system [ls]\n", "a: 1\na: 2\n", "? [a]\n: b\n", "\x00"],
)
def test_anything_but_a_plain_mapping_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_yaml(tmp_path / "x.yaml")
