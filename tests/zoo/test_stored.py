"""Rows of a file: read when they are asked for, and never all at once."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch

from inference import fit
from inference.evaluation import log_likelihood
from inference.training.compiled import CompileNotice
from tests import processes
from zoo import datasets
from zoo.arrays import RoundingNotice, count_values
from zoo.datasets import Data, files
from zoo.errors import DatasetError, NonFiniteError, OptionError, SupportError, TooLargeError
from zoo.latent.vae import VAE
from zoo.stored import BLOCK, Facts, Stored, blocks

TABLE = np.arange(60, dtype=np.int16).reshape(20, 3)


def stored(array: np.ndarray = TABLE, chosen=None) -> Stored:
    return Stored(array, np.arange(len(array)) if chosen is None else np.asarray(chosen), "rows.npy")


def test_it_looks_like_a_tensor_and_reads_rows():
    x = stored(chosen=[4, 2, 9])
    assert isinstance(x, torch.Tensor)
    assert (x.shape, len(x), x.ndim, x.numel(), x.dtype) == ((3, 3), 3, 2, 9, torch.float64)
    rows = torch.as_tensor(TABLE).double()[[4, 2, 9]]
    assert torch.equal(x[:], rows)
    assert torch.equal(x[1:], rows[1:])
    assert torch.equal(x[torch.tensor([2, 0, 2])], rows[[2, 0, 2]])
    assert torch.equal(x[torch.tensor([True, False, True])], rows[[0, 2]])
    assert torch.equal(x[-1], rows[2])
    assert type(x[:]) is torch.Tensor
    single = x.to(torch.float32)
    assert isinstance(single, Stored)
    assert single[:].dtype == single.dtype == torch.float32
    assert x.to("cpu") is x.detach() is copy.deepcopy(x) is x
    assert repr(x) == "Stored((3, 3), torch.float64, cpu, rows of rows.npy)"


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, ">i2", np.uint16, np.uint32, np.int64, np.float16, ">f4", "<f8"])
def test_numbers_of_any_kind_are_read(dtype):
    array = (TABLE % 2 if dtype == np.bool_ else TABLE).astype(dtype)
    assert torch.equal(stored(array)[3:5], torch.from_numpy(array.astype(np.float64))[3:5])


def test_rows_that_are_expected_are_read_once(monkeypatch):
    x, read = stored(), []
    monkeypatch.setattr(Stored, "_read", lambda self, rows, of=Stored._read: read.append(list(rows)) or of(self, rows))
    x.expect(torch.tensor([3, 1]))
    assert torch.equal(x[torch.tensor([3, 1])], torch.as_tensor(TABLE).double()[[3, 1]])
    assert read == [[3, 1]]
    x.expect(torch.tensor([3, 1]))
    assert torch.equal(x[torch.tensor([2])], torch.as_tensor(TABLE).double()[[2]])  # others than were expected
    assert torch.equal(x[torch.tensor([3, 1])], torch.as_tensor(TABLE).double()[[3, 1]])
    assert [2] in read


WHOLE = {
    "isnan": lambda x: x.isnan(),
    "sum": lambda x: x + 1,
    "mean": lambda x: x.mean(),
    "cat": lambda x: torch.cat([torch.zeros(1, 3), x]),
    "numpy": lambda x: x.numpy(),
    "array": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "columns": lambda x: x[:, 0],
    "iteration": lambda x: list(x),
    "where": lambda x: torch.where(torch.ones(20, 3).bool(), x, 0.0),
    "layer": lambda x: torch.nn.Linear(3, 1)(x),
    "copy": lambda x: torch.empty(20, 3).copy_(x),
    "save": lambda x: torch.save(x, io.BytesIO()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_would_read_all_rows_is_refused(name):
    with pytest.raises(TooLargeError, match=r"would read all 20 rows of rows.npy .*minibatches.*stored=False"):
        WHOLE[name](stored())


def test_facts_of_blocks_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("zoo.stored.BLOCK", 7)
    array = np.random.default_rng(0).normal(size=(50, 3))
    array[4, 1], array[9, 0], array[30, 2] = np.nan, np.inf, -np.inf
    x = stored(array, np.random.default_rng(1).permutation(50))
    assert [len(part) for part in blocks(x)] == [2] * 25
    good = array[np.isfinite(array)]
    assert x.facts() == Facts(missing=1, infinite=2, least=good.min(), most=good.max(), whole=False)
    assert x.facts() == Facts.of(iter((torch.as_tensor(array),)))
    assert torch.equal(torch.cat(list(blocks(stored()))), torch.as_tensor(TABLE).double())
    whole = torch.ones(2)
    assert [part.data_ptr() for part in blocks(whole)] == [whole.data_ptr()]
    assert BLOCK < 2**22


@pytest.mark.parametrize(
    ("values", "support"),
    [([0, 1, 1], "binary"), ([0, 1, np.nan], "binary"), ([0, 0.5, 1], "unit"), ([0, 2, 7], "integer"),
     ([-1, 1, 0], "integer"), ([0, 1, np.inf], "real"), ([0.5, 2, 0], "real")],
)  # fmt: skip
def test_support_is_that_of_arrays_in_memory(values, support):
    from zoo.datasets.given import support_of

    x = stored(np.asarray(values, dtype=float))
    assert x.facts().support == support == support_of([np.asarray(values, dtype=float)])


def test_facts_of_several_are_of_all():
    parts = [stored(np.asarray(v, dtype=float)).facts() for v in ([0, 1], [0.5, np.nan], [3, np.inf])]
    assert Facts.joined(parts) == Facts(missing=1, infinite=1, least=0, most=3, whole=False)


def test_doors_check_stored_rows(monkeypatch):
    monkeypatch.setattr("zoo.stored.BLOCK", 7)
    bits = np.random.default_rng(0).integers(0, 2, (30, 6)).astype(float)
    program = VAE([6], latent_dim=2)
    assert isinstance(program.take(Data(stored(bits))).x, Stored)
    for wrong, error in ((np.inf, NonFiniteError), (0.5, SupportError)):
        spoilt = bits.copy()
        spoilt[17, 2] = wrong
        with pytest.raises(error):
            program.take(Data(stored(spoilt)))
    assert count_values(stored(TABLE)) == 60
    assert count_values(stored(TABLE - 1.5)) == 2


def test_fits_that_would_compile_go_on_eagerly(tmp_path):
    np.save(tmp_path / "bits.npy", np.random.default_rng(0).integers(0, 2, (300, 6)))
    data = datasets.load(tmp_path / "bits.npy", stored=True)
    with pytest.warns(CompileNotice, match="its data stay in a file"):
        found = fit("nade", data, "svi", steps=3, batch_size=20, hidden=4, compile="always")
    part = log_likelihood(found, data)  # of the test split, by batches
    assert part.values.shape == (30,)
    with pytest.raises(TooLargeError, match="would read all 240 rows"):
        fit("ppca", data, "nuts", warmup=5, draws=5)


def test_large_files_stay_where_they_are_unless_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "STORED_FROM", 20 * 3 * 8 - 1)
    path, other = tmp_path / "table.npy", tmp_path / "context.npy"
    np.save(path, TABLE)
    np.save(other, TABLE[:, :2] + 0.5)
    large = datasets.load(path, context=other)
    assert isinstance(large.train.x, Stored)
    assert isinstance(large.train.context, Stored)
    whole = datasets.load(path, context=other, stored=False)
    assert whole.train.x.__class__ is torch.Tensor
    for name in ("train", "valid", "test"):
        assert torch.equal(large.split(name).x[:], whole.split(name).x)
        assert torch.equal(large.split(name).context[:], whole.split(name).context)
    for part in ("shape", "support", "splits", "name"):
        assert getattr(large.card, part) == getattr(whole.card, part)
    np.save(path, TABLE[:19])
    assert not datasets.load(path).train.stored


def test_what_is_read_whole_is_not_stored(tmp_path):
    np.savez(tmp_path / "table.npz", TABLE)
    with pytest.raises(DatasetError, match="is read whole"):
        datasets.load(tmp_path / "table.npz", stored=True)
    with pytest.raises(OptionError, match="stored are of files"):
        datasets.load("digits", stored=True)
    np.save(tmp_path / "large.npy", TABLE.astype(np.int64) + 2**25)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with pytest.warns(RoundingNotice, match="beyond 16,777,216"):
            datasets.load(tmp_path / "large.npy", stored=True)
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("method", ["svi", "em"])
def test_one_minibatch_of_all_rows_is_read_too(tmp_path, method):
    np.save(tmp_path / "bits.npy", np.random.default_rng(0).integers(0, 2, (300, 6)))
    options = {"steps": 5, "batch_size": 300, "compile": "never"} if method == "svi" else {"iterations": 5}
    mine, whole = (
        fit("bernoulli-mixture", datasets.load(tmp_path / "bits.npy", stored=s), method, **options)
        for s in (True, False)
    )
    for a, b in zip(mine.program.state_dict().values(), whole.program.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


# RLIMIT_DATA counts what a process has of its own, heap and private pages. RLIMIT_AS would count the mapping of the
# file too, which takes no memory: the system drops its pages when it needs room.
LARGER = """
import resource, sys
import torch
from inference import fit
from zoo import datasets
from zoo.datasets import data

