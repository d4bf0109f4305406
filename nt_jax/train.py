"""The training loop, top to bottom.

Order within a step: dispatch step k -> fetch the metrics of step k-1 (the device never waits for
the host) -> validate -> save. A checkpoint of step k follows the rows of all steps up to k on
disk, so a run killed at any moment loses no row and writes none twice.
"""

import logging
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import checkpoint, data, distributed, host_log, memory, order, throughput, workdir
from nt_jax.config import Experiment, to_dict
from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.ledger import Ledger
from nt_jax.metrics import MetricsWriter, ProgressBar, outputs
from nt_jax.program import Program, build
from nt_jax.rollback import DivergedError, roll_back
from nt_jax.rows import Rows, ahead
from nt_jax.runtime import StopSignal
from nt_jax.tokenizers import KmerTokenizer
from nt_jax.validation import IMPOSSIBLE, unigram_log_probabilities, validate
from nt_jax.watchdog import Watchdog

FINISHED, PREEMPTED = 0, 75
LOGITS = "nt/head/logits"
_log = logging.getLogger("nt_jax.train")
# Fields of a model that another model may have and still take over its weights.
_NOT_IN_WEIGHTS = (
    "attention", "compute_dtype", "remat", "token_dropout", "rope_rescale", "rotary_angles",
    "embed_init_std", "letters",
)  # fmt: skip


def pretrain(experiment: Experiment, folder: pathlib.Path, init_from: str | None = None) -> int:
    """Trains until `train.steps` or a stop signal; the same call again resumes.

    Returns 0 when finished, 75 when a signal came and the state was saved.
    Raises InputError for anything wrong with config, data or workdir, DivergedError when too many
    steps in a row were skipped and `optim.on_limit` says stop.
    """
    program, ledger = build(experiment), Ledger(folder)
    watchdog = Watchdog(folder, experiment.train.watchdog_seconds, jax.process_index(), ledger)
    ending = "failed"
    try:
        while True:
            try:
                code = _train(program, experiment, folder, init_from, ledger)
                ending = "finished" if code == FINISHED else "stopped"
                return code
            except DivergedError as trouble:
                _log.error("%s", roll_back(folder, experiment, trouble))
    except InputError:
        ending = ""  # nothing was begun
        raise
    finally:
        watchdog.stop()
        if ending:
            ledger.save(ending)


