"""Verbs that lower modules offer as methods: handed down by the package, so that none reaches up.

`LeakyResNet.polish` knows method objects by their `solve`; which method a name stands for is known
above it, by `hamshoot.solve`. `Solution.report` and `Comparison.report` are pages, which are made
above both; `Solution.predictive_spread` takes Newton factors, as methods have them. The package
sets what is declared here when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

#: `hamshoot.study.second_look_panels.figure`, loaded when it is first called.
plot_resimulation: Callable[..., Any]
#: `hamshoot.study.mesh_report.mesh_report`, likewise.
mesh_report: Callable[..., Any]
#: `hamshoot.solve`, loaded when it is first called. This floor knows neither problems nor
#: solutions: their types are given where it is called.
solve: Callable[..., Any]
#: `hamshoot.report.page.report`, likewise.
report: Callable[..., Path]
#: `hamshoot.derivatives.spread.predictive_spread`, likewise.
predictive_spread: Callable[..., Any]
