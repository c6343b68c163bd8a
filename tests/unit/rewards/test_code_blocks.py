"""Which part of a completion is the solution, in Markdown as models write it."""

from __future__ import annotations

import pytest

from trimtab.rewards.code_blocks import defines, extract_code, only_function
from trimtab.rewards.code_imports import missing_imports

ADD = "def add(a, b):\n    return a + b\n"
BLOCK = f"```python\n{ADD}```"
INDENTED = "".join(f"   {line}\n" for line in ADD.splitlines())
DOCSTRING = "def add(a, b):\n    '''\n    ```\n    add(1, 2)\n    ```\n    '''\n    return a + b\n"
FLUSH = 'def add(a, b):\n  """Adds.\n  ```python\n  add(1, 2)\n  ```\n  """\n  return a + b\n'

ADDERS = {
    "a plain block": BLOCK,
    "inside a list item": f"1. Do this\n   ```python\n{INDENTED}   ```\n2. Done.",
    "opened on the item's line": f"- ```python\n{INDENTED}  ```",
    "fence indented, code not": f"1. Do\n   ```python\n{ADD}   ```",
    "in a quotation": "> ```python\n> def add(a, b):\n>     return a + b\n> ```\n",
    "what it prints, bare": f"{BLOCK}\nOutput:\n```\n3\n```",
    "what it prints, named": f"{BLOCK}\n```text\nadd = 3\n```",
    "usage, assigned": f"{BLOCK}\nUsage:\n```python\nresult = add(1, 2)\nprint(result)\n```",
    "usage before": f"You call it so:\n```python\nprint(add(1, 2))\n```\nHere it is:\n{BLOCK}",
    "tests after": f"{BLOCK}\n```python\nimport unittest\nclass T(unittest.TestCase):\n    pass\n```",
    "shell after": f"{BLOCK}\n```bash\npython add.py\n```",
    "JSON after": f'{BLOCK}\n```json\n{{"add": 1}}\n```',
    "words before the fence": f"Sure! ```python\n{ADD}```",
    "tag in capitals": f"```Python\n{ADD}```",
    "py3": f"```py3\n{ADD}```",
    "python3": f"```python3\n{ADD}```",
    "python3.11": f"```python3.11\n{ADD}```",
    "braces": f"```{{.python}}\n{ADD}```",
    "an info string": f'```python title="add.py" linenos\n{ADD}```',
    "an unknown word": f"```solution\n{ADD}```",
    "several unknown words": f"```Final Answer\n{ADD}```",
    "tildes": f"~~~python\n{ADD}~~~",
    "four backticks": f"````python\n{ADD}````",
    "no fence": ADD,
    "no fence, words before": f"Here is the code:\n{ADD}",
    "a draft in thoughts": f"<think>```python\ndef add(a, b): return 0\n```</think>\n{BLOCK}",
    "a draft that is not closed": f"<think>\n```python\ndef add(a, b): return 0\n</think>\n{BLOCK}",
    "thoughts that the template opened": f"Hm, ```python\nx\n``` no.\n</think>\n\n{BLOCK}",
    "two thoughts": f"<think>a</think>\n<think>b</think>{BLOCK}",
    "a draft and a final one": f"```python\ndef add(a, b):\n    return 0\n```\nBetter:\n{BLOCK}",
    "CRLF": BLOCK.replace("\n", "\r\n"),
    "answer tags": f"<answer>{BLOCK}</answer>",
    "answer tags, no fence": f"<answer>\n{ADD}</answer>",
    "PYTHON tags": f"[PYTHON]\n{ADD}[/PYTHON]",
    "a special token after it": f"{BLOCK}<|im_end|>",
    "code on the line of the fence": "```python def add(a, b):\n    return a + b\n```",
    "the language on the next line": f"```\npython\n{ADD}```",
    "no fence, words after": f"{ADD}\nThis function adds two numbers.\nIt is fast.",
    "no fence, words around": f"Sure, here it is:\n\n{ADD}\n\nNote that it adds two numbers.",
    "indented by a tab": "1.\n\t```python\n\tdef add(a, b):\n\t    return a + b\n\t```",
    "closed behind the last line": f"```python\n{ADD.rstrip()}```",
}


@pytest.mark.parametrize("name", ADDERS)
def test_the_block_that_defines_what_is_asked_for(name: str) -> None:
    """It is the function, and nothing that stands around it."""
    code = extract_code(ADDERS[name], ["add"])
    assert code is not None
    assert code.strip() == ADD.strip()


