"""Prometheus metrics (extra `metrics`): a view to include, and a collector to register.

Everything is counted from the database when it is scraped, and not by signals in each process: calls are held in web
processes, expired by clocks, told of by workers. Counted there, each of them would have to be scraped, or share
files; counted here, any one process answers for all, and a restart loses nothing.
"""

from jit_approval.metrics.collector import Collector
from jit_approval.metrics.views import view

__all__ = ["Collector", "view"]
