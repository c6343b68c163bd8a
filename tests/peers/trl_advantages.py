"""Group advantages out of a real TRL ``GRPOTrainer``: a model of one layer, given rewards, None included."""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor

REWARDS = [0.0, 1.0, 2.0, 5.0, 1.0, 1.0, 1.0, 1.0, 3.0, None, 4.0, 8.0]
NUM_GENERATIONS = 4


def trl_advantages(scale: str) -> Tensor:
    """What TRL makes of ``REWARDS`` in three groups of four, ``scale_rewards`` being group, batch or none."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "a": 3, "b": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: REWARDS,
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=len(REWARDS),
                num_generations=NUM_GENERATIONS,
                max_completion_length=2,
                use_cpu=True,
                bf16=False,
                report_to=[],
                scale_rewards=scale,
            ),
            train_dataset=Dataset.from_dict({"prompt": ["a"] * 3}),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
            ),
        )
        trainer.model.train()
        batch = trainer._generate_and_score_completions([{"prompt": "a"}] * len(REWARDS))
    return batch["advantages"]


def our_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """``REWARDS`` as rewards, valid and group_ids."""
    valid = torch.tensor([reward is not None for reward in REWARDS])
    rewards = torch.tensor([reward or 0.0 for reward in REWARDS])
    return rewards, valid, torch.arange(len(REWARDS)) // NUM_GENERATIONS
