"""Going back to before the trouble, past the batches that led there.

The practice of PaLM (Chowdhery et al., 2022, section 5.1): restart from a checkpoint before a spike
and leave out the batches around it. Where to is a function of the config and the step alone, not
of what lies on the disk, and config.json records it: a run that is killed at any moment of this,
or later, comes to the same parameters.
"""

import pathlib
import shutil

from nt_jax import checkpoint, distributed, workdir
from nt_jax.config import Experiment


class DivergedError(RuntimeError):
    """Too many skipped steps in a row; `step` is the last of them."""

    def __init__(self, message: str, step: int, in_a_row: int):
        super().__init__(message)
        self.step, self.in_a_row = step, in_a_row


def roll_back(folder: pathlib.Path, experiment: Experiment, trouble: DivergedError) -> str:
    """Makes the next start of the run go on before the trouble; returns what to tell.

    The run goes back to the last multiple of `checkpoint.every` before the first skipped step;
    from there on it reads the batches behind those that it had read. Raises the error itself where
    the config says stop, and once `optim.rollback_limit` is reached.
    """
    _, record = workdir.read_config(folder)
    done = len(workdir.left_out(record))
    if experiment.optim.on_limit == "stop":
        raise trouble
    if done >= experiment.optim.rollback_limit:
        trouble.args = (f"{trouble}; {done} rollbacks did not help (optim.rollback_limit)",)
        raise trouble
    every, first = experiment.checkpoint.every, trouble.step - trouble.in_a_row + 1
    step = (first - 1) // every * every
    if distributed.leads():
        # In this order: killed in between, the run meets the same trouble and comes here again.
        _forget_after(folder / checkpoint.FOLDER, step)
        event = {"step": step, "rolled_back_from": trouble.step}
        workdir.add_to_lineage(folder, {**event, "batches_left_out": trouble.step - step})
    distributed.barrier("rolled back")
    return (
        f"step {trouble.step}: {trouble.in_a_row} steps skipped in a row; back to step {step}, "
        f"the batches of the {trouble.step - step} steps since are left out (config.json, lineage)"
    )


def _forget_after(saves: pathlib.Path, step: int) -> None:
    """Removes checkpoints beyond `step`: they lie on a branch that the run does not take."""
    for newer in [s for s in checkpoint.committed_steps(saves) if s > step]:
        # With this name it is no checkpoint, and the next start removes it after a kill.
        condemned = saves / f"{newer}.orbax-checkpoint-tmp-rollback"
        shutil.rmtree(condemned, ignore_errors=True)
        (saves / str(newer)).rename(condemned)
        shutil.rmtree(condemned)
