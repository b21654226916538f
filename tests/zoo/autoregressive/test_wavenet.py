"""WaveNet and what is around it: companding, .wav files, spoken digits, who sees whom, queues, linear prediction."""

from __future__ import annotations

import io
import tarfile
import wave

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.stats as stats
import torch

from inference import fit
from tests.inference.steps import both, ready
from tests.zoo.densities import agrees, perturbed, states
from zoo import datasets
from zoo.autoregressive.linear_prediction import LinearPrediction
from zoo.autoregressive.wavenet import WaveNet
from zoo.datasets import Data, audio, speech
from zoo.datasets.splits import SPLITS
from zoo.distributions import CompandedLogistic
from zoo.errors import DatasetError, OptionError, ShapeError, UnknownNameError
from zoo.testing import check_program


def levels(values):
    return {"name": "levels", "values": values}


def companded(values=256, components=3):
    return {"name": "companded-mixture", "values": values, "components": components}


SMALL = {"layers": 2, "stacks": 2, "residual": 6, "skip": 7}
NETS = {
    "one-hot": lambda shape, values: WaveNet(shape, likelihood=levels(values), **SMALL),
    "scalar": lambda shape, values: WaveNet(shape, likelihood=levels(values), inputs="scalar", **SMALL),
    "classes": lambda shape, values: WaveNet(shape, likelihood=levels(values), classes=3, **SMALL),
    "one-layer": lambda shape, values: WaveNet(
        shape, layers=1, stacks=1, residual=6, skip=7, likelihood=levels(values)
    ),
}
LINEAR = {
    "linear": lambda shape, values: LinearPrediction(shape, 4, companded(values)),
    "linear-classes": lambda shape, values: LinearPrediction(shape, 4, companded(values, 1), classes=3),
    "linear-longer-than-sound": lambda shape, values: LinearPrediction(shape, 40, companded(values)),
}
ALL = {**NETS, **LINEAR}
SCALE = 0.7


def given(program, n, label=1):
    """The context of n examples of one class, where there are classes."""
    return torch.eye(program.classes)[torch.full((n,), label)] if program.classes else None


@pytest.fixture(params=ALL, name="make")
def _make(request):
    return ALL[request.param]


# Companding and files.


@pytest.mark.parametrize("values", [2, 16, 256])
def test_levels_are_there_and_back(values):
    levels = torch.arange(values) / (values - 1)
    waveform = audio.from_levels(levels, values)
    torch.testing.assert_close(audio.to_levels(waveform, values), levels, atol=1e-12, rtol=0)
    assert bool((waveform.diff() > 0).all())
    torch.testing.assert_close(waveform, -waveform.flip(0))
    assert (waveform[0].item(), waveform[-1].item()) == pytest.approx((-1.0, 1.0))
    torch.testing.assert_close(audio.expand(audio.compress(waveform, values), values), waveform)


def test_companding_is_the_formula_of_the_paper():
    w = torch.tensor([-0.9, -0.01, 0.0, 0.25, 1.0])
    expected = torch.tensor([np.sign(v) * np.log(1 + 255 * abs(v)) / np.log(256) for v in w.tolist()])
    torch.testing.assert_close(audio.compress(w), expected)
    torch.testing.assert_close(audio.expand(expected), w)
    torch.testing.assert_close(audio.from_levels((expected + 1) / 2), w)
    assert audio.to_levels(torch.tensor([-3.0, 3.0])).tolist() == [0.0, 1.0]


def test_edges_are_where_levels_change():
    edges = audio.edges(256)
    assert len(edges) == 255
    level = torch.arange(255) / 255
    torch.testing.assert_close(audio.to_levels(edges - 1e-9), level)
    torch.testing.assert_close(audio.to_levels(edges + 1e-9), level + 1 / 255)


