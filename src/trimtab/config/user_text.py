"""Text files that a user gives (a recipe, a chat template, a rubric): one way to read them all."""

from __future__ import annotations

import codecs
from pathlib import Path

from trimtab.errors import ConfigError, TrimtabError

# The longer marks first: that of UTF-32 (little endian) begins with that of UTF-16.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def read_user_text(path: str | Path, what: str, error: type[TrimtabError] = ConfigError) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark and with ``\\n`` as line break.

    Args:
        path: the file.
        what: what it is to the user, for the sentence: ``the recipe``.
        error: the class of what is raised.

    Raises:
        TrimtabError: of class ``error``: the file is missing, a directory, not readable, or not UTF-8 text.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        raise error(f"{what[0].upper()}{what[1:]} {path} is a directory: give the file in it.")
    try:
        content = source.read_bytes()
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise error(
            f"{what[0].upper()}{what[1:]} {path} cannot be read ({reason}): check its path."
        ) from None
    return decode_user_text(content, f"{what[0].upper()}{what[1:]} {path}", error)


def decode_user_text(content: bytes, name: str, error: type[TrimtabError] = ConfigError) -> str:
    """Return ``content`` as :func:`read_user_text` does; ``name`` begins the sentence of an error.

    Raises:
        TrimtabError: of class ``error``: it is not UTF-8 text.
    """
    fix = "save it as UTF-8 and try again"
    for mark, encoding in _OTHER_MARKS:
        if content.startswith(mark):
            raise error(f"{name} is {encoding} text and not UTF-8: {fix}.")
    if b"\0" in content:
        raise error(f"{name} is not UTF-8 text: it has zero bytes, as UTF-16 or a binary file has; {fix}.")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as problem:
        # Counted in the whole file, as an editor does.
        shift = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
        line = content.count(b"\n", 0, problem.start + shift) + 1
        raise error(f"{name} is not UTF-8 text (line {line} is in another encoding): {fix}.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
