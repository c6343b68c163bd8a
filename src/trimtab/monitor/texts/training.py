"""Alarms about the policy, its updates and the machine."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.monitor.texts.explanation import Explanation, Language

TRAINING: Mapping[str, Mapping[Language, Explanation]] = {
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
    "kl_explosion": {
        "en": Explanation(
            "KL explosion: the policy leaves the reference faster and faster",
            "One update was too large, or the penalty cannot hold the reward's pull; odd text follows "
            "within some steps.",
            "lower rl.learning_rate, raise rl.kl.coef, tighten rl.clip, and go back to a checkpoint from "
            "before (rl.checkpoint_every).",
        ),
        "zh": Explanation(
            "KL 爆炸：策略正在加速离开参考模型",
            "某次更新过大，或惩罚挡不住奖励的拉力；几步之后文本就会变得怪异。",
            "降低学习率 rl.learning_rate，提高 rl.kl.coef，收紧 rl.clip，"
            "并回到之前的检查点 rl.checkpoint_every。",
        ),
    },
    "kl_negative": {
        "en": Explanation(
            "Negative KL: the divergence from the reference is measured wrongly",
            "The completions were not drawn from the policy that is measured: sampling is truncated, or "
            "weights are stale; no true divergence is negative.",
            "sample from the whole distribution (rl.top_p = 1, rl.top_k = 0), measure with another "
            "estimator (rl.kl.estimator), and look at kl/engine.",
        ),
        "zh": Explanation(
            "KL 为负：与参考模型的散度测量有误",
            "回答不是从被测量的策略中采样的：采样被截断，或权重过期；真正的散度不会为负。",
            "从完整分布采样（rl.top_p = 1，rl.top_k = 0），换一种估计方法 "
            "rl.kl.estimator，并查看 kl/engine。",
        ),
    },
    "kl_drift": {
        "en": Explanation(
            "KL drift: the policy keeps leaving the reference and earns nothing for it",
            "Updates follow noise: the reward no longer rises, and the penalty is too weak to hold the "
            "policy.",
            "stop earlier (rl.steps), raise rl.kl.coef, or lower rl.learning_rate.",
        ),
        "zh": Explanation(
            "KL 漂移：策略不断远离参考模型，却没有换来奖励",
            "更新在追随噪声：奖励不再上升，而惩罚太弱，拉不住策略。",
            "提前停止 rl.steps，提高 rl.kl.coef，或降低学习率 rl.learning_rate。",
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
    "entropy_explosion": {
        "en": Explanation(
            "Entropy explosion: the output turns random",
            "The entropy bonus outweighs the reward, or a large update has broken the policy.",
            "lower rl.entropy_coef, lower rl.learning_rate or rl.temperature, or raise rl.kl.coef.",
        ),
        "zh": Explanation(
            "熵爆炸：输出变得随机",
            "熵奖励压过了任务奖励，或一次过大的更新破坏了策略。",
            "降低 rl.entropy_coef，降低 rl.learning_rate 或 rl.temperature，或提高 rl.kl.coef。",
        ),
    },
    "policy_unmoved": {
        "en": Explanation(
            "The policy has not moved: after many steps it is where it began, and so is the reward",
            "The learning rate is too low for this model, or the KL penalty holds it. Small models need "
            "more: about 2e-5 at 135 million parameters, where 3e-6 does nothing; 1e-6 to 5e-6 from a "
            "thousand million on; with an adapter ten times as much.",
            "raise rl.learning_rate three to ten times (`trimtab check` says the range of this model's "
            "size), or lower rl.kl.coef.",
        ),
        "zh": Explanation(
            "策略没有移动：训练多步之后仍在原处，奖励也没有变化",
            "学习率对这个模型过低，或 KL 惩罚拉住了它。小模型需要更大的学习率：1.35 亿参数约 2e-5"
            "（3e-6 毫无作用），十亿参数以上 1e-6 到 5e-6；使用适配器时为十倍。",
            "将学习率 rl.learning_rate 提高三到十倍（`trimtab check` 会给出该规模模型的范围），"
            "或降低 rl.kl.coef。",
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
    "gradient_spike": {
        "en": Explanation(
            "Gradient spikes: norms far above what the run is used to",
            "A few samples with extreme ratios or rewards rule the update, or the optimisation is "
            "becoming unstable.",
            "lower rl.learning_rate, clip harder (rl.max_grad_norm), clip the reward (rl.reward_clip), "
            "or warm up longer (rl.warmup_steps).",
        ),
        "zh": Explanation(
            "梯度尖峰：范数远高于平时",
            "少数比率或奖励极端的样本主导了更新，或优化正在失稳。",
            "降低学习率 rl.learning_rate，加强梯度裁剪 rl.max_grad_norm，裁剪奖励 "
            "rl.reward_clip，或延长预热 rl.warmup_steps。",
        ),
    },
    "critic_collapse": {
        "en": Explanation(
            "The critic has collapsed: it explains returns worse than a constant would",
            "Its learning rate does not fit, or the policy moves faster than it can follow; advantages "
            "are mostly noise.",
            "raise or lower rl.ppo.critic_learning_rate, train the critic alone at first "
            "(rl.ppo.critic_warmup_steps), or lower rl.learning_rate.",
        ),
        "zh": Explanation(
            "评论家失效：对回报的解释不如一个常数",
            "它的学习率不合适，或策略变化太快而它跟不上；优势值大多是噪声。",
            "调整 rl.ppo.critic_learning_rate，先单独训练评论家 "
            "rl.ppo.critic_warmup_steps，或降低 rl.learning_rate。",
        ),
    },
    "engine_mismatch": {
        "en": Explanation(
            "Sampler and learner disagree at the same weights",
            "The sampler has stale weights, another precision, template or temperature; importance "
            "ratios are wrong.",
            "sample and train in one precision (model.dtype), correct for the rest "
            "(rl.importance_correction), and compare with the plain engine (rollout.engine).",
        ),
        "zh": Explanation(
            "采样器与训练器在相同权重下不一致",
            "采样器的权重过期，或精度、模板、温度不同；重要性比率是错的。",
            "采样与训练使用同一精度 model.dtype，用 rl.importance_correction "
            "校正其余偏差，并与普通引擎比较 rollout.engine。",
        ),
    },
    "throughput_rot": {
        "en": Explanation(
            "The run has slowed down: far fewer tokens per second than at the start",
            "Something else uses the machine, memory is being swapped or leaks, or completions fit the "
            "batch less and less.",
            "look at what else runs and at the memory, and lower rl.microbatch_size or rl.max_new_tokens "
            "when memory is short.",
        ),
        "zh": Explanation(
            "训练变慢：每秒 token 数远低于开始时",
            "机器被其他程序占用，内存交换或泄漏，或回答越来越不适合批处理。",
            "检查其他程序和内存；内存不足时降低 rl.microbatch_size 或 rl.max_new_tokens。",
        ),
    },
    "stall": {
        "en": Explanation(
            "A step took many times as long as the others",
            "A reward server, a sandbox or the disk did not answer in time, or one completion ran to the "
            "limit.",
            "compare the time/ figures of that step; for time/reward look at the servers in rl.rewards, "
            "for time/rollout at rl.max_new_tokens.",
        ),
        "zh": Explanation(
            "某一步耗时是平时的许多倍",
            "奖励服务、沙箱或磁盘没有及时响应，或某个回答一直生成到上限。",
            "比较该步的各项 time/ 数值：time/reward 变长则检查 rl.rewards 中的服务，"
            "time/rollout 变长则检查 rl.max_new_tokens。",
        ),
    },
}
