"""Chat templates that behave as those of published families do, written anew for the tests."""

from __future__ import annotations

HEAD = "<|im_start|>{{ m.role }}\n"
END = "<|im_end|>\n"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
ASK_OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
ASK_EMPTY = "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"


def _each(body: str, ask: str = ASK) -> str:
    """A template that writes each message as ``body`` between head and end."""
    return f"{{% for m in messages %}}{HEAD}{body}{END}{{% endfor %}}{ask}"


# Cuts everything before the end of the reasoning, of every answer (the first distilled R1 models).
STRIPS = _each(
    "{% if m.role == 'assistant' %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
)
STRIPS_OPEN = STRIPS.replace(ASK, ASK_OPEN)
# Reasoning of the last answers only, an empty block where there is none (Qwen3).
LAST_ONLY = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% set r = '' %}{% set c = m.content or '' %}{% if m.reasoning_content %}"
    "{% set r = m.reasoning_content %}"
    "{% elif '</think>' in c %}{% set r = c.split('</think>')[0].split('<think>')[-1] %}"
    "{% set c = c.split('</think>')[-1] %}{% endif %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ r.strip('\n') }}\n</think>\n\n{% endif %}{{ c.lstrip('\n') }}"
    "{% for t in m.tool_calls or [] %}<tool_call>\n"
    "{{ {'name': t.function.name, 'arguments': t.function.arguments} | tojson }}\n</tool_call>"
    "{% endfor %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
# Adds an empty block to every answer, without looking at it.
EMPTY_EACH = _each("{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}")
# Writes reasoning under another name, in a channel of its own.
CHANNELS = _each(
    "{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}{{ m.content }}"
)
TRIMS = _each("{{ m.content | trim }}")
LOWERS = _each("{{ m.content | lower }}")
REPLACES = _each("{{ m.content | replace('\n', ' ') }}")
TWICE = _each("{{ m.content }}{% if m.role == 'assistant' %}{{ m.content }}{% endif %}")
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
    f"{HEAD}{{{{ m.content }}}}{END}{{% endfor %}}{ASK}"
)
DROPS_SYSTEM = (
    f"{{% for m in messages if m.role != 'system' %}}{HEAD}{{{{ m.content }}}}{END}{{% endfor %}}{ASK}"
)
MARKED = (
    f"{{% for m in messages %}}{HEAD}{{% if m.role == 'assistant' %}}"
    f"{{% generation %}}{{{{ m.content }}}}<|im_end|>{{% endgeneration %}}"
    f"{{% else %}}{{{{ m.content }}}}<|im_end|>{{% endif %}}\n{{% endfor %}}{ASK}"
)
PLAIN_OPEN = _each("{{ m.content }}", ASK_OPEN)
PLAIN_EMPTY = _each("{{ m.content }}", ASK_EMPTY)
# Opens a block in the generation prompt; without reasoning it closes that at once, spaced otherwise.
CLOSES_AT_ONCE = _each(
    "{% if m.role == 'assistant' and '<think>' not in m.content %}<think></think>{% endif %}{{ m.content }}"
    "{% for t in m.tool_calls or [] %}<call>{{ t.function.name }} {{ t.function.arguments | tojson }}</call>"
    "{% endfor %}",
    ASK_OPEN,
)
# Content must be a list of parts, as templates of models that see images have it.
PARTS = _each("{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}")
# Forms of tool calls: an object quoted by `tojson`, a text as it is, a call only beside null content.
CALLS_OBJECT = _each(
    "{{ m.content or '' }}{% for t in m.tool_calls or [] %}<call>{{ t.function.name }} "
    "{{ t.function.arguments | tojson }}</call>{% endfor %}"
)
CALLS_TEXT = _each(
    "{{ m.content or '' }}{% for t in m.tool_calls or [] %}{{ '<call>' + t.function.name + ' ' + "
    "t.function.arguments + '</call>' }}{% endfor %}"
)
CALLS_NULL = _each(
    "{% if m.content is none %}{% for t in m.tool_calls %}<call>{{ t.function.name }} "
    "{{ t.function.arguments | tojson }}</call>{% endfor %}{% else %}{{ m.content }}{% endif %}"
)
CALLS_INSTEAD = _each(
    "{% if m.tool_calls %}{% for t in m.tool_calls %}<call>{{ t.function.name }} "
    "{{ t.function.arguments | tojson }}</call>{% endfor %}{% else %}{{ m.content }}{% endif %}"
)
TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + CALLS_OBJECT