def test_wav_files_are_read_by_others_and_by_us(tmp_path):
    waveform = torch.cat([torch.linspace(-1.2, 1.2, 500), torch.zeros(3)])
    audio.write_wav(tmp_path / "a.wav", waveform, 8000)
    rate, found = scipy.io.wavfile.read(tmp_path / "a.wav")
    assert (rate, found.dtype, found.shape) == (8000, np.int16, (503,))
    torch.testing.assert_close(torch.tensor(found / 32768), waveform.clamp(-1, 1), atol=1.01 / 32768, rtol=0)
    again, rate = audio.read_wav(tmp_path / "a.wav")
    assert rate == 8000
    assert again.dtype == torch.get_default_dtype()
    np.testing.assert_array_equal(again.numpy() * 32768, found)


def test_what_is_no_sound_is_refused(tmp_path):
    with pytest.raises(ShapeError, match=r"one waveform .*\(2, 5\)"):
        audio.write_wav(tmp_path / "a.wav", torch.zeros(2, 5))
    with pytest.raises(OptionError, match="at least 2, got 1"):
        audio.to_levels(torch.zeros(3), 1)
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(DatasetError, match=r"b\.wav cannot be read"):
        audio.read_wav(tmp_path / "b.wav")
    with wave.open(str(tmp_path / "c.wav"), "wb") as file:
        file.setparams((2, 1, 8000, 0, "NONE", ""))
        file.writeframes(b"\x80\x80")
    with pytest.raises(DatasetError, match="2 channels of 8 bits"):
        audio.read_wav(tmp_path / "c.wav")


# Spectrograms.


def test_a_spectrogram_is_the_formula():
    """One column by NumPy: a window, its power, triangles by interpolation, decibels."""
    rate, bands, step = 1000, 8, 32
    x = 0.3 * torch.randn(2, 150)
    found = audio.spectrogram(x, rate, bands)
    assert found.shape == (2, bands, 5)
    column = 2  # centred at its sample 64 + 16: windows of 64 start a step before their column
    frame = x[1, (column - 1) * step : (column + 1) * step].numpy()
    window = np.hanning(2 * step + 1)[:-1]
    power = np.abs(np.fft.rfft(frame * window)) ** 2 * (2 / window.sum()) ** 2
    mel = np.linspace(*(2595 * np.log10(1 + np.array([50, rate / 2]) / 700)), bands + 2)
    corners, f = 700 * (10 ** (mel / 2595) - 1), np.fft.rfftfreq(2 * step, 1 / rate)
    strength = [np.interp(f, corners[i : i + 3], [0, 1, 0]) @ power for i in range(bands)]
    expected = np.clip(1 + 10 * np.log10(strength) / 80, 0, 1)[::-1]
    np.testing.assert_allclose(found[1, :, column].numpy(), expected, rtol=1e-6)


def test_spectrograms_of_silence_and_of_tones():
    rate, time = 4000, torch.arange(4096) / 4000
    assert not audio.spectrogram(torch.zeros(1, 4096), rate).any()
    loud = audio.spectrogram(torch.sin(2 * torch.pi * 1000 * time)[None], rate)[0, :, 4:-4]
    quiet = audio.spectrogram(0.1 * torch.sin(2 * torch.pi * 1000 * time)[None], rate)[0, :, 4:-4]
    assert 0.95 < float(loud.max()) <= 1
    there = quiet > 0
    torch.testing.assert_close((loud - quiet)[there & (loud < 1)], torch.full_like(loud, 20 / 80)[there & (loud < 1)])
    low = audio.spectrogram(torch.sin(2 * torch.pi * 200 * time)[None], rate)[0, :, 4:-4]
    assert bool((low.argmax(0) > loud.argmax(0) + 5).all())  # high bands come first
    with pytest.raises(ShapeError, match=r"at least 256 samples at a rate of 4000, got the shape \(2, 100\)"):
        audio.spectrogram(torch.zeros(2, 100), rate)


# Spoken digits.


