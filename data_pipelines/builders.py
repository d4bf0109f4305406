"""Contigs -> windows on disk: a TFDS dataset of ArrayRecord shards, written without TensorFlow.

`contigs` reads and validates the input once, `survey` fixes the plan, `shards` writes. All of it
happens in `DIR.incomplete`, which becomes DIR at the very end; a build that was killed, or found no
room on the disk, and is started again with the same arguments keeps what it finished. The bytes
written depend neither on the number of workers nor on what runs them.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines import windows
from data_pipelines.contigs import PREFIX as CONTIGS
from data_pipelines.contigs import stage_contigs
from data_pipelines.datacard import (
    DATACARD,
    FORMAT,
    INCOMPLETE,
    has_haplotypes,
    local_folder,
    make_datacard,
    read_datacard,
)
from data_pipelines.records import features
from data_pipelines.shards import Shard, write_shards
from data_pipelines.sources import Source, fasta_sources, identities
from data_pipelines.staged import PREFIX as ALLELES
from data_pipelines.staged import stage
from data_pipelines.survey import survey
from data_pipelines.windows import SPLITS, Recipe
from data_pipelines.workers import TEMPORARY, Progress, Spread, processes
from nt_jax.errors import InputError

SHARD_WINDOWS = 4096
"""Windows of a full work unit, all splits together: about 25 MB of bases with 6-kb windows."""
_CLAIM = "build.json"


@dataclasses.dataclass(frozen=True)
class Built:
    """What `build` leaves behind."""

    path: pathlib.Path
    """Complete dataset folder."""
    datacard: dict[str, Any]
    """Contents of datacard.json."""
    existed: bool
    """Nothing was written: the folder already held this very dataset."""


def build(
    fastas: Sequence[str | os.PathLike[str] | Source],
    out: str | os.PathLike[str],
    *,
    recipe: Recipe | str,
    validation: Sequence[str] = (),
    test: Sequence[str] = (),
    seed: int = 0,
    validation_share: float = windows.VALIDATION_SHARE,
    workers: int = 1,
    spread: Spread | None = None,
    shard_windows: int = SHARD_WINDOWS,
    kind: str = "real",
    licence: str = "",
    notes: str = "",
    progress: Progress | None = None,
) -> Built:
    """Writes the windows of all sources to the folder `out`.

    Args:
        fastas: FASTA files; or sources of another kind. Where sources have a split, all need one,
            and none of the arguments on splits is taken.
        out: folder to create; `out.incomplete` beside it exists while the build runs.
        recipe: the cutting, by name, text or value.
        validation: contigs held out for validation, `NAME` or `SOURCE:NAME`.
        test: contigs held out for the test split.
        seed: of the block-wise split that is made when neither is given.
        validation_share: share of the windows that the block-wise split holds out.
        workers: processes that work side by side; 1 does all in this process.
        spread: who works instead of these processes, such as `beam.on_beam`.
        shard_windows: windows of a full work unit.
        kind: "real" or "simulated"; kept in the datacard as are `licence` and `notes`.
        licence: licence of the sequences.
        notes: free text.
        progress: told how far the work is.

    Raises:
        InputError: bad input file, unknown contig, contradicting splits, no window left, or `out`
            holds something else, or the disk is full.
    """
    tell = progress or (lambda done, total, text: None)
    cutting = windows.recipe(recipe) if isinstance(recipe, str) else recipe
    if kind not in ("real", "simulated"):
        raise InputError(f"kind is {kind!r}; say whether the data are 'real' or 'simulated'")
    sources = _sources(fastas)
    validation, test = _held_out(sources, validation, test)
    by_name = bool(validation or test)
    arguments = {
        "format": FORMAT,
        "recipe": dataclasses.asdict(cutting),
        "validation": sorted(validation),
        "test": sorted(test),
        "seed": None if by_name else seed,
        "validation_share": None if by_name else validation_share,
        "max_n_share": windows.MAX_N_SHARE,
        "shard_windows": shard_windows,
        "kind": kind,
        "licence": licence,
        "notes": notes,
        "sources": identities(sources, tell),
    }
    fingerprint = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
    out = local_folder(out)
    existing = _existing(out, fingerprint)
    if existing is not None:
        return existing
    staging = out.with_name(out.name + INCOMPLETE)
    by_source = {source.name: source.split for source in sources if source.split}
    with _claimed(staging, fingerprint):
        if not (staging / DATACARD).exists():
            work = spread or processes(workers)
            try:
                contigs = stage_contigs(sources, cutting, staging, work, tell)
                plan = survey(
                    contigs,
                    cutting,
                    by_source=by_source,
                    validation=validation,
                    test=test,
                    seed=seed,
                    validation_share=validation_share,
                    shard_windows=shard_windows,
                )
                varied = any(source.panels for source in sources)
                staged = stage(sources, contigs, staging, work, tell) if varied else {}
            except InputError:
                # No shard is written yet: the build can be started anew with other arguments.
                shutil.rmtree(staging)
                raise
            shards = write_shards(cutting, plan, staged, staging, work, tell)
            card = make_datacard(arguments, fingerprint, plan, staged, shards)
            _write_tfds_metadata(staging, card, shards)
            _write_json(staging / DATACARD, card)
        card = json.loads((staging / DATACARD).read_text())
        for prefix in (CONTIGS, ALLELES):
            for written in staging.glob(f"{prefix}*"):
                shutil.rmtree(written)
        (staging / _CLAIM).unlink()
        try:
            staging.rename(out)
        except OSError as error:
            raise InputError(f"{out}: cannot be created: {error.strerror}") from None
    return Built(out, card, existed=False)


def _sources(fastas: Sequence[str | os.PathLike[str] | Source]) -> list[Source]:
    read = iter(fasta_sources([item for item in fastas if not isinstance(item, Source)]))
    return [item if isinstance(item, Source) else next(read) for item in fastas]


def _held_out(
    sources: Sequence[Source], validation: Sequence[str], test: Sequence[str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Names of contigs in validation and test; of sources, where these have their splits."""
    without = [source.name for source in sources if not source.split]
    if len(without) == len(sources):
        return validation, test
    if without:
        raise InputError(f"{without[0]}: has no split, but other sources have; give all one")
    if validation or test:
        raise InputError(
            "--validation and --test: the sources have their splits already; leave these out"
        )
    held_out = [[s.name for s in sources if s.split == split] for split in SPLITS[1:]]
    return held_out[0], held_out[1]


