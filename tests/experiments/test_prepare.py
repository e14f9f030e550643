"""What prepare.py prints: every note once, and what it set aside."""

import miniatures
import prepare

from ma2mi_jax.datasets import prepared


def test_notes_are_told_once_and_clips_set_aside_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path / "cache"))
    miniatures.casme2(tmp_path / "casme2", 2014)
    out = tmp_path / "out"
    prepare.main(["--target=casme2", f"--data-root={tmp_path / 'casme2'}", f"--out={out}"])
    said = capsys.readouterr()
    notes = prepared.read(out, "casme2", "target").notes
    assert len(notes) > 3
    assert [(said.out + said.err).count(note) for note in notes] == [1] * len(notes)
    assert "2 clips set aside" in said.out
    assert "in the sheet, but there is no such folder of frames" in said.out
    assert said.out.splitlines()[-1] == f"use it by --target=casme2 --data-root={out}"


def test_a_composite_says_how_it_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MA2MI_CACHE", str(tmp_path / "cache"))
    miniatures.casme2(tmp_path / "casme2", 2014)
    miniatures.samm(tmp_path / "samm")
    words = ["--target=megc2019", f"--data-root={tmp_path}", "--without=smic", "--size=32"]
    prepare.main([*words, f"--out={tmp_path / 'out'}"])
    said = capsys.readouterr().out
    assert said.startswith("megc2019 without smic, prepared")
    use = f"use it by --target=megc2019 --data-root={tmp_path / 'out'} --without=smic"
    assert said.splitlines()[-1] == use