def test_windows_are_the_recordings_cut_up(zoo_data):
    if not (zoo_data / "spoken_digits.npz").exists():
        pytest.skip("spoken_digits.npz is not under ZOO_DATA")
    dataset = datasets.load("spoken_digits")
    with np.load(zoo_data / "spoken_digits.npz") as found:
        parts = np.split(torch.tensor(found["audio"]) / 32768, np.cumsum(found["lengths"])[:-1])
        labels, takes = found["labels"], found["takes"]
    splits = np.where(takes < 5, "test", np.where(takes < 10, "valid", "train"))
    for split in SPLITS:
        data = dataset.split(split)
        at = 0
        for i in np.flatnonzero(splits == split):
            n = len(parts[i]) // 1024
            expected = audio.to_levels(parts[i][: n * 1024].to(data.x)).reshape(n, 1024)
            torch.testing.assert_close(data.x[at : at + n], expected, atol=1e-12, rtol=0)
            assert bool((data.context[at : at + n].argmax(1) == int(labels[i])).all())
            at += n
        assert at == data.size
        assert bool((data.context.sum(1) == 1).all())


def test_the_archive_is_read_into_what_the_compact_file_holds(tmp_path):
    sounds = {f"{digit}_{who}_{take}": len(who) + 10 * take + digit for digit, who, take in [
        (3, "theo", 10), (3, "theo", 1), (0, "george", 0), (0, "george", 12), (0, "george", 7), (3, "jackson", 5)
    ]}  # fmt: skip
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for name, length in sounds.items():
            audio.write_wav(tmp_path / "one.wav", torch.arange(float(length)) / 32768, speech.RATE)
            archive.add(tmp_path / "one.wav", f"dataset-1.0.10/recordings/{name}.wav")
        other = tarfile.TarInfo("dataset-1.0.10/README.md")
        archive.addfile(other, io.BytesIO())
    found = speech.recordings(tmp_path / "all.tar.gz")
    order = ["0_george_0", "0_george_12", "0_george_7", "3_jackson_5", "3_theo_1", "3_theo_10"]
    assert found["lengths"].tolist() == [sounds[name] for name in order]
    np.testing.assert_array_equal(found["audio"], np.concatenate([np.arange(sounds[name]) for name in order]))
    assert found["labels"].tolist() == [0, 0, 0, 3, 3, 3]
    assert found["speakers"].tolist() == [0, 0, 0, 1, 2, 2]
    assert found["takes"].tolist() == [0, 12, 7, 5, 1, 10]
    assert found["split"].tolist() == [2, 0, 1, 1, 2, 0]


# Density.


@pytest.mark.parametrize(("sites", "values"), [(12, 2), (6, 4)])
def test_probabilities_of_all_states_sum_to_one(make, sites, values):
    program, every = perturbed(make([sites], values), SCALE), states([sites], values)
    for label in range(max(program.classes, 1)):
        total = program.log_prob(every, given(program, len(every), label)).exp().sum()
        torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-10, rtol=0)


def test_classes_differ():
    for make in (NETS["classes"], LINEAR["linear-classes"]):
        program = perturbed(make([6], 4), SCALE)
        every = states([6], 4)
        first, second = (program.log_prob(every, given(program, len(every), label)).detach() for label in (0, 1))
        assert float((first - second).abs().mean()) > 1e-3


@pytest.mark.parametrize("scale", [1e-5, 1e-3, 0.1, 3.0])
@pytest.mark.parametrize("loc", [-1.5, -0.02, 0.0, 0.7])
def test_mass_of_a_level_is_the_logistic_between_its_edges(loc, scale):
    edges = audio.edges(256)
    logistic = stats.logistic(loc, scale)
    ends = np.concatenate([[-np.inf], edges.numpy(), [np.inf]])
    below, above = logistic.cdf(ends), logistic.sf(ends)
    expected = np.where(ends[1:] < loc, np.diff(below), -np.diff(above))
    found = CompandedLogistic(torch.tensor(loc), torch.tensor(scale), edges).log_prob(torch.arange(256) / 255)
    np.testing.assert_allclose(found.exp().numpy(), expected, rtol=1e-6, atol=1e-13)
    assert bool(torch.isfinite(found).all())
    single = CompandedLogistic(torch.tensor(loc), torch.tensor(scale), edges).expand(torch.Size([3]))
    assert single.sample(torch.Size([5])).shape == (5, 3)


def test_gradients_are_finite_at_every_level():
    program = LinearPrediction([256])
    x = (torch.arange(256) / 255).unsqueeze(0)
    program.log_prob(x).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in program.parameters())


# Who sees whom.


