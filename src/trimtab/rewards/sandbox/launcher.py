"""Starts sandboxes on order: a child that takes its own rights away, then becomes the program it is told.

Standard library only, started as ``python -I -S -c SOURCE`` with a socket on stdin, one per trainer; it ends
when the trainer's end of that is closed. It runs nothing of a solution itself: each child executes a program
anew. An order is JSON: ``{"start": SPECIFICATION}`` with three descriptors (the program's stdin, stdout and
stderr), answered by the child's number; or ``{"end": NUMBER, "signal": SIGNAL}``, answered by 1 once it is
gone, with what is left in its process group, and by 0 until then. A number is nobody else's before that.

The specification: ``cgroups`` (directories to join), ``limits`` (rlimits by
name), ``user`` (uid and gid to become, when root), ``mounts`` (what only root may walk to, and where it is
shown to this process alone), ``filter`` (a seccomp program in hex, loaded here when ``loads_filter``, else
given to the command as the descriptor ``{filter}``), ``landlock`` (what is handled, and what is granted by
path; null without), ``program`` (executed through a descriptor, for the same reason), ``command``.

With a ``keeper`` (``folder``, ``max_bytes``, ``max_files``) a grandchild becomes the program, and the child
stays outside as the keeper of all that descends from it, since there is no process namespace that would end
them.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

Specification = dict[str, Any]  # as the first lines say

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER_MODE, _SUBREAPER = 38, 22, 2, 36
_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1  # Landlock, on every machine
_LOOK_SECONDS = 0.02  # how often the keeper looks at the private folder and at its own parent
_ROOM = 1 << 20  # bytes of an order

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Take orders until the trainer is gone."""
    control = socket.socket(fileno=os.dup(0))
    started = set()
    while True:
        try:
            content, extra, _, _ = control.recvmsg(_ROOM, socket.CMSG_SPACE(12), socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            content = b""
        if not content:
            os._exit(0)
        order = json.loads(content)
        if "start" in order:
            files = struct.unpack("3i", extra[0][2])
            pid = _start(order["start"], files, control)
            started.add(pid)
            for file in files:
                os.close(file)
            control.send(b"%d" % pid)
        else:
            pid = order["end"]
            is_gone = pid not in started or _is_ended(pid, order["signal"])
            started -= {pid} if is_gone else set()
            control.send(b"%d" % is_gone)


def _start(spec: Specification, files: tuple[int, ...], control: socket.socket) -> int:
    """Fork a child that becomes the program, or starts it and keeps it."""
    launcher = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        control.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        for file in files:
            os.close(file)
        if spec["keeper"] is None:
            become(spec)
        else:
            keep(spec, spec["keeper"], launcher)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _is_ended(pid: int, number: int) -> bool:
    """Signal a child; whether it has ended, and all of its process group with it."""
    _signal(os.kill, pid, number)
    if number == signal.SIGKILL:
        _signal(os.killpg, pid, number)
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return False
    _signal(os.killpg, pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    try:
        send(pid, number)
    except OSError:
        return


def become(spec: Specification) -> NoReturn:
    """Join cgroups, open what needs rights, limit, drop the user, and execute the command."""
    for folder in spec["cgroups"]:
        with open(os.path.join(folder, "cgroup.procs"), "w") as file:
            file.write(str(os.getpid()))
    if spec["mounts"]:
        _mount(spec["mounts"])
    executable = os.open(spec["program"], os.O_PATH | os.O_CLOEXEC)
    ruleset = None if spec["landlock"] is None else make_ruleset(**spec["landlock"])
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
    if spec["keeper"] is not None:
        os.chdir(spec["keeper"]["folder"])
    if ruleset is not None:
        _forbid_new_privileges()
        _system_call(_RESTRICT_SELF, ruleset, 0)
    if spec["loads_filter"]:
        load_filter(program)
    command = [str(opened["filter"]) if word == "{filter}" else word for word in spec["command"]]
    os.execve(f"/proc/self/fd/{executable}", command, spec["environment"])


def keep(spec: Specification, keeper: dict[str, Any], launcher: int) -> NoReturn:
    """Start the program as a child; end it and all its descendants when it ends, when told to (SIGTERM), when
    the launcher is gone, or when the private folder is full. Then remove the folder and the cgroups."""
    signals = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    # What loses its parent becomes a child of this process, however often it forked.
    _libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    os.mkdir(keeper["folder"], 0o700)
    if spec["user"] and os.getuid() == 0:
        os.chown(keeper["folder"], *spec["user"])
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            become(spec)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    while os.getppid() == launcher and not _is_full(keeper):
        found = signal.sigtimedwait(signals, _LOOK_SECONDS)
        if (found is not None and found.si_signo == signal.SIGTERM) or _reap(pid):
            break
    _end_descendants()
    for name in _names(keeper["folder"]):
        os.unlink(os.path.join(keeper["folder"], name))
    for folder in (keeper["folder"], *spec["cgroups"]):
        try:
            os.rmdir(folder)
        except OSError:
            continue
    os._exit(0)


def _reap(pid: int) -> bool:
    """Take in what has ended; whether ``pid`` is among it."""
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if found in (0, pid):
            return found == pid


def _end_descendants() -> None:
    """Kill and take in until there are none: what a killed process had started is a child of ours then."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.001)


def descendants(root: int) -> list[int]:
    """The processes below ``root``, without itself."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(root, []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _is_full(keeper: dict[str, Any]) -> bool:
    """Whether the private folder, which has no folders in it, holds too much or too many."""
    size = count = 0
    for name in _names(keeper["folder"]):
        count += 1
        try:
            size += 512 * os.lstat(os.path.join(keeper["folder"], name)).st_blocks
        except OSError:
            continue
        if count > keeper["max_files"] or size > keeper["max_bytes"]:
            return True
    return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def make_ruleset(handled: Sequence[int], rules: Iterable[tuple[str, int]]) -> int:
    """A Landlock ruleset as a descriptor: ``handled`` (files, network, scopes) is denied, but for rules."""
    room = ctypes.create_string_buffer(struct.pack("QQQ", *handled), 24)
    ruleset = _system_call(_CREATE_RULESET, room, 24, 0)
    for path, access in rules:
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # what is not there needs no right
        _system_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, file), 0)
        os.close(file)
    return ruleset


def _system_call(number: int, *arguments: Any) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    found = _libc.syscall(ctypes.c_long(number), *words)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return int(found)


def _mount(places: dict[str, str]) -> None:
    """Show directories elsewhere, in a mount namespace of this process."""
    if _libc.unshare(_NEW_MOUNTS) or _libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")
    for source, target in places.items():
        if _libc.mount(source.encode(), target.encode(), None, _RECURSIVE | _BIND, None):
            raise OSError(ctypes.get_errno(), "mount " + source)


def _forbid_new_privileges() -> None:
    if _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")


def load_filter(program: bytes) -> None:
    """Forbid new privileges, and install a seccomp filter on this process for good."""
    _forbid_new_privileges()
    if program:
        room = ctypes.create_string_buffer(program, len(program))
        head = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(room)))
        if _libc.prctl(_SECCOMP, _FILTER_MODE, head, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    main()
