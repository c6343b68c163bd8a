"""The hardened sales reward of R23: the same five parts as the plain one, paid only for an answer.

The texts are cleaned first. Then only sentences count that are well formed, new, and not the customer's own
words (``sales_text.py``). The sum of the parts is multiplied by what share of the answer counts and by its
relevance: does it take up what the customer named, and do its sentences have words that answer what was asked
(``sales_topics.py``)? A forbidden claim, however it is spelled, makes the whole 0.

It reads no meaning: a fluent lie about the right topic is paid. Facts and prices need gates
(``business.py``), the right product ``same_names``, and the rest a reward model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.rewards.sales import FORBIDDEN, WEIGHTS, length_score
from trimtab.rewards.sales_text import Sentence, clean, language_of, pressed, read
from trimtab.rewards.sales_topics import asked_topics, other_words, topic_words
from trimtab.types import RewardResult, Sample

_ELEMENTS = {
    "greeting": r"(?:^|[,、]\s?)\w{0,4}?(感谢|您好|欢迎)|\b(?:hello|hi|dear|thanks|thank you|welcome)\b",
    "empathy": r"理解|明白|了解|\bi understand\b|\bi see why\b|\bfair (?:point|question)\b",
    "question": r"\?$",
    "value_proposition": r"优势|价值|效果|节省|\bsaves?\b|\bbenefit|\bvalue\b|\bcustomers tell\b",
    "call_to_action": r"试用|演示|预约|联系|\b(?:demo|trial|call me|write to me|book|contact)\b",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _ELEMENTS.items()}
_ASKS = re.compile(
    r"吗|呢|什么|哪|怎么|多少|几|谁|要不要|是否|还是|可以|如何"
    r"|^(?:who|what|when|where|which|how|do|does|did|is|are|can|could|would|shall|should|may|will|have)\b"
)
# Other spellings of the plain reward's claims, and the same claims in English.
_CLAIMS = re.compile(
    # Two words in a row may end and begin with the letters of one claim: 防诈骗, 人工客服.
    r"(?<![诈欺防受被行])骗人(?![工力员家数才事])|垃圾|百分(?:之)?百|[1一l][0o零〇]{2}(?:%|percent)|骗子|辣鸡|拉圾|guaranteedprofits?|guaranteedtomakemoney|absolutelynoproblem|garbage|rubbish"
)
_STOP = set(
    "的了是有在您我你们可以会能不没把都就给先到和也还要用让从被为这那很再每吗呢吧什么怎么多少一个几想问请说下能"
    "公司企业行业团队好谢老总经理先生女士主任麻烦觉得但所以因过之"
)
# Words of four letters and more that name nothing.
_COMMON_EN = frozenset((
    "have", "with", "what", "does", "your", "from", "that", "this", "they", "them", "there", "their",
    "would", "could", "should", "which", "where", "when", "about", "into", "thanks", "thank", "hello",
    "please", "people", "team", "company", "business", "need", "many", "much", "long", "soon", "more",
    "same", "want", "like", "report", "afternoon", "brief", "over", "good", "looks", "bought", "before",
))  # fmt: skip
_MAX_OTHER = 3  # words of other topics in one sentence
_MAX_ELEMENTS = 3
_UNKNOWN = 0.5  # relevance where no topic is recognised
_ENOUGH_WORDS = 3  # different words for what was asked in the whole answer
_FOCUS = 0.75  # share of sentences with words for what was asked that is enough
_SHORT = {"zh": 26, "en": 80}
_MAX_ASIDE = 1  # words for something else in sentences that answer nothing asked: free
_MAX_NAMED = 2  # sentences with what the customer named: free; in each, whichever answers would have it
_SCATTER = 0.5  # of the relevance is left by each more of either


class HardenedSalesReward:
    """0.2 format + 0.3 elements + 0.1 length + 0.2 safety + 0.2 relevance, times what of it answers: 0..1.

    Deterministic, without a model, one answer at a time.

    Example:
        >>> HardenedSalesReward().compute_reward("合同一签几年？", "您好，优势，效果，试用，联系？")
        0.0
    """

    name = "sales_hardened"

    def compute_reward(self, prompt: str, response: str) -> float:
        """Return the reward of one answer, in 0..1."""
        return self._judge(prompt, response)[0]

    def parts(self, prompt: str, response: str) -> dict[str, float]:
        """Return each part, unweighted and in 0..1."""
        return self._judge(prompt, response)[1]

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample; none abstains."""
        return [RewardResult(*self._judge(sample.prompt.text, sample.completion)) for sample in samples]

    def _judge(self, prompt: str, response: str) -> tuple[float, dict[str, float]]:
        asked, said = clean(prompt), clean(response)
        reading = read(asked, said)
        topics = asked_topics(asked)
        counted = [s for s in reading.sentences if not _is_stuffed(s, asked, topics)]
        points = sum(_answers(counted, asked, topics)) if topics else 1.0
        elements = sum(_elements(counted, reading.num_all).values())
        parts = {
            "format": _format(counted, said),
            # Courtesy goes with content: one more element than there are points, no more.
            "elements": min(elements, 1 + int(points)) / len(_ELEMENTS),
            "length": length_score("x" * sum(s.size for s in counted)) if counted else 0.0,
            "safety": 1.0 if is_safe(response) else 0.0,
            "relevance": _relevance(asked, said, counted, topics),
        }
        total = sum(WEIGHTS[name] * value for name, value in parts.items())
        whole = sum(s.size for s in reading.sentences)
        share = reading.share * sum(s.size for s in counted) / whole if whole else 0.0
        paid = parts["safety"] * parts["relevance"] * min(1.0, share / 0.8) * _order(counted)
        return min(1.0, paid * total), parts


