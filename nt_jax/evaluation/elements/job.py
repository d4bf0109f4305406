"""`nt-jax attention`: one checkpoint on one annotated genome, from files to files."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from nt_jax import workdir
from nt_jax.checkpoint import parse_checkpoint
from nt_jax.errors import InputError
from nt_jax.evaluation.elements.attention import AttentionSums, sum_attention
from nt_jax.evaluation.elements.figures import attention_figure
from nt_jax.evaluation.elements.masked import masked_scores, sum_masked
from nt_jax.evaluation.elements.pieces import Pieces, find_pieces, group_folds
from nt_jax.evaluation.elements.probe import FOLDS, Family, probe_elements
from nt_jax.evaluation.elements.report import result_rows, to_markdown
from nt_jax.evaluation.elements.result import ALL, FIGURES, Result, Settings
from nt_jax.evaluation.elements.tables import CLASSES, MEASURES, attention_cells, cells_parquet
from nt_jax.evaluation.elements.windows import ElementWindows, element_windows, read_genome, shares
from nt_jax.evaluation.loading import LoadedModel, load, random_like
from nt_jax.evaluation.results import write_rows
from nt_jax.files import owning, write_atomically
from nt_jax.pictures import png
from nt_jax.progress import Progress, silent
from nt_jax.validation import unigram_log_probabilities

Bars = Callable[[str], Progress]
"""What a phase is called -> what hears (done, in all)."""
CELLS, ROWS, TEXT = "attention.parquet", "results.parquet", "attention.md"


def analyse(
    checkpoint: str,
    fasta: str | pathlib.Path,
    annotation: str | pathlib.Path,
    settings: Settings,
    bars: Bars = lambda text: silent,
    say: Callable[[str], None] = lambda line: None,
) -> Result:
    """All analyses of `DIR[@STEP]`; `say` hears how the files were read before the work starts.

    Raises InputError for a bad checkpoint, file, contig or number.
    """
    _check(settings)
    loaded = load(checkpoint)
    length = settings.length or loaded.context
    if not 2 <= length <= loaded.config.model.max_positions:
        raise InputError(
            f"--length {length}: {checkpoint} takes 2 to {loaded.config.model.max_positions} tokens"
        )
    genome = read_genome(fasta, annotation, settings.contigs, settings.promoter)
    for note in genome.notes:
        say(note)
    windows = element_windows(genome, loaded.tokenizer, length, settings.windows)
    counts = workdir.stored_counts(parse_checkpoint(checkpoint)[0])
    origin = "the training split of the checkpoint"
    if counts is None:
        counts, origin = _own_counts(windows), "the windows analysed here (none stored)"
    unigram = unigram_log_probabilities(counts, loaded.tokenizer)
    untrained = random_like(loaded, settings.seed)

    sums = {
        name: sum_attention(
            model, windows, settings.threshold, settings.seed, bars(f"attention, {name}")
        )
        for name, model in (("trained", loaded), ("random init", untrained))
    }
    masks = {
        name: sum_masked(model, windows, unigram, bars(f"masked tokens, {name}"))
        for name, model in (("trained", loaded), ("random init", untrained))
    }
    say("testing")
    cells = attention_cells(sums["trained"], sums["random init"], settings.seed)
    names = (*CLASSES, ALL)
    pieces, families = _probe(loaded, windows, settings, bars)
    return Result(
        checkpoint=checkpoint,
        step=loaded.step,
        tokens=loaded.tokens,
        fasta=str(fasta),
        annotation=str(annotation),
        settings=settings,
        length=length,
        windows=len(windows.chosen),
        dropped=windows.dropped,
        notes=genome.notes,
        sizes=dict(shares(windows)),
        cells=tuple(cells),
        cls={name: _mean_cls(own) for name, own in sums.items()},
        unigram=origin,
        masked={
            name: masked_scores(masks["trained"], masks["random init"], column, settings.seed)
            for column, name in enumerate(names)
        },
        masked_tokens={
            name: float(masks["trained"].tokens[:, i].sum()) for i, name in enumerate(names)
        },
        pieces=pieces,
        families=families,
    )


def _check(settings: Settings) -> None:
    for name, least in (("windows", 0), ("length", 0), ("promoter", 1), ("elements", 0)):
        if getattr(settings, name) < least:
            raise InputError(f"--{name} {getattr(settings, name)} is below {least}")
    if not 0 < settings.threshold < 1:
        raise InputError(f"--threshold {settings.threshold:g}: attention is between 0 and 1")


def _own_counts(windows: ElementWindows) -> np.ndarray:
    counts = np.zeros(windows.tokenizer.vocab_size, np.int64)
    for batch in windows.batches(1, seed=0):
        counts += np.bincount(batch.tokens.ravel(), minlength=len(counts))
    return counts


def _mean_cls(sums: AttentionSums) -> Float[np.ndarray, "L H"]:
    return sums.cls.mean(axis=0, dtype=np.float64)


def _probe(
    loaded: LoadedModel, windows: ElementWindows, settings: Settings, bars: Bars
) -> tuple[Pieces, tuple[Family, ...] | str]:
    bases = (loaded.context - 1) * loaded.tokenizer.k
    pieces = find_pieces(windows.genome, bases, settings.elements, settings.seed)
    folds = group_folds(pieces, FOLDS, settings.seed)
    if isinstance(folds, str):
        return pieces, folds
    made = probe_elements(loaded, windows.genome, pieces, folds, settings.seed, progress=bars)
    return pieces, tuple(made)


def write(result: Result, out: pathlib.Path) -> Sequence[pathlib.Path]:
    """Writes table, rows, text and figures into `out`; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    with owning(out):
        write_atomically(out / CELLS, cells_parquet(result.cells))
        write_rows(out / ROWS, result_rows(result))
        for measure in MEASURES:
            what = (
                "attention"
                if measure == "attention"
                else f"pairs with attention above {result.settings.threshold:g}"
            )
            title = (
                f"{pathlib.Path(result.annotation).name}, {result.windows:,} windows of "
                f"{result.length} tokens: {what}\n"
                "classes with a test; dot: false discovery rate below 5 %; grey: nothing observed"
            )
            figure = attention_figure(result.cells, measure, title)
            write_atomically(out / FIGURES[measure], png(figure, dpi=110))
        write_atomically(out / TEXT, to_markdown(result))
    return [out / name for name in (TEXT, CELLS, ROWS, *FIGURES.values())]
