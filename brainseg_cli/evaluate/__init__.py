"""eval: a run, or two folders of masks, to every number of the metrics policy, each with its definition and its doubt.

`measure_run`, `measure_kfold` or `measure_folders` for each side, `conclude` for the summary, `write_report` for the
folder.
"""

from brainseg_cli.evaluate.conclusion import Evaluation, conclude, write_report
from brainseg_cli.evaluate.folders import measure_folders
from brainseg_cli.evaluate.kfold import measure_kfold
from brainseg_cli.evaluate.run import measure_run
from brainseg_cli.evaluate.side import Side

__all__ = [
    "Evaluation",
    "Side",
    "conclude",
    "measure_folders",
    "measure_kfold",
    "measure_run",
    "write_report",
]
