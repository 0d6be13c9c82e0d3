"""What `import longhaul` gives: documented, exported, typed, light, and as docs/api.md says."""

import doctest
import inspect
import re
import subprocess
import sys

import pytest

import longhaul
from harness.spec.presets import find_model
from longhaul.api_page import api_page, public_names
from netsim.library import ROOT

DESCRIBED = [name for name in longhaul.__all__ if name != "__version__"]


def test_every_public_name_is_exported_and_no_other() -> None:
    assert sorted(longhaul.__all__) == longhaul.__all__
    assert {name for name in vars(longhaul) if name in longhaul._HOMES} <= set(longhaul.__all__)
    assert set(longhaul._HOMES) == set(DESCRIBED)
    assert set(longhaul.__all__) <= set(dir(longhaul))
    for name in longhaul.__all__:
        assert getattr(longhaul, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="run_suit"):
        _ = longhaul.run_suit  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_is_documented(name: str) -> None:
    what = getattr(longhaul, name)
    text = inspect.getdoc(what) or ""
    assert "Example:" in text
    if not inspect.isclass(what):
        assert "Raises:" in text
        assert "Returns:" in text or "Yields:" in text
        for parameter in inspect.signature(what).parameters:
            assert re.search(rf"^    {parameter}: ", text, re.MULTILINE), parameter


@pytest.mark.parametrize("name", public_names())
def test_the_example_of_a_public_name_is_true(name: str) -> None:
    what = getattr(longhaul, name)
    home = dict(vars(sys.modules[what.__module__]))
    (test,) = doctest.DocTestFinder(recurse=False).find(
        what, name, globs={**home, "longhaul": longhaul, "find_model": find_model}
    )
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, longhaul; longhaul.load_topology('lan'); longhaul.Plan; longhaul.Method; longhaul.__version__;"
        "assert not {'torch', 'pandas', 'matplotlib', 'scipy', 'docker', 'simpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_page_of_the_interface_is_up_to_date() -> None:
    stored = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert stored == api_page(), "run: longhaul docs api"
