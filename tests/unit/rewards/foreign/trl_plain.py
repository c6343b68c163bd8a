"""Reward functions as TRL's users write them (GRPOTrainer, "Using a custom reward function")."""

import re


def reward_len(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def reward_ids(completions, completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def format_reward(completions, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(r"^<think>.*?</think><answer>.*?</answer>$", c) else 0.0 for c in contents]


def against_ground_truth(completions, ground_truth, **kwargs):
    found = [re.search(r"\\boxed\{(.*?)\}", completion) for completion in completions]
    contents = [match.group(1) if match else "" for match in found]
    return [1.0 if c == gt else 0.0 for c, gt in zip(contents, ground_truth, strict=True)]


def math_only(prompts, completions, task, **kwargs):
    rewards = []
    for _, completion, kind in zip(prompts, completions, task, strict=True):
        rewards.append((1.0 if "4" in completion else -1.0) if kind == "math" else None)
    return rewards


def later_is_stricter(completions, trainer_state, **kwargs):
    limit = 2 if trainer_state.global_step >= 10 else 4
    return [1.0 if len(c) <= limit else 0.0 for c in completions]


def with_logs(completions, answer, log_extra=None, log_metric=None, **kwargs):
    right = [1.0 if c == a else 0.0 for c, a in zip(completions, answer, strict=True)]
    if log_extra:
        log_extra("gold", list(answer))
        log_extra("length", [len(c) for c in completions])
    if log_metric:
        log_metric("accuracy", sum(right) / len(right))
    return right


class Keyword:
    """A callable object with a state of its own."""

    def __init__(self, word):
        self.word = word
        self.__name__ = f"keyword_{word}"

    def __call__(self, prompts, completions, **kwargs):
        return [float(self.word in completion) for completion in completions]


please = Keyword("please")
