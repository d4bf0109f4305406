"""`nt-jax import | export | verify`: what the terminal shows of them."""

import pathlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from nt_jax.errors import InputError
from nt_jax.interchange import formats, runtimes
from nt_jax.interchange.exporter import (
    EXAMPLE_LENGTH,
    WRITERS,
    NotEqualError,
    export_checkpoint,
)
from nt_jax.interchange.importer import import_checkpoint
from nt_jax.interchange.proof import TOLERANCES, compare, example_tokens
from nt_jax.interchange.unpickled import read_unpickled

LAYOUTS = tuple(WRITERS)


def import_(
    source: str, workdir: pathlib.Path, layer_norm_epsilon: float | None, unpickle: bool
) -> None:
    """Writes the workdir and says how to go on; `unpickle` runs the code of a joblib file."""
    read = read_unpickled if unpickle else formats.read
    with _bytes_bar("reading") as progress:
        experiment = import_checkpoint(source, workdir, progress, layer_norm_epsilon, read)
    print(f"{workdir}: {experiment.name}, checkpoint 0", file=sys.stderr)


def export(checkpoint: str, layout: str, out: pathlib.Path, dtype: str, as_json: bool) -> int:
    """Writes the folder; 1 where the written files do not give the same numbers."""
    with _bytes_bar("writing") as progress:
        try:
            certificate = export_checkpoint(checkpoint, layout, out, dtype, progress)
        except NotEqualError as error:
            print(error, file=sys.stderr)
            return 1
    print(certificate.json() if as_json else certificate.table(), end="")
    return 0


def verify(
    left: str, right: str, length: int | None, dtype: str, tolerance: float | None, as_json: bool
) -> int:
    """Compares two checkpoints of any layouts; 0 when they agree, 1 when not."""
    if left == right:
        raise InputError(f"{left}: compared with itself; name two checkpoints")
    model, tokenizer = runtimes.describe(left)
    other, vocabulary = runtimes.describe(right)
    if (tokenizer.k, tokenizer.vocabulary) != (vocabulary.k, vocabulary.vocabulary):
        raise InputError(
            f"{left} and {right}: other vocabularies (k={tokenizer.k} {tokenizer.vocabulary}, "
            f"k={vocabulary.k} {vocabulary.vocabulary}); there is no common input"
        )
    longest = min(model.max_positions, other.max_positions)
    length = min(EXAMPLE_LENGTH, longest) if length is None else length
    if not 2 <= length <= longest:
        raise InputError(f"--length {length}: 2 to {longest} tokens")
    tokens = example_tokens(tokenizer.make(), length)
    sides = {name: runtimes.run(name, tokens) for name in (left, right)}
    allowed = TOLERANCES[dtype] if tolerance is None else tolerance
    certificate = compare(tokens, tokenizer.make().pad_id, sides, allowed)
    print(certificate.json() if as_json else certificate.table(), end="")
    return 0 if certificate.passed else 1


@contextmanager
def _bytes_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