def is_safe(response: str) -> bool:
    """Whether no forbidden claim occurs, also not spaced, in other widths, variants or hidden characters.

    Example:
        >>> is_safe("保 證 賺 錢"), is_safe("我们从不保证盈利。")
        (False, True)
    """
    text = pressed(clean(response)).lower()
    bare = re.sub(r"[^\w%]", "", text)
    if _CLAIMS.search(bare):
        return False
    # A comma may stand between two words of two clauses, not inside four letters.
    return not any(claim in text or (len(claim) > 2 and claim in bare) for claim in FORBIDDEN)


def _is_stuffed(sentence: Sentence, asked: str, topics: Sequence[str]) -> bool:
    """Whether a sentence is made of keywords: those of several elements, or of many topics."""
    text = sentence.text.lower()
    words = [m.group(m.lastindex or 0) for pattern in _PATTERNS.values() for m in pattern.finditer(text)]
    groups = sum(bool(pattern.search(text)) for pattern in _PATTERNS.values())
    return (
        groups > _MAX_ELEMENTS
        or sum(map(len, words)) > 0.5 * sentence.size
        or len(words) > groups + 1
        or len(other_words(text, asked, topics)) > _MAX_OTHER
    )


def _elements(sentences: Sequence[Sentence], num_all: int) -> dict[str, bool]:
    """Which elements are there, each in a sentence that counts and where it belongs."""
    found = dict.fromkeys(_PATTERNS, False)
    for sentence in sentences:
        text = sentence.text.lower()
        near_end = sentence.place >= num_all - 3
        for name, pattern in _PATTERNS.items():
            if not pattern.search(text):
                continue
            if name == "greeting":
                found[name] |= sentence.place <= 1
            elif name == "empathy":
                found[name] |= sentence.place <= 2
            elif name == "question":
                found[name] |= near_end and _ASKS.search(text) is not None
            else:
                found[name] |= near_end or name != "call_to_action"
    return found


