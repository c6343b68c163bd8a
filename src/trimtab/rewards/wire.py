"""What goes over the network to a reward and back: our own schema and OpenRLHF's.

Ours, ``POST /score``: ``{"samples": [{"id", "messages", "completion", "columns", "token_ids",
"finish_reason", "is_conversational"}], "step": 0}`` → ``{"results": [{"value", "parts", "error"}]}``; value
null abstains. OpenRLHF's (``--remote_rm_url``), ``POST /get_reward``: ``{"query": [...], "prompts": [...],
"labels": [...]}`` → ``{"rewards": [...]}``, a query being prompt and answer in one text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.rewards.adapters import gold_of
from trimtab.rewards.base import check_result
from trimtab.runs.plain_text import one_line
from trimtab.types import Prompt, RewardResult, Sample

Protocol = Literal["trimtab", "openrlhf"]
MAX_SAMPLES = 4096  # in one request
_REWARD_KEYS = ("rewards", "scores", "reward", "score")
_MAX_PARTS = 64

_Text = Annotated[str, Field(max_length=4_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class WireMessage(_Strict):
    """One message of a prompt."""

    role: Annotated[str, Field(max_length=64)]
    content: _Text


class WireSample(_Strict):
    """One completion with all that a reward may see of it."""

    id: Annotated[str, Field(max_length=1000)] = ""
    messages: Annotated[list[WireMessage], Field(min_length=1, max_length=1000)]
    completion: _Text
    columns: dict[str, Any] = Field(default_factory=dict)
    token_ids: list[int] = Field(default_factory=list)
    finish_reason: Literal["stop", "length", "aborted"] = "stop"
    is_conversational: bool = False


class ScoreRequest(_Strict):
    """The body of ``POST /score``."""

    samples: Annotated[list[WireSample], Field(min_length=1, max_length=MAX_SAMPLES)]
    step: int = 0


class GetRewardRequest(BaseModel):
    """The body of ``POST /get_reward``; other keys, which clients of other versions send, are not read."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    query: Annotated[list[_Text], Field(min_length=1, max_length=MAX_SAMPLES)]
    prompts: list[_Text] | None = None
    labels: list[Any] | None = None


def encode_sample(sample: Sample, columns: Sequence[str] | None = None) -> bytes:
    """One sample of ``POST /score``; ``columns`` are those that are sent (None: all).

    Raises:
        ValueError: a column is no JSON, or a text cannot be encoded; says which.
    """
    given = sample.prompt.columns
    sent = {name: value for name, value in given.items() if columns is None or name in columns}
    for name, value in sent.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"column '{name}' cannot be sent ({one_line(str(error), 80)}): leave it out of columns"
            ) from None
    return _encode(
        {
            "id": sample.prompt.id[:1000],
            "messages": [{"role": m["role"], "content": m["content"]} for m in sample.prompt.messages],
            "completion": sample.completion,
            "columns": sent,
            "token_ids": list(sample.token_ids),
            "finish_reason": sample.finish_reason,
            "is_conversational": sample.prompt.is_conversational,
        }
    )


def encode_score(samples: Sequence[bytes], step: int) -> bytes:
    """The body of ``POST /score`` from encoded samples."""
    return b'{"samples":[' + b",".join(samples) + b'],"step":' + str(int(step)).encode() + b"}"


def encode_query(sample: Sample, prompt: str) -> bytes:
    """``[query, prompt, label]`` of one sample for ``POST /get_reward``.

    Raises:
        ValueError: the label is no JSON, or a text cannot be encoded.
    """
    return _encode([prompt + sample.completion, prompt, gold_of(sample.prompt.columns)])


def encode_get_reward(rows: Sequence[bytes]) -> bytes:
    """The body of ``POST /get_reward`` from encoded rows."""
    query, prompts, labels = (list(column) for column in zip(*(json.loads(row) for row in rows), strict=True))
    return _encode({"query": query, "prompts": prompts, "labels": labels})


def decode_score(answer: Any, count: int, name: str) -> list[RewardResult]:
    """The results of ``POST /score``, each checked.

    Raises:
        ValueError: the answer is not of this form, or has not one result per sample.
    """
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise ValueError(f"the answer has no list 'results' ({_shape(answer)})")
    _check_count(results, count)
    return [_decode_one(result, name) for result in results]


