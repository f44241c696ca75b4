"""Gates: a version of a registered model -> whether it may have an alias, with what was measured.

In: the config's `registry.gates` and a version. Out: a GateReport, with a Check for each thing that is asked.
"""

from raystack.registry.gates.check import check
from raystack.registry.gates.promote import Promotion, demote, newest, promote, refused, whoever
from raystack.registry.gates.report import Check, GateReport

__all__ = ["Check", "GateReport", "Promotion", "check", "demote", "newest", "promote", "refused", "whoever"]
