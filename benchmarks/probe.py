"""The device's nested search against scikit-learn's, on the same embeddings and folds.

    NT_JAX_DATA_MIRROR=DIR python benchmarks/probe.py --checkpoint RUN --task gue/EMP/H3 gue/EMP/H4

Both search the same grid of C by the same inner folds and score the same held-out sequences; the
columns are the MCC of each, their difference, what each chose, and the time of scikit-learn by that
of the device (processes of their own would share the cores, so the two take turns in one).
"""

import argparse
import pathlib
import time
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nt_jax import runtime
from nt_jax.evaluation import metrics, search
from nt_jax.evaluation.loading import load
from nt_jax.evaluation.search import Problem, fit_all, join, logistic
from nt_jax.evaluation.table import aligned
from nt_jax.evaluation.tasks import Fold, make_folds, subsample
from nt_jax.evaluation.tasks.find import find_task

TOLERANCE = 1e-6
"""Of scikit-learn. At its default, 1e-4, it stops early enough to choose another C now and then."""

TITLE = """# Probe: the device's search and scikit-learn's

MCC of both nested searches on the same embeddings and folds. C: for how many folds both chose the
same. Time ratio: scikit-learn's seconds by the device's, on the machine that made this table.
"""


def reference(
    features: np.ndarray, problem: Problem, fold: Fold, jobs: int
) -> tuple[np.ndarray, float]:
    """scikit-learn's search on one fold: probabilities of its held-out rows, and the C."""
    scarcest = int(np.unique(problem.truth[fold.train], return_counts=True)[1].min())
    inner = StratifiedKFold(
        min(search.INNER_FOLDS, scarcest), shuffle=True, random_state=problem.seed
    )
    found = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(tol=TOLERANCE, max_iter=10_000)),
        {"logisticregression__C": list(search.STRENGTHS)},
        scoring="matthews_corrcoef",
        cv=inner,
        n_jobs=jobs,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.fit(features[fold.train], problem.truth[fold.train])
    return found.predict_proba(features[fold.test]), found.best_params_["logisticregression__C"]


def main() -> None:
    """Prints a table that lines up; `--out` writes it too."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, metavar="DIR[@STEP]")
    parser.add_argument("--task", required=True, nargs="+", metavar="NAME|PATH")
    parser.add_argument("--layer", type=int, default=1, help="1-based")
    parser.add_argument("--max-sequences", type=int, default=4000, help="of each split; 0 is all")
    parser.add_argument("--folds", type=int, default=5, help="where no test split is given")
    parser.add_argument("--jobs", type=int, default=1, help="processes of scikit-learn's search")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="file for the table")
    options = parser.parse_args()
    runtime.configure()
    loaded = load(options.checkpoint)
    header = ["task", "sequences", "device", "scikit-learn", "difference", "C", "time ratio"]
    rows = []
    for name in options.task:
        task = subsample(find_task(name), options.max_sequences, 0)
        splits = [task.train] if task.test is None else [task.train, task.test]
        sequences = [sequence for split in splits for sequence in split.sequences]
        truth = np.concatenate([split.labels for split in splits])
        folds = make_folds(task, options.folds, 0)
        problem = Problem(task.kind, truth, len(task.classes), None, folds, 0)
        features = loaded.embed(sequences, options.layer)
        # Compiled in a first pass that is not counted.
        fit_all({0: features}, problem, logistic())
        start = time.perf_counter()
        fits = fit_all({0: features}, problem, logistic())[0]
        ours = time.perf_counter() - start
        start = time.perf_counter()
        pairs = [reference(features, problem, fold, options.jobs) for fold in folds]
        theirs = time.perf_counter() - start
        held = truth[search.held_out_rows(folds)]
        order = np.argsort(np.concatenate([fold.test for fold in folds]))
        expected = np.concatenate([probabilities for probabilities, _ in pairs])[order]
        scores = [metrics.class_scores(held, p)["mcc"] for p in (join(folds, fits), expected)]
        same = sum(
            fit.chosen == f"C {strength:.2g}"
            for fit, (_, strength) in zip(fits, pairs, strict=True)
        )
        rows.append(
            [
                task.name,
                f"{len(truth):,}",
                *(f"{score:.4f}" for score in scores),
                f"{scores[0] - scores[1]:+.4f}",
                f"same in {same}/{len(folds)}",
                f"{theirs / ours:.2f}",
            ]
        )
        print(aligned(header, rows[-1:]), flush=True)
    text = aligned(header, rows)
    print(text)
    if options.out:
        options.out.write_text(f"{TITLE}\n{text}\n")


if __name__ == "__main__":
    main()
