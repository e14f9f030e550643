"""No subject on both sides of a fold; every clip tested once."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ma2mi_jax.clips.clip import Clip
from ma2mi_jax.errors import UserError
from ma2mi_jax.training import finetuning_run, folds

names = st.lists(st.sampled_from([f"s{i:02d}" for i in range(9)]), min_size=2, max_size=60).filter(
    lambda s: len(set(s)) > 1
)


def check(all_folds, subjects):
    subjects = np.array(subjects)
    tested = np.concatenate([f.test for f in all_folds])
    assert sorted(tested) == list(range(len(subjects)))
    for fold in all_folds:
        assert sorted([*fold.train, *fold.test]) == list(range(len(subjects)))
        assert not set(subjects[fold.train]) & set(subjects[fold.test])
        assert len(fold.train)
        assert len(fold.test)


@settings(deadline=None)
@given(names)
def test_loso(subjects):
    found = folds.loso(subjects)
    check(found, subjects)
    assert [f.name for f in found] == sorted(set(subjects))
    assert [f.number for f in found] == list(range(len(found)))


@settings(deadline=None)
@given(names, st.integers(2, 5), st.integers(0, 3))
def test_kfold(subjects, k, seed):
    if k > len(set(subjects)):
        with pytest.raises(ValueError, match="folds over"):
            folds.kfold(subjects, k, seed)
        return
    found = folds.kfold(subjects, k, seed)
    assert len(found) == k
    check(found, subjects)
    again = folds.kfold(subjects, k, seed)
    assert all((a.test == b.test).all() for a, b in zip(found, again, strict=True))


def test_kfold_balances_clips_and_depends_on_the_seed():
    rng = np.random.default_rng(0)
    subjects = [f"s{i:02d}" for i in range(30) for _ in range(rng.integers(1, 18))]
    sizes = [len(f.test) for f in folds.kfold(subjects, 5, 0)]
    assert max(sizes) - min(sizes) <= 2
    assert any(
        (a.test.shape != b.test.shape or (a.test != b.test).any())
        for a, b in zip(folds.kfold(subjects, 5, 0), folds.kfold(subjects, 5, 1), strict=True)
    )


def test_given_folds_and_impossible_ones():
    subjects = ["a", "a", "b", "c"]
    found = folds.given(subjects, {"a": "one", "b": "two", "c": "two", "unused": "three"})
    check(found, subjects)
    assert [f.name for f in found] == ["one", "two"]
    with pytest.raises(ValueError, match="no fold given for subject"):
        folds.given(subjects, {"a": "one"})
    with pytest.raises(ValueError, match="at least two"):
        folds.loso(["a", "a"])


@settings(deadline=None)
@given(names, st.floats(0.05, 0.9), st.integers(0, 5))
def test_hold_out_takes_whole_training_subjects(subjects, share, seed):
    for fold in folds.loso(subjects):
        if len({subjects[i] for i in fold.train}) < 2:
            with pytest.raises(ValueError, match="at least two"):
                folds.hold_out(fold, subjects, share, seed)
            continue
        found = folds.hold_out(fold, subjects, share, seed)
        assert sorted([*found.train, *found.inner]) == fold.train.tolist()
        assert not {subjects[i] for i in found.train} & {subjects[i] for i in found.inner}
        assert len(found.inner)
        np.testing.assert_array_equal(found.test, fold.test)


def test_folds_from_a_file_as_a_spreadsheet_writes_it(tmp_path):
    file = tmp_path / "folds.csv"
    file.write_text("subject,fold\r\na ,1\r\nb,2\r\n", encoding="utf-8-sig")
    assert folds.read_file(file) == {"a": "1", "b": "2"}
    folds.write_file(file, {"a": "1", "b": "2"})
    assert folds.read_file(file) == {"a": "1", "b": "2"}


def test_a_subject_may_stand_twice_in_a_file_with_the_same_fold(tmp_path):
    file = tmp_path / "folds.csv"
    file.write_text("subject,fold\na,1\nb,2\na , 1\n\n")
    assert folds.read_file(file) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a,1\nb,2\na,2", r"subject a is in fold 1 and in fold 2; leave one of these rows out$"),
        ("a,1\nb,", r"subject 'b' and fold ''; give both a name"),
        ("a,1\n ,2", r"subject '' and fold '2'; give both a name"),
    ],
)
def test_a_subject_of_a_file_has_one_fold_with_a_name(tmp_path, rows, told):
    file = tmp_path / "folds.csv"
    file.write_text(f"subject,fold\n{rows}\n")
    with pytest.raises(UserError, match=rf"^folds_file={file}: .*{told}"):
        folds.read_file(file)


def test_an_error_about_folds_names_what_the_user_gave(tmp_path):
    """The protocol may be the dataset's own, which nobody gave."""
    clips = [Clip(f"clip {i}", (), subject=s) for i, s in enumerate("abb")]
    asked = {"name": "loso", "k": 5, "seed": 0, "folds_file": None, "select": "last"}
    file = tmp_path / "folds.csv"
    file.write_text("subject,fold\na,1\n")
    cases = {
        f"folds_file={file}: no fold given for subject": {"folds_file": str(file)},
        "select=inner: fold a has 1 training subject": {"select": "inner"},
        "protocol=kfold: 5 folds over 2 subjects": {"name": "kfold"},
    }
    for told, changes in cases.items():
        with pytest.raises(UserError, match=f"^{re.escape(told)}"):
            finetuning_run.make_folds(asked | changes, clips)


def test_cross_trains_on_one_side_and_tests_on_the_other():
    (fold,) = folds.cross("a to b", [0, 2], [1, 3, 4])
    assert (fold.train.tolist(), fold.test.tolist(), fold.number) == ([0, 2], [1, 3, 4], 0)


def test_everybody_is_trained_on_and_nobody_tested():
    (fold,) = folds.everybody(5)
    assert fold.train.tolist() == [0, 1, 2, 3, 4]
    assert len(fold.test) == len(fold.inner) == 0
    assert folds.tested_by([fold]) == {}


def test_lodo_leaves_one_dataset_out_whatever_its_subjects_are_called():
    subjects = ["b/01", "a/01", "b/02", "a/x/01"]
    found = folds.lodo(subjects)
    assert [(fold.name, fold.train.tolist(), fold.test.tolist()) for fold in found] == [
        ("a", [0, 2], [1, 3]),
        ("b", [1, 3], [0, 2]),
    ]
    with pytest.raises(ValueError, match="at least two"):
        folds.lodo(["a/01", "a/02"])
