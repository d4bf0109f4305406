"""The loader: a pure function of step and seed, whatever the hosts, workers and restarts."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_pipelines.builders import build
from data_pipelines.fasta import read_fasta, reverse_complement
from data_pipelines.windows import Recipe
from nt_jax import data
from nt_jax.config import DataConfig
from nt_jax.data import locate
from nt_jax.errors import InputError
from nt_jax.tokenizers import KmerTokenizer

TOKENIZER = KmerTokenizer(k=6, vocabulary="v2")
RECIPE = "window=66,stride=60,jitter=7,tokens=11"


def simulated(length, seed=0):
    """Uniform random bases with some N: simulated, not a genome."""
    random = np.random.default_rng(seed)
    bases = random.choice(np.frombuffer(b"ACGT", np.uint8), length)
    bases[random.random(length) < 0.01] = ord("N")
    return bases.tobytes()


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("fasta") / "g.fa"
    records = [(b"a", simulated(3_000)), (b"b:101-1000", simulated(900, 1)), (b"c", b"ACGT")]
    path.write_bytes(b"".join(b">%s\n%s\n" % record for record in records))
    return path


@pytest.fixture(scope="module")
def dataset(fasta):
    out = fasta.parent / "data"
    build([fasta], out, recipe=RECIPE, validation=["b"], kind="simulated", shard_windows=7)
    return data.open_dataset(out)


def batches(dataset, *, length=11, workers=0, batch=6, seed=3, start=0, stop=20, **hosts):
    config = DataConfig(sequence_length=length, workers=workers)
    return list(
        data.train_batches(
            dataset,
            TOKENIZER,
            config,
            global_batch=batch,
            seed=seed,
            start_step=start,
            stop_step=stop,
            **hosts,
        )
    )


def test_opening_gives_recipe_counts_and_records(dataset, fasta):
    assert dataset.recipe == Recipe("window=66,stride=60,jitter=7,tokens=11", 66, 60, 7, 11)
    assert dataset.splits == {"train": 49, "validation": 14}
    contigs = {contig.name: contig for contig in read_fasta(fasta)}
    for split, count in dataset.splits.items():
        for i in range(count):
            window = dataset.window(split, i)
            contig = contigs[window["contig"]]
            start = window["start"] - contig.start
            assert window["sequence"] == contig.bases[start : start + 66].tobytes()
            assert window["source"] == "g"


def test_too_long_a_context_is_refused_at_once(dataset):
    with pytest.raises(InputError, match=r"13 tokens need 72 bases.*have 66; choose at most 12"):
        data.train_batches(
            dataset, TOKENIZER, DataConfig(sequence_length=13),
            global_batch=2, seed=0, start_step=0, stop_step=1,
        )  # fmt: skip
    with pytest.raises(InputError, match="13 tokens"):
        data.eval_batches(dataset, TOKENIZER, "validation", 2, 13, 0)
    with pytest.raises(InputError, match="no room"):
        data.eval_batches(dataset, TOKENIZER, "validation", 2, 1, 0)


@pytest.mark.parametrize("length", [11, 6])
def test_batches_are_the_tokens_of_the_located_bases(dataset, length):
    config = DataConfig(sequence_length=length)
    order = data.train_order(dataset, TOKENIZER, config, global_batch=6, seed=3)
    strands = set()
    for step, batch in enumerate(batches(dataset, length=length)):
        assert batch.shape == (6, length)
        assert batch.dtype == np.int32
        for row, tokens in enumerate(batch):
            ref = locate(order, step, row)
            bases = np.frombuffer(dataset.window("train", ref.index)["sequence"], np.uint8)
            piece = bases[ref.offset : ref.offset + (length - 1) * 6]
            assert len(piece) == (length - 1) * 6
            if ref.reverse:
                piece = reverse_complement(piece)
            np.testing.assert_array_equal(tokens, TOKENIZER.encode_prefix(piece, length))
            strands.add(ref.reverse)
    assert strands == {False, True}


def test_a_row_is_the_same_whoever_reads_it(dataset):
    whole = batches(dataset)
    for rows in ([0, 1, 2], [3, 4, 5], [1, 4], [5], [0, 1, 2, 3, 4, 5]):
        for batch, part in zip(whole, batches(dataset, rows=rows), strict=True):
            np.testing.assert_array_equal(part, batch[rows])


def test_a_restart_goes_on_where_the_run_would_have_been(dataset):
    whole = batches(dataset)
    for start in (0, 1, 7, 19, 20):
        rest = batches(dataset, start=start)
        assert len(rest) == 20 - start
        for ours, expected in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_seeds_differ(dataset):
    assert (np.stack(batches(dataset)) != np.stack(batches(dataset, seed=4))).any()


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_give_the_same_batches(dataset, workers):
    ours = batches(dataset, workers=workers, stop=7)
    for batch, expected in zip(ours, batches(dataset, stop=7), strict=True):
        np.testing.assert_array_equal(batch, expected)
    with pytest.raises(InputError, match="workers=-1"):
        batches(dataset, workers=-1)


CONSOLE_SCRIPT = """#!{python}
import sys
import numpy as np
from nt_jax import data
from nt_jax.config import DataConfig
from nt_jax.tokenizers import KmerTokenizer


