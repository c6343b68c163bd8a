"""The one final answer that a completion commits to, or none.

A box decides; else an ``<answer>`` element, ``#### …``, "the answer is …" or a text of one short line. Doubt,
denial and taking back are looked for in the words beside the answer, never in the whole text.
"""

from __future__ import annotations

import re

from trimtab.rewards.math_text import folded, visible

_MAX_TEXT = 200_000
_MAX_LINE = 200  # of a text that is its own answer
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
# LaTeX boxes one token without braces: \boxed 7.
_BARE_BOX = re.compile(r"([0-9]+(?:\.[0-9]+)?|[A-Za-z])(?=\s*(?:\$|\\[)\]]|[.。]?\s*$))")
_ELEMENT = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*(.+)$", re.MULTILINE)
# "The answer is 42", "### Final Answer" above a line, "the correct option is B", 答案选C.
_SAID = re.compile(
    r"(?:(?:(?:final |the |correct |right )*(?:answer|option|choice)|最终答案|正确答案|正确选项|"
    r"答案)[*_]*[ \t]*"
    r"(?:\(|（)?(?:is|are|为|是|应?选择?|:|：|=)|(?<!\S)答[:：]|【(?:最终|正确|参考)?答案】|(?:故|"
    r"因此|所以|应)选择?[:：]?(?=[ \t]*[(（]?[A-Z]))"
    r"[*_]*[ \t]*[:：]?[*_]*[ \t]*([^\n]{1,400})",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*|\*\*)(?:the )?(?:(?:final |correct )?answer|最终答案|答案)[ "
    r"\t]*[:：]?[ \t]*(?:\*\*)?[ \t]*[:：]?[ \t]*\n+"
    r"[ \t]*([^\n]{1,400})",
    re.IGNORECASE | re.MULTILINE,
)
_LEAD = re.compile(
    r"^(?:the )?(?:final |correct )*(?:answer|option|choice)[ \t]*(?:is|are|:|=)[ \t]*[:：]?[ \t]*",
    re.IGNORECASE,
)
_MATHEMATICS = re.compile(r"\$\$?((?:[^$\\]|\\.)+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]|\*\*([^*\n]+)\*\*")
_SENTENCE_END = re.compile(
    r"[。！!](?![0-9!])|\.(?=\s|$)|[,，;；](?=\s*(?:as|which|since|because|so|and so|where|for|即|"
    r"因为)\b)| (?=(?:because|since|as|so that)\b)"
)
# "whether x is 1 or 2" is no second answer.
_WHETHER = re.compile(r"\b(?:whether|regardless)\b[^.。\n]*", re.IGNORECASE)
_LABEL = re.compile(r"^\\text\s*\{\s*(?:the )?(?:final )?answer(?: is)?\s*:?\s*\}\s*", re.IGNORECASE)
# What a box holds that only says where the answer will be.
_PLACEHOLDER = re.compile(
    r"(?:\\text\s*\{)?\s*(?:|\\h?phantom\{[^{}]*\}|\\(?:quad|square|Box|[;,: ])|\.\.\.|…|"
    r"\\[lc]?dots|\?|_+|(?:your |the |final )*(?:answer|result|solution|number)(?: here)?|答案|"
    r"最终答案)\s*\}?",
    re.IGNORECASE,
)

