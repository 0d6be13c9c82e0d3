"""System calls that training never needs are refused, on every substrate. In the trainer process.

A method file runs in this process. What is refused is what container engines refuse by default: mounts, namespaces,
kernel modules, tracing other processes, keys, clocks.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from importlib import import_module

_NEW_USER_NAMESPACE = 0x10000000
_MODULES = ("seccomp", "pyseccomp")  # libseccomp's own binding, where the system has it; else the same in ctypes
_REFUSED = [
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "reboot",
    "request_key",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
    "vhangup",
]


def restrict_system_calls() -> bool:
    """From now on, for this process and its children: EPERM for what is refused. False where libseccomp is missing."""
    for name in _MODULES:
        with suppress(ImportError, OSError, RuntimeError):
            seccomp = import_module(name)
            break
    else:
        return False
    rules = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    for call in _REFUSED:
        with suppress(OSError, RuntimeError, ValueError):  # unknown to this library or this machine
            rules.add_rule(seccomp.ERRNO(errno.EPERM), call)
    flag = seccomp.Arg(0, seccomp.MASKED_EQ, _NEW_USER_NAMESPACE, _NEW_USER_NAMESPACE)
    rules.add_rule(seccomp.ERRNO(errno.EPERM), "clone", flag)
    with suppress(OSError, RuntimeError, ValueError):
        # Its flags are in memory, where a filter cannot look; the C library then takes clone.
        rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    rules.load()
    return True
