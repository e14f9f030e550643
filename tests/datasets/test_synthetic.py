"""The drawn faces and the clips made of them."""

import inspect
import os
import pathlib

import jax
import numpy as np
import pytest

from ma2mi_jax.clips.frames import read_frame
from ma2mi_jax.datasets.drawn import films, synthetic
from ma2mi_jax.datasets.drawn.portrait import (
    UNITS,
    Light,
    Pose,
    action_unit_region,
    activation,
    landmarks,
    random_identity,
    render,
    render_frames,
)
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError

SIZE = 48
WHO = random_identity(np.random.default_rng(3))._replace(
    hairline=np.float32(-0.98), hair_curve=np.float32(0.15)
)  # a free forehead


def draw(*shots, size=SIZE, who=WHO):
    """Images of `who`; a shot is (activation, pose, light), the last two may be left out."""
    full = [(who, *shot, *(Pose(), Light())[len(shot) - 1 :]) for shot in shots]
    full += full[-1:] * (6 - len(full))  # always six: one compilation for each size
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype(np.float32), *full)
    return np.asarray(render_frames(*stacked, size))[: len(shots)]


def all_pixels(source):
    return np.stack(
        [read_frame(clip.frames, i) for clip in source.clips for i in range(len(clip.frames))]
    )


REST = (activation({}),)


# -------------------------------------------------------------------------------------- the drawing


def test_render_is_finite_in_range_and_the_same_singly_and_in_batches():
    rng = np.random.default_rng(0)
    for _ in range(6):
        units, pose = rng.random((len(UNITS), 2)).astype(np.float32), Pose(*rng.normal(0, 0.1, 6))
        image = draw((units, pose), who=random_identity(rng))[0]
        assert image.shape == (SIZE, SIZE, 3)
        assert image.dtype == np.float32
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.05
    np.testing.assert_allclose(
        render(WHO, activation({12: 1.0}), Pose(), Light(), SIZE),
        draw((activation({12: 1.0}),))[0],
        atol=1e-5,
    )


def test_two_people_differ_more_than_one_person_in_two_poses():
    other = random_identity(np.random.default_rng(4))
    here, moved = draw(REST, (*REST, Pose(x=0.01)))
    assert np.abs(draw(REST, who=other)[0] - here).mean() > 3 * np.abs(moved - here).mean()


@pytest.mark.parametrize("axis", ["x", "y", "roll", "zoom", "yaw", "pitch"])
def test_a_motion_far_below_a_pixel_changes_the_picture_in_proportion(axis):
    step = 0.03 * 2 / SIZE  # pixels
    rest, once, twice = draw(
        REST, (*REST, Pose(**{axis: step})), (*REST, Pose(**{axis: 2 * step}))
    ).astype(np.float64)
    change = np.abs(once - rest).mean()
    assert change > 1e-4
    assert np.abs((twice - rest) - 2 * (once - rest)).mean() < 0.15 * change


def test_a_shift_by_whole_pixels_is_exact():
    rest, moved = draw(REST, (*REST, Pose(x=2 * 2 / SIZE, y=3 * 2 / SIZE)))
    inner = slice(8, -8)
    np.testing.assert_allclose(
        moved[inner, inner], np.roll(rest, (3, 2), (0, 1))[inner, inner], atol=1e-4
    )


def test_a_picture_does_not_depend_on_the_resolution():
    fine, coarse = draw(REST, size=2 * SIZE)[0], draw(REST)[0]
    averaged = fine.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    assert np.abs(averaged - coarse).mean() < 0.01
    assert np.abs(averaged - coarse).mean() < 0.2 * np.abs(np.roll(averaged, 1, 1) - coarse).mean()


WHERE = {
    1: "inner brow",
    2: "outer brow",
    4: "inner brow",
    5: "eye",
    6: "cheek",
    7: "eye",
    9: "nose wing",
    10: "upper lip",
    45: "eye",
}
WHERE |= (
    dict.fromkeys((12, 14, 15, 20), "mouth corner")
    | dict.fromkeys((23, 25, 26), "lower lip")
    | {17: "chin boss"}
)


@pytest.mark.parametrize("unit", UNITS)
def test_an_action_unit_shows_where_its_muscle_is_and_nowhere_else(unit):
    region = action_unit_region(unit, WHO, size=SIZE)
    x, y = (landmarks(WHO) | {"eye": (WHO.eye_spread, WHO.eye_y)})[WHERE[unit]]
    centre = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    distance = np.hypot(np.abs(centre)[None] - x, centre[:, None] - y)
    assert 0.003 < region.mean() < 0.25
    assert region[distance < 0.15].mean() > 0.1
    assert distance[region].max() < 0.75
    rest, half = draw(REST, (activation({unit: 0.5}),))
    far = np.abs(half - rest).max(-1)[distance > 0.8]
    assert far.max() < 0.01