MIB = 2**20
file, folder = sys.argv[1:]
torch.set_num_threads(1)
data.FEW = 2**18
options = {"nade": {"hidden": 4}, "vae": {"latent_dim": 2, "hidden": (8,)}}

def run(stored, out):
    rows, found = datasets.load(file, stored=stored), {}
    for name, more in options.items():
        schedule = {"steps": 6, "batch_size": 64, "compile": "never", "validate_every": 6}
        made = fit(name, rows, "svi", out=f"{out}-{name}", **schedule, **more)
        found[name] = [value.clone() for value in made.program.state_dict().values()]
    torch.save(found, f"{out}.pt")

if folder:
    for name in options:  # what is imported and allocated once
        fit(name, torch.ones(10, 256), "svi", steps=2, batch_size=4, **options[name])
    status = open("/proc/self/status").read()
    used = int(status.split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + 48 * MIB, used + 48 * MIB))
    try:
        datasets.load(file, stored=False)
    except (MemoryError, OSError) as error:
        print("too large", type(error).__name__)
run(bool(folder), f"{folder or file}-found")
"""


def test_a_file_larger_than_the_memory_gives_the_fit_of_one_in_memory(tmp_path):
    """64 MiB of rows where 48 are allowed."""
    file = tmp_path / "big.npy"
    rows, generator = 64 * 1024, np.random.default_rng(0)
    out = np.lib.format.open_memmap(file, "w+", np.float32, (rows, 256))
    for start in range(0, rows, 8192):
        out[start : start + 8192] = generator.random((8192, 256), dtype=np.float32) < 0.3
    del out
    limited = processes.run(LARGER, [str(file), str(tmp_path / "limited")], scratch=tmp_path / "printed")
    assert limited.returncode == 0, limited.stderr
    assert limited.stdout.startswith("too large"), "the file fits, so this test says nothing"
    free = processes.run(LARGER, [str(file), ""], scratch=tmp_path / "printed too")
    assert free.returncode == 0, free.stderr
    mine, whole = torch.load(tmp_path / "limited-found.pt"), torch.load(f"{file}-found.pt")
    for name in ("nade", "vae"):
        assert len(mine[name]) == len(whole[name]) > 3
        for a, b in zip(mine[name], whole[name], strict=True):
            assert torch.equal(a, b), name
