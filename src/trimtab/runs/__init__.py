"""The run directory: written by one writer, read by everything else. Imports no torch."""

from trimtab.runs.events import EVENT_KINDS, Event, EventKind
from trimtab.runs.layout import RunDirectory
from trimtab.runs.names import METRICS, Metric, find_metric
from trimtab.runs.plain_text import one_line, sanitise
from trimtab.runs.reader import metrics_table, read_events, read_rollouts
from trimtab.runs.sinks import SINKS, Sink, SinkSettings, build_sinks
from trimtab.runs.spellings import named_stats, trl_metrics
from trimtab.runs.terminal import TerminalView
from trimtab.runs.writer import RunWriter

__all__ = [
    "EVENT_KINDS",
    "METRICS",
    "SINKS",
    "Event",
    "EventKind",
    "Metric",
    "RunDirectory",
    "RunWriter",
    "Sink",
    "SinkSettings",
    "TerminalView",
    "build_sinks",
    "find_metric",
    "metrics_table",
    "named_stats",
    "one_line",
    "read_events",
    "read_rollouts",
    "sanitise",
    "trl_metrics",
]
