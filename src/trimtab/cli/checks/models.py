"""The models of a recipe: tokenizer, template, EOS and padding, weights, and a reward model that fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.cli.checks.line import CheckLine
from trimtab.config import Recipe
from trimtab.data import encode_pair, encode_prompt, turn_end
from trimtab.data.fidelity import is_open, tags_of

PROBE = ({"role": "user", "content": "Hello, 你好?"},)
ANSWER = "Yes, 好的。"


def first_model(recipe: Recipe) -> str:
    """Return the model that the first stage of the recipe starts from."""
    if recipe.sft is not None:
        return recipe.sft.model or recipe.model.path
    if recipe.reward_model is not None:
        return recipe.reward_model.model or recipe.model.path
    if recipe.process_reward is not None:
        return recipe.process_reward.model or recipe.model.path
    return (recipe.rl.model if recipe.rl else None) or recipe.model.path


def check_tokenizer(path: str, tokenizer: Any, eos_ids: frozenset[int]) -> Iterator[CheckLine]:
    """Template, end of turn and padding; and the exactness of a pair's mask (traps 12 and 13)."""
    prompt = encode_prompt(tokenizer, PROBE)
    ends = turn_end(tokenizer)
    shown = f"a turn ends with {tokenizer.decode(list(ends))!r}, padding is {tokenizer.pad_token!r}"
    if not set(ends) <= eos_ids:
        fix = "add it to eos_token_id of generation_config.json"
        yield CheckLine("fail", "EOS", f"{shown}, and the engine would not stop at that end", fix)
    elif tokenizer.pad_token_id in eos_ids:
        fix = "choose another padding token, or the model never learns to stop"
        yield CheckLine("fail", "EOS", f"{shown}: padding is also an end", fix)
    else:
        yield CheckLine("pass", "EOS", shown)
    # A generation prompt that opens a reasoning block wants an answer that closes it.
    opened = tags_of(tokenizer.decode(list(prompt)))[-1:] if is_open(tokenizer.decode(list(prompt))) else []
    closing = [tag.replace("<", "</", 1).replace("[", "[/", 1) for tag in opened]
    pair = encode_pair(tokenizer, PROBE, "\n".join([*opened, *closing, ANSWER]))
    trained = [i for i, m in zip(pair.token_ids, pair.completion_mask, strict=True) if m]
    text = tokenizer.decode([i for i in trained if i not in ends])
    if pair.token_ids[: len(prompt)] != prompt or ANSWER not in text:
        fix = "mend the template, or give another with model.chat_template"
        yield CheckLine("fail", "chat template", f"{path}: its prompt is no beginning of its dialogue", fix)
    else:
        yield CheckLine(
            "pass", "chat template", f"a prompt of {len(prompt)} tokens begins its dialogue exactly"
        )


def check_reward_model(path: str, tokenizer: Any) -> Iterator[CheckLine]:
    """A reward model that is given: a classifier, validated, and with the policy's tokenizer and template."""
    from trimtab.models.load import is_sequence_classifier, load_tokenizer
    from trimtab.rewards.learned import load_card

    own = load_tokenizer(path)
    if not is_sequence_classifier(path):
        fix = "train one with the stage reward_model"
        yield CheckLine("fail", "reward model", f"{path} is a language model, not a reward model", fix)
        return
    card = load_card(path)
    accuracy = card.get("accuracy")
    if accuracy is None:
        fix = "its scores are not normalised; train it with trimtab, or expect raw scores"
        yield CheckLine("warn", "reward model", f"{path} has no validation beside it", fix)
    elif accuracy < 0.6:
        fix = "more or better pairs are needed, a policy would learn its noise"
        yield CheckLine("warn", "reward model", f"held-out accuracy is only {accuracy:.2f}", fix)
    else:
        yield CheckLine("pass", "reward model", f"{path}: held-out accuracy {accuracy:.2f}")
    if tokenizer is None:
        return
    same = own.get_vocab() == tokenizer.get_vocab() and own.chat_template == tokenizer.chat_template
    if same:
        yield CheckLine("pass", "reward model tokenizer", "vocabulary and template are the policy's")
    else:
        fix = "texts are re-tokenised for it; check that its template puts the answer last"
        yield CheckLine(
            "warn", "reward model tokenizer", "vocabulary or template differ from the policy's", fix
        )


def is_there(path: str) -> bool:
    """Whether a directory holds a model."""
    return (Path(path) / "config.json").is_file()
