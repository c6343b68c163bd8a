"""Takes its own rights away, then becomes the program it is told: ``python -I -S -c SOURCE SPECIFICATION``.

Standard library only. The specification is JSON: ``cgroups`` (directories to join), ``limits`` (rlimits by
name), ``user`` (uid and gid to become, when root), ``mounts`` (what only root may walk to, and where it is
shown to this process alone), ``filter`` (a seccomp program in hex, loaded here when ``loads_filter``, else
given to the command as the descriptor ``{filter}``), ``program`` (executed through a descriptor, for the
same reason), ``command``.
"""

import ctypes
import json
import os
import resource
import struct
import sys

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER_MODE = 38, 22, 2
_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000


def main():
    """Join cgroups, open what needs rights, limit, drop the user, and execute the command."""
    spec = json.loads(sys.argv[1])
    for folder in spec["cgroups"]:
        with open(os.path.join(folder, "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))
    if spec["mounts"]:
        _mount(spec["mounts"])
    executable = os.open(spec["program"], os.O_PATH | os.O_CLOEXEC)
    opened = {}
    program = bytes.fromhex(spec["filter"])
    if program and not spec["loads_filter"]:
        opened["filter"] = os.memfd_create("filter", 0)
        os.write(opened["filter"], program)
        os.lseek(opened["filter"], 0, os.SEEK_SET)
        os.set_inheritable(opened["filter"], True)
    for name, value in spec["limits"].items():
        number = getattr(resource, name)
        _, hard = resource.getrlimit(number)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(number, (value, value))
    if spec["user"] and os.getuid() == 0:
        uid, gid = spec["user"]
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if spec["loads_filter"]:
        load_filter(program)
    command = [str(opened["filter"]) if word == "{filter}" else word for word in spec["command"]]
    os.execve(f"/proc/self/fd/{executable}", command, spec["environment"])


def _mount(places):
    """Show directories elsewhere, in a mount namespace of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) or libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")
    for source, target in places.items():
        if libc.mount(source.encode(), target.encode(), None, _RECURSIVE | _BIND, None):
            raise OSError(ctypes.get_errno(), "mount " + source)


def load_filter(program):
    """Forbid new privileges, and install a seccomp filter on this process for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if program:
        room = ctypes.create_string_buffer(program, len(program))
        head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(room)))
        if libc.prctl(_SECCOMP, _FILTER_MODE, head, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    main()
