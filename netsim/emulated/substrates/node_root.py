"""The root of a node that is made of namespaces: what a container's would be, mounted by the switch. Needs root.

It is built in a mount namespace that the node's processes alone are in, so nothing of it is left after them: a file
system in memory, read-only once it stands, and in it what `visible` names, proc, sys, a few devices and a /tmp.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"dev/fd": "/proc/self/fd", "dev/stdin": "/proc/self/fd/0", "dev/stdout": "/proc/self/fd/1"}
_OWN = "nosuid,nodev,noexec"


def build_root(
    root: Path, binds: Sequence[tuple[str, str, bool]], links: Mapping[str, str], files: Mapping[str, str]
) -> None:
    """Mounts everything below `root`, in the mount namespace of this process. binds: path, source, read-only.

    Raises OSError with what mount complained about.
    """
    _run("mount", "--make-rprivate", "/")
    root.mkdir(mode=0o755, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "mode=755,size=16m,nosuid,nodev", "longhaul", str(root))
    for folder in ("proc", "sys", "dev", "dev/shm", "tmp", "run", "etc"):
        (root / folder).mkdir()
    for name, target in {**links, **_LINKS}.items():
        (root / name).symlink_to(target)
    for name, text in files.items():
        (root / name).write_text(text)
    table = [
        _entry("tmpfs", root / "tmp", "tmpfs", "mode=1777,nosuid,nodev"),
        _entry("tmpfs", root / "run", "tmpfs", f"mode=755,{_OWN}"),
        _entry("tmpfs", root / "dev/shm", "tmpfs", f"mode=1777,{_OWN}"),
        _entry("sysfs", root / "sys", "sysfs", f"ro,{_OWN}"),
    ]
    for name in _DEVICES:
        (root / "dev" / name).touch()
        table.append(_entry(f"/dev/{name}", root / "dev" / name, "none", "bind"))
    _mount_all(table)  # first, since what is visible may lie in /tmp
    for path, source, _ in binds:
        _make_place(root / path.lstrip("/"), Path(source))
    _mount_all([_entry(s, root / p.lstrip("/"), "none", "bind,ro" if kept else "bind") for p, s, kept in binds])
    _run("mount", "-o", "remount,ro", str(root))


def _make_place(place: Path, source: Path) -> None:
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    elif not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def _entry(source: str, target: Path, kind: str, options: str) -> str:
    return " ".join([*(_escaped(str(name)) for name in (source, target)), kind, options, "0 0"])


def _escaped(name: str) -> str:
    """As fstab(5) wants it."""
    return "".join(f"\\{ord(letter):03o}" if letter in " \t\n\\#" else letter for letter in name)


def _mount_all(table: Sequence[str]) -> None:
    """One call for all of them: a node has some thirty."""
    with os.fdopen(os.memfd_create("fstab"), "w") as file:
        file.write("\n".join(table) + "\n")
        file.flush()
        _run("mount", "--all", "--fstab", f"/proc/self/fd/{file.fileno()}", pass_fds=(file.fileno(),))


def _run(*argv: str, pass_fds: Sequence[int] = ()) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, pass_fds=pass_fds)
    if done.returncode:
        raise OSError(0, " ".join(done.stderr.split()) or f"{argv[0]}: exit code {done.returncode}", "a node's root")