def test_one_half_of_the_face_can_act_alone():
    rest, wink = draw(REST, (activation({45: (1.0, 0.0)}),))
    change = np.abs(wink - rest).max(-1)
    assert change[:, : SIZE // 2].max() > 0.2
    assert change[:, SIZE // 2 + 3 :].max() < 0.01


def height_of_darkest(images, x, below, above):
    """y of the darkest place of a column of the face: the line between the lips, the lashes or a
    brow."""
    size = images.shape[1]
    column, first, last = (round((value + 1) / 2 * size) for value in (x, below, above))
    return first + images[:, first:last, column].mean(-1).argmin(1)


def test_corners_of_the_mouth_brows_and_jaw_go_where_facs_says():
    who = WHO._replace(
        age=np.float32(0),
        beard=np.float32(-1),
        eye_tilt=np.float32(0),
        skin=np.float32([0.9, 0.75, 0.65]),
    )
    shots = [(activation({unit: 1.0}),) for unit in (12, 15, 1, 4, 2)]
    images = draw(REST, *shots, who=who, size=2 * SIZE)
    rest, smile, frown, *_ = height_of_darkest(
        images, 0.75 * who.mouth_width, who.mouth_y - 0.12, who.mouth_y + 0.12
    )
    assert smile < rest < frown
    brow_y = who.eye_y - who.brow_gap
    rest, _, _, raised, lowered, _ = height_of_darkest(
        images, who.eye_spread - 0.1, brow_y - 0.15, brow_y + 0.1
    )
    assert raised < rest < lowered
    rest, *_, raised = height_of_darkest(images, who.eye_spread + 0.12, brow_y - 0.15, brow_y + 0.1)
    assert raised < rest


def test_unknown_action_unit_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        activation({99: 1.0})


# ---------------------------------------------------------------------------------------- the clips


def macro(cache, **changes):
    return synthetic.macro_source(
        str(cache), **{"clips": 8, "frames": 5, "size": SIZE, "seed": 1} | changes
    )


def micro(cache, **changes):
    return synthetic.micro_source(
        str(cache), **{"subjects": 3, "clips_per_subject": 6, "size": SIZE, "seed": 1} | changes
    )


@pytest.mark.parametrize("make", [macro, micro])
def test_a_seed_gives_the_same_bytes_and_another_seed_others(make, tmp_path):
    once, again, other = make(tmp_path / "a"), make(tmp_path / "b"), make(tmp_path / "c", seed=2)
    assert all_pixels(once).tobytes() == all_pixels(again).tobytes()
    assert [clip.label for clip in once.clips] == [clip.label for clip in again.clips]
    assert np.abs(all_pixels(once).astype(int) - all_pixels(other)).mean() > 10


def test_macro_clips_are_labelled_and_each_of_another_person(tmp_path):
    source = macro(tmp_path)
    assert source.name == "synthetic"
    assert source.classes == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    assert [clip.id for clip in source.clips] == sorted(clip.id for clip in source.clips)
    assert all(
        clip.id.startswith(source.classes[clip.label] + "/") and len(clip.frames) == 5
        for clip in source.clips
    )
    assert {clip.label for clip in source.clips} == set(range(7))
    people = [
        synthetic.macro_script(films.stream(films.MACRO, i, 1), "happy", 5, 1.0).identity
        for i in range(8)
    ]
    assert len({float(who.face_width) for who in people}) == 8


def test_a_macro_clip_moves_little_from_frame_to_frame_and_more_over_time():
    moved = []
    for index in range(20):
        units = synthetic.macro_script(
            films.stream(films.MACRO, index, 0), "fear", 24, speech=0.0
        ).units[:, :-1]  # without blinks
        assert units.min() >= 0
        assert units.max() <= 1
        assert np.abs(np.diff(units, axis=0)).max() < 0.25
        moved.append(
            [np.abs(units[delta:] - units[:-delta]).max((1, 2)).mean() for delta in (1, 5)]
        )
    near, far = np.mean(moved, 0)
    assert far > 2 * near


def test_a_macro_clip_begins_at_any_level_of_its_expression_and_peaks_at_any_time():
    brow = UNITS.index(4)
    shown = np.stack([scripted(index).units[:, brow].max(-1) for index in range(300)])
    shown /= shown.max(1, keepdims=True)
    for begins in np.histogram(shown[:, 0], 5, (0, 1))[0], np.histogram(shown[:, -1], 5, (0, 1))[0]:
        assert begins.min() > 0.08 * len(shown)
    assert np.histogram(shown.argmax(1), 4, (0, 24))[0].min() > 0.1 * len(shown)


def scripted(index, emotion="angry", speech=0.0):
    stream = films.stream(films.MACRO, index, 0)
    return synthetic.macro_script(stream, emotion, 24, speech)


MOUTH = [UNITS.index(unit) for unit in (10, 15, 17, 20, 23, 25, 26)]


def test_speech_moves_the_mouth_of_a_share_of_people_and_nothing_else():
    speaking = 0
    for index in range(200):
        silent, half, all_ = (scripted(index, speech=share) for share in (0.0, 0.5, 1.0))
        for left, right in zip(jax.tree.leaves(silent), jax.tree.leaves(all_), strict=True):
            if np.shape(left) != np.shape(silent.units):
                np.testing.assert_array_equal(left, right)
        for row in set(range(len(UNITS))) - set(MOUTH):
            np.testing.assert_array_equal(silent.units[:, row], all_.units[:, row])
        speaks = not np.array_equal(half.units, silent.units)
        np.testing.assert_array_equal(half.units, (all_ if speaks else silent).units)
        speaking += speaks
        assert all_.units.min() >= 0
        assert all_.units.max() <= 1
    assert 0.4 < speaking / 200 < 0.6


def test_a_jaw_speaks_at_the_rate_of_syllables():
    jaw = UNITS.index(26)
    jaws = np.stack(
        [synthetic._speech(np.random.default_rng(seed), 100)[1][:, jaw] for seed in range(100)]
    )
    assert jaws.max(1).mean() > 0.4
    strength = np.square(np.abs(np.fft.rfft(jaws - jaws.mean(1, keepdims=True), axis=1))).mean(0)
    rates = np.fft.rfftfreq(100, 1 / synthetic.FPS)
    at = (rates >= synthetic.SYLLABLES[0] - 0.5) & (rates <= synthetic.SYLLABLES[1] + 0.5)
    assert at[strength.argmax()]
    assert strength[at].sum() > 0.5 * strength.sum()


def test_speech_does_not_depend_on_the_label():
    jaw = UNITS.index(26)
    moved = [
        np.mean([scripted(index, emotion, 1.0).units[:, jaw].std() for index in range(200)])
        for emotion, full in synthetic.EMOTIONS.items()
        if 26 not in full  # else the expression moves the jaw too
    ]
    assert len(moved) == 6
    assert min(moved) > 0.8 * max(moved)


def test_defaults_of_drawn_clips_stand_in_two_places_and_agree():
    ours = inspect.signature(synthetic.macro_source).parameters
    assert ours["speech"].default == DatasetSpec("synthetic", "source").speech
    theirs = inspect.signature(synthetic.micro_source).parameters
    assert theirs["amplitude"].default == DatasetSpec("synthetic", "target").amplitude


def test_micro_clips_have_subjects_labels_and_one_onset_and_apex(tmp_path):
    source = micro(tmp_path)
    assert [clip.id for clip in source.clips] == sorted(clip.id for clip in source.clips)
    assert {clip.subject for clip in source.clips} == {"s01", "s02", "s03"}
    for clip in source.clips:
        assert clip.id.startswith(clip.subject + "/")
        assert (clip.onset, clip.apex, clip.offset, len(clip.frames)) == (0, 1, 1, 2)
        shown = {int(unit) for unit in clip.action_units.split("+")}
        assert any(
            shown <= set(full) for full in synthetic.MICRO_EMOTIONS[source.classes[clip.label]]
        )
    for subject in ("s01", "s02", "s03"):
        assert len({clip.label for clip in source.clips if clip.subject == subject}) >= 3


def test_nobody_is_in_macro_and_micro_whatever_the_seeds():
    seeds = (
        0,
        1,
        2**32,
        2**32 + 1,
        2**64,
    )  # seeds beyond 32 bits must not spill into the other numbers of a stream
    streams = {
        (kind, index, seed): films.stream(kind, index, seed).integers(2**63)
        for kind in (films.MACRO, films.PERSON, films.MICRO, films.SENSOR, films.HELD_OUT)
        for index in range(3)
        for seed in seeds
    }
    assert len(set(streams.values())) == len(streams)


def test_amplitude_scales_the_expression_and_nothing_else():
    sitter = synthetic._sitter(films.stream(films.PERSON, 0, 0))
    for emotion in synthetic.MICRO_EMOTIONS:
        for index in range(10):
            (none, shown), (some, _) = (
                synthetic.micro_script(
                    films.stream(films.MICRO, index, 0), sitter, emotion, amplitude
                )
                for amplitude in (0.0, 0.3)
            )
            for left, right in zip(
                jax.tree.leaves((none.pose, none.light)),
                jax.tree.leaves((some.pose, some.light)),
                strict=True,
            ):
                np.testing.assert_array_equal(left, right)
            np.testing.assert_array_equal(none.units[0], some.units[0])
            moved = np.flatnonzero((some.units[1] - none.units[1]).max(-1))
            assert {UNITS[row] for row in moved} == set(shown)
            blink = UNITS.index(45)
            assert np.abs(np.diff(np.delete(none.units, blink, 1), axis=0)).max() < 0.1
            assert (
                np.delete(some.units[1] - none.units[1], blink, 0).max() <= 0.3 * 1.3 * 1.25 + 1e-9
            )


def test_the_expression_survives_the_sensor(tmp_path):
    strong, none = (
        all_pixels(micro(tmp_path, amplitude=amplitude)).astype(int) for amplitude in (0.3, 0.0)
    )
    np.testing.assert_array_equal(strong[0::2], none[0::2])  # the onsets
    change = np.abs(strong[1::2] - none[1::2])
    assert (change.max((1, 2, 3)) > 10 * 255 * films.NOISE / 2).mean() > 0.9


# ---------------------------------------------------------------------------------------- the cache


def test_a_film_is_drawn_once(tmp_path):
    calls = []
    first = macro(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (40, 40)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    seen = len(calls)
    assert macro(tmp_path, progress=lambda *call: calls.append(call)) == first
    assert len(calls) == seen
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_a_film_that_is_damaged_is_told_and_drawn_again(tmp_path, caplog):
    path = pathlib.Path(macro(tmp_path).clips[0].frames.path)
    drawn = path.read_bytes()
    for damaged in (drawn[:-9] + bytes([drawn[-9] ^ 1]) + drawn[-8:], drawn[:-50], b""):
        caplog.clear()
        path.write_bytes(damaged)
        macro(tmp_path)
        assert path.read_bytes() == drawn
        assert "thrown away and made again" in caplog.text


def test_every_parameter_and_the_generator_version_name_a_film_of_their_own(tmp_path, monkeypatch):
    (
        micro(tmp_path),
        micro(tmp_path, amplitude=0.2),
        micro(tmp_path, seed=2),
        micro(tmp_path, size=32),
        micro(tmp_path, subjects=2),
    )
    macro(tmp_path)
    macro(tmp_path, speech=0.0)
    assert len(list(tmp_path.glob("*.npy"))) == 7
    monkeypatch.setattr(films, "GENERATOR", films.GENERATOR + 1)
    macro(tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 8


def test_an_interrupted_film_is_drawn_again(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        macro(tmp_path / "cache", progress=stop)
    assert os.listdir(tmp_path / "cache") == []
    whole = macro(tmp_path / "other")
    name = os.path.basename(whole.clips[0].frames.path)
    (tmp_path / "cache" / f"{name}.4711.part").write_bytes(b"left by a process that was killed")
    np.testing.assert_array_equal(all_pixels(macro(tmp_path / "cache")), all_pixels(whole))


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (macro, {"clips": 0}, "clips=0: drawn faces need at least 1"),
        (macro, {"frames": 1}, "frames=1: drawn faces need at least 2"),
        (macro, {"speech": -0.5}, "speech=-0.5: drawn faces need at least 0"),
        (macro, {"seed": -1}, "seed=-1: drawn faces need at least 0"),
        (micro, {"subjects": 0}, "subjects=0: drawn faces need at least 1"),
        (micro, {"size": 8}, "size=8: drawn faces need at least 16"),
        (micro, {"amplitude": float("nan")}, "amplitude=nan: drawn faces need at least 0"),
    ],
)
def test_wrong_numbers_are_named(make, wrong, message, tmp_path):
    with pytest.raises(UserError, match=message):
        make(tmp_path, **wrong)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: the drawn frames cannot be kept there"):
        macro(tmp_path / "file")
