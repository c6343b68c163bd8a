"""Load a user's own Python object, named as ``FILE.py:NAME``."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtab.config.user_text import decode_user_text
from trimtab.errors import RewardError, nearest
from trimtab.rewards.base import describe


def is_user_file(name: str) -> bool:
    """Say whether ``name`` is of the form ``FILE.py:NAME`` (or only ``FILE.py``, to be told what is missing).

    Example:
        >>> is_user_file("my/reward.py:polite"), is_user_file("sales")
        (True, False)
    """
    return name.endswith(".py") or ".py:" in name


def load_from_file(name: str, *, as_script: bool = False) -> Callable[..., Any]:
    """Return the function, class or object of ``FILE.py:NAME``; the file runs once per process.

    The file's folder stays importable, for what is imported only when a function is called. With
    ``as_script`` this process is there for the file alone, which then is what it would be under
    ``python FILE.py``, except that ``__name__`` is not ``"__main__"``: its folder comes first, ``sys.argv``
    names it, and processes that it starts find its functions and classes.

    Raises:
        RewardError: no such file or name (the nearest one is told), or the file cannot be run.
    """
    file, _, wanted = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    path = Path(file).expanduser()
    if not path.is_file():
        close = nearest(path.name, [p.name for p in path.parent.glob("*.py")]) if path.parent.is_dir() else ""
        raise RewardError(f"There is no file {path}{close}; a reward is given as FILE.py:function.")
    module = _run(path.resolve(), as_script=as_script)
    own = {key for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    if not wanted:
        raise RewardError(f"{path} does not say which function to use: write {path}:NAME{nearest('', own)}.")
    found = getattr(module, wanted, None)
    if found is None:
        raise RewardError(f"{path} has no function '{wanted}'{nearest(wanted, own)}.")
    if not callable(found) and not hasattr(found, "score"):
        raise RewardError(f"'{wanted}' of {path} is a {type(found).__name__}, which cannot be called.")
    return found  # type: ignore[no-any-return]


def describe_error(error: BaseException, file: str | None) -> str:
    """What a user's ``file`` raised, in a line; with the way out for a file that it looked for elsewhere."""
    said, wanted = describe(error), getattr(error, "filename", None)
    if not isinstance(error, FileNotFoundError) or not isinstance(wanted, str) or not file:
        return said
    if Path(wanted).is_absolute() or not (Path(file).parent / wanted).exists():
        return said
    return (
        f"{said} (it lies beside {Path(file).name}, but paths are read from where trimtab was started: write "
        f"Path(__file__).parent / {wanted!r})"
    )


def _run(path: Path, *, as_script: bool) -> ModuleType:
    """Execute the file as a module of its own, or return it when this process has it already."""
    content = path.read_bytes()
    if b"\0" in content:  # Python reads no such file, and its own words do not say why
        decode_user_text(content, f"The reward file {path}", RewardError)
    key = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:12]
    # The name that multiprocessing gives to the main file in processes that it starts.
    module_name = "__mp_main__" if as_script else f"trimtab_user_{path.stem}_{key}"
    if as_script:
        importlib.import_module("multiprocessing")  # which takes that name when it is imported first
    elif module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.parent))
    if as_script:
        sys.modules["__main__"].__file__ = str(path)  # which such a process runs first
        sys.argv[:] = [str(path)]
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's: whatever it raises is told in one sentence
        del sys.modules[module_name]
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        raise RewardError(f"{path} cannot be imported{line}: {describe_error(error, str(path))}.") from None
    finally:
        if not as_script:  # others live in this process too: what they import comes first
            sys.path.remove(str(path.parent))
            sys.path.append(str(path.parent))
    return module
