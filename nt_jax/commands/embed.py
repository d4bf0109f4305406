"""`nt-jax embed`: embeddings as a file, with a picture in two dimensions."""

import argparse
import pathlib
import sys

from nt_jax.commands import options as common
from nt_jax.errors import InputError, nearest


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    common.checkpoint(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--fasta", type=pathlib.Path, metavar="F", help="every record, or --bed of it"
    )
    what.add_argument("--task", metavar="NAME|PATH", help="sequences of a labelled set")
    parser.add_argument(
        "--bed", type=pathlib.Path, metavar="B", help="intervals of --fasta; its names are labels"
    )
    common.data_dir(parser)
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="X.parquet|X.npz", help="file to write"
    )
    parser.add_argument("--layer", type=int, default=None, help="1-based; default: the last")
    common.pooling(parser)
    parser.add_argument("--projection", default="pca", help="of the picture: pca|umap")
    parser.add_argument(
        "--picture", type=pathlib.Path, default=None, metavar="P.png", help="default: beside --out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the projection")


def run(options: argparse.Namespace) -> None:
    """Writes the file and the picture."""
    from nt_jax import runtime

    runtime.configure()
    from nt_jax.commands.bars import count_bar
    from nt_jax.evaluation import embedding_map
    from nt_jax.evaluation.loading import load
    from nt_jax.evaluation.tasks.find import find_task
    from nt_jax.files import write_atomically

    known = embedding_map.PROJECTIONS
    if options.projection not in known:
        near = nearest(options.projection, known)
        raise InputError(f"--projection {options.projection}{near}; known: {', '.join(known)}")
    if options.bed and not options.fasta:
        raise InputError("--bed: intervals of which genome? Give --fasta")
    embedding_map.check_ending(options.out)
    loaded = load(options.checkpoint)
    layer = loaded.num_layers if options.layer is None else options.layer
    loaded.check_layers([layer])
    if options.task:
        items = embedding_map.from_task(find_task(options.task, options.data_dir))
    elif options.bed:
        items = embedding_map.from_bed(options.bed, options.fasta)
    else:
        items = embedding_map.from_fasta(options.fasta)
    for line in items.passed:
        print(line, file=sys.stderr)
    with count_bar("embedding windows") as progress:
        vectors = loaded.embed_layers(items.sequences, [layer], options.pooling, progress=progress)
    about = {
        "checkpoint": str(options.checkpoint),
        "step": loaded.step,
        "layer": layer,
        "pooling": options.pooling,
    }
    embedding_map.write(options.out, items, vectors[layer], about)
    print(options.out)
    if len(items.sequences) < 3:
        return
    picture = options.picture or options.out.with_suffix(".png")
    title = f"{pathlib.Path(options.checkpoint).name}, layer {layer}, {options.pooling} pooling"
    write_atomically(
        picture,
        embedding_map.picture(
            vectors[layer],
            items.columns["label"],
            title,
            known[options.projection],
            options.seed,
        ),
    )
    print(picture)