_NEGATED = re.compile(
    r"(?:\bnot|n['’]t|\bnever|\bneither|\bwrong|\bincorrect|不是|并非|不等于|不可能是|不会是|绝不是?|不为|错误答案)"
    r"(?:\s*(?:\b(?:be|is|equals?|to|the|answer|final|necessarily|really|exactly|simply)\b|=|:|：|为|是))*[\s$(\[*]*$",
    re.IGNORECASE,
)
# "It is definitely not 11·16: \\boxed{176}": what is denied is a term, and the answer is that term's value.
# The subject must be the answer itself: "x is not 0: …" states a condition. A word or a comma ends the term.
_TERM = r"(?:\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z](?![A-Za-z])|\d[.,]\d|[\d\s+\-−*/·×÷^()|{}$_!%\[\]=≈])+"
_TERM_DENIED = re.compile(
    r"(?:\b(?:it|this|that|(?:answer|result|value|solution|total|sum|product))\s*"
    r"(?:\w+ly\s+)*(?:(?:is|was|can|could|does|will|would|['’]s)\s*)?(?:(?!not\b)\w+ly\s+)*(?:not|n['’]t|cannot|never)\b"
    r"|(?:答案|结果|得数|这|它)(?:绝对|肯定|一定|当然|显然)?(?:不是|并非|并不是|不等于|不可能是|不会是|绝不是?))"
    r"(?:\s*\b(?:be|equal|equals|to|\w+ly)\b)*\s*" + _TERM + r"[:：=]\s*[$(\[*]*$",
    re.IGNORECASE,
)
_DOUBTED = re.compile(
    r"\b(?:maybe|perhaps|possibly|alternatively|unsure|not sure|guess|either(?! way| case)|hmm+)\b|"
    r"(?<!\bno )(?<!\bwithout )(?<!\bwithout a )\bdoubt\b|"
    "或者|也许|可能|不确定|大概|猜",
    re.IGNORECASE,
)
# "Alternatively, we can …" is another way to the same answer, when it ends in the same.
_OTHER_WAY = re.compile(r"\balternatively,? (?=(?:we|one|you|I) (?:can|could|may|note|use)\b)", re.IGNORECASE)
_COULD_DIFFER = re.compile(
    r"\b(?:it|this|that|answer) (?:might|may|could)(?: also| well)? be\b(?! (?:shown|seen|checked|"
    r"verified|written|said))",
    re.IGNORECASE,
)
# Only right before the answer: "it may be shown" is no doubt.
_ONE_OF_SOME = re.compile(
    r"(?:\b(?:could|might|may|would)(?: well)? be|(?<!correct )(?<!right )(?<!the )\b(?:candidate|"
    r"option)s?(?: answers?)?(?: is| are)?)"
    r"\s*[:=]?\s*[$(\[*\\]*$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"^[^.。\n]{0,60}?(?:\bor\b|\bis (?:wrong|incorrect)\b|(?<!which )\bis not\b|"
    r"\bis not (?:the|correct|right|valid|our|what)\b|"
    r"\bisn['’]t\b|\bno,|"
    r"\b(?:wait|actually|instead|rather)\b|"
    "或|不对|是错|才怪|有误|其实|实际上|更正|应为|应该是)"
    r"|^[\s\S]{0,60}?\b(?:edit|correction|wait|scratch that)\b[:,]",
    re.IGNORECASE,
)
SEVERAL = re.compile(r",(?![0-9]{3}(?![0-9]))|\\pm|±|、")
EITHER = re.compile(r"\bor\b|或|\\text\s*\{\s*or\s*\}", re.IGNORECASE)

# A check after the answer: "Wait, let me verify: 6·7 = 42, correct."
_CHECKING = re.compile(
    r"\b(?:let(?:'s| me| us)|I(?:'ll| will)?|to|we(?: can)?)\s+(?:just |now |quickly "
    r")?(?:double[- ]?|re-?)?(?:check|verify|confirm)\b|"
    r"\b(?:double[- ]?check|check|verification)\b|验证|检验|检查",
    re.IGNORECASE,
)
_CONFIRMED = re.compile(
    r"(?<!not )(?<!n't )(?<!in)\b(?:correct|confirmed|confirms|verified|checks out|matches|holds|"
    r"right|yes|indeed)\b|✓|✔|√\s*$|"
    r"(?<!不)(?:正确|成立|无误|没错|符合)",
    re.IGNORECASE,
)
_CHANGED = re.compile(
    r"\b(?:actually|instead|rather|should (?:be|have)|edit|correction|scratch|mistake|error|wrong|"
    r"incorrect|but|however|not)\b|n['’]t\b|"
    "不对|是错|有误|其实|实际上|更正|应为|应该是|不是|错误",
    re.IGNORECASE,
)


def final_answer(text: str, *, allows_or: bool = False, is_several: bool = False) -> str | None:
    """The one answer that ``text`` commits to, or None.

    Args:
        text: a completion; what stands before ``</think>`` is not read.
        allows_or: whether "or" may stand in the answer and beside it, since the gold answer says so.
        is_several: whether it may stand in the answer, since the gold answer is a list (all are compared).

    Example:
        >>> final_answer("So 6·7 = \\\\boxed{42}."), final_answer("definitely not \\\\boxed{42}")
        ('42', None)
    """
    if len(text) > _MAX_TEXT:
        return None
    text = visible(text).rpartition("</think>")[2]
    found = _boxed(text) if _BOX.search(text) else _unboxed(text)
    if found is None:
        return None
    # What is beside the answer is read with the eyes of a reader: a Cyrillic о makes no other word of "nоt".
    answer, before, after = _LABEL.sub("", found[0].strip()), folded(found[1]), folded(found[2])
    seen = folded(answer)
    if not answer or _DOUBTED.search(seen) or (not (allows_or or is_several) and EITHER.search(seen)):
        return None
    if (
        _NEGATED.search(before[-80:])
        or _TERM_DENIED.search(before[-160:])
        or _ONE_OF_SOME.search(before[-80:])
        or _DOUBTED.search(_beside(before))
    ):
        return None
    return answer if _stands(answer, after, allows_or=allows_or) else None


def _stands(answer: str, after: str, *, allows_or: bool) -> bool:
    """Whether what follows leaves the answer as it is, or confirms it by a check."""
    for said in _SAID.finditer(after):
        if answer not in said.group(1) and not _CONFIRMED.match(said.group(1).strip()):
            return False  # another answer after it
    beside = _WHETHER.sub(" ", after[:120])
    if _numbers_end_in(answer, after):
        beside = _OTHER_WAY.sub(" ", beside)
    if _COULD_DIFFER.search(beside):
        return False
    if allows_or:  # "or" takes nothing back here, but "wait" does
        beside = EITHER.sub(" ", beside)
    if not _DOUBTED.search(beside) and not _TAKEN_BACK.search(beside):
        return True
    is_checked = _CHECKING.search(beside) and _CONFIRMED.search(after[-200:]) and not _CHANGED.search(after)
    return bool(is_checked) and _numbers_end_in(answer, after)


def _numbers_end_in(answer: str, after: str) -> bool:
    """Whether a check names no number at all, or the answer as its last one."""
    numbers = re.findall(r"[0-9]+(?:[.,][0-9]+)*", after)
    wanted = re.findall(r"[0-9]+(?:[.,][0-9]+)*", answer)
    return not numbers or (bool(wanted) and numbers[-1] == wanted[-1] and all(n in numbers for n in wanted))


def _beside(before: str) -> str:
    """What is said right before the answer: this sentence, and a very short one before it."""
    sentences = re.split(r"(?<=[.!?。！？\n])\s*", before[-80:])
    near = "".join(sentences[-2:]) if len(sentences) > 1 and len(sentences[-2]) <= 16 else sentences[-1]
    return near[-40:]


def boxes_of(text: str) -> list[tuple[str, int, int]] | None:
    """The content of every box and where it begins and ends; None where one is not closed.

    Example:
        >>> boxes_of("so \\\\boxed{\\\\frac{1}{2}}.")
        [('\\\\frac{1}{2}', 3, 22)]
    """
    found, place = [], 0
    while (box := _BOX.search(text, place)) is not None:
        bare = _BARE_BOX.match(text, box.end())
        if bare is not None:
            found.append((bare.group(), box.start(), bare.end()))
            place = bare.end()
            continue
        close_at = _closing(text, box.end())
        if close_at is None:
            return None
        found.append((text[box.end() + 1 : close_at], box.start(), close_at + 1))
        place = close_at + 1
    return found


def _boxed(text: str) -> tuple[str, str, str] | None:
    """Content of the boxes, which must all say the same, and what stands around the last one.

    A box that only says where the answer will be ("put it in \\boxed{}") counts before the last one only.
    """
    boxes = boxes_of(text)
    if not boxes:
        return None
    said = [box for box in boxes[:-1] if not _PLACEHOLDER.fullmatch(box[0])] + boxes[-1:]
    if len({re.sub(r"\s+", "", content) for content, _, _ in said}) != 1:
        return None
    content, begin, stop = said[-1]
    return content, text[:begin], text[stop:]


def _closing(text: str, open_at: int) -> int | None:
    """Where the brace at ``open_at`` closes."""
    if not text.startswith("{", open_at):
        return None
    depth = 0
    for at in range(open_at, min(len(text), open_at + 2000)):
        if text[at] in "{}" and text[at - 1] != "\\":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at
    return None


def _unboxed(text: str) -> tuple[str, str, str] | None:
    for pattern in (_ELEMENT, _HASHES, _HEADING, _SAID):
        matches = list(pattern.finditer(text))
        if pattern is _SAID:  # "the answer is correct" says none
            matches = [match for match in matches if not _CONFIRMED.match(match.group(1))]
        if not matches:
            continue
        found = [_first(match.group(1)) for match in matches]
        if len({answer for answer, _ in found}) != 1:
            return None
        last = matches[-1]
        # What negates an element stands before its tag: "not <answer>42</answer>".
        before = text[: last.start() if pattern is _ELEMENT else last.start(1)]
        return found[-1][0], before, found[-1][1] + text[last.end() :]
    only = text.strip()
    if not only or "\n" in only or len(only) > _MAX_LINE:
        return None
    answer, rest = _first(re.sub(r"^(?:so|thus|hence|therefore)[,:]?\s+", "", only, flags=re.IGNORECASE))
    return (answer, "", "") if not rest.strip(" .。!！*$") else (only, "", "")


def _first(text: str) -> tuple[str, str]:
    """The answer that a passage begins with, and the rest of it: "$28$. I hope it is correct."."""
    text = text.strip()
    while (lead := _LEAD.match(text)) is not None:
        text = text[lead.end() :]
    hashes = re.match(r"#{2,6}[ \t]*", text)
    text = text[hashes.end() :] if hashes else text
    shown = _MATHEMATICS.match(text)
    if shown is not None and re.match(r"\s*(?:$|[.。,，;；!！)）])", text[shown.end() :]):
        return next(group for group in shown.groups() if group is not None).strip(" *"), text[shown.end() :]
    text = text.strip("*").strip()
    ends = [end for end in _SENTENCE_END.finditer(text) if _is_closed(text[: end.start()])]
    if not ends:
        return text.strip("*").strip(), ""
    return text[: ends[0].start()].strip().strip("*").strip(), text[ends[0].start() :]


def _is_closed(text: str) -> bool:
    """Whether no bracket or dollar sign is open: a sentence does not end inside one."""
    return text.count("(") == text.count(")") and text.replace("\\$", "").count("$") % 2 == 0
