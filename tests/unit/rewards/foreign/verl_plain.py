"""``compute_score`` as verl's users write it (custom_reward_function.path)."""

import re


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if data_source != "openai/gsm8k":
        raise NotImplementedError(f"Reward function is not implemented for {data_source=}")
    found = re.findall(r"#### (\-?[0-9\.\,]+)", solution_str)
    answer = found[-1].replace(",", "") if found else None
    if answer is None:
        return 0.0
    return 1.0 if answer == ground_truth else 0.1


def with_dict(data_source, solution_str, ground_truth, extra_info):
    right = solution_str.strip() == ground_truth
    return {
        "score": 1.0 if right else -1.0,
        "acc": right,
        "pred": solution_str,
        "split": extra_info["split"],
        "index": extra_info["index"],
    }


def short(solution_str, ground_truth):
    return float(solution_str == ground_truth)


async def judged(data_source, solution_str, ground_truth, extra_info, **kwargs):
    return {"score": float(len(solution_str))}


def batched(data_sources, solution_strs, ground_truths, extra_infos):
    rows = zip(solution_strs, ground_truths, extra_infos, strict=True)
    return [{"score": float(s == g), "index": e["index"]} for s, g, e in rows]
