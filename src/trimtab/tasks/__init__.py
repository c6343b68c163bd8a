"""Tasks: prompts and grader together, so that training and evaluation cannot disagree."""

from trimtab.tasks.registry import JUDGES, TASKS, Task, is_task, load_task, load_task_prompts

__all__ = ["JUDGES", "TASKS", "Task", "is_task", "load_task", "load_task_prompts"]
