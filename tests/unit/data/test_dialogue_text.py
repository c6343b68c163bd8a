"""Dialogues written as one text (HH-RLHF): the prompt ends before an answer, never inside one."""

from __future__ import annotations

import json

import pytest

from trimtab.data import load_pairs, load_preferences, load_prompts
from trimtab.errors import DataError

ASKED = "\n\nHuman: Can you open a jar?\n\nAssistant:"


def load(tmp_path, chosen, rejected):
    path = tmp_path / "hh.jsonl"
    path.write_text(json.dumps({"chosen": chosen, "rejected": rejected}), encoding="utf-8")
    (pair,) = load_preferences(path)
    return pair


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (" I can help with that.", " I will not."),
        (" Yes", " Yes, I can."),
        (" Sure. Assistant: done.", " Sure. Assistant: no."),
        (" One\n\nTwo", " One\n\nThree"),
        (" Write:\nHuman: hi\nAssistant: ho", " Write:\nHuman: hi\nAssistant: he"),
        (" A\n\nAssistant: b", " A\n\nAssistant: c"),
        (" Yes.\n\nHuman: ok\n\nAssistant: bye", " No."),
        (" Yes.\n\nHuman: ok", " Yes.\n\nHuman: ho"),
        ("", " No."),
    ],
)
def test_the_split_never_falls_inside_an_answer(tmp_path, chosen, rejected):
    """R33 (hh_split_inside_answer): common words, cut words and markers inside of the answers stay there."""
    pair = load(tmp_path, ASKED + chosen, ASKED + rejected)
    assert pair.prompt == ({"role": "user", "content": "Can you open a jar?"},)
    assert (pair.chosen, pair.rejected) == (chosen.strip(), rejected.strip())


def test_earlier_turns_are_the_prompt(tmp_path):
    """R33: what both texts share up to the last answer is turns."""
    past = f"{ASKED} Which?\n\nHuman: This one\n\nAssistant:"
    pair = load(tmp_path, f"{past} Done.", f"{past} Doing.")
    assert [message["role"] for message in pair.prompt] == ["user", "assistant", "user"]
    assert [message["content"] for message in pair.prompt] == ["Can you open a jar?", "Which?", "This one"]
    assert (pair.chosen, pair.rejected) == ("Done.", "Doing.")


@pytest.mark.parametrize(
    ("user", "assistant", "line"),
    [("### Human", "### Assistant", "\n"), ("Question", "Answer", "\n"), ("USER", "ASSISTANT", "\n\n")],
)
def test_other_markers(tmp_path, user, assistant, line):
    """R33: the same in other spellings."""
    head = f"{user}: open it{line}{assistant}: "
    pair = load(tmp_path, f"{head}I can.", f"{head}I will not.")
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == ("open it", "I can.", "I will not.")


def test_plain_texts_are_split_between_words(tmp_path):
    """R31: without markers the common beginning is the prompt, and no word of either answer is cut."""
    pair = load(tmp_path, "The sky is blue", "The sky is black")
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == ("The sky is", "blue", "black")
    pair = load(tmp_path, "It is art", "It is artful")
    assert (pair.prompt[0]["content"], pair.chosen, pair.rejected) == ("It is", "art", "artful")


def test_a_dialogue_can_be_imitated_and_asked(tmp_path):
    """R33: `columns = { messages = "chosen" }` makes pairs of it; an open dialogue as prompt is turns."""
    path = tmp_path / "hh.jsonl"
    path.write_text(json.dumps({"chosen": f"{ASKED} Yes.", "rejected": f"{ASKED} No."}), encoding="utf-8")
    (pair,) = load_pairs(path, columns={"messages": "chosen"})
    assert (pair.prompt[0]["content"], pair.completion[0]["content"]) == ("Can you open a jar?", "Yes.")
    path.write_text(json.dumps({"prompt": ASKED}), encoding="utf-8")
    assert load_prompts(path)[0].text == "Can you open a jar?"
    # Prompts of other forms stay as they are written.
    path.write_text(json.dumps({"prompt": "Q: 2+2?\nA:"}), encoding="utf-8")
    assert load_prompts(path)[0].text == "Q: 2+2?\nA:"


def test_dialogues_of_different_questions_are_refused(tmp_path):
    """R33: there is no prompt that both answer."""
    with pytest.raises(DataError, match="share no user's turn"):
        load(tmp_path, "\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: d")