@pytest.mark.parametrize("code", [DOCSTRING, FLUSH])
def test_fences_in_docstrings_close_nothing(code: str) -> None:
    """Also where the docstring is hardly indented."""
    assert extract_code(f"```python\n{code}```\nDone.\n```python\nprint(add(1, 2))\n```", ["add"]) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "```json\n{}\n```",
        "```python\ndef add(a, b):",
        f"<think>{BLOCK}",
        f"{BLOCK}\n```python\ndef add(a, b):",
        "```python\n\0\n```",
    ],
)
def test_what_is_no_answer(text: str) -> None:
    """Nothing, another language, what is not closed, what is only thought."""
    assert extract_code(text, ["add"]) is None


PROGRAM = "n = int(input())\nprint(2 * n)\n"


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{PROGRAM}```\nOutput:\n```\n6\n```",
        f"```python\n{PROGRAM}```\nFor example:\n```python\nprint(2 * 3)\n```",
        f"```\n{PROGRAM}```\nInput:\n```\n3\n```\nOutput:\n```\n6\n```",
        f"```python\nn = 0\n```\nthen\n```python\n{PROGRAM}```",
    ],
)
def test_a_program_is_the_block_that_reads(text: str) -> None:
    """Where no function is asked for."""
    assert extract_code(text) == PROGRAM


def test_an_answer_in_parts() -> None:
    """A helper in an earlier block comes with it; an earlier draft of the same function does not."""
    helper, user = "def twice(x):\n    return 2 * x\n", "def f(x):\n    return twice(x) + 1\n"
    assert extract_code(f"```python\n{helper}```\nand\n```python\n{user}```", ["f"]) == helper + user
    assert extract_code(f"```python\ndef f(x): pass\n```\n```python\n{user}```", ["f"]) == user


@pytest.mark.parametrize(
    "text",
    [
        "~" * 100_000 + "`",
        "`" * 100_000 + "x`",
        "</think>" * 10_000,
        "<think></think>" * 10_000,
        "```python\n'''\n```\n" * 5_000,
        "```python\ndef f(): pass\n```\n" * 5_000,
        "```python\n" + "def f(): pass\n" * 10_000 + "```",
        "class Solution:\n" + "->" * 100_000,
        '"' * 99_999,
        "A " + "words " * 20_000,
        " " * 100_000 + "```",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_texts_are_read_in_no_time(text: str) -> None:
    """Each step is linear, or nearly so: with a square of these lengths this would take minutes."""
    code = extract_code(text, [f"g{number}" for number in range(1000)]) or ""
    only_function(text)
    missing_imports(text + code)


def test_a_block_on_one_line() -> None:
    """And one in the middle of a sentence, which is none."""
    assert extract_code("It is ```def add(a, b): return a + b```", ["add"]) == "def add(a, b): return a + b\n"
    assert extract_code(f"Use ```add``` so:\n{BLOCK}", ["add"]) == ADD


def test_words_inside_of_a_text_are_code() -> None:
    """Without a fence, lines of a docstring that read like prose belong to it."""
    code = 'def f():\n    """Says.\n\nThis is a long line of words.\n"""\n    return 1\n'
    assert extract_code(code, ["f"]) == code


def test_a_string_with_the_tag_of_thoughts() -> None:
    """Code that names </think> is no thought."""
    code = "def f(t):\n    return t.split('</think>')[-1]\n"
    assert extract_code(f"```python\n{code}```", ["f"]) == code


def test_names_that_are_defined() -> None:
    """Functions, classes, methods, assigned and imported names; a call or a comparison defines nothing."""
    for code in (ADD, "add = lambda a, b: a + b", "from operator import add", "async def add(): pass"):
        assert defines(code, "add")
    assert defines("class Solution:\n    def add(self, a, b): pass", "add")
    for code in ("add(1)", "add == 3", "x = add", "def addition(): pass", "def f():\n    def add(): pass"):
        assert not defines(code, "add")


def test_the_only_function() -> None:
    """The last at the top, the one that the prompt names first of all, or a method of Solution."""
    two = "def helper(x):\n    return x\ndef solve(x):\n    return helper(x)\ndef main():\n    pass\n"
    assert only_function(two) == "solve"
    assert only_function(two, "Write helper(x).") == "helper"
    method = "class Solution:\n    def __init__(self): pass\n    def add(self, a, b): pass\n"
    assert only_function(method) == "add"
    assert only_function("print(1)") is None