def _existing(out: pathlib.Path, fingerprint: str) -> Built | None:
    """The dataset if `out` holds the very one asked for, None if there is nothing."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    card = read_datacard(out)
    if card["fingerprint"] != fingerprint:
        raise InputError(
            f"{out}: holds a dataset of other input or arguments; give another --out or remove it"
        )
    return Built(out, card, existed=True)


@contextlib.contextmanager
def _claimed(staging: pathlib.Path, fingerprint: str) -> Iterator[None]:
    """The staging folder, for this process and build alone; the claim ends with the process."""
    try:
        staging.mkdir(parents=True, exist_ok=True)
        handle = os.open(staging, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{staging}: cannot be created: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{staging}: another build is writing here; wait for it") from None
        _remove_temporary(staging)
        if not (staging / _CLAIM).exists():
            if any(staging.iterdir()):
                raise InputError(
                    f"{staging}: holds something else; remove it, or name another --out"
                )
            _write_json(staging / _CLAIM, {"fingerprint": fingerprint})
        if json.loads((staging / _CLAIM).read_text())["fingerprint"] != fingerprint:
            raise InputError(
                f"{staging}: an unfinished build of other input or arguments; finish it with "
                "those, or remove it"
            )
        yield
    except OSError as error:
        _remove_temporary(staging)
        raise InputError(
            f"{error.filename or staging}: {error.strerror or error}; when that is mended, give "
            "the same command again: it goes on with what is finished"
        ) from error
    finally:
        os.close(handle)


def _remove_temporary(staging: pathlib.Path) -> None:
    for leftover in staging.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _write_tfds_metadata(
    folder: pathlib.Path, card: dict[str, Any], shards: Sequence[Shard]
) -> None:
    """dataset_info.json and features.json, as `tfds.builder_from_directory` reads them."""
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[shard.records for shard in shards if shard.split == split],
            num_bytes=sum(shard.bytes for shard in shards if shard.split == split),
        )
        for split in card["splits"]
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(has_haplotypes(card)),
        split_infos=infos,
        version="1.0.0",
        check_data=False,
        description=f"Genome windows of {card['recipe']['length']} bases ({card['kind']} data).",
        disable_shuffling=True,
    )


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Appears whole or not at all."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    with temporary.open("w") as stream:
        stream.write(json.dumps(content, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)
