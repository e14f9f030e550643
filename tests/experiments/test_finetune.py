"""What finetune.py prints of intervals: what they are worth, and what they hold fixed. And of the
clips that it set aside."""

import finetune
from stored_runs import NAMES, write_results

from ma2mi_jax.evaluation.predictions import compare, summary
from ma2mi_jax.reproduction.tables import read_scores


def printed(tmp_path, capsys, seeds, aside=(), init="start"):
    """The tables of a run with `seeds[0]` seeds, compared with one of `seeds[1]`; `aside` are the
    clips that it set aside."""
    for name, count in zip(("ours", "theirs"), seeds, strict=True):
        write_results(tmp_path / name, seed=len(name), seeds=count, hits=0.5)
    ours, theirs = (read_scores([tmp_path / name]).predictions for name in ("ours", "theirs"))
    rest = {"epoch_reported": "last", "target": "synthetic", "protocol": "loso", "init": init}
    found = summary(ours, NAMES) | rest | {"oracle": {}, "annotations": ""}
    found["set_aside"] = [{"id": id, "reason": reason} for id, reason in aside]
    found["compare"] = {"run": "theirs"} | compare(ours, theirs, len(NAMES))
    finetune.print_results(found, tmp_path)
    return " ".join(capsys.readouterr().out.split())


def test_over_subjects_and_seeds(tmp_path, capsys):
    said = printed(tmp_path, capsys, (2, 3))
    assert "interval: about 93 %, of UF1 90 %, of UAR 92 % (3 subjects)" in said
    assert "difference interval: 95 % p" in said
    told = "interval and p over subjects and seeds of fine-tuning"
    assert f"{told}; the pre-training is held fixed" in said
    said = printed(tmp_path, capsys, (2, 3), init="none")
    assert told in said
    assert "fixed" not in said


def test_with_one_seed_the_trainings_are_held_fixed(tmp_path, capsys):
    said = printed(tmp_path, capsys, (2, 1))
    assert "over subjects and seeds" in said, "of the run's own scores"
    assert "one of the runs has one seed, so the trainings are held fixed" in said
    said = printed(tmp_path, capsys, (1, 1))
    assert "over subjects; one training, held fixed" in said


def test_clips_set_aside_are_listed_with_their_reasons(tmp_path, capsys):
    assert "set aside" not in printed(tmp_path, capsys, (1, 1))
    said = printed(tmp_path, capsys, (1, 1), [("s1/a", "there is no such folder of frames")])
    assert "1 clips set aside clip reason" in said
    assert "s1/a there is no such folder of frames" in said
    said = printed(tmp_path, capsys, (1, 1), [(f"s{i}", "one frame") for i in range(23)])
    assert "s19 one frame" in said
    assert "s20" not in said
    assert "and 3 more, in results.json" in said
