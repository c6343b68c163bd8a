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


def load_kernel(name: str, macros: Mapping[str, int]) -> ctypes.CDLL | None:
    """Return the library of ``NAME.c`` compiled with ``macros``, or None where that cannot be had."""
    if os.environ.get(OFF):
        return None
    return _load(name, tuple(sorted(macros.items())))


@cache
def _load(name: str, macros: tuple[tuple[str, int], ...]) -> ctypes.CDLL | None:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source = Path(__file__).with_name(f"{name}.c")
    flags = [*_FLAGS, *(f"-D{key}={value}" for key, value in macros)]
    try:
        library = _cached_library(compiler, source, flags)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None


def _cached_library(compiler: str, source: Path, flags: list[str]) -> Path:
    texts = [source.read_text(), *(header.read_text() for header in sorted(source.parent.glob("*.h")))]
    key = "\0".join((*texts, compiler, *flags, _processor())).encode()
    folder = _cache_directory()
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


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "trimtab" / "kernels"


def _processor() -> str:
    """What ``-march=native`` depends on: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