@pytest.mark.parametrize("name", ALL)
def test_a_sample_sees_all_and_only_those_of_its_receptive_field(name):
    sites, values = 15, 16
    program = perturbed(ALL[name]([sites], values), SCALE)
    reach = program.receptive_field if isinstance(program, WaveNet) else program.taps
    # Of several sounds: where all units of the head are off, one does not show what it sees.
    x = torch.randint(values, (20, sites)) / (values - 1)
    context = given(program, 20)
    before = program.outputs(x, context)
    for j in range(sites):
        other = x.clone()
        other[:, j] = (x[:, j] + 0.4) % 1
        changed = (program.outputs(other, context) != before).any(-1).any(0)
        expected = torch.tensor([j < i <= j + reach for i in range(sites)])
        assert torch.equal(changed, expected), f"sample {j}"


def test_receptive_field_of_the_paper():
    paper = WaveNet.presets["paper"].program
    stacks, layers = paper["stacks"], paper["layers"]
    assert (stacks, layers) == (3, 10)
    program = WaveNet(layers=layers, stacks=stacks, residual=1, skip=1)
    assert [layer.dilation for layer in program.layers] == 3 * [2**i for i in range(10)]
    assert program.receptive_field == 2 + 3 * 1023


def test_causality_by_gradient():
    for name in ("scalar", "linear"):
        program = perturbed(ALL[name]([12], 8), SCALE)
        x = (torch.randint(8, (10, 12)) / 7).requires_grad_()
        fixed = torch.randint(8, (10, 12)) / 7
        for i, log_prob in enumerate(program.conditionals(x).log_prob(fixed).sum(0)):
            (slope,) = torch.autograd.grad(log_prob, x, retain_graph=True)
            assert bool((slope[:, i:] == 0).all())
            assert bool((slope[:, max(0, i - 4) : i] != 0).any(0).all())


def test_one_hot_input_is_a_convolution_of_one_hot_vectors():
    program = perturbed(NETS["one-hot"]([10], 5), SCALE)
    x = torch.randint(5, (3, 10)) / 4
    one, two = program.embedding.weight.chunk(2, 1)
    kernel = torch.stack([two.T, one.T], -1)  # (R, values, 2)
    vectors = torch.nn.functional.one_hot((x * 4).round().long(), 5).to(kernel).transpose(1, 2)
    expected = torch.nn.functional.conv1d(torch.nn.functional.pad(vectors, (2, 0)), kernel)[..., :-1]
    inputs = []
    program._skips(x, program._labels(None), inputs)
    torch.testing.assert_close(inputs[0], expected.transpose(1, 2))


def test_layers_are_dilated_convolutions():
    program = perturbed(NETS["one-hot"]([20], 5), SCALE)
    inputs = []
    program._skips(torch.randint(5, (3, 20)) / 4, program._labels(None), inputs)
    assert len(inputs) == 4
    for layer, h, after in zip(program.layers, inputs, inputs[1:], strict=False):
        kernel = torch.stack(layer.dilated.weight.chunk(2, 1), -1)
        padded = torch.nn.functional.pad(h.transpose(1, 2), (layer.dilation, 0))
        z = torch.nn.functional.conv1d(padded, kernel, layer.dilated.bias, dilation=layer.dilation)
        out = layer.across((z[:, :6].tanh() * z[:, 6:].sigmoid()).transpose(1, 2))
        torch.testing.assert_close(h + out[..., 7:], after)


# Draws.


def test_fast_completion_is_the_naive_one(make):
    sites = 12
    program = perturbed(make([sites], 8), SCALE)
    noise = torch.rand(5, sites, program.likelihood.noise)
    x, context = torch.randint(8, (5, sites)) / 7, given(program, 5)
    for known in (0, 1, 2, 7, sites):
        start = x.clone()
        start[:, known:] = 0
        with torch.no_grad():
            fast = program.continue_from(start, known, context, noise)
            torch.testing.assert_close(fast, program.continue_naively(start, known, context, noise))
        torch.testing.assert_close(fast[:, :known], x[:, :known], atol=0, rtol=0)


