"""Alarms about what is rewarded and what is written for it."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.monitor.texts.explanation import Explanation, Language

REWARDS: Mapping[str, Mapping[Language, Explanation]] = {
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
    "reward_saturation": {
        "en": Explanation(
            "The reward is saturated: all completions earn about the same",
            "The task is solved, or the reward has a ceiling (or a floor) that everything reaches; "
            "little is left to learn.",
            "stop (rl.steps), take harder prompts (rl.data), or a reward with more levels (rl.rewards).",
        ),
        "zh": Explanation(
            "奖励饱和：所有回答得分几乎相同",
            "任务已经学会，或所有回答都到了奖励的上限（或下限）；已经没有多少可学。",
            "停止训练 rl.steps，使用更难的提示 rl.data，或档位更多的奖励 rl.rewards。",
        ),
    },
    "zero_variance": {
        "en": Explanation(
            "Many groups have equal rewards and teach nothing",
            "Prompts are too easy or too hard, or the reward has too few levels.",
            "sample those groups again (rl.dynamic_sampling.enabled), raise rl.num_generations or "
            "rl.temperature, or change the prompts (rl.data); with one completion per prompt, as in PPO, the "
            "step is compared: there take other prompts or a finer reward (rl.rewards).",
        ),
        "zh": Explanation(
            "许多组内奖励完全相同，无法提供学习信号",
            "提示太容易或太难，或奖励的档位太少。",
            "对这些组重新采样 rl.dynamic_sampling.enabled，提高 rl.num_generations 或 rl.temperature，"
            "或更换提示数据 rl.data；每个提示只有一个回答时（如 PPO）按整步比较，"
            "应更换提示或改用更细的奖励 rl.rewards。",
        ),
    },
    "reward_abstains": {
        "en": Explanation(
            "Most completions get no reward",
            "The reward fails or says that it does not apply; what gets no reward teaches nothing.",
            "mend the reward (rl.rewards) or give the data the columns that it reads (rl.data); "
            "`trimtab check` and `trimtab rewards score` try it without training.",
        ),
        "zh": Explanation(
            "大多数回答没有得到奖励",
            "奖励函数出错，或认为自己不适用；没有奖励的回答学不到任何东西。",
            "修复奖励 rl.rewards，或在数据 rl.data 中补上它读取的列；"
            "`trimtab check` 和 `trimtab rewards score` 无需训练即可试用它。",
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
    "component_share": {
        "en": Explanation(
            "One reward component takes the gain of all, and others do not follow",
            "It is the easiest to raise: the policy earns it at the expense of the others, or learns the "
            "form only.",
            "lower its weight or make it a gate (rl.rewards), normalise each component "
            "(rl.advantage.components), and read samples.",
        ),
        "zh": Explanation(
            "某个奖励分量独占了全部增益，其他分量没有跟上",
            "它最容易提高：策略以其他分量为代价，或只学会了形式。",
            "降低它的权重或改为门槛 rl.rewards，对各分量分别归一化 rl.advantage.components，并阅读样本。",
        ),
    },
    "reward_by_length": {
        "en": Explanation(
            "The reward follows the length: answers grow, and each step's reward moves with them",
            "The reward pays for length, by itself or through what long answers happen to contain.",
            "attack the reward with `trimtab rewards audit`, punish overlong answers "
            "(rl.overlong.buffer), or take length out of the reward (rl.rewards).",
        ),
        "zh": Explanation(
            "奖励跟着长度走：回答越来越长，每一步的奖励随之变动",
            "奖励在为长度付钱，无论是直接的，还是因为长回答碰巧包含更多内容。",
            "用 `trimtab rewards audit` 攻击这个奖励，惩罚过长回答 "
            "rl.overlong.buffer，或从奖励中去掉长度的影响 rl.rewards。",
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
    "length_drift": {
        "en": Explanation(
            "The length of the answers has changed abruptly",
            "Growing: the reward pays for length, or the policy unlearns to stop. Shrinking: short "
            "answers earn as much.",
            "read samples, punish overlong answers (rl.overlong.buffer), raise rl.kl.coef, or take "
            "length out of the reward (rl.rewards).",
        ),
        "zh": Explanation(
            "回答长度突然改变",
            "变长：奖励为长度付钱，或策略忘记了如何结束；变短：短回答也能得到同样的奖励。",
            "阅读样本，惩罚过长回答 rl.overlong.buffer，提高 rl.kl.coef，"
            "或从奖励中去掉长度的影响 rl.rewards。",
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
