"""The reward of a recipe, tried on four samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from trimtab.cli.checks.line import CheckLine
from trimtab.cli.checks.models import is_there
from trimtab.config import Recipe, RewardSpec
from trimtab.errors import RewardError
from trimtab.pipeline.trials import ANSWERS, TRIED
from trimtab.rewards.adapters import gold_of
from trimtab.rewards.combine import CombinedReward
from trimtab.rewards.gold import HasGold
from trimtab.rewards.process_reward import load_process_card
from trimtab.rewards.registry import build_reward, uses_process_reward, uses_reward_model
from trimtab.types import Prompt, Sample


def check_rewards(recipe: Recipe, prompts: Sequence[Prompt], reward_model: str | None) -> Iterator[CheckLine]:
    """Build ``rl.rewards`` and score four samples; ``reward_model`` is None where it is not trained yet."""
    assert recipe.rl is not None
    specs = recipe.rl.rewards
    process_reward = recipe.paths.process_reward if uses_process_reward(specs) else None
    if process_reward is not None and not is_there(process_reward):
        if recipe.process_reward is None:
            fix = "add a table [process_reward], or give its directory as the option path"
            found = f"process_reward needs a process reward model and there is none at {process_reward}"
            yield CheckLine("fail", "rl.rewards", found, fix)
            return
        specs = [spec for spec in specs if spec.name != "process_reward" or "path" in spec.options]
        found = "the process reward model is trained by this recipe, so its part is left out here"
        yield CheckLine("warn", "rl.rewards", found, "check again after the stage process_reward")
        if not specs:
            return
        process_reward = None
    elif process_reward is not None:
        card = load_process_card(process_reward)
        found = f"{process_reward}: first error found in {card.get('first_error_accuracy', 0):.0%} held out"
        yield CheckLine("pass", "process reward model", found)
    names = ", ".join(map(_shown, specs))
    if uses_reward_model(specs) and reward_model is None:
        if recipe.reward_model is None:
            fix = "add a table [reward_model], or give its directory as rl.reward_model"
            yield CheckLine("fail", "rl.rewards", f"{names} needs a reward model and there is none", fix)
            return
        specs = [spec.model_copy(update={"options": _without_model(spec.options)}) for spec in specs]
        specs = [spec for spec in specs if spec.name != "reward_model"]
        found = "the reward model is trained by this recipe, so its part is tried without it"
        yield CheckLine("warn", "rl.rewards", found, "check again after the stage reward_model")
        if not specs:
            return
    reward = build_reward(
        specs,
        reward_model=reward_model,
        process_reward=process_reward,
        clip=recipe.rl.reward_clip,
        device=recipe.model.device,
        chat_template=recipe.model.chat_template,
    )
    samples = [Sample(prompt, answer) for prompt, answer in zip(prompts[:TRIED], ANSWERS, strict=False)]
    results = reward.score(samples)
    errors = [result.error for result in results if result.error]
    values = [result.value for result in results if result.value is not None]
    is_flat = len(values) > 1 and len(set(values)) == 1
    right = right_answers(reward, prompts[0]) if is_flat else []
    paid = [
        r.value for r in reward.score([Sample(prompts[0], text) for text in right]) if r.value is not None
    ]
    if paid and max(paid) != values[0]:
        shown = f"{names} gave {values[0]:.3g} to {len(values)} samples and {max(paid):.3g} to a right answer"
        yield CheckLine("pass", "rl.rewards", shown)
        return
    if errors:
        found = f"{names} failed on {len(errors)} of {len(samples)} samples ({errors[0].rstrip('.')})"
        yield CheckLine("fail", "rl.rewards", found, "mend the reward, or give the data its columns")
    elif not values:
        fix = "check that the data has the columns that it reads"
        yield CheckLine("fail", "rl.rewards", f"{names} abstained on all {len(samples)} samples", fix)
    elif is_flat:
        found = f"{names} gave {values[0]:.3g} to all {len(values)} samples, which are very different answers"
        fix = "equal rewards teach nothing: see with `trimtab rewards score` that it tells good from bad"
        yield CheckLine("warn", "rl.rewards", found, fix)
    else:
        shown = ", ".join(f"{value:.3g}" for value in values)
        yield CheckLine("pass", "rl.rewards", f"{names} gave {shown} on {len(samples)} samples")


def right_answers(reward: CombinedReward, prompt: Prompt) -> list[str]:
    """What should earn more than the samples on this prompt: the gold answer, in the forms that are usual."""
    texts = []
    for component, _ in reward.components:
        if isinstance(component, HasGold):
            with suppress(RewardError):  # the gold check tells it
                texts.append(component.gold_completion(prompt))
    gold = gold_of(prompt.columns)
    if isinstance(gold, (str, int, float)):
        texts += [f"{gold}", f"\\boxed{{{gold}}}", f"<answer>{gold}</answer>", f"#### {gold}"]
    return [text for text in texts if text]


def check_judge(recipe: Recipe, reward_model: str | None) -> Iterator[CheckLine]:
    """The judge of the win rate can be loaded and is none of the training's rewards."""
    from trimtab.evals.judges import build_judge

    assert recipe.rl is not None and recipe.eval is not None and recipe.eval.judge is not None
    build_judge(
        recipe.eval.judge,
        rewards=recipe.rl.rewards,
        reward_model=reward_model,
        device=recipe.model.device,
        chat_template=recipe.model.chat_template,
    )
    yield CheckLine("pass", "eval.judge", f"{recipe.eval.judge} is no training reward")


def _shown(spec: RewardSpec) -> str:
    """One entry of ``rl.rewards`` and what it does: a weight that is added, a gate, or a limit."""
    if spec.constraint is not None:
        return f"constraint {spec.name} (violated at most {spec.constraint.target:.1%})"
    return f"gate {spec.name}" if spec.gate else f"{spec.weight:g}×{spec.name}"


def _without_model(options: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in options.items() if key != "relevance"}