@pytest.mark.parametrize("name", ["one-hot", "classes"])
def test_sound_of_any_length_goes_on_as_a_longer_program_would(name):
    program = perturbed(NETS[name]([6], 8), SCALE)
    longer = NETS[name]([40], 8).eval()
    longer.load_state_dict(program.state_dict())
    context = given(program, 2)
    for known in (0, 1, 9):
        start = torch.randint(8, (2, known)) / 7
        torch.manual_seed(3)
        waveform = program.generate_audio(0.01, context, n=2, rate=4000, start=start if known else None)
        torch.manual_seed(3)
        noise = torch.rand(2, 40, 1)
        with torch.no_grad():
            padded = torch.nn.functional.pad(start, (0, 40 - known))
            expected = longer.continue_naively(padded, known, context, noise)
        torch.testing.assert_close(waveform, audio.from_levels(expected, 8))


def test_generated_sound_is_written(tmp_path):
    program = WaveNet([6], classes=10)
    for digit, waveform in enumerate(program.generate_audio(0.02, torch.eye(10))):
        audio.write_wav(tmp_path / f"{digit}.wav", waveform, 8000)
        rate, found = scipy.io.wavfile.read(tmp_path / f"{digit}.wav")
        assert (rate, found.shape) == (8000, (160,))
        assert found.std() > 0


@pytest.mark.parametrize("name", ["one-hot", "classes", "linear", "linear-classes"])
def test_draws_follow_the_density(name):
    program, every = perturbed(ALL[name]([3], 4), SCALE), states([3], 4)
    x = program.generate(20_000, given(program, 20_000))
    level = (x * 3).round() @ torch.tensor([16.0, 4.0, 1.0])
    counts = torch.bincount(level.long(), minlength=64).double()

    def probabilities(of):
        total = of.log_prob(every, given(of, 64)).exp().detach()
        return total / total.sum()

    assert agrees(counts, probabilities(program))
    # The test would notice another program of the same kind.
    assert not agrees(counts, probabilities(perturbed(ALL[name]([3], 4), SCALE)))


def test_draws_of_the_residual_follow_its_density():
    distribution = CompandedLogistic(torch.tensor(0.1), torch.tensor(0.05), audio.edges(16))
    drawn = (distribution.sample(torch.Size([20_000])) * 15).round().long()
    counts = torch.bincount(drawn, minlength=16).double()
    assert agrees(counts, distribution.log_prob(torch.arange(16) / 15).exp())


# Training.


@pytest.mark.parametrize("name", ["scalar", "classes", "one-layer", "linear-classes"])
def test_contract(name):
    check_program(ALL[name]([5], 16))


