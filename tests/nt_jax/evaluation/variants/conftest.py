import functools
import pathlib

import jax
import numpy as np
import pytest

from nt_jax import workdir as workdirs
from nt_jax.checkpoint import Checkpoints
from nt_jax.evaluation.loading import LoadedModel, from_params
from nt_jax.evaluation.variants import job
from nt_jax.model.factory import build_model
from nt_jax.optim import optimizer
from nt_jax.step import TrainState
from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.evaluation.conftest import EXPERIMENT

WINDOW = 8
CONTIG = "".join(np.random.default_rng(5).choice(list("ACGT"), 700))
LOAD = functools.cache(job.load)


@pytest.fixture(scope="session")
def sharp() -> LoadedModel:
    """Larger random weights than at initialisation: every base of the context matters."""
    model = build_model(EXPERIMENT.model, KmerTokenizer(k=3))
    params = jax.jit(model.init)(jax.random.key(7))
    params = jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, params)
    return from_params(params, 5, EXPERIMENT)


@pytest.fixture(scope="session")
def workdir(tmp_path_factory, sharp: LoadedModel) -> pathlib.Path:
    """A run with one checkpoint and the counts of its k-mers."""
    folder = tmp_path_factory.mktemp("run")
    saver = Checkpoints(folder, sharp.config.checkpoint)
    opt_state = optimizer(sharp.config.optim, 10).init(sharp.params)
    saver.save(TrainState(jax.numpy.int32(5), sharp.params, opt_state), sharp.config, {})
    saver.wait()
    saver.close()
    counts = np.random.default_rng(1).integers(1, 99, sharp.tokenizer.vocab_size)
    workdirs.store_counts(folder, counts)
    return folder


@pytest.fixture(scope="session")
def fasta(tmp_path_factory) -> pathlib.Path:
    """chr1 from base 1001 on, and a short contig."""
    path = tmp_path_factory.mktemp("genome") / "ref.fa"
    end = 1000 + len(CONTIG)
    path.write_text(f">chr1:1001-{end}\n{CONTIG.lower()}\n>short\nACGTACGTNA\n")
    return path


@pytest.fixture
def base_options(workdir, fasta, monkeypatch) -> list[object]:
    # Loaded once for all tests, or each would compile its programs anew.
    monkeypatch.setattr(job, "load", LOAD)
    return ["--checkpoint", workdir, "--fasta", fasta, "--window", WINDOW, "--layers", 2]
