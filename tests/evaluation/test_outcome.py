"""A finished run is asked again in the folds that it had, and about nobody whom it did not test."""

import pathlib
import types

import numpy as np
import pytest

from ma2mi_jax.clips.clip import Clip, Dataset
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import outcome
from ma2mi_jax.training import finetuning_run, folds

CLASSES = ("happiness", "disgust")
SUBJECTS = ("a", "a", "b", "c", "d")
FOLD_OF = {"a": "one", "b": "one", "c": "two", "d": "two"}


def clips_of(subjects):
    return tuple(Clip(f"clip{i}", (), subject=s, label=i % 2) for i, s in enumerate(subjects))


def resolved(name, fold_of, subjects=SUBJECTS, **more):
    """What a run over clips of these subjects wrote down."""
    clips = clips_of(subjects)
    protocol = {"name": name, "k": 2, "seed": 0, "folds_file": None, "select": "last"} | more
    of = {"datasets": [{"name": "casme2", "kind": "target"}], "seeds": [0], "fold_chunk": 1}
    recorded = fold_of or folds.fold_of(clips, finetuning_run.make_folds(protocol, clips))
    return of | {"protocol": protocol, "folds": recorded}


@pytest.fixture
def asked(monkeypatch):
    """asked(resolved, subjects) -> the subjects about whom each of the run's models is asked."""

    def asked(content, subjects=SUBJECTS):
        clips, seen = clips_of(subjects), []

        def predict(config, states, data, rows):
            seen.extend({clips[i].subject for i in row} for row in rows)
            return [np.full((len(row), 2), 0.5, np.float32) for row in rows]

        def saved(config, parts, path):
            yield from parts

        data = ({}, ())
        dataset = Dataset("casme2", clips, CLASSES)
        monkeypatch.setattr(finetuning_run, "read_clips", lambda *_: dataset)
        monkeypatch.setattr(finetuning_run, "load", lambda *_: data)
        monkeypatch.setattr(outcome.protocol, "saved", saved)
        monkeypatch.setattr(outcome, "predict_clips", predict)
        architecture = types.SimpleNamespace(image_size=96)
        run = types.SimpleNamespace(
            path=pathlib.Path("runs/none"),
            stored=types.SimpleNamespace(resolved=content, asked=None),
            config=types.SimpleNamespace(architecture=architecture),
            datasets=(),
        )
        found = outcome.predict_again(run)
        assert found.folds == [content["folds"][subject] for subject in subjects]
        return seen

    return asked


@pytest.mark.parametrize("now", ["subject,fold\na,one\nb,two\nc,one\nd,two\n", None])
def test_a_file_of_folds_may_change_or_go_after_the_run(asked, tmp_path, now):
    """Each model is asked about those whom it did not see in training, whatever the file says."""
    file = tmp_path / "folds.csv"
    if now:
        file.write_text(now)
    content = resolved("loso", FOLD_OF, folds_file=str(file))
    assert asked(content) == [{"a", "b"}, {"c", "d"}]


@pytest.mark.parametrize("name", ["loso", "kfold"])
def test_folds_of_a_protocol_are_those_of_the_run(asked, name):
    content = resolved(name, None)
    names = sorted(set(content["folds"].values()))
    models = [{s for s, fold in content["folds"].items() if fold == name} for name in names]
    assert asked(content) == models
    # As many clips of each as there were are not needed: who is in which fold is written down.
    assert asked(content, ("a", "b", "c", "c", "c", "d")) == models


@pytest.mark.parametrize("name", ["loso", "kfold"])
@pytest.mark.parametrize(
    ("subjects", "told"),
    [
        ((*SUBJECTS, "e"), r"\(new: e\)"),
        (SUBJECTS[:-1], r"\(gone: d\)"),
        (("A", "A", "b", "c", "d"), r"\(new: A; gone: a\)"),
    ],
)
def test_other_subjects_than_the_run_tested_are_told(asked, name, subjects, told):
    with pytest.raises(UserError, match=rf"^casme2: other subjects .*{told}.*as root$"):
        asked(resolved(name, None), subjects)


def test_across_datasets_those_of_the_tested_one_count(asked):
    subjects = ("casme2/1", "casme2/2", "samm/1", "samm/2")
    content = resolved("cross", None, subjects, train="casme2", test="samm")
    again = ("casme2/1", "casme2/3", "samm/1", "samm/2")
    (fold,) = finetuning_run.recorded_folds(content, clips_of(again))
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1], [2, 3])
    with pytest.raises(UserError, match=r"new: samm/3; gone: samm/2"):
        finetuning_run.recorded_folds(content, clips_of(("casme2/1", "samm/1", "samm/3")))