@pytest.mark.parametrize("name", ["classes", "linear"])
def test_traced_steps_are_those_of_python(name):
    program = perturbed(ALL[name]([10], 8), 0.1)
    x, context = torch.randint(8, (30, 10)) / 7, given(program, 30)
    for ours, theirs in zip(*both(ready(program, Data(x, context), batch_size=10)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_training_finds_an_echo():
    """Bits that come again after five samples: 5 bits of information in 15, where independent samples have 15."""
    x = torch.randint(2, (300, 5)).to(torch.get_default_dtype()).repeat(1, 3)
    program = WaveNet([15], layers=3, stacks=1, residual=8, skip=16, likelihood=levels(2))
    result = fit(program, x, "svi", lr=2e-2, steps=200, batch_size=50, compile="never")
    bits = -float(result.program.eval().log_prob(x).mean().detach()) / np.log(2)
    assert bits < 6


def test_initialise_starts_at_the_frequencies_and_at_least_squares():
    noise = 0.02 * torch.randn(400, 300)
    true = torch.tensor([-0.6, 1.3])
    wave_ = torch.zeros(400, 302)
    for t in range(300):
        wave_[:, t + 2] = wave_[:, t : t + 2] @ true + noise[:, t]
    x = audio.to_levels(wave_[:, 2:])
    program = LinearPrediction([300], 2, companded(components=1))
    net = WaveNet([300])
    with torch.no_grad():
        program.initialise(x)
        net.initialise(x)
    # The residual of least squares and rounding leave an error of the order of 1 / sqrt(120,000).
    torch.testing.assert_close(program.weight[0], true, atol=0.02, rtol=0)
    assert program.log_scale.exp().item() == pytest.approx(0.02 * 3**0.5 / np.pi, rel=0.1)
    counts = torch.bincount((x * 255).round().long().flatten(), minlength=256)
    torch.testing.assert_close(net.head[-1].bias.softmax(0), (counts + 1 / 256) / (counts.sum() + 1))


def test_for_data_takes_classes_and_length():
    x, context = torch.rand(4, 30), torch.eye(4)
    for cls in (WaveNet, LinearPrediction):
        program = cls.for_data(x, context)
        assert (program.classes, tuple(program.event_shape)) == (4, (30,))
        assert cls.for_data(x).classes == 0


def test_wrong_options_are_refused():
    for cls in (WaveNet, LinearPrediction):
        with pytest.raises(ShapeError, match=r"\(samples,\).*\[8, 8\]"):
            cls([8, 8])
        with pytest.raises(OptionError, match=r"event_shape .*at least 1, got \[0\]"):
            cls([0])
        with pytest.raises(OptionError, match=r"classes .*-1"):
            cls(classes=-1)
        with pytest.raises(OptionError, match=r"values .*got 1"):
            cls(likelihood=(levels if cls is WaveNet else companded)(1))
        with pytest.raises(OptionError, match="got 'bernoulli'"):
            cls(likelihood="bernoulli")
    for option in ("layers", "stacks", "residual", "skip"):
        with pytest.raises(OptionError, match=f"{option} must be at least 1, got 0"):
            WaveNet(**{option: 0})
    with pytest.raises(UnknownNameError, match="one-hot"):
        WaveNet(inputs="onehot")
    with pytest.raises(OptionError, match="order"):
        LinearPrediction(order=0)
    with pytest.raises(OptionError, match="components"):
        LinearPrediction(likelihood=companded(components=0))
    with pytest.raises(ShapeError, match="got no context"):
        WaveNet(classes=3).generate_audio(0.01)
    with pytest.raises(ShapeError, match="got a context"):
        WaveNet().generate_audio(0.01, torch.eye(3))
    with pytest.raises(ShapeError, match="at most 80"):
        WaveNet().generate_audio(0.01, n=2, start=torch.zeros(2, 81))


@pytest.mark.parametrize(("name", "rate"), [("spoken_digits-whole", 8000), ("spoken_digits-4khz", 4000)])
def test_whole_takes_are_the_recordings_padded(zoo_data, name, rate):
    if not (zoo_data / "spoken_digits.npz").exists():
        pytest.skip("spoken_digits.npz is not under ZOO_DATA")
    dataset = datasets.load(f"{name}-labelled")
    assert dataset.card.rate == rate
    with np.load(zoo_data / "spoken_digits.npz") as found:
        parts = np.split(found["audio"], np.cumsum(found["lengths"])[:-1])
        labels, takes = found["labels"], found["takes"]
    assert sum(len(part) > 8192 for part in parts) == 17  # as the card says
    rows = np.flatnonzero((takes >= 5) & (takes < 10))
    x, context = dataset.split("valid")
    torch.testing.assert_close(x.abs().amax(1), torch.ones(len(rows)).to(x))
    assert context.argmax(1).tolist() == labels[rows].tolist() == dataset.labels["valid"].tolist()
    for row, i in zip(x[:20].double(), rows, strict=False):
        take = torch.tensor(parts[i][:8192]).double()
        if rate == 8000:
            torch.testing.assert_close(row[: len(take)], take / take.abs().max(), atol=1e-6, rtol=0)
        # The low-pass filter rings for a few samples.
        assert float(row[len(take) * rate // 8000 + 20 :].abs().sum()) < 1e-6
    if rate == 4000:
        levels = datasets.load(f"{name}-levels")
        assert (levels.card.levels, levels.card.rate) == (256, rate)
        grid = levels.valid.x * 255
        torch.testing.assert_close(grid, grid.round(), atol=1e-4, rtol=0)
        heard = audio.amplitudes(levels.valid.x, 256)
        # The widest step of 256 levels, next to full amplitude, is 0.043 wide.
        assert float((heard - x).abs().max()) < 0.022
