"""A seccomp filter as the kernel takes it: what no solution of a task needs is answered with an error.

Denied: sockets of every family, tracing and reading other processes, mounts and namespaces, kernel modules,
keys, bpf, performance counters, io_uring. Where no namespaces stand between a solution and the host
(``shares_host``), also: rights and times of files, IPC that outlives its maker, watching files, other
processes' priorities and limits. https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NOT_PERMITTED, _NOT_IMPLEMENTED = 1, 38
_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag of clone
_X32 = 0x40000000  # numbers of the x32 interface, a second door to the same calls
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

# Calls of the last years have one number on every machine: io_uring, the new mount calls, pidfd_getfd.
_ANYWHERE = frozenset({*range(425, 434), 438, 442})
# process_madvise, fchmodat2, setxattrat, removexattrat, file_setattr.
_ANYWHERE_BESIDE_HOST = frozenset({440, 452, 463, 466, 469})
_CLONE3 = 435


@dataclass(frozen=True, slots=True)
class _Machine:
    """How a processor numbers its calls."""

    architecture: int  # AUDIT_ARCH_*
    clone: int
    programs: frozenset[int]  # execve, execveat
    denied: frozenset[int]
    denied_beside_host: frozenset[int]
    only_on_oneself: frozenset[int]  # the process in the first argument must be 0; where the host is shared


# In the order of both tables: socket, ptrace, personality, pivot_root, mount, umount2, swapon, reboot,
# sethostname, setdomainname, init_module, delete_module, kexec_load, add_key, request_key, keyctl, unshare,
# perf_event_open, name_to_handle_at, open_by_handle_at, setns, process_vm_readv and _writev, kcmp,
# finit_module, kexec_file_load, bpf, userfaultfd; then, on x86 alone, iopl and ioperm.
# Beside the host: chmod, chown, utime, setxattr, removexattr in all forms; memory, semaphores and queues of
# System V, queues of POSIX; inotify, fanotify, syslog, setpriority, ioprio_set, migrate_pages, move_pages.
# Only on oneself: sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr, prlimit64.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        56,
        frozenset({59, 322}),
        frozenset({41, 101, 135, 155, 165, 166, 167, 169, 170, 171, 175, 176, 246, 248, 249, 250, 272, 298})
        | frozenset({303, 304, 308, 310, 311, 312, 313, 320, 321, 323, 172, 173}),
        frozenset({*range(90, 95), 260, 268, 132, 235, 261, 280, *range(188, 191), *range(197, 200)})
        | frozenset({*range(29, 32), *range(64, 72), 220, *range(240, 246), 253, 254, 294, 300, 301})
        | frozenset({103, 141, 251, 256, 279}),
        frozenset({142, 144, 203, 314, 302}),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        220,
        frozenset({221, 281}),
        frozenset({198, 117, 92, 41, 40, 39, 224, 142, 161, 162, 105, 106, 104, 217, 218, 219, 97, 241})
        | frozenset({264, 265, 268, 270, 271, 272, 273, 294, 280, 282}),
        frozenset({*range(52, 56), 88, 5, 6, 7, 14, 15, 16, *range(180, 198), 26, 27, 262, 263})
        | frozenset({116, 140, 30, 238, 239}),
        frozenset({118, 119, 122, 274, 261}),
    ),
}


def seccomp_filter(
    machine: str | None = None, *, allows_programs: bool = True, shares_host: bool = False
) -> bytes:
    """The filter for ``machine`` (this one's when not given) as the kernel's array; empty where unknown.

    Without ``allows_programs`` no other program can be executed; ``shares_host`` adds what only namespaces
    would keep away.

    Example:
        >>> len(seccomp_filter("x86_64")) % 8, seccomp_filter("pdp11")
        (0, b'')
    """
    name = machine or platform.machine()
    if name not in _MACHINES:
        return b""
    numbers = _MACHINES[name]
    denied = numbers.denied | _ANYWHERE | (frozenset() if allows_programs else numbers.programs)
    if shares_host:
        denied |= numbers.denied_beside_host | _ANYWHERE_BESIDE_HOST
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, numbers.architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if name == "x86_64":
        program += [(_GREATER_EQUAL, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in sorted(denied):
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | _NOT_PERMITTED)]
    for number in sorted(numbers.only_on_oneself if shares_host else ()):
        program += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUAL, 0, 1, 0)]
        program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | _NOT_PERMITTED)]
    # clone3 hides its flags behind a pointer; told that it is missing, the C library uses clone.
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | _NOT_IMPLEMENTED)]
    program += [
        (_EQUAL, 0, 3, numbers.clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACE),
        (_RETURN, 0, 0, _ERROR | _NOT_PERMITTED),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