def _train(
    program: Program,
    experiment: Experiment,
    folder: pathlib.Path,
    init_from: str | None,
    ledger: Ledger,
) -> int:
    """Trains on from the newest checkpoint."""
    # --- What is trained, on what -------------------------------------------------------------
    dataset = data.open_dataset(experiment.data.path)
    tokenizer, steps = program.tokenizer, experiment.train.steps
    drawing: dict[str, Any] = {
        "global_batch": experiment.train.global_batch,
        "seed": experiment.train.seed,
    }
    ledger.enter("start_up")
    data.train_order(dataset, tokenizer, experiment.data, **drawing)  # before anything is written
    workdir.join(folder, experiment, dataset.fingerprint)
    if distributed.leads():
        committed = checkpoint.committed_steps(folder / checkpoint.FOLDER)
        going_on = committed[-1] if committed else 0
        workdir.claim(folder, experiment, dataset.fingerprint, init_from, going_on)
        tokenizer.save(folder / workdir.TOKENIZER)
        workdir.store_datacard(folder, dataset.datacard)
    workdir.look(folder)
    if distributed.count() > 1:
        host_log.open_log(folder, distributed.index(), distributed.count())

    # --- State: restored, taken over, or fresh ------------------------------------------------
    saver = checkpoint.Checkpoints(folder, experiment.checkpoint)
    with ledger.within("restore"):
        state = saver.restore(program.abstract)
    unigram = _unigram(dataset, tokenizer, folder)
    if state is None:
        state = program.init(jnp.uint32(experiment.train.seed))
        # What the first start named holds, also for a restart that does not name it again.
        init_from = workdir.read_config(folder)[1]["init_from"]
        if init_from is not None:
            state = state._replace(
                params=_foreign_params(init_from, experiment, program.placed.params)
            )
        elif experiment.train.head_init == "unigram":
            state = state._replace(params=_with_unigram_head(state.params, unigram))
    start = int(state.step)
    saver.drop_after(start)
    ledger.goes_on(start)
    if start < steps:
        ledger.save()

    # --- What feeds it ------------------------------------------------------------------------
    rows = Rows(program.batch_sharding, experiment.train.global_batch)
    _log.info("reads rows %s of every batch of %d", rows.own.tolist(), drawing["global_batch"])
    left_out = workdir.left_out(workdir.read_config(folder)[1])
    validation = _validation(experiment, dataset, program, unigram, ledger.beat)
    batches = data.train_batches(
        dataset,
        tokenizer,
        experiment.data,
        **drawing,
        start_step=start,
        stop_step=steps,
        left_out=left_out,
        rows=rows.own.tolist(),
    )
    flops = throughput.train_flops_per_step(experiment)
    tokens_per_step = experiment.train.global_batch * experiment.data.sequence_length
    peak = throughput.peak_flops()

    # --- The loop -----------------------------------------------------------------------------
    stop = StopSignal()
    stop_step = distributed.StopStep(lambda: stop.received is not None, start)
    writer, bar = outputs(folder, start, steps, experiment.train.eval_every)
    log = _Log(writer, experiment, tokens_per_step, flops, peak, ledger, left_out)
    try:
        with bar:
            _announce(bar, program, experiment.name, start)
            step, moved = start, True
            for tokens in ledger.feeding(ahead(map(rows.place, batches))):
                state, metrics = program.train_step(state, tokens)
                ledger.dispatched(metrics["loss"])
                if moved:  # by what ran before; a save holds on to the former state
                    memory.release()
                step += 1
                log.push(step, metrics, bar)
                at_end, stopped = step == steps, stop_step.reached(step)
                evaluate = step % experiment.train.eval_every == 0 or at_end
                save = step % experiment.checkpoint.every == 0 or at_end or stopped
                if evaluate or save:
                    log.drain(bar)
                if evaluate and validation is not None:
                    with ledger.within("eval"):
                        row = validation(state.params)
                    head = {"split": "validation", "step": step, "tokens": step * tokens_per_step}
                    writer.write({**head, **row})
                    bar.say(_validation_line(step, row))
                if save and _rows_are_safe(writer, step):
                    with ledger.within("save"):
                        saver.save(state, experiment, {"tokens": step * tokens_per_step})
                    ledger.save()
                moved = evaluate or save
                if moved:
                    memory.release()
                    log.restart_clock()
                if stopped:
                    break
            ledger.enter("save")
            writer.sync()
            saver.commit(state, experiment, {"tokens": step * tokens_per_step})
        if step < steps:
            bar.say(f"stopped by a signal at step {step}; saved. Run the same command to go on.")
            return PREEMPTED
        if distributed.leads():
            write_atomically(folder / workdir.DONE, f"step {step}\n")
        return FINISHED
    except DivergedError:
        raise  # all processes come here, and go on together
    except BaseException as error:
        distributed.fail(error)  # before anything below waits for other processes
        raise
    finally:
        stop_step.close()
        stop.restore()
        writer.close()
        saver.close()


def _rows_are_safe(writer: MetricsWriter, step: int) -> bool:
    """Whether a checkpoint may be saved now: it follows the rows that process 0 writes."""
    name = f"rows up to step {step}"
    return distributed.from_leader(name, lambda: "yes" if writer.all_on_disk() else "") == "yes"


class _Log:
    """Holds the metrics of the last step until the next one runs; writes every `log_every`."""

    def __init__(
        self,
        writer: MetricsWriter,
        experiment: Experiment,
        tokens_per_step: int,
        flops: float,
        peak: float | None,
        ledger: Ledger,
        left_out: tuple[tuple[int, int], ...],
    ):
        self._writer, self._train = writer, experiment.train
        self._limit = experiment.optim.nonfinite_limit
        self._tokens, self._flops, self._peak = tokens_per_step, flops, peak
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._ledger, self._left_out = ledger, left_out
        self.restart_clock()

    def restart_clock(self) -> None:
        self._since, self._steps = time.perf_counter(), 0
        self._input = self._ledger.input_seconds

    def push(self, step: int, metrics: dict[str, jax.Array], bar: ProgressBar) -> None:
        self.drain(bar)
        self._pending = (step, metrics)

    def drain(self, bar: ProgressBar) -> None:
        if self._pending is None:
            return
        step, device_metrics = self._pending
        self._pending = None
        asked = time.perf_counter()
        values = jax.device_get(device_metrics)
        now = time.perf_counter()
        self._ledger.finished(now - asked)
        self._steps += 1
        skipped, spikes = int(values["skipped"]), int(values.get("spikes", 0))
        in_a_row = int(values["skipped_in_a_row"])
        if in_a_row:
            finite = np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"])
            reason = "a spike of the gradient norm" if finite else "non-finite gradient"
            bar.say(f"step {step}: {reason}, step skipped ({skipped + spikes} so far)")
        if step % self._train.log_every == 0 or step == self._train.steps:
            seconds = (now - self._since) / self._steps
            row: dict[str, Any] = {
                "step": step,
                "loss": float(values["loss"]),
                "accuracy": float(values["accuracy"]),
                "lr": float(values["lr"]),
                "grad_norm": float(values["grad_norm"]),
                "skipped": skipped,
                "tokens": step * self._tokens,
                "tokens_per_s": self._tokens / seconds,
                "mfu": self._flops / seconds / self._peak if self._peak else None,
                "seconds": seconds,
                "input_wait": (self._ledger.input_seconds - self._input) / self._steps,
                "goodput": self._ledger.summary(),
            }
            if "spikes" in values:
                row["spikes"] = spikes
            if skip := order.left_out(self._left_out, step - 1):
                row["batches_left_out"] = skip
            self._writer.write(row)
            bar.update(step, row)
            self.restart_clock()
        if in_a_row >= self._limit:
            raise DivergedError(
                f"step {step}: {in_a_row} {'skipped' if spikes else 'non-finite'} steps in a row "
                "(optim.nonfinite_limit); the parameters are those before them. Lower "
                "optim.peak_lr, set optim.clip, or --optim.on-limit rollback",
                step,
                in_a_row,
            )


