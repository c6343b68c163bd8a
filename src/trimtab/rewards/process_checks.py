"""Rules that look at the reasoning and not only at the answer (R20), in Chinese and English; each is 0 to 1.

They are made to be gates: what fails a check scores below 0.5, what passes it 1. They find what can be found
without a model: no reasoning, filler and repetition, sums that are wrong, an answer that is not what was
computed, the prompt copied. Of a text over MAX_CHARS its beginning and its end are read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from trimtab.errors import RewardError
from trimtab.rewards.equalities import equalities, fold, is_rounding, numbers
from trimtab.rewards.rules import RuleReward
from trimtab.types import Sample

MAX_CHARS = 100_000
_MAX_SENTENCES = 400
# What announces the final answer; the last one in the text counts.
_MARKER = re.compile(
    r"\\boxed\s?\{|<answer>|####|(?:答案|最终结果|最后结果)(?:就?是|为|[:：])|答[:：]"
    r"|\banswer\s?(?:is\b|[:：=])|</think>",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^\n。！？!?；;.]+(?:\.(?=\S)[^\n。！？!?；;.]*)*")
_CHECKS = re.compile(r"\bcheck|\bverif|验证|检验|验算|检查", re.IGNORECASE)
# Words of sentences that only say that thinking is being done; a sentence of nothing else is no reasoning.
_FILLER = re.compile(
    r"\b(?:ok(?:ay)?|well|so|now|then|first|next|let(?:'s|’s| us| me)|i|we|you|us|it|this|that|is|are|am|be|"
    r"will|"
    r"would|can|could|need|needs|want|have|has|had|to|the|a|an|of|for|and|in|on|at|by|with|about|think|thinking|"
    r"thought|reason|reasoning|solve|solving|start|begin|see|look|work|working|out|try|step|steps|question|"
    r"problem|answer|answering|solution|carefully|very|really|just|here|good|great|interesting|important|hmm+|"
    r"wait|right|alright|sure|of course|must|should|do|done|my|our|your|again|more|some|what|how|why|"
    r"through)\b|"
    r"好的|好|嗯+|那么|首先|然后|接着|接下来|现在|让|我们|我|你|来|先|再|一下|一步|一步步|步骤|逐步|思考|想想|想|分析|"
    r"这个|这是|这道|这|那|问题|题目|题|需要|要|可以|应该|必须|解决|解答|回答|答案|仔细|认真|看看|看|开始|试试|"
    r"很|非常|的|了|是|吧|呢|啊|就|都|在|一个|有|有趣|重要|不错|请|稍等|等等",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:\.\d+)?|[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class _Parts:
    """A completion: what comes before the final answer, and the answer with what announces it."""

    reasoning: str
    answer: str
    is_marked: bool


def has_reasoning(sentences: int = 2) -> RuleReward:
    """1 when at least ``sentences`` sentences of reasoning stand before the final answer, else below 0.5.

    A sentence or line counts when it computes something, or has at least 4 words (6 Chinese characters)
    beside filler ("let me think step by step"). One that repeats an earlier one, repeats its own words, or is
    the prompt's own counts nothing; nor does a computation whose numbers are neither the prompt's nor results
    of computations before it, where the prompt has numbers at all.

    Raises:
        RewardError: ``sentences`` is not 1 to 100.

    Example:
        >>> from trimtab.types import Prompt
        >>> row = Sample(Prompt("0", ({"role": "user", "content": "3+5-2=?"},)), "3+5=8\\n8-2=6\\nAnswer: 6")
        >>> has_reasoning().score([row])[0].value
        1.0
    """
    if not 1 <= sentences <= 100:
        raise RewardError(f"Reward has_reasoning: sentences = {sentences} must be 1 to 100.")

    def rule(sample: Sample) -> float:
        parts = _parts(_bounded(sample.completion))
        count = _substantial(parts.reasoning, _prompt_text(sample), sentences)
        return 1.0 if count >= sentences else 0.5 * count / sentences

    return RuleReward("has_reasoning", rule)


def consistent_reasoning() -> RuleReward:
    """0 when an equality is wrong, or the final answer is not what was computed last; else 1.

    Equalities are checked exactly (``rewards/equalities.py``); what is not certainly one is not judged. A
    quotient may be rounded. The answer is what follows "answer:", 答案是, ``\\boxed{`` and their like, else
    the last sentence; it must hold the result of the last equality before it, sentences that only check left
    out. A completion without equalities, or whose answer is no number, contradicts nothing.

    Example:
        >>> from trimtab.types import Prompt
        >>> row = Sample(Prompt("0", ({"role": "user", "content": "12*3=?"},)), "12*3=36. Answer: 35")
        >>> consistent_reasoning().score([row])[0].value
        0.0
    """

    def rule(sample: Sample) -> float:
        text = _bounded(sample.completion)
        if not all(equality.holds for equality in equalities(text)):
            return 0.0
        parts = _parts(text)
        last = _last_result(parts.reasoning)
        if last is None and not parts.is_marked:
            last = _last_result(parts.answer)
        said = numbers(parts.answer)
        return 1.0 if last is None or not said or _is_among(last, said, parts.answer) else 0.0

    return RuleReward("consistent_reasoning", rule)


def no_copied_prompt(threshold: float = 0.5, ngram: int = 5) -> RuleReward:
    """1 when at most ``threshold`` of the completion's n-grams are the prompt's; else below 0.5.

    N-grams are of words and of Chinese characters, without case, punctuation and invisible characters. A
    completion shorter than ``ngram`` fails only where it is the whole prompt. An empty one copies nothing.

    Raises:
        RewardError: ``threshold`` is not 0 to below 1, or ``ngram`` not 1 to 50.
    """
    if not 0 <= threshold < 1:
        raise RewardError(f"Reward no_copied_prompt: threshold = {threshold} must be from 0 to below 1.")
    if not 1 <= ngram <= 50:
        raise RewardError(f"Reward no_copied_prompt: ngram = {ngram} must be 1 to 50.")

    def rule(sample: Sample) -> float:
        share = copied_share(sample.completion, _prompt_text(sample), ngram)
        return 1.0 if share <= threshold else 0.5 * (1 - share) / (1 - threshold)

    return RuleReward("no_copied_prompt", rule)


def copied_share(completion: str, prompt: str, ngram: int = 5) -> float:
    """Return the share of the completion's n-grams that are in the prompt, 0..1; 0 for an empty one."""
    words, source = _words(_bounded(completion)), _words(_bounded(prompt))
    if len(words) < ngram:
        return float(bool(words) and words == source)
    known = set(_ngrams(source, ngram))
    found = [gram in known for gram in _ngrams(words, ngram)]
    return sum(found) / len(found)


def _bounded(text: str) -> str:
    half = MAX_CHARS // 2
    return text if len(text) <= MAX_CHARS else f"{text[:half]}\n{text[-half:]}"


def _prompt_text(sample: Sample) -> str:
    return "\n".join(message["content"] for message in sample.prompt.messages)


def _parts(text: str) -> _Parts:
    """Cut before the last announced answer; without one, before the last sentence."""
    text, marker = text.rstrip(), None
    for found in _MARKER.finditer(text):
        marker = found if found.end() < len(text) else marker
    if marker is not None:
        # "\boxed{" and "<answer>" follow their announcement: "the answer is \boxed{6}" is cut at either.
        answer = text[marker.end() :].strip()
        first = re.match(r"[^\n]*", answer)
        return _Parts(text[: marker.start()], first.group() if first else "", True)
    sentences = list(_SENTENCE.finditer(text))
    spoken = [s for s in sentences if s.group().strip()]
    if not spoken:
        return _Parts("", text, False)
    return _Parts(text[: spoken[-1].start()], text[spoken[-1].start() :], False)


def _last_result(text: str) -> Fraction | None:
    """What the last equality of a text gives, sentences that only check left out."""
    lines = [line for line in re.split(r"[\n。！？!?；;]|\.(?=\s)", text) if not _CHECKS.search(line)]
    found = equalities("\n".join(lines))
    return found[-1].value if found else None


def _is_among(result: Fraction, said: Sequence[Fraction], text: str) -> bool:
    """Whether the result is one of the numbers said, one of them perhaps rounded."""
    places = [len(digits) for digits in re.findall(r"\.(\d{1,18})", fold(text))]
    shown = max(places, default=0)
    return any(number == result or is_rounding(number, result, shown) for number in said)


def _substantial(reasoning: str, prompt: str, enough: int) -> int:
    """Count sentences of reasoning, at most ``enough``."""
    known = set(numbers(prompt))
    is_linked = bool(known)
    prompt_grams = set(_ngrams(_words(_bounded(prompt)), 4))
    seen: list[set[tuple[str, ...]]] = []
    count = 0
    # Only so many are read: each is compared with all before it.
    for number, match in enumerate(_SENTENCE.finditer(reasoning)):
        if number >= _MAX_SENTENCES or count >= enough:
            break
        sentence = match.group()[:2000]
        words = _words(sentence)
        grams = set(_ngrams(words, min(2, len(words)))) if words else set()
        if not words or any(_overlap(grams, other) > 0.8 for other in seen):
            continue
        seen.append(grams)
        found = equalities(sentence)
        if found:
            operands = set(numbers(fold(sentence).rpartition("=")[0] or sentence))
            count += not is_linked or bool(operands & known)
            known |= {equality.value for equality in found}
        else:
            count += _is_said(sentence, words, prompt_grams)
    return count


def _is_said(sentence: str, words: Sequence[str], prompt_grams: set[tuple[str, ...]]) -> bool:
    """Whether a sentence of words says something: enough words, no filler, not repeated, not copied."""
    rest = _words(_FILLER.sub(" ", sentence))
    weight = sum(1.0 if word.isascii() else 2 / 3 for word in set(rest))
    if weight < 4 or len(set(words)) < 0.5 * len(words):
        return False
    grams = _ngrams(words, 4)
    return not grams or sum(gram in prompt_grams for gram in grams) <= 0.5 * len(grams)


def _overlap(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall("".join(char for char in plain if unicodedata.category(char) != "Cf"))


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(size)), strict=False))
