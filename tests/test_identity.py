"""A run's identity follows from the code that it executes, and from no other."""

from harness.identity import code_identity, imported_by


def test_a_run_depends_on_what_its_processes_import() -> None:
    modules = imported_by(("harness.trainer", "algorithms.methods.diloco"))
    assert {"harness.clock", "algorithms.exchange", "netsim.traffic", "algorithms.methods.diloco"} <= modules


def test_a_run_does_not_depend_on_other_methods_benchmarks_or_reports() -> None:
    modules = imported_by(("harness.cell", "harness.trainer", "harness.agent", "algorithms.methods.diloco"))
    assert not {name for name in modules if name.startswith(("harness.bench", "harness.commands", "reports"))}
    assert not {name for name in modules if name.startswith("algorithms.methods.")} - {"algorithms.methods.diloco"}


def test_two_methods_have_two_identities() -> None:
    assert code_identity("ddp") != code_identity("diloco")
