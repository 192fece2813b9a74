"""train: a dataset to a run: the best weights on val, curves, and a state to go on from.

`train` begins a run (`begin_model` tries whether it can), `resume` goes on with one, `draw_run_figures` shows whom it
serves best and worst.
"""

from brainseg_cli.train.figures import draw_run_figures
from brainseg_cli.train.run import TrainResult, begin_model, resume, train

__all__ = ["TrainResult", "begin_model", "draw_run_figures", "resume", "train"]
