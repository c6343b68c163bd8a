"""Text of a model, made harmless for a terminal: completions are hostile until proven otherwise."""

from __future__ import annotations

import re
import unicodedata

# Escape sequences as ECMA-48 defines them, with ESC or with the one-byte C1 forms. No part can run past the
# next introducer, so the time is linear in the text whatever it holds.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor, clear screen
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x90-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC and kin
    r"|\x1b[ -/]*[0-~]?"  # every other escape, and the start of one without an end
)
_JOINERS = "\u200c\u200d"  # spelling of several scripts and of emoji needs them
_LINE_BREAKS = re.compile("\r\n|[\r\u0085\u2028\u2029]")


def sanitise(text: str) -> str:
    """Return ``text`` without escape sequences, control, bidi and other invisible format characters.

    Line breaks become ``\\n`` and stay, tabs stay, lone surrogates become U+FFFD (they cannot be encoded).

    Example:
        >>> sanitise("\\x1b[31mred\\x1b[0m \\u202eabc")
        'red abc'
    """
    text = _LINE_BREAKS.sub("\n", _ESCAPES.sub("", text))
    return "".join(_replace(char) for char in text)


def one_line(text: str, limit: int = 120) -> str:
    """Return :func:`sanitise` d text on one line of at most ``limit`` characters."""
    line = " ".join(sanitise(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _replace(char: str) -> str:
    if char in "\n\t" or char in _JOINERS:
        return char
    category = unicodedata.category(char)
    if category == "Cs":
        return "\ufffd"
    return "" if category in ("Cc", "Cf") else char