def main():
    stream = data.train_batches(
        data.open_dataset({path!r}), KmerTokenizer(), DataConfig(sequence_length=11, workers=2),
        global_batch=6, seed=3, start_step=0, stop_step=20)
    first = [next(stream) for _ in range(4)]
    stream.close()  # a run that stops early leaves no worker behind
    np.save({out!r}, np.stack(first))


if __name__ == "__main__":
    sys.exit(main())
"""


def test_workers_start_from_a_console_script_with_arguments(dataset, tmp_path):
    """They import the main module again, and must not parse its command line as absl flags."""
    script, out = tmp_path / "nt-something", tmp_path / "out.npy"
    script.write_text(
        CONSOLE_SCRIPT.format(python=sys.executable, path=str(dataset.path), out=str(out))
    )
    command = [sys.executable, str(script), "pretrain", "x", "--workdir", "w", "--train.steps=3"]
    done = subprocess.run(command, check=True, timeout=600, capture_output=True, text=True)
    assert done.stderr == ""
    np.testing.assert_array_equal(np.load(out), np.stack(batches(dataset)[:4]))


SIGNALLED_SCRIPT = """
import multiprocessing, signal, sys
from nt_jax import data
from nt_jax.config import DataConfig
from nt_jax.tokenizers import KmerTokenizer

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)
    stream = data.train_batches(
        data.open_dataset({path!r}), KmerTokenizer(), DataConfig(sequence_length=11, workers=1),
        global_batch=6, seed=3, start_step=0, stop_step=10**6)
    next(stream)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    sys.stdin.readline()
    for _ in range(30):  # more than the buffers hold
        next(stream)
    print("went on", flush=True)
    sys.stdin.readline()
