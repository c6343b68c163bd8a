"""The alarms: what each one means, what causes it, and what to change, in English and in Chinese (R14, R18).

Every remedy names a key of the recipe, so that it can be tried with ``trimtab run RECIPE --KEY VALUE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

AlarmKind = Literal[
    "non_finite",
    "kl_too_high",
    "reward_falling",
    "entropy_collapse",
    "reward_hacking",
    "truncation",
    "zero_variance",
    "clip_saturation",
    "repetition",
    "hidden_gap",
    "quality_gap",
]
Language = Literal["en", "zh"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One alarm in one language."""

    symptom: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """A detector's finding: the measured ``value`` against its ``threshold``, of ``metric`` (our name).

    ``evidence`` are the figures beside it that made the detector speak.
    """

    kind: AlarmKind
    metric: str
    value: float
    threshold: float
    evidence: Mapping[str, float] = field(default_factory=dict, hash=False)

    def message(self, language: str = "en") -> str:
        """The finding as one line: symptom, figures, remedy."""
        text = self.explain(language)
        figures = f"{self.metric} = {self.value:.4g}, {_LIMIT[_known(language)]} {self.threshold:.4g}"
        figures += "".join(f", {name} {value:.3g}" for name, value in self.evidence.items())
        if _known(language) == "zh":
            return f"{text.symptom}（{figures}）：{text.remedy}"
        return f"{text.symptom} ({figures}): {text.remedy}"

    def explain(self, language: str = "en") -> Explanation:
        """Symptom, cause and remedy; English for a language that there is no text in."""
        return SIGNALS[self.kind][_known(language)]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the event of the alarm, with the message in both languages."""
        return {
            "kind": self.kind,
            "metric": self.metric,
            "value": self.value,
            "threshold": self.threshold,
            "evidence": dict(self.evidence),
            "message": {language: self.message(language) for language in _LIMIT},
        }


_LIMIT: Mapping[Language, str] = {"en": "limit", "zh": "界限"}


def _known(language: str) -> Language:
    return "zh" if language == "zh" else "en"


SIGNALS: Mapping[AlarmKind, Mapping[Language, Explanation]] = {
    "non_finite": {
        "en": Explanation(
            "Numerical crash: a figure is NaN or infinite",
            "The learning rate is too high, a value overflowed in a narrow float type, or a reward is NaN.",
            "train in bfloat16 or float32, never float16 (model.dtype), lower rl.learning_rate, "
            "and clip gradients harder (rl.max_grad_norm).",
        ),
        "zh": Explanation(
            "数值崩溃：出现 NaN 或无穷大",
            "学习率过高，窄精度浮点溢出，或奖励不是有效数字。",
            "使用 bfloat16 或 float32 而不是 float16（model.dtype），降低学习率 rl.learning_rate，"
            "加强梯度裁剪 rl.max_grad_norm。",
        ),
    },
    "kl_too_high": {
        "en": Explanation(
            "KL too high: the policy has drifted from the reference",
            "Updates are too large or the penalty too weak; the text soon turns odd.",
            'raise the KL penalty (rl.kl.coef, or rl.kl.controller = "adaptive"), lower rl.learning_rate, '
            "or tighten the clip (rl.clip).",
        ),
        "zh": Explanation(
            "KL 散度过高：策略偏离参考模型太远",
            "更新过大或惩罚过弱，生成文本很快会变得怪异。",
            '增加 KL 惩罚（rl.kl.coef，或 rl.kl.controller = "adaptive"），降低学习率 rl.learning_rate，'
            "或收紧裁剪范围 rl.clip。",
        ),
    },
    "reward_falling": {
        "en": Explanation(
            "Reward falling: maybe over-fitting or an unstable update",
            "The policy has left the region where the reward can be trusted, or updates are too large.",
            "go back to an earlier checkpoint, stop earlier (rl.steps), lower rl.learning_rate, "
            "or raise rl.kl.coef.",
        ),
        "zh": Explanation(
            "奖励下降：可能过拟合或更新不稳定",
            "策略离开了奖励可信的区域，或学习率过高。",
            "回到较早的检查点，提前停止 rl.steps，降低学习率 rl.learning_rate，或提高 rl.kl.coef。",
        ),
    },
    "entropy_collapse": {
        "en": Explanation(
            "Too little diversity: the entropy has collapsed",
            "The policy repeats the few answers that paid best, and groups stop telling it anything.",
            "add an entropy bonus (rl.entropy_coef), raise rl.temperature, widen the upper clip "
            "(rl.clip.high), or stop earlier (rl.steps).",
        ),
        "zh": Explanation(
            "多样性过低：熵坍缩",
            "策略只重复奖励最高的少数答案，组内比较不再提供信息。",
            "加入熵奖励 rl.entropy_coef，提高采样温度 rl.temperature，放宽裁剪上界 rl.clip.high，"
            "或提前停止 rl.steps。",
        ),
    },
    "reward_hacking": {
        "en": Explanation(
            "Possible reward hacking: the reward rises while quality falls",
            "The policy has found what the reward pays for instead of what it stands for.",
            "raise rl.kl.coef, improve the reward or add another one (rl.rewards), and reward diversity; "
            "read samples before going on.",
        ),
        "zh": Explanation(
            "可能的奖励作弊：奖励上升而质量下降",
            "策略学会了奖励函数的漏洞，而不是它所代表的目标。",
            "提高 rl.kl.coef，改进奖励或增加一个奖励 rl.rewards，并奖励多样性；继续之前请先阅读样本。",
        ),
    },
    "truncation": {
        "en": Explanation(
            "Many completions are cut off at the limit",
            "Answers grow longer than the limit, or the policy has unlearnt to stop.",
            "raise rl.max_new_tokens, punish overlong answers (rl.overlong.buffer), or leave cut "
            "answers out of the loss (rl.overlong.mask_truncated).",
        ),
        "zh": Explanation(
            "大量回答在长度上限处被截断",
            "回答越来越长，超过上限，或策略忘记了如何结束。",
            "提高 rl.max_new_tokens，惩罚过长回答 rl.overlong.buffer，或将被截断的回答排除在损失之外 "
            "rl.overlong.mask_truncated。",
        ),
    },
    "zero_variance": {
        "en": Explanation(
            "Many groups have equal rewards and teach nothing",
            "Prompts are too easy or too hard, or the reward has too few levels.",
            "sample those groups again (rl.dynamic_sampling.enabled), raise rl.num_generations or "
            "rl.temperature, or change the prompts (rl.data).",
        ),
        "zh": Explanation(
            "许多组内奖励完全相同，无法提供学习信号",
            "提示太容易或太难，或奖励的档位太少。",
            "对这些组重新采样 rl.dynamic_sampling.enabled，提高 rl.num_generations 或 rl.temperature，"
            "或更换提示数据 rl.data。",
        ),
    },
    "clip_saturation": {
        "en": Explanation(
            "Too many tokens are clipped",
            "The policy moves too far on one batch of samples.",
            "lower rl.learning_rate, or make fewer updates per batch (rl.num_epochs_per_batch, "
            "rl.num_minibatches).",
        ),
        "zh": Explanation(
            "被裁剪的 token 过多",
            "策略在同一批样本上移动过远。",
            "降低学习率 rl.learning_rate，或减少每批更新次数"
            "（rl.num_epochs_per_batch、rl.num_minibatches）。",
        ),
    },
    "repetition": {
        "en": Explanation(
            "Answers repeat themselves: fewer different token pairs than at the start",
            "Templates or loops pay well, or diversity is collapsing.",
            "raise rl.kl.coef or rl.temperature, add a reward for diversity or against repetition "
            "(rl.rewards), and read samples.",
        ),
        "zh": Explanation(
            "回答开始重复：不同的 token 对少于训练初期",
            "套话或循环得到了高奖励，或多样性正在坍缩。",
            "提高 rl.kl.coef 或 rl.temperature，在 rl.rewards 中加入多样性奖励或重复惩罚，并阅读样本。",
        ),
    },
    "hidden_gap": {
        "en": Explanation(
            "The hidden set falls behind: training prompts pass more and more, hidden ones do not",
            "The policy learns the training prompts by heart, or has found something that only they pay for.",
            "stop earlier (rl.steps, rl.epochs), give more and more varied prompts (rl.data), raise "
            "rl.kl.coef, or lower rl.learning_rate.",
        ),
        "zh": Explanation(
            "隐藏集落后：训练提示的通过率不断上升，隐藏提示却没有",
            "策略在背诵训练提示，或找到了只在训练提示上有效的捷径。",
            "提前停止 rl.steps、rl.epochs，使用更多、更多样的提示 rl.data，提高 rl.kl.coef，"
            "或降低学习率 rl.learning_rate。",
        ),
    },
    "quality_gap": {
        "en": Explanation(
            "The reward is being gamed: it rises while a measure that is not trained on falls",
            "The policy has found what the reward pays for instead of what it stands for; change and limit "
            "are in standard deviations of the first evaluations.",
            "attack the reward with `trimtab rewards audit`, improve it or add gates (rl.rewards), raise "
            "rl.kl.coef, and go back to a checkpoint from before the fall (rl.checkpoint_every).",
        ),
        "zh": Explanation(
            "奖励被钻空子：奖励上升，而不参与训练的度量下降",
            "策略学会了奖励函数的漏洞，而不是它所代表的目标；变化与界限以最初几次评估的标准差为单位。",
            "用 `trimtab rewards audit` 攻击这个奖励，改进它或加入硬性门槛 rl.rewards，提高 rl.kl.coef，"
            "并回到下降之前的检查点 rl.checkpoint_every。",
        ),
    },
}