def _unigram(
    dataset: data.WindowDataset, tokenizer: KmerTokenizer, folder: pathlib.Path
) -> np.ndarray:
    """Log-probabilities [V] of the training tokens; the counts are kept in the workdir."""
    if distributed.leads() and workdir.stored_counts(folder) is None:
        workdir.store_counts(folder, data.unigram_counts(dataset, tokenizer))
    distributed.barrier("training tokens counted")
    counts = workdir.stored_counts(folder)
    assert counts is not None
    return unigram_log_probabilities(counts, tokenizer)


def _with_unigram_head(params: Any, unigram: np.ndarray) -> Any:
    """Parameters whose logits are the unigram distribution; special tokens get its lowest value."""
    weight, bias = params[LOGITS]["w"], params[LOGITS]["b"]
    start = np.maximum(unigram, unigram[unigram > IMPOSSIBLE].min())
    head = {
        "w": jnp.zeros_like(weight, device=weight.sharding),
        "b": jax.device_put(start.astype(bias.dtype), bias.sharding),
    }
    return {**params, LOGITS: head}


def _validation(
    experiment: Experiment,
    dataset: data.WindowDataset,
    program: Program,
    unigram: np.ndarray,
    beat: Callable[[], None],
) -> Callable[[Any], dict[str, int | float]] | None:
    """Function from parameters to the validation row; None without a validation split."""
    if not dataset.splits.get("validation"):
        return None
    batch = experiment.train.global_batch // experiment.train.accumulate
    rows = Rows(program.batch_sharding, batch)

    def place(local: np.ndarray) -> jax.Array:
        beat()
        return rows.place(local)

    def run(params: Any) -> dict[str, int | float]:
        batches = data.eval_batches(
            dataset,
            program.tokenizer,
            "validation",
            batch,
            experiment.data.sequence_length,
            experiment.train.eval_windows,
            rows.own.tolist(),
        )
        return validate(program.eval_step, place, params, batches, unigram)

    return run


def _foreign_params(init_from: str, experiment: Experiment, placed: Any) -> Any:
    """Weights of another run, sharded as this one's; InputError when the shapes differ."""
    source, step = checkpoint.parse_checkpoint(init_from)
    step = checkpoint.find_step(source, step)
    other, _ = workdir.read_config(source)
    for part in ("model", "tokenizer"):
        mine, theirs = to_dict(getattr(experiment, part)), to_dict(getattr(other, part))
        differing = [key for key in mine if mine[key] != theirs[key] and key not in _NOT_IN_WEIGHTS]
        if differing:
            key = differing[0]
            raise InputError(
                f"--init-from {init_from}: {part}.{key} is {theirs[key]} there, {mine[key]} here"
            )
    params, _, _ = checkpoint.restore_params(source, step, lambda _: placed)
    return params


def _announce(bar: ProgressBar, program: Program, name: str, start: int) -> None:
    size = sum(leaf.size for leaf in jax.tree.leaves(program.abstract.params))
    axes = " x ".join(f"{name} {count}" for name, count in program.mesh.shape.items())
    device = jax.devices()[0].device_kind
    begin = f"resumes at step {start}" if start else "starts"
    bar.say(f"{name}: {size:,} parameters, {axes} on {device}; {begin}")


def _validation_line(step: int, row: dict[str, int | float]) -> str:
    return (
        f"step {step}: validation loss {row['loss']:.4f}, on <mask> {row['mask_loss']:.4f} "
        f"(unigram {row['unigram_mask_loss']:.4f}, difference {row['mask_difference']:+.4f} "
        f"[{row['mask_difference_low']:+.4f}, {row['mask_difference_high']:+.4f}]), "
        f"accuracy {row['mask_accuracy']:.4f}"
    )