def decode_get_reward(answer: Any, count: int, name: str) -> list[RewardResult]:
    """The results of ``POST /get_reward``: ``rewards``, or ``scores``, ``reward``, ``score``; a bare number
    is one reward. ``scores`` beside ``rewards``, and lists of ``extra_logs``, become parts.

    Raises:
        ValueError: the answer is not of this form, or has not one reward per query.
    """
    key = next((k for k in _REWARD_KEYS if k in answer), None) if isinstance(answer, dict) else None
    if key is None:
        raise ValueError(f"the answer has no list 'rewards' ({_shape(answer)})")
    values = _as_list(answer[key], key)
    _check_count(values, count)
    logs = answer.get("extra_logs")
    extra = dict(logs) if isinstance(logs, dict) else {}
    if key == "rewards" and "scores" in answer:
        extra["scores"] = answer["scores"]
    columns = {k: v for k, v in list(extra.items())[:_MAX_PARTS] if isinstance(v, list) and len(v) == count}
    errors = answer.get("errors")
    reasons = errors if isinstance(errors, list) and len(errors) == count else [None] * count
    return [
        _result(value, {k: v[row] for k, v in columns.items()}, reasons[row], name)
        for row, value in enumerate(values)
    ]


def results_as_json(results: Sequence[RewardResult]) -> dict[str, Any]:
    """The answer to ``POST /score``."""
    return {"results": [{"value": r.value, "parts": dict(r.parts), "error": r.error} for r in results]}


def rewards_as_json(results: Sequence[RewardResult]) -> dict[str, Any]:
    """The answer to ``POST /get_reward``: null where the reward abstained (OpenRLHF knows no such thing)."""
    rewards = [result.value for result in results]
    answer: dict[str, Any] = {"rewards": rewards, "scores": rewards, "extra_logs": {}}
    return answer | ({"errors": [r.error for r in results]} if any(r.error for r in results) else {})


def samples_of_score(body: Mapping[str, Any]) -> list[Sample]:
    """The samples of a valid body of ``POST /score``."""
    return [
        Sample(
            Prompt(
                s.get("id", ""),
                tuple(s["messages"]),
                s.get("columns", {}),
                is_conversational=s.get("is_conversational", False),
            ),
            s["completion"],
            tuple(s.get("token_ids", ())),
            s.get("finish_reason", "stop"),
        )
        for s in body["samples"]
    ]


def samples_of_get_reward(body: Mapping[str, Any]) -> list[Sample]:
    """The samples of a valid body of ``POST /get_reward``; a label is the columns label and answer.

    The completion is what follows the prompt in the query; the whole query where it does not begin with it.
    """
    queries, prompts, labels = body["query"], body.get("prompts"), body.get("labels")
    samples = []
    for row, query in enumerate(queries):
        prompt = prompts[row] if prompts else ""
        columns = {"label": labels[row], "answer": labels[row]} if labels else {}
        messages = ({"role": "user", "content": prompt},)
        samples.append(Sample(Prompt(str(row), messages, columns), query.removeprefix(prompt)))
    return samples


def check_body(path: str, body: bytes) -> str | None:
    """What is wrong with the body of a request, in one sentence; None when nothing is."""
    model: type[BaseModel] = ScoreRequest if path == "/score" else GetRewardRequest
    try:
        found = model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        return f"The body is not valid: {f'{one_line(where, 100)}: ' if where else ''}{first['msg']}{more}."
    if isinstance(found, GetRewardRequest):
        for key in ("prompts", "labels"):
            column = getattr(found, key)
            if column is not None and len(column) != len(found.query):
                return f"The body has {len(found.query)} queries and {len(column)} {key}."
    return None


def _decode_one(result: Any, name: str) -> RewardResult:
    if not isinstance(result, dict) or "value" not in result:
        return RewardResult(None, error=f"reward {name}: a result without 'value' came back")
    parts = result.get("parts") or {}
    return _result(result["value"], parts if isinstance(parts, dict) else {}, result.get("error"), name)


def _result(value: Any, parts: Mapping[str, Any], error: Any, name: str) -> RewardResult:
    """One checked result: what the server says is wrong wins over the value that it gives."""
    numbers = {
        one_line(str(key), 60): checked.value
        for key, part in list(parts.items())[:_MAX_PARTS]
        if (checked := check_result(part, name)).value is not None
    }
    if error is not None:
        return RewardResult(None, numbers, f"reward {name}: the server says: {one_line(str(error), 200)}")
    found = check_result(value, name)
    return RewardResult(found.value, numbers, found.error)


def _as_list(values: Any, key: str) -> list[Any]:
    if isinstance(values, (int, float)) and not isinstance(values, bool):
        return [values]
    if not isinstance(values, list):
        raise ValueError(f"'{key}' is a {type(values).__name__}, not a list of numbers")
    return values


def _check_count(values: Sequence[Any], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{len(values)} values came back for {count} completions")


def _shape(answer: Any) -> str:
    if not isinstance(answer, dict):
        return f"it is a {type(answer).__name__}"
    return f"it has {', '.join(one_line(str(key), 30) for key in list(answer)[:6]) or 'nothing'}"


def _encode(what: Any) -> bytes:
    try:
        return json.dumps(what, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a text holds half a surrogate pair, which cannot be sent") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the row cannot be sent ({one_line(str(error), 80)})") from None
