"""Documents are read safely and strictly."""

import os
import pickle
import time
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from netsim.documents import Document, Label, located, read_yaml, validate
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


TRAPS = "time: 1:30\nold: 010\nday: 2024-01-01\nsize: 1_000\nshare: 5.0e-3\nsmall: 1e-3\nword: .inf\n"


def test_words_of_yaml_1_1_stay_words(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(TRAPS)
    assert read_yaml(tmp_path / "x.yaml") == {
        "time": "1:30",
        "old": "010",
        "day": "2024-01-01",
        "size": 1000,
        "share": 0.005,
        "small": 0.001,
        "word": ".inf",
    }


def bomb(levels: int) -> str:
    """Each level stands for nine of the one before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (bomb(9), 6, "200,000 values"),
        ("a: 1\nb: &b [*b]\n", 2, "alias inside"),
        ("a: " + "[" * 100_000, 1, "32 levels"),
        ("a:\n" + "- x\n" * 200_001, 199_999, "200,000 values"),
        ("a: 1\nb: 2\na: 3\n", 3, "given twice"),
    ],
)
def test_a_document_is_bounded_before_it_is_built(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(InputError, match=words) as error:
        read_yaml(path)
    assert error.value.line == line
    assert len(str(error.value)) < 400 + len(str(path))
    assert time.monotonic() - began < 10


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(InputError, match="not a regular file"):
        read_yaml(tmp_path / "x.yaml")


class Inner(Document):
    source: str = Field(alias="from")
    many: tuple[int, ...] = ()


class Outer(Document):
    one: Inner | None = None
    several: tuple[str | Inner, ...] = ()
    flag: bool = False
    mode: Literal["bf16", "fp32"] = "bf16"
    label: Label | None = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flag: true\noen: {from: a}\n", r"line 2: oen: found the key 'oen'; did you mean 'one'\?"),
        ("one:\n  frm: a\n", r"line 2: one\.frm: .* did you mean 'from'\? allowed: only from, many"),
        ("one: {}\n", r"line 1: one\.from: found nothing; allowed: this field must be given"),
        ("several:\n- a\n- form: b\n", r"line 3: several\.1\.form: .* 'from'\? allowed: only from, many"),
        ("one:\n  from: a\n  many: [1, true]\n", r"line 3: one\.many: .*not true or false"),
        ("one:\n  from: a\n  many:\n  - 1\n  - 1:30\n", r"line 5: one\.many\.1: found '1:30'; allowed: a whole number"),
        ("mode: bf17\n", r"line 1: mode: found 'bf17'; did you mean 'bf16'\?"),
        ("one: 3\n", r"line 1: one: found 3; allowed: a mapping of from, many"),
        ('label: "a\\eb"\n', "without control characters"),
        ('label: "  "\n', "a letter or a digit"),
    ],
)
def test_an_error_has_its_line_and_the_files_spelling(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message), located():
        validate(Outer, read_yaml(path), str(path))


def test_an_error_survives_the_way_between_processes() -> None:
    error = InputError.unknown("x.yaml", "method", "dilco", ["ddp", "diloco"])
    again = pickle.loads(pickle.dumps(error))
    assert (
        str(again) == str(error) == "x.yaml: method: found 'dilco'; did you mean 'diloco'? allowed: one of ddp, diloco"
    )


def test_what_was_found_is_shown_shortened() -> None:
    nested: object = "x"
    for _ in range(50):
        nested = [nested] * 9
    for value in (nested, "x" * 10**6, 10**5000, {str(n): nested for n in range(10**4)}):
        assert len(str(InputError("x", "y", value, "less"))) < 200
