"""A seccomp filter as the kernel takes it: what no solution of a task needs is answered with an error.

Denied: sockets of every family, tracing and reading other processes, mounts and namespaces, kernel modules,
keys, bpf, performance counters, io_uring. https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import platform
import struct

_LOAD, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NOT_PERMITTED, _NOT_IMPLEMENTED = 1, 38
_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag of clone
_X32 = 0x40000000  # numbers of the x32 interface, a second door to the same calls
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data

# AUDIT_ARCH value, clone, clone3, and the denied calls by number.
_MACHINES: dict[str, tuple[int, int, int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        {
            "socket": 41,
            "ptrace": 101,
            "personality": 135,
            "pivot_root": 155,
            "mount": 165,
            "umount2": 166,
            "swapon": 167,
            "reboot": 169,
            "sethostname": 170,
            "setdomainname": 171,
            "iopl": 172,
            "ioperm": 173,
            "init_module": 175,
            "delete_module": 176,
            "kexec_load": 246,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "unshare": 272,
            "perf_event_open": 298,
            "name_to_handle_at": 303,
            "open_by_handle_at": 304,
            "setns": 308,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "kcmp": 312,
            "finit_module": 313,
            "kexec_file_load": 320,
            "bpf": 321,
            "userfaultfd": 323,
            "io_uring_setup": 425,
            "io_uring_enter": 426,
            "io_uring_register": 427,
            "open_tree": 428,
            "move_mount": 429,
            "fsopen": 430,
            "fsconfig": 431,
            "fsmount": 432,
            "fspick": 433,
            "pidfd_getfd": 438,
            "mount_setattr": 442,
        },
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        {
            "socket": 198,
            "ptrace": 117,
            "personality": 92,
            "pivot_root": 41,
            "mount": 40,
            "umount2": 39,
            "swapon": 224,
            "reboot": 142,
            "sethostname": 161,
            "setdomainname": 162,
            "init_module": 105,
            "delete_module": 106,
            "kexec_load": 104,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "unshare": 97,
            "perf_event_open": 241,
            "name_to_handle_at": 264,
            "open_by_handle_at": 265,
            "setns": 268,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "kcmp": 272,
            "finit_module": 273,
            "kexec_file_load": 294,
            "bpf": 280,
            "userfaultfd": 282,
            "io_uring_setup": 425,
            "io_uring_enter": 426,
            "io_uring_register": 427,
            "open_tree": 428,
            "move_mount": 429,
            "fsopen": 430,
            "fsconfig": 431,
            "fsmount": 432,
            "fspick": 433,
            "pidfd_getfd": 438,
            "mount_setattr": 442,
        },
    ),
}


def seccomp_filter(machine: str | None = None) -> bytes:
    """The filter for ``machine`` (this one's when not given) as the kernel's array; empty where unknown.

    Example:
        >>> len(seccomp_filter("x86_64")) % 8, seccomp_filter("pdp11")
        (0, b'')
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        return b""
    architecture, clone, clone3, denied = _MACHINES[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_GREATER_EQUAL, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in sorted(denied.values()):
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | _NOT_PERMITTED)]
    # clone3 hides its flags behind a pointer; told that it is missing, the C library uses clone.
    program += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _ERROR | _NOT_IMPLEMENTED)]
    program += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACE),
        (_RETURN, 0, 0, _ERROR | _NOT_PERMITTED),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
