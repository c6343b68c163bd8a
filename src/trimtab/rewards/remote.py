"""The reward ``remote``: a server scores completions, ours or one of OpenRLHF's protocol (R31).

A server that is dead, slow or answers nonsense makes the samples abstain, with the cause; never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args
from urllib.parse import urlsplit

from trimtab.errors import RewardError, TrimtabError, nearest
from trimtab.rewards import wire
from trimtab.rewards.http_json import Endpoint, Failure, JsonClient, Timing, token_from
from trimtab.types import RewardResult, Sample

MAX_BODY = 8 * 2**20  # bytes of one request; more rows go into further ones


class RemoteReward:
    """Asks ``endpoint`` in batches of at most ``batch_size`` samples and 8 MiB.

    Args:
        protocol: ``trimtab`` (``POST /score``) or ``openrlhf`` (``POST /get_reward``).
        columns: the columns of a row that are sent (only with ``trimtab``); None sends all.
        tokenizer: with ``openrlhf``: renders prompts through its chat template, as OpenRLHF's queries are;
            None sends the last message as it is.

    Example:
        >>> reward = RemoteReward(Endpoint("http://127.0.0.1:8000/score"))
        >>> reward.score(samples)[0].error   # no server there
        'reward remote: ConnectError: All connection attempts failed (3 tries)'
    """

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: wire.Protocol = "trimtab",
        *,
        batch_size: int = 32,
        columns: Sequence[str] | None = None,
        tokenizer: Any = None,
        name: str = "remote",
        timing: Timing | None = None,
    ) -> None:
        if not 1 <= batch_size <= wire.MAX_SAMPLES:
            raise RewardError(f"Reward {name}: batch_size = {batch_size} must be 1 to {wire.MAX_SAMPLES}.")
        self.name, self.protocol, self.batch_size = name, protocol, batch_size
        self.columns = None if columns is None else tuple(columns)
        self.tokenizer = tokenizer
        self.step = 0
        self._counts: list[int] = []  # rows of each request that is under way
        self.client: JsonClient[list[RewardResult]] = JsonClient(endpoint.check(name), self._read, timing)

    def set_step(self, step: int) -> None:
        """Tell the training step, which our own servers pass on."""
        self.step = step

    def score(self, samples: Sequence[Sample]) -> list[RewardResult]:
        """Return one result per sample, in order; a failure of any kind is an abstention with its cause."""
        results: list[RewardResult | None] = [None] * len(samples)
        rows: list[tuple[int, bytes]] = []
        for index, sample in enumerate(samples):
            try:
                row = self._encode(sample)
                if len(row) > MAX_BODY:
                    raise ValueError(f"{len(row)} bytes are more than a request may have ({MAX_BODY})")
                rows.append((index, row))
            except (ValueError, TrimtabError) as error:  # the latter: the chat template refuses the row
                results[index] = RewardResult(None, error=f"reward {self.name}: {error}")
        batches = _batches(rows, self.batch_size)
        self._counts = [len(batch) for batch in batches]
        answers = self.client.post_all([self._body([row for _, row in batch]) for batch in batches])
        for batch, answer in zip(batches, answers, strict=True):
            if isinstance(answer, Failure):
                reason = f"reward {self.name}: {answer.reason}"
                answer = [RewardResult(None, error=reason) for _ in batch]
            for (index, _), result in zip(batch, answer, strict=True):
                results[index] = result
        return [result if result is not None else RewardResult(None) for result in results]

    def _encode(self, sample: Sample) -> bytes:
        if self.protocol == "trimtab":
            return wire.encode_sample(sample, self.columns)
        prompt = sample.prompt.text
        if self.tokenizer is not None:
            from trimtab.data.chat import render

            prompt = render(self.tokenizer, sample.prompt.messages, add_generation_prompt=True)
        return wire.encode_query(sample, prompt)

    def _body(self, rows: Sequence[bytes]) -> bytes:
        is_ours = self.protocol == "trimtab"
        return wire.encode_score(rows, self.step) if is_ours else wire.encode_get_reward(rows)

    def _read(self, answer: Any, number: int) -> list[RewardResult]:
        decode = wire.decode_score if self.protocol == "trimtab" else wire.decode_get_reward
        return decode(answer, self._counts[number], self.name)


def remote_reward(
    url: str,
    *,
    protocol: str = "auto",
    timeout_s: float = 30.0,
    deadline_s: float = 120.0,
    batch_size: int = 32,
    concurrency: int = 4,
    retries: int = 2,
    failures: int = 5,
    pause_s: float = 15.0,
    token_env: str = "",
    columns: list[str] | None = None,
    tokenizer: str = "",
) -> RemoteReward:
    """A ``RemoteReward`` from the options of a recipe.

    ``protocol = "auto"`` takes OpenRLHF's for every address with a path other than ``/score``; an address
    without a path gets ``/score``.

    Raises:
        RewardError: the address, the protocol, a bound or the token is not usable.
    """
    path = urlsplit(url).path
    if path in ("", "/") and protocol in ("auto", "trimtab"):
        url, path = f"{url.rstrip('/')}/score", "/score"
    if protocol == "auto":
        protocol = "trimtab" if path.endswith("/score") else "openrlhf"
    if protocol not in get_args(wire.Protocol):
        known = ("auto", *get_args(wire.Protocol))
        raise RewardError(f"Reward remote: there is no protocol '{protocol}'{nearest(protocol, known)}.")
    endpoint = Endpoint(
        url,
        token_from("remote", token_env),
        float(timeout_s),
        float(deadline_s),
        int(concurrency),
        int(retries),
        int(failures),
        float(pause_s),
    )
    loaded = None
    if tokenizer:
        from trimtab.models.load import load_tokenizer

        loaded = load_tokenizer(tokenizer)
    return RemoteReward(
        endpoint,
        "trimtab" if protocol == "trimtab" else "openrlhf",
        batch_size=int(batch_size),
        columns=columns,
        tokenizer=loaded,
    )


def _batches(rows: Sequence[tuple[int, bytes]], size: int) -> list[list[tuple[int, bytes]]]:
    """Neighbours together, at most ``size`` rows and MAX_BODY bytes in a batch."""
    batches: list[list[tuple[int, bytes]]] = []
    used = 0
    for row in rows:
        if not batches or len(batches[-1]) >= size or used + len(row[1]) > MAX_BODY:
            batches.append([])
            used = 0
        batches[-1].append(row)
        used += len(row[1]) + 1
    return batches
