"""Compile a C file of this folder with the machine's compiler, once, and load it.

A kernel is compiled for one case (precision, head size), which takes about a second, and kept in the user's
cache directory under the hash of its source, flags and processor. Without a compiler there is no kernel, and
whoever asked goes the portable way.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

# Not -ffast-math: as a linker flag it makes the whole process flush small numbers to zero.
_FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    *(
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fno-signed-zeros",
        "-fassociative-math",
        "-freciprocal-math",
    ),
)
_TIMEOUT = 120.0  # seconds that the compiler may take
OFF = "TRIMTAB_NO_KERNELS"  # environment variable that turns compiled kernels off


# One case of each kernel: what to compile to know whether this machine can.
_CASES: dict[str, dict[str, int]] = {
    "decode": {"IS_BF16": 0, "HEAD_SIZE": 64, "GROUP": 1},
    "elementwise": {"IS_BF16": 0},
    "linear": {"IS_BF16": 1},
    "packed_attention": {"IS_BF16": 0, "SIZE": 64},
    "sample": {"IS_BF16": 0},
}


def load_kernel(name: str, macros: Mapping[str, int]) -> ctypes.CDLL | None:
    """Return the library of ``NAME.c`` compiled with ``macros``, or None where that cannot be had."""
    return None if os.environ.get(OFF) else _load(name, tuple(sorted(macros.items())))[0]


def kernel_faults() -> dict[str, str | None]:
    """Every kernel by name, compiled if it never was: why this machine cannot have it, None where it can."""
    if os.environ.get(OFF):
        return dict.fromkeys(_CASES, f"{OFF} is set")
    return {name: _load(name, tuple(sorted(macros.items())))[1] for name, macros in _CASES.items()}


@cache
def _load(name: str, macros: tuple[tuple[str, int], ...]) -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None, "there is no C compiler; install gcc"
    source = Path(__file__).with_name(f"{name}.c")
    flags = [*_FLAGS, *(f"-D{key}={value}" for key, value in macros)]
    try:
        return ctypes.CDLL(str(_cached_library(compiler, source, flags))), None
    except subprocess.CalledProcessError as error:
        return None, _first_error(error.stderr.decode(errors="replace"))
    except (OSError, subprocess.SubprocessError) as error:
        return None, " ".join(str(error).split())[:160]


def _first_error(messages: str) -> str:
    """What a compiler complains about first."""
    found = re.search(r"error: *(?:#error *)?(.*)", messages)
    lines = [found[1]] if found else messages.split("\n")
    return lines[0].strip()[:160] or "the compiler failed"


def _cached_library(compiler: str, source: Path, flags: list[str]) -> Path:
    texts = [source.read_text(), *(header.read_text() for header in sorted(source.parent.glob("*.h")))]
    key = "\0".join((*texts, compiler, *flags, processor())).encode()
    folder = cache_directory()
    library = folder / f"{source.stem}-{hashlib.sha256(key).hexdigest()[:24]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / library.name
        command = [compiler, *flags, str(source), "-o", str(built), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT)
        os.replace(built, library)  # whole or absent, also when two processes build at once
    return library


def cache_directory() -> Path:
    """Where compiled kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "trimtab" / "kernels"


def source_digest() -> str:
    """A digest of all kernels' source."""
    files = [file for end in ("c", "h") for file in sorted(Path(__file__).parent.glob(f"*.{end}"))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def processor() -> str:
    """What ``-march=native`` depends on: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))


def processor_name() -> str:
    """What the processor calls itself."""
    found = re.search(r"model name\s*:\s*(.+)", processor())
    return found[1].strip() if found else platform.processor() or platform.machine()
