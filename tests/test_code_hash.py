"""A run's identity follows from the code that it executes, and from no other."""

from harness.records.code_hash import code_hash, imported_by, module_hashes


def test_a_run_depends_on_what_its_processes_import() -> None:
    modules = imported_by(("harness.worker_main", "algorithms.methods.diloco"))
    assert {"harness.worker.pacing", "algorithms.exchange", "netsim.traffic", "algorithms.methods.diloco"} <= modules


def test_a_run_depends_on_no_other_method_or_report() -> None:
    """A run does not depend on other methods benchmarks or reports."""
    modules = imported_by(
        ("harness.run.execution", "harness.worker_main", "netsim.emulated.node.agent", "algorithms.methods.diloco")
    )
    assert not {name for name in modules if name.startswith(("harness.bench", "longhaul.commands", "reports"))}
    assert not {name for name in modules if name.startswith("algorithms.methods.")} - {"algorithms.methods.diloco"}


def test_two_methods_have_two_identities() -> None:
    assert code_hash("ddp") != code_hash("diloco")


def test_each_module_that_a_run_executes_has_a_hash() -> None:
    first, second = module_hashes("ddp"), module_hashes("diloco")
    assert {"harness.worker.pacing", "algorithms.methods.ddp"} <= set(first)
    assert {"algorithms.methods.ddp", "algorithms.methods.diloco"} <= set(first) ^ set(second)
    assert all(second[name] == value for name, value in first.items() if name in second)
