"""Sales problems with one right answer: totals with discounts, delivery dates, the cheapest plan."""

from trimtab.tasks.sales_logic.task import SalesLogicTask

__all__ = ["SalesLogicTask"]