"""


def test_workers_outlive_a_signal_to_the_group_but_not_their_parent(dataset, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SIGNALLED_SCRIPT.format(path=str(dataset.path)))
    parent = subprocess.Popen(
        [sys.executable, str(script)], start_new_session=True, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    (worker,) = map(int, parent.stdout.readline().split())
    os.killpg(parent.pid, signal.SIGTERM)
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "went on\n"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    orphaned = running(worker)
    if orphaned:
        os.kill(worker, signal.SIGKILL)
    parent.stdin.close()
    parent.stdout.close()
    assert not orphaned


def running(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # where nobody reaps orphans


def test_evaluation_reads_a_fixed_order_without_jitter_or_strand(dataset):
    seen = []
    for tokens, valid, number in data.eval_batches(dataset, TOKENIZER, "validation", 4, 11, 0):
        assert tokens.shape == (4, 11)
        assert tokens.dtype == np.int32
        for row in range(4):
            window = dataset.window("validation", int(number[row]))["sequence"]
            np.testing.assert_array_equal(tokens[row], TOKENIZER.encode_prefix(window, 11))
        seen += number[valid].tolist()
    assert seen == list(range(14))


@pytest.mark.parametrize(("limit", "numbers"), [(1, [0]), (3, [0, 4, 9]), (99, list(range(14)))])
def test_a_limit_spreads_the_windows_evenly(dataset, limit, numbers):
    seen = [
        batch.number[batch.valid].tolist()
        for batch in data.eval_batches(dataset, TOKENIZER, "validation", 2, 11, limit)
    ]
    assert list(itertools.chain(*seen)) == numbers


def test_evaluation_is_shared_by_hosts(dataset):
    whole = list(data.eval_batches(dataset, TOKENIZER, "validation", 6, 11, 8))
    for rows in ([0, 1, 2], [2, 5]):
        shared = data.eval_batches(dataset, TOKENIZER, "validation", 6, 11, 8, rows)
        for batch, part in zip(whole, shared, strict=True):
            np.testing.assert_array_equal(part.tokens, batch.tokens[rows])
            np.testing.assert_array_equal(part.valid, batch.valid)
            np.testing.assert_array_equal(part.number, batch.number)


def test_unknown_splits_are_refused(dataset):
    with pytest.raises(InputError, match=r"no test windows; splits here: train \(49\)"):
        data.eval_batches(dataset, TOKENIZER, "test", 2, 11, 0)


def test_unigram_counts_are_the_counts(dataset):
    expected = np.zeros(TOKENIZER.vocab_size, np.int64)
    for i in range(dataset.splits["train"]):
        for token in TOKENIZER.encode_prefix(dataset.window("train", i)["sequence"], 12)[1:]:
            expected[token] += 1
    counts = data.unigram_counts(dataset, TOKENIZER)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == 49 * 11
    assert data.unigram_counts(dataset, TOKENIZER, limit=5).sum() == 5 * 11
    assert data.unigram_counts(dataset, TOKENIZER, split="validation").sum() == 14 * 11


def test_windows_of_a_fasta_equal_those_of_the_dataset(dataset, fasta):
    windows = data.fasta_windows(fasta, RECIPE)
    assert windows.splits == {"fasta": 63}
    assert windows.short_contigs == 1
    built = [
        dataset.window(s, i) for s in ("train", "validation") for i in range(dataset.splits[s])
    ]
    ours = [windows.window("fasta", i) for i in range(63)]
    key = ("contig", "start", "sequence")
    assert [[w[k] for k in key] for w in ours] == [[w[k] for k in key] for w in built]
    (tokens, valid, number) = next(data.eval_batches(windows, TOKENIZER, "fasta", 63, 11, 0))
    assert valid.all()
    np.testing.assert_array_equal(number, np.arange(63))
    np.testing.assert_array_equal(tokens[5], TOKENIZER.encode_prefix(ours[5]["sequence"], 11))
    with pytest.raises(IndexError):
        windows.window("fasta", 63)


def test_windows_of_a_fasta_by_length(fasta):
    windows = data.fasta_windows(fasta, 60)
    assert windows.splits == {"fasta": 50 + 15}
    assert (windows.window("fasta", 51)["contig"], windows.window("fasta", 51)["start"]) == (
        "b",
        160,
    )
    with pytest.raises(InputError, match=r"no window of 5000 bases is left .longest contig 3000"):
        data.fasta_windows(fasta, 5000)


def test_what_is_no_dataset_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match=r"data\.path is empty"):
        data.open_dataset("")
    with pytest.raises(InputError, match="no such folder; build it"):
        data.open_dataset(tmp_path / "none")
    with pytest.raises(InputError, match="no dataset of this program"):
        data.open_dataset(tmp_path)
    (tmp_path / "half.incomplete").mkdir()
    with pytest.raises(InputError, match="not complete; run the same"):
        data.open_dataset(tmp_path / "half")
    with pytest.raises(InputError, match="unfinished build"):
        data.open_dataset(tmp_path / "half.incomplete")


def test_a_missing_shard_is_refused(fasta, tmp_path):
    path = build([fasta], tmp_path / "d", recipe=RECIPE, kind="simulated").path
    pathlib.Path(next(path.glob("*train*"))).unlink()
    with pytest.raises(InputError, match="this shard is missing"):
        data.open_dataset(path)


def test_the_fingerprint_tells_datasets_apart(dataset, fasta, tmp_path):
    other = build([fasta], tmp_path / "d", recipe=RECIPE, kind="simulated", seed=1)
    same = build([fasta], tmp_path / "e", recipe=RECIPE, validation=["b"], kind="simulated",
                 shard_windows=7)  # fmt: skip
    assert data.open_dataset(other.path).fingerprint != dataset.fingerprint
    assert data.open_dataset(same.path).fingerprint == dataset.fingerprint


def test_a_real_genome_streams(real_data, tmp_path):
    path = real_data / "genomes" / "species" / "phage_lambda_NC_001416.fa.gz"
    opened = data.open_dataset(build([path], tmp_path / "d", recipe="hf6200").path)
    (batch,) = batches(opened, length=1000, batch=4, stop=1)
    assert batch.shape == (4, 1000)
    first, end = TOKENIZER.kmer_ids
    assert ((batch[:, 1:] >= first) & (batch[:, 1:] < end)).all()
    genome = next(iter(read_fasta(path)))
    both = genome.bases.tobytes() + b"|" + reverse_complement(genome.bases).tobytes()
    assert all(TOKENIZER.decode(row).encode() in both for row in batch)
