"""Errors against labels: definitions, worst frames, files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from ase.io import read

from lamella.data.convert import frame_from_atoms
from lamella.data.read import iter_frames
from lamella.errors import DataError, InputError
from lamella.types import Frame
from lamella.use.evaluate import PARITY_PAIRS, _Sample, evaluate, predictions_file
from lamella.use.predict import predict_frames
from lamella.use.tally import Tally
from use.small import dimer, labelled, small_model, water_box


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def frames(model) -> list[Frame]:
    structures = [water_box(), dimer(), water_box(1), water_box(2, seed=2), dimer()]
    return [frame_from_atoms(atoms, source=f"set#{k}") for k, atoms in enumerate(labelled(model, structures))]


def test_errors_are_those_of_their_definitions(model, frames):
    result = evaluate(model, frames)
    predictions = [prediction for _, prediction in predict_frames(model, frames)]
    energy = np.array([(p.energy - f.labels["energy"]) / len(f) for f, p in zip(frames, predictions, strict=True)])
    forces = np.concatenate([(p.forces - f.labels["forces"]).ravel() for f, p in zip(frames, predictions, strict=True)])
    virial = np.concatenate(
        [
            (0.5 * (p.virial + p.virial.T) - f.labels["virial"]).ravel() / len(f)
            for f, p in zip(frames, predictions, strict=True)
            if "virial" in f.labels
        ]
    )
    for name, error in (("energy", energy), ("forces", forces), ("virial", virial)):
        assert result.errors[name].rmse == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-9)
        assert result.errors[name].mae == pytest.approx(np.mean(np.abs(error)), rel=1e-9)
        assert result.errors[name].mean_error == pytest.approx(np.mean(error), rel=1e-6, abs=1e-12)
        assert result.errors[name].count == len(error)
    labels = np.concatenate([f.labels["forces"].ravel() for f in frames])
    assert result.errors["forces"].label_std == pytest.approx(labels.std(), rel=1e-9)
    assert (result.frames, result.atoms) == (5, sum(map(len, frames)))


def test_label_std_of_the_energy_does_not_count_composition(model, frames):
    result = evaluate(model, frames)
    baseline = dict(zip((1, 8), model.baseline[0].tolist(), strict=True))
    beyond = [(f.labels["energy"] - sum(baseline[z] for z in f.numbers)) / len(f) for f in frames]
    assert result.errors["energy"].label_std == pytest.approx(np.std(beyond), rel=1e-9)


def test_errors_by_element_add_up(model, frames):
    result = evaluate(model, frames)
    assert list(result.by_element) == ["H", "O"]
    assert sum(error.count for error in result.by_element.values()) == result.errors["forces"].count
    squares = sum(error.count * error.rmse**2 for error in result.by_element.values())
    assert squares / result.errors["forces"].count == pytest.approx(result.errors["forces"].rmse ** 2)


def test_the_worst_frames_come_first_and_are_named(model, frames):
    spoilt = list(frames)
    forces = frames[3].labels["forces"].copy()
    forces[7] += [0.0, 30.0, 40.0]
    spoilt[3] = replace(frames[3], labels={**frames[3].labels, "forces": forces})
    spoilt[1] = replace(frames[1], labels={**frames[1].labels, "energy": frames[1].labels["energy"] + 600.0})
    result = evaluate(model, spoilt, worst=2)
    worst = result.worst["forces"][0]
    assert (worst.source, worst.frame, worst.atom) == ("set#3", 3, 7)
    assert worst.largest == pytest.approx(50.0, abs=0.5)
    assert result.worst["energy"][0].source == "set#1"
    assert result.worst["energy"][0].energy == pytest.approx(-100.0, abs=0.5)
    assert len(result.worst["forces"]) == 2
    assert result.worst["forces"][0].forces >= result.worst["forces"][1].forces


def test_absent_labels_are_absent_not_zero(model, frames):
    only = [replace(frame, labels={"forces": frame.labels["forces"]}) for frame in frames[:2]]
    only.append(replace(frames[2], labels={}))
    result = evaluate(model, only)
    assert set(result.errors) == {"forces"}
    assert result.errors["forces"].count == 3 * (len(only[0]) + len(only[1]))
    assert result.worst["energy"] == []
    assert result.frames == 3


def test_frames_without_any_label_are_refused(model, frames):
    bare = [replace(frame, labels={}) for frame in frames]
    with pytest.raises(DataError, match="none of the 5 frames"):
        evaluate(model, bare)
    with pytest.raises(DataError, match="no frames"):
        evaluate(model, [])


def test_predictions_that_are_not_finite_are_refused(frames):
    model = small_model()
    model.baseline[:] = float("nan")
    with pytest.raises(DataError, match="set#0: the model predicts NaN"):
        evaluate(model, frames)


def test_a_common_offset_does_not_cost_digits():
    rng = np.random.default_rng(0)
    label = -1e7 + rng.normal(size=1000) * 1e-3
    tally = Tally()
    for part in np.split(label, 100):
        tally.add(part, part + 1e-3)
    assert tally.errors().label_std == pytest.approx(np.std(label - label[0]), rel=1e-5)


def test_parity_pairs_are_a_bounded_sample_the_same_every_time():
    def sample() -> np.ndarray:
        box = _Sample(50)
        for start in range(0, 5000, 10):
            values = np.arange(start, start + 10, dtype=float)
            box.add(values, values + 0.5)
        return box.pairs()

    pairs = sample()
    assert pairs.shape == (50, 2)
    np.testing.assert_array_equal(pairs[:, 1] - pairs[:, 0], 0.5)
    assert len(np.unique(pairs[:, 0])) == 50
    assert 1500 < pairs[:, 0].mean() < 3500
    np.testing.assert_array_equal(pairs, sample())


def test_few_parity_pairs_are_all_kept(model, frames):
    result = evaluate(model, frames)
    assert len(result.parity["forces"]) == result.errors["forces"].count < PARITY_PAIRS
    error = result.parity["forces"][:, 1] - result.parity["forces"][:, 0]
    assert np.sqrt(np.mean(error**2)) == pytest.approx(result.errors["forces"].rmse)


def test_summary_is_json_and_says_its_units(model, frames):
    result = evaluate(model, frames)
    read_back = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert read_back["units"] == {"energy": "eV/atom", "forces": "eV/Å", "virial": "eV/atom"}
    assert read_back["forces"] == asdict(result.errors["forces"])
    assert read_back["forces_by_element"]["O"]["rmse"] == result.by_element["O"].rmse
    assert read_back["worst"]["forces"][0]["source"].startswith("set#")


def test_predictions_file_keeps_labels_and_predictions(model, frames, tmp_path):
    out = tmp_path / "both.extxyz"
    with predictions_file(out) as write:
        evaluate(model, frames, on_frame=write)
        assert not out.exists(), "it appears when it is whole"
    assert [path.name for path in tmp_path.iterdir()] == ["both.extxyz"]
    for (known, prediction), again, atoms in zip(
        predict_frames(model, frames), iter_frames(out), read(out, index=":"), strict=True
    ):
        assert set(again.labels) == set(known.labels)
        np.testing.assert_allclose(again.labels["forces"], known.labels["forces"], atol=1e-8)
        assert float(again.labels["energy"]) == pytest.approx(float(known.labels["energy"]), abs=1e-9)
        if "virial" in known.labels:
            np.testing.assert_allclose(again.labels["virial"], known.labels["virial"], atol=1e-6)
        assert atoms.info["lamella_energy"] == pytest.approx(prediction.energy, abs=1e-9)
        assert atoms.info["source"] == known.source
        np.testing.assert_allclose(atoms.arrays["lamella_forces"], prediction.forces, atol=1e-8)
        np.testing.assert_allclose(atoms.info["lamella_virial"].reshape(3, 3), prediction.virial, atol=1e-7)


def test_an_interrupted_predictions_file_leaves_the_old_one(model, frames, tmp_path):
    out = tmp_path / "both.extxyz"
    out.write_text("precious")

    def fail(write) -> None:
        for frame, prediction in predict_frames(model, frames[:1]):
            write(frame, prediction)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError), predictions_file(out) as write:
        fail(write)
    assert out.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(InputError, match="cannot be written"), predictions_file(tmp_path / "no" / "where.extxyz"):
        pass
    with pytest.raises(InputError, match="extended XYZ"), predictions_file(tmp_path / "both.csv"):
        pass
