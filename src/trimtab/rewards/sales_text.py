"""Reading a sales answer with suspicion: cleaning, sentences, and which of them say something of their own.

No model and no knowledge of a product: a sentence is judged by its length, its clauses, its function words,
how much of it is new, and how much of it the customer wrote.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass

# Traditional and variant forms of the characters that keywords and forbidden claims are written with.
_VARIANTS = str.maketrans(
    "保證賺錢絕對沒問題競爭騙無歡謝優勢價節試預約聯係繫們這個費單讓認為應產雲會議圾臟",
    "保证赚钱绝对没问题竞争骗无欢谢优势价节试预约联系系们这个费单让认为应产云会议圾脏",
)
_CJK = re.compile(r"[\u4e00-\u9fff]")
_PIECE = re.compile(r"[^。!?;\n]*?(?:[。!?;\n]+|(?<!^\d)(?<!^\d\d)\.(?=\s|$)|$)", re.MULTILINE)
_MARK = re.compile(r"^\s*(?:\d{1,2}[.、)](?!\d)|[-•*](?!\*))\s*")
_CLAUSE = re.compile(r"[,、:]|\s-\s")
_SAID = re.compile(r"[^\W_]")
_ODD = re.compile(
    r"[#`\\{}_|<>\[\]^=…]|[。!?;]\s*[。?;]|,,"
)  # no sentence of an answer is written with these
# A Chinese sentence of this length is not written without one of these.
_FUNCTION_ZH = re.compile(
    r"[的了是有在您我你们可会能不没把都就给先到和也还要用让从被为这那很再每按吗呢吧随以请一个上下里内起够做去来只将已又并更最]"
)
_FUNCTION_EN = re.compile(
    r"\b(?:the|a|an|is|are|be|to|of|for|you|your|we|our|i|it|and|in|on|with|can|will|no|not|this|that|at|by|"
    r"may|do|does|there|from|or|if|per|what|when|how|which|people|has|have)\b",
    re.IGNORECASE,
)
_LATIN = re.compile(r"(?<![A-Za-z])[A-Za-z][a-z]+(?![A-Za-z])")
_LONGEST = {"zh": 60, "en": 200}  # characters of a sentence
_SHORTEST = {"zh": 5, "en": 12}
_MOST = 60  # sentences that count; each is compared with those before it


def language_of(text: str) -> str:
    """``zh`` when a quarter of the text is Chinese characters, else ``en``."""
    return "zh" if len(_CJK.findall(text)) * 4 > len(text) else "en"


def clean(text: str) -> str:
    """NFKC, without characters that nobody sees and without combining marks, in simplified characters.

    Example:
        >>> clean("１００％ 垃\\u200b圾")
        '100% 垃圾'
    """
    plain = unicodedata.normalize("NFKC", text).translate(_VARIANTS)
    kept = (c for c in plain if c == "\n" or unicodedata.category(c) not in ("Cf", "Cc", "Mn", "Me", "Co"))
    return re.sub(r"[^\S\n]+", " ", "".join(kept)).strip()


def pressed(text: str) -> str:
    """A cleaned text without what can be put between the letters of a word: spaces, marks, symbols, and the
    line breaks of text that is written downwards."""
    lines = text.split("\n")
    joined = lines[0]
    for before, line in itertools.pairwise(lines):
        joined += line if min(len(before.strip()), len(line.strip())) <= 1 else "\n" + line
    return "".join(c for c in joined if c in "\n。,!?;:、%" or unicodedata.category(c)[0] not in "ZPSC")


def grams(text: str, size: int) -> set[str]:
    """The character n-grams of a text, its spaces, punctuation and case left out."""
    letters = "".join(_SAID.findall(text.lower()))
    return {letters[i : i + size] for i in range(len(letters) - size + 1)}


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence that counts: cleaned text without list mark and bold, where it stands, what is new."""

    text: str
    place: int  # among all sentences of the answer
    is_item: bool  # has a list mark
    is_question: bool
    is_bold: bool  # a part of it, not all, is bold
    size: int  # characters of content


@dataclass(frozen=True, slots=True)
class Reading:
    """The sentences of an answer that count, and how much of it they are."""

    sentences: tuple[Sentence, ...]
    num_all: int  # sentences, counted or not
    share: float  # of the answer's characters of content, in 0..1


def read(prompt: str, response: str) -> Reading:
    """Split cleaned texts and keep what is well formed, not said before and not the customer's own words."""
    language = language_of(response)
    asked = grams(prompt, 3 if language == "zh" else 6)
    kept: list[Sentence] = []
    seen: list[set[str]] = []
    found = [m for m in _PIECE.finditer(response) if _SAID.search(m.group())]
    pieces = [m.group() for m in found]
    at_line = [not response[: m.start()].rpartition("\n")[2].strip() for m in found]
    total = 0
    for place, piece in enumerate(pieces):
        sentence = _sentence(piece, place, at_line=at_line[place])
        if _ODD.search(piece) or "•" in sentence.text or len(kept) == _MOST:
            total += sentence.size
            continue
        own = grams(sentence.text, 3 if language == "zh" else 6)
        total += sentence.size
        pairs = grams(sentence.text, 2 if language == "zh" else 4)
        if not is_well_formed(sentence.text, language) or len(own & asked) > 0.5 * len(own):
            continue
        if any(len(pairs & other) > 0.6 * min(len(pairs), len(other)) for other in seen):
            continue
        seen.append(pairs)
        kept.append(sentence)
    said = sum(sentence.size for sentence in kept)
    return Reading(tuple(kept), len(pieces), said / total if total else 0.0)


def _sentence(piece: str, place: int, *, at_line: bool) -> Sentence:
    inside = piece.strip()
    marked = _MARK.match(inside) if at_line else None  # a list has a line for each entry
    text = _MARK.sub("", inside, count=1)
    bold = re.findall(r"\*\*([^*\n]+)\*\*", text)
    plain = text.replace("*", "").strip()
    size = len(_SAID.findall(plain))
    part = sum(len(_SAID.findall(found)) for found in bold)
    return Sentence(plain, place, marked is not None, plain.endswith("?"), 2 <= part < max(size, 3), size)


def is_well_formed(text: str, language: str) -> bool:
    """Whether a text could be a sentence: long enough, with function words, of clauses, not of keywords."""
    size = len(_SAID.findall(text))
    if not _SHORTEST[language] <= size <= _LONGEST[language] or size < 0.6 * len(text.replace(" ", "")):
        return False
    clauses = [len(_SAID.findall(clause)) for clause in _CLAUSE.split(text) if _SAID.search(clause)]
    if len(clauses) > 5 or size / len(clauses) < (3.0 if language == "zh" else 8.0):
        return False
    if language == "zh" and (max(clauses) > 30 or len(re.findall(r"[A-Za-z]{2,}", text)) > 4):
        return False
    # Names may be foreign in a Chinese sentence, its grammar is not: 您 the 问题.
    if language == "zh" and any(_FUNCTION_EN.fullmatch(word) for word in _LATIN.findall(text)):
        return False
    if sum(c.isdigit() for c in text) > 0.4 * size:
        return False
    if language == "en":
        words = [word.lower() for word in re.findall(r"[A-Za-z']+", text)]
        has_words = len(words) >= 3 and len(set(words)) >= 0.6 * len(words)
        return has_words and len(_FUNCTION_EN.findall(text)) * 6 >= len(words)
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    return len(set(pairs)) >= 0.7 * len(pairs) and len(_FUNCTION_ZH.findall(text)) * 16 >= size
