"""``reward_func`` as OpenRLHF's users write it (``--reward.remote_url FILE.py``)."""

import torch


def reward_func(queries, prompts, labels, **kwargs):
    answers = [query[len(prompt) :] for query, prompt in zip(queries, prompts, strict=True)]
    reward = torch.tensor([float(a == label) for a, label in zip(answers, labels, strict=True)])
    return {
        "rewards": reward,
        "scores": reward * 0.5,
        "extra_logs": {"length": torch.tensor([9.0] * len(answers))},
    }


def tensor_func(queries, prompts, labels):
    return torch.tensor([float(len(query)) for query in queries])


def list_func(queries, prompts, labels):
    return [1.0 if str(label) in query else 0.0 for query, label in zip(queries, labels, strict=True)]
