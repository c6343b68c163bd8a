"""The training loops: SFT, reward model, GRPO and its relatives, PPO. Each is a function, no base class."""
