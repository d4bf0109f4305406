"""The training loop, top to bottom.

Order within a step: dispatch step k -> fetch the metrics of step k-1 (the device never waits for
the host) -> validate -> save. A checkpoint of step k follows the rows of all steps up to k on
disk, so a run killed at any moment loses no row and writes none twice.
"""

import functools
import itertools
import pathlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax import checkpoint, data, optim, sharding, throughput, workdir
from nt_jax.config import ConfigError, Experiment, to_dict
from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.metrics import MetricsWriter, ProgressBar
from nt_jax.model.factory import build_model
from nt_jax.runtime import StopSignal
from nt_jax.step import init_state, make_eval_step, make_train_step
from nt_jax.tokenizers import KmerTokenizer
from nt_jax.validation import IMPOSSIBLE, unigram_log_probabilities, validate

FINISHED, PREEMPTED = 0, 75
LOGITS = "nt/head/logits"
# Fields of a model that another model may have and still take over its weights.
_NOT_IN_WEIGHTS = (
    "compute_dtype", "remat", "token_dropout", "rope_rescale", "rotary_angles", "embed_init_std",
    "letters",
)  # fmt: skip


class DivergedError(RuntimeError):
    """Too many non-finite steps in a row."""


def pretrain(experiment: Experiment, folder: pathlib.Path, init_from: str | None = None) -> int:
    """Trains until `train.steps` or a stop signal; the same call again resumes.

    Returns 0 when finished, 75 when a signal came and the state was saved.
    Raises InputError for anything wrong with config, data or workdir.
    """
    # --- What is trained, on what -------------------------------------------------------------
    dataset = data.open_dataset(experiment.data.path)
    tokenizer = experiment.tokenizer.make()
    _check(experiment)
    mesh = sharding.make_mesh(experiment.mesh)
    sharding.check_batch(experiment.train.global_batch, experiment.train.accumulate, mesh)
    model = build_model(experiment.model, tokenizer)
    steps = experiment.train.steps
    schedule = optim.learning_rate(experiment.optim, steps)
    optimizer = optim.optimizer(experiment.optim, steps)
    order = {"global_batch": experiment.train.global_batch, "seed": experiment.train.seed}
    data.train_order(dataset, tokenizer, experiment.data, **order)  # before anything is written
    committed = checkpoint.committed_steps(folder / checkpoint.FOLDER)
    going_on = committed[-1] if committed else 0
    workdir.claim(folder, experiment, dataset.fingerprint, init_from, going_on)
    tokenizer.save(folder / workdir.TOKENIZER)
    workdir.store_datacard(folder, dataset.datacard)

    # --- State: restored, taken over, or fresh ------------------------------------------------
    fresh = functools.partial(init_state, model, optimizer)
    seed = jnp.uint32(experiment.train.seed)
    abstract = jax.eval_shape(fresh, seed)
    placed = sharding.state_sharding(abstract, mesh)
    abstract = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, placed
    )
    saver = checkpoint.Checkpoints(folder, experiment.checkpoint)
    state = saver.restore(abstract)
    unigram = _unigram(dataset, tokenizer, folder)
    if state is None:
        state = jax.jit(fresh, out_shardings=placed)(seed)
        if init_from is not None:
            state = state._replace(params=_foreign_params(init_from, experiment, placed.params))
        elif experiment.train.head_init == "unigram":
            state = state._replace(params=_with_unigram_head(state.params, unigram))
    start = int(state.step)
    saver.drop_after(start)

    # --- The compiled functions ---------------------------------------------------------------
    replicated = NamedSharding(mesh, P())
    place = functools.partial(_place, mesh)
    train_step = jax.jit(
        make_train_step(model, optimizer, schedule, tokenizer, experiment),
        donate_argnums=0,
        out_shardings=(placed, replicated),
    )
    eval_step = jax.jit(
        make_eval_step(model, tokenizer, experiment.masking), out_shardings=replicated
    )
    validation = _validation(experiment, dataset, tokenizer, unigram, eval_step, place)

    batches = data.train_batches(
        dataset,
        tokenizer,
        experiment.data,
        **order,
        start_step=start,
        stop_step=steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    flops = experiment.train.global_batch * throughput.train_flops_per_sequence(
        experiment.model, tokenizer.vocab_size, experiment.data.sequence_length,
        experiment.masking.ratio,
    )  # fmt: skip
    tokens_per_step = experiment.train.global_batch * experiment.data.sequence_length
    peak = throughput.peak_flops()

    # --- The loop -----------------------------------------------------------------------------
    stop = StopSignal()
    writer = MetricsWriter(folder, start)
    log = _Log(writer, experiment, tokens_per_step, flops, peak)
    try:
        with ProgressBar(steps, start, experiment.train.eval_every) as bar:
            _announce(bar, experiment, abstract.params, mesh, start)
            step = start
            for tokens in _ahead(batches, place):
                state, metrics = train_step(state, tokens)
                step += 1
                log.push(step, metrics, bar)
                at_end, stopped = step == steps, stop.received is not None
                evaluate = step % experiment.train.eval_every == 0 or at_end
                save = step % experiment.checkpoint.every == 0 or at_end or stopped
                if evaluate or save:
                    log.drain(bar)
                if evaluate and validation is not None:
                    row = validation(state.params)
                    head = {"split": "validation", "step": step, "tokens": step * tokens_per_step}
                    writer.write({**head, **row})
                    bar.say(_validation_line(step, row))
                if save:
                    writer.sync()
                    saver.save(state, experiment, {"tokens": step * tokens_per_step})
                if evaluate or save:
                    log.restart_clock()
                if stopped:
                    break
            saver.commit(state, experiment, {"tokens": step * tokens_per_step})
        if step < steps:
            bar.say(f"stopped by a signal at step {step}; saved. Run the same command to go on.")
            return PREEMPTED
        write_atomically(folder / workdir.DONE, f"step {step}\n")
        return FINISHED
    finally:
        stop.restore()
        writer.close()
        saver.close()


def _check(experiment: Experiment) -> None:
    length, longest = experiment.data.sequence_length, experiment.model.max_positions
    if length > longest:
        raise ConfigError(
            f"data.sequence_length={length} exceeds model.max_positions={longest} tokens"
        )
    for name in ("steps", "global_batch", "accumulate", "log_every", "eval_every"):
        if getattr(experiment.train, name) < 1:
            raise ConfigError(f"train.{name}={getattr(experiment.train, name)}: at least 1")
    if experiment.checkpoint.every < 1 or experiment.checkpoint.keep < 1:
        raise ConfigError("checkpoint.every and checkpoint.keep are at least 1")


def _place(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Global array from this process's rows."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, sharding.BATCH), rows)


def _ahead(
    batches: Iterable[np.ndarray], place: Callable[[np.ndarray], jax.Array], depth: int = 2
) -> Iterator[jax.Array]:
    """Puts batches on the devices `depth` steps before they are used."""
    iterator = map(place, batches)
    queue = deque(itertools.islice(iterator, depth))
    while queue:
        yield queue.popleft()
        queue.extend(itertools.islice(iterator, 1))


class _Log:
    """Holds the metrics of the last step until the next one runs; writes every `log_every`."""

    def __init__(
        self,
        writer: MetricsWriter,
        experiment: Experiment,
        tokens_per_step: int,
        flops: float,
        peak: float | None,
    ):
        self._writer, self._train = writer, experiment.train
        self._limit = experiment.optim.nonfinite_limit
        self._tokens, self._flops, self._peak = tokens_per_step, flops, peak
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._skipped = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        self._since, self._steps = time.perf_counter(), 0

    def push(self, step: int, metrics: dict[str, jax.Array], bar: ProgressBar) -> None:
        self.drain(bar)
        self._pending = (step, metrics)

    def drain(self, bar: ProgressBar) -> None:
        if self._pending is None:
            return
        step, device_metrics = self._pending
        self._pending = None
        values = jax.device_get(device_metrics)
        now = time.perf_counter()
        self._steps += 1
        skipped, in_a_row = int(values["skipped"]), int(values["skipped_in_a_row"])
        if skipped > self._skipped and in_a_row:
            bar.say(f"step {step}: non-finite gradient, step skipped ({skipped} so far)")
        self._skipped = skipped
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
            }
            self._writer.write(row)
            bar.update(step, row)
            self._since, self._steps = now, 0
        if in_a_row >= self._limit:
            raise DivergedError(
                f"step {step}: {in_a_row} non-finite steps in a row (optim.nonfinite_limit); "
                "the parameters are those before them. Lower optim.peak_lr or set optim.clip"
            )


def _unigram(
    dataset: data.WindowDataset, tokenizer: KmerTokenizer, folder: pathlib.Path
) -> np.ndarray:
    """Log-probabilities [V] of the training tokens; the counts are kept in the workdir."""
    counts = workdir.stored_counts(folder)
    if counts is None:
        counts = data.unigram_counts(dataset, tokenizer)
        workdir.store_counts(folder, counts)
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
    tokenizer: KmerTokenizer,
    log_probabilities: np.ndarray,
    eval_step: Callable[..., Any],
    place: Callable[[np.ndarray], jax.Array],
) -> Callable[[Any], dict[str, int | float]] | None:
    """Function from parameters to the validation row; None without a validation split."""
    if not dataset.splits.get("validation"):
        return None
    unigram = jnp.asarray(log_probabilities)

    def run(params: Any) -> dict[str, int | float]:
        batches = data.eval_batches(
            dataset,
            tokenizer,
            "validation",
            experiment.train.global_batch // experiment.train.accumulate,
            experiment.data.sequence_length,
            experiment.train.eval_windows,
        )
        return validate(eval_step, place, params, batches, unigram)

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


def _announce(
    bar: ProgressBar, experiment: Experiment, params: Any, mesh: Mesh, start: int
) -> None:
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
    axes = " x ".join(f"{name} {count}" for name, count in mesh.shape.items())
    device = jax.devices()[0].device_kind
    begin = f"resumes at step {start}" if start else "starts"
    bar.say(f"{experiment.name}: {size:,} parameters, {axes} on {device}; {begin}")


def _validation_line(step: int, row: dict[str, int | float]) -> str:
    return (
        f"step {step}: validation loss {row['loss']:.4f}, on <mask> {row['mask_loss']:.4f} "
        f"(unigram {row['unigram_mask_loss']:.4f}, difference {row['mask_difference']:+.4f} "
        f"[{row['mask_difference_low']:+.4f}, {row['mask_difference_high']:+.4f}]), "
        f"accuracy {row['mask_accuracy']:.4f}"
    )
