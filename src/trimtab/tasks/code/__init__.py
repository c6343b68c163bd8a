"""Small Python problems, made on the fly, with the sandboxed ``code`` reward."""

from trimtab.tasks.code.task import CodeTask

__all__ = ["CodeTask"]
