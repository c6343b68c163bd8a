"""Asynchronous reward functions in TRL's style: one that fans out, one that imports a library for arrays."""

import asyncio


async def slow_length(prompts, completions, **kwargs):
    async def one(completion):
        await asyncio.sleep(0.01)
        return float(len(completion))

    return await asyncio.gather(*(one(completion) for completion in completions))


class Remote:
    async def __call__(self, prompts, completions, completion_ids, **kwargs):
        await asyncio.sleep(0)
        return [None if not completion else 0.5 for completion in completions]


remote = Remote()