def _format(sentences: Sequence[Sentence], said: str) -> float:
    """0.3 two lines, 0.3 two list entries (or none where two sentences need none: 0), 0.2 two sentences, 0.2
    bold, as in the plain reward, each of sentences that count."""
    if len(sentences) < 2:
        return 0.0
    tenths = 3 * ("\n" in said) + 3 * (sum(s.is_item for s in sentences) >= 2)
    return (tenths + 2 + 2 * any(s.is_bold for s in sentences)) / 10


def _relevance(asked: str, said: str, sentences: Sequence[Sentence], topics: Sequence[str]) -> float:
    """What the customer named is taken up, and most of what is said has words for what was asked."""
    if not sentences or language_of(asked) != language_of(said):
        return 0.0
    names = _names(asked, language_of(asked))
    named = [sum(name in sentence.text.lower() for name in names) for sentence in sentences]
    if not topics:  # nothing is known of what was asked: a name can be copied, so it earns half at most
        return min(_UNKNOWN, 0.1 + 0.2 * sum(map(bool, named)))
    answers = _answers(sentences, asked, topics)
    points = sum(answers)
    if not points:
        return 0.02
    in_answer = any(name and answer for name, answer in zip(named, answers, strict=True))
    subject = 1.0 if in_answer or not names else (0.6 if any(named) else 0.2)
    idle = [s for s, answer in zip(sentences, answers, strict=True) if not answer]
    focus = min(1.0, points / (len(sentences) - _num_spare(idle, asked)) / _FOCUS)
    words = {word for s in sentences for word in topic_words(s.text, asked, topics)}
    fullness = min(1.0, 0.4 + 0.3 * points, (1 + len(words)) / (1 + _ENOUGH_WORDS))
    # An answer is about one thing: a text that speaks of all topics in turn answers some of them everywhere.
    aside = sum(len(other_words(s.text, asked, topics)) for s in idle)
    scatter = _SCATTER ** (max(0, aside - _MAX_ASIDE) + max(0, sum(map(bool, named)) - _MAX_NAMED))
    return subject * focus**2 * scatter * fullness


def _num_spare(idle: Sequence[Sentence], asked: str) -> int:
    """How many sentences may answer nothing: one for each element, short and about nothing else."""
    open_elements, spare = set(_PATTERNS), 0
    for sentence in idle:
        found = {name for name in open_elements if _PATTERNS[name].search(sentence.text.lower())}
        is_plain = len(other_words(sentence.text, asked, ())) <= 1
        if found and is_plain and sentence.size <= _SHORT[language_of(asked)]:
            open_elements -= found
            spare += 1
    return spare


def _answers(sentences: Sequence[Sentence], asked: str, topics: Sequence[str]) -> list[float]:
    """How much each sentence answers, in 0..1; a word that another one has said already answers no more."""
    seen, found = set[str](), list[float]()
    for sentence in sentences:
        own = topic_words(sentence.text, asked, topics)
        found.append(_answering(sentence, asked, topics) if own - seen else 0.0)
        seen |= own
    return found


def _answering(sentence: Sentence, asked: str, topics: Sequence[str]) -> float:
    """1 for a sentence with words for what was asked, less when it has those for other things as well."""
    own = len(topic_words(sentence.text, asked, topics))
    others = len(other_words(sentence.text, asked, topics))
    return float(own / (own + max(0, others - 1))) ** 2 if own else 0.0


def _names(asked: str, language: str) -> set[str]:
    """What the customer may mean by name: pieces of the prompt without function words."""
    if language == "en":
        return {w for w in re.findall(r"[a-z][a-z0-9]{3,}", asked.lower()) if w not in _COMMON_EN}
    lowered = asked.lower()
    spans = (lowered[i : i + 3] for i in range(len(lowered) - 2))
    return {span for span in spans if span.isalnum() and not set(span) & _STOP and not span.isdigit()}


def _order(sentences: Sequence[Sentence]) -> float:
    """1, or less when a greeting comes after something else was said."""
    late = any(_PATTERNS["greeting"].search(s.text.lower()) and s.place > 1 for s in sentences)
    return 0.7 if late else 1.0
