"""Data sets as prompts, pairs, preferences and labelled steps; chat templates, masks; stream; leakage."""

from trimtab.data.chat import encode_prompt, render
from trimtab.data.mapping import map_columns
from trimtab.data.overlap import Overlap, find_equal, find_overlap, refuse_overlap
from trimtab.data.pairs import EncodedPair, encode_pair, encode_row, reply_text
from trimtab.data.preferences import Preference
from trimtab.data.rows import Pair, load_pairs, load_preferences, load_prompts
from trimtab.data.shapes import SHAPES, Shape, recognise
from trimtab.data.sources import Row, read_rows
from trimtab.data.stepwise import Stepwise, load_stepwise
from trimtab.data.stream import PromptStream
from trimtab.data.turns import turn_end

__all__ = [
    "SHAPES",
    "EncodedPair",
    "Overlap",
    "Pair",
    "Preference",
    "PromptStream",
    "Row",
    "Shape",
    "Stepwise",
    "encode_pair",
    "encode_prompt",
    "encode_row",
    "find_equal",
    "find_overlap",
    "load_pairs",
    "load_preferences",
    "load_prompts",
    "load_stepwise",
    "map_columns",
    "read_rows",
    "recognise",
    "refuse_overlap",
    "render",
    "reply_text",
    "turn_end",
]
