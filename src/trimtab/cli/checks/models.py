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


def check_tokenizer(path: str, tokenizer: Any) -> Iterator[CheckLine]:
    """The exactness of a pair's mask: a prompt begins its dialogue, and the answer is what is trained."""
    prompt, ends = encode_prompt(tokenizer, PROBE), turn_end(tokenizer)
    # A generation prompt that opens a reasoning block wants an answer that closes it.
    text = tokenizer.decode(list(prompt))
    opened = tags_of(text)[-1:] if is_open(text) else []
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


def check_attention(model: Any, is_sampled: bool = True) -> Iterator[CheckLine]:
    """How the model learns and samples, and what makes it slower than it could be."""
    from trimtab.models.attention_proof import proof_of
    from trimtab.models.length_rule import length_rule
    from trimtab.models.packed_forward import find_packing_fault
    from trimtab.rollout.self_test import choose_cache

    proof = proof_of(model)
    if proof is None or proof.cause is not None:
        return  # loading it said so
    slower = []
    if fault := find_packing_fault(model):
        slower.append(f"it learns from padded rows ({fault})")
    if is_sampled and (fault := choose_cache(model)[1]):
        slower.append(f"transformers' generate samples ({fault})")
    if slower:
        fix = "results are the same; a model without that is faster"
        yield CheckLine("warn", "attention", f"{proof.sentence}, but {' and '.join(slower)}", fix)
    else:
        yield CheckLine("pass", "attention", proof.sentence)
    if (rule := length_rule(model)) is not None:
        yield CheckLine(
            "pass",
            "rotary factors",
            f"they depend on the length of a row beyond {rule.border} tokens: such rows run apart, padded",
        )


def check_reward_model(path: str, tokenizer: Any, template: str | None) -> Iterator[CheckLine]:
    """A reward model that is given: a classifier, validated, and with the policy's tokenizer and template."""
    from trimtab.rewards.learned import load_card
    from trimtab.rewards.trained import load_scorer_tokenizer, load_trained

    own = load_scorer_tokenizer(path, template)
    config = load_trained("reward_model", path, own, "cpu").config
    if config.num_labels == 2:
        bad, good = (repr(config.id2label.get(label)) for label in (0, 1))
        found = f"{path} has two labels: the score is the logit of {good} minus that of {bad}"
        yield CheckLine("warn", "reward model", found, "see that the second label is the good one")
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
