"""A reward for mathematics: one final answer, extracted strictly, compared in killable processes.

Extraction: the last ``\\boxed{}`` decides; an unterminated or empty one is no answer, and so are boxes that
differ. Without a box: one ``<answer>`` element, a last ``#### …`` line, "the answer is …", or a text that
is one short line. Negation and hedging beside the answer earn nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.errors import RewardError
from trimtab.rewards.base import check_result
from trimtab.rewards.forked import ForkedPool, Reply
from trimtab.rewards.math_text import is_disguised, visible
from trimtab.rewards.rules import column_of
from trimtab.types import Prompt, RewardResult, Sample

_MAX_TEXT = 200_000
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_ELEMENT = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_HASHES = re.compile(r"^####[ \t]*(.+)$", re.MULTILINE)
_SAID = re.compile(
    r"(?:(?:(?:final |the )?answer|最终答案|正确答案|答案)[ \t]*(?:is|are|为|是|:|：|=)|(?<!\S)答[:：])"
    r"[ \t]*"
    r"[:：]?[ \t]*([^\n]{1,400})",
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
    r"\b(?:maybe|perhaps|possibly|alternatively|unsure|not sure|guess|either|doubt|hmm+)\b|"
    "或者|也许|可能|不确定|大概|猜",
    re.IGNORECASE,
)
# Only right before the answer: "it may be shown" is no doubt.
_ONE_OF_SOME = re.compile(
    r"(?:\b(?:could|might|may|would)(?: well)? be|\b(?:candidate|option)s?(?: answers?)?(?: is| are)?)"
    r"\s*[:=]?\s*[$(\[*\\]*$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"^[^.。\n]{0,60}?(?:\bor\b|\bis (?:wrong|incorrect|not)\b|\bisn['’]t\b|\bno,|"
    r"\b(?:wait|actually|instead|rather)\b|"
    "或|不对|是错|才怪|有误|其实|实际上|更正|应为|应该是)"
    r"|^[\s\S]{0,60}?\b(?:edit|correction|wait|scratch that)\b[:,]",
    re.IGNORECASE,
)
_EITHER = re.compile(r"\bor\b|或|\\text\s*\{\s*or\s*\}", re.IGNORECASE)


class MathReward:
    """1 when the completion's final answer equals the row's ``column``, else 0."""

    name = "math"

    def __init__(self, column: str = "answer", *, workers: int = 2, seconds: float = 5.0) -> None:
        self.column = column
        self._pool = ForkedPool("trimtab.rewards.math_check:is_equal", workers=workers, seconds=seconds)

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order."""
        results: list[RewardResult | None] = []
        calls: list[dict[str, str]] = []
        for sample in samples:
            try:
                gold = column_of(sample, self.column, self.name)
            except RewardError as error:
                results.append(RewardResult(None, error=str(error)))
                continue
            answer = final_answer(sample.completion, allows_or=bool(_EITHER.search(gold)))
            results.append(None if answer is not None else RewardResult(0.0))
            if answer is not None:
                calls.append({"gold": gold, "answer": answer})
        replies = iter(self._pool.map(calls))
        return [result if result is not None else self._result(next(replies)) for result in results]

    def gold_completion(self, prompt: Prompt) -> str:
        """The row's gold answer in a box.

        Raises:
            RewardError: the row has none.
        """
        return f"\\boxed{{{column_of(Sample(prompt, ''), self.column, self.name)}}}"

    def _result(self, reply: Reply) -> RewardResult:
        if reply.is_fault:
            return RewardResult(None, error=f"reward math: no process to compare in ({reply.error})")
        # A deadline or a crash is the answer's doing: it is no answer.
        return check_result(reply.value is True, self.name)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def math_reward(column: str = "answer", workers: int = 2, seconds: float = 5.0) -> MathReward:
    """A ``MathReward``.

    Raises:
        RewardError: math-verify is not installed, or a limit makes no sense.
    """
    from importlib.util import find_spec

    if find_spec("math_verify") is None:
        raise RewardError("Reward math needs math-verify: install it with `pip install 'trimtab[math]'`.")
    if workers < 1 or not seconds > 0:
        raise RewardError(
            f"Reward math: workers = {workers} must be at least 1 and seconds = {seconds} above 0."
        )
    return MathReward(column, workers=workers, seconds=float(seconds))


def final_answer(text: str, *, allows_or: bool = False) -> str | None:
    """The one answer that ``text`` commits to, or None.

    Example:
        >>> final_answer("So 6·7 = \\\\boxed{42}."), final_answer("definitely not \\\\boxed{42}")
        ('42', None)
    """
    if len(text) > _MAX_TEXT:
        return None
    text = visible(text).rpartition("</think>")[2]
    if is_disguised(text):
        return None
    found = _boxed(text) if _BOX.search(text) else _unboxed(text)
    if found is None:
        return None
    answer, before, after = found
    answer = answer.strip()
    if not answer or _DOUBTED.search(answer) or (not allows_or and _EITHER.search(answer)):
        return None
    if (
        _NEGATED.search(before[-80:])
        or _TERM_DENIED.search(before[-160:])
        or _ONE_OF_SOME.search(before[-80:])
        or _DOUBTED.search(_beside(before))
    ):
        return None
    if any(answer not in said.group(1) for said in _SAID.finditer(after)):
        return None  # another answer after it
    if not allows_or and _TAKEN_BACK.search(after[:120]):
        return None
    return None if _DOUBTED.search(after[:120]) else answer


def _beside(before: str) -> str:
    """What is said right before the answer: this sentence, and a very short one before it."""
    sentences = re.split(r"(?<=[.!?。！？\n])\s*", before[-80:])
    near = "".join(sentences[-2:]) if len(sentences) > 1 and len(sentences[-2]) <= 16 else sentences[-1]
    return near[-40:]


def _boxed(text: str) -> tuple[str, str, str] | None:
    """Content of the boxes, which must all say the same, and what stands around the last one."""
    contents, place = [], 0
    begin = stop = 0
    while (box := _BOX.search(text, place)) is not None:
        begin, open_at = box.start(), box.end()
        close_at = _closing(text, open_at)
        if close_at is None:
            return None
        contents.append(text[open_at + 1 : close_at])
        place = stop = close_at + 1
    if len({re.sub(r"\s+", "", content) for content in contents}) != 1:
        return None
    return contents[-1], text[:begin], text[stop:]


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
    for pattern in (_ELEMENT, _HASHES, _SAID):
        matches = list(pattern.finditer(text))
        if not matches:
            continue
        answers = [_trim(match.group(1)) for match in matches]
        if len(set(answers)) != 1:
            return None
        last = matches[-1]
        # What negates an element stands before its tag: "not <answer>42</answer>".
        before = text[: last.start() if pattern is _ELEMENT else last.start(1)]
        return answers[-1], before, text[last.end() :]
    only = text.strip()
    return (_trim(only), "", "") if only and "\n" not in only and len(only) <= 200 else None


def _trim(text: str) -> str:
    text = text.strip().strip("*").strip()
    sentence = re.split(r"[。！!]|\.(?:\s|$)", text, maxsplit=1)
    return sentence[0].strip().strip("*").strip() if len(sentence) == 1 or not sentence[1].strip() else text
