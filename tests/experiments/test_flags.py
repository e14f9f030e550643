"""Flags as a view of run objects: there and back, in the help, from a config.json, in errors."""

import ast
import contextlib
import dataclasses
import functools
import importlib
import io
import json
import pathlib
import re
import typing

import cli
import flags
import hypothesis
import hypothesis.strategies as st
import pytest
from imports import names_imported
from stored_runs import to_first_format, write_config

from ma2mi_jax.datasets import registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError
from ma2mi_jax.training import run_files
from ma2mi_jax.training.run_config import FinetuneRun, PretrainRun

KINDS = {"pretrain": PretrainRun, "finetune": FinetuneRun}
ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "def main(argv)" in path.read_text())


def main_of(script):
    return importlib.import_module(script).main


def refusal(argv, kind=None):
    """What a person reads of the error that these flags end in."""
    kind = kind or (PretrainRun if argv[0].startswith("--source") else FinetuneRun)
    with pytest.raises(UserError) as refused:
        flags.parse(kind, argv, "a script")
    return refused.value.spelled(cli.spell)


def helped(main):
    """A script's help, unfolded."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("COLUMNS", "9999")
        with pytest.raises(SystemExit) as stopped:
            main(["--help"])
    assert stopped.value.code == 0
    return re.sub(r"\s+", " ", said.getvalue())


def known_to(script):
    """The flags in a script's help."""
    return set(re.findall(r"--[a-z-]+", helped(main_of(script))))


# ----- there and back -----------------------------------------------------------------------------

WORDS = st.text("abcAB089 ._-='\"é", min_size=1, max_size=8).filter(
    lambda text: text != "--"  # of which argparse makes no text before Python 3.13
)
PATHS = WORDS.map(lambda text: f"/data/{text.strip('.')}x")  # with no `..`, so that they stay
OTHERS = {  # fields that take more or fewer values than their type says
    "delta": st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda d: (d[0], sum(d))),
    "delta_ms": st.none(),  # exclusive with delta
    "batch_size": st.integers(1, 99).map(lambda n: 2 * n),
    "pixel_shrink": st.sampled_from((1, 2, 4)),
    "weight_decay": st.floats(allow_nan=False, allow_infinity=False),
    "test_target": st.sampled_from(registry.names("target")),
    "test_root": PATHS,
    "test_annotations": PATHS,
    "folds_file": PATHS,
}


def values_of(field, hint):
    """What a field may hold."""
    if field.name in OTHERS:
        return OTHERS[field.name]
    bare = flags._bare(hint)
    if typing.get_origin(bare) is typing.Literal:
        return st.sampled_from(typing.get_args(bare))
    least = field.metadata.get("least")
    whole = st.integers(1 if least is None else least, 999)
    real = st.floats(
        least or 0, field.metadata.get("most", 1e9), exclude_min="above" in field.metadata
    )
    return {bool: st.booleans(), int: whole, float: real, str: WORDS}[bare]


@st.composite
def specs(draw, kind):
    """Datasets, with every field that means something for them."""
    reader = registry.reader(kind, draw(st.sampled_from(registry.names(kind))))
    given = {"detector": draw(st.sampled_from(("haar", "yunet")))}
    if reader.drawn:
        sizes = [f for f in registry.CHOSEN if f.metadata["drawn"]]
        for field in sizes:
            if field.metadata["only"] in (None, kind):
                share = field.metadata["most"] == 1
                given[field.name] = draw(st.floats(0, 1) if share else st.integers(1, 99))
        return DatasetSpec(reader.name, kind, **given)
    names = ["root", "detector_model", *(n for n in ("split", "annotations") if n in reader.takes)]
    for name in names:
        values = WORDS if name == "split" else PATHS
        given[name] = draw(st.none() | values)
    return DatasetSpec(reader.name, kind, **given)


@st.composite
def runs(draw, kind):
    """Runs in which any field may have any value, as long as these go together."""
    hints = typing.get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.name not in flags.DATASETS]
    chosen = draw(st.lists(st.sampled_from(fields), unique_by=lambda field: field.name))
    given = {field.name: draw(values_of(field, hints[field.name])) for field in chosen}
    if "objective" not in given or given["objective"] != "maer":
        given.pop("wrong_labels", None)
    if "steps" in given:
        given.pop("epochs", None)
    try:
        return kind(draw(specs(flags.KIND_OF[kind])), **given)
    except UserError:
        hypothesis.reject()


MANY = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def assert_there_and_back(run):
    read = flags.parse(type(run), flags.of(run))
    assert dataclasses.asdict(read) == dataclasses.asdict(run)  # neutral fields too
    assert read == run
    assert flags.from_command(flags.command(run).removeprefix("python ")) == run


@MANY
@hypothesis.given(runs(PretrainRun))
def test_flags_of_a_pretraining_give_it_back(run):
    assert_there_and_back(run)


@MANY
@hypothesis.given(runs(FinetuneRun))
def test_flags_of_a_fine_tuning_give_it_back(run):
    assert_there_and_back(run)


ELSE = {  # one other value than the default for fields that take no plain one
    "delta": (1, 4),
    "delta_ms": (120, 320),
    "test_target": "samm",
    "batch_size": 8,
    "learning_rate": 3e-3,
    "wrong_labels": 0.1,
    "pixel_shrink": 2,
}
ALONE = ("cross", "lodo")  # protocols that a single target does not go with
TOGETHER = {  # what goes with a field
    "wrong_labels": {"objective": "maer"},
    "pixel_shrink": {"space": "pixel"},
    "folds": {"protocol": "kfold"},
    "test_root": {"test_target": "samm"},
    "test_annotations": {"test_target": "samm"},
}


def other_value(field, hint):
    if field.name in ELSE:
        return ELSE[field.name]
    if field.name.endswith(("_root", "_annotations", "_file")):
        return "/data/there"
    bare = flags._bare(hint)
    if typing.get_origin(bare) is typing.Literal:
        names = [name for name in typing.get_args(bare) if name not in (field.default, *ALONE)]
        return names[-1]
    if bare is bool:
        return not field.default
    return {int: 7, float: 0.5, str: "there"}[bare]


EACH = [
    pytest.param(kind, field, id=f"{name}-{field.name}")
    for name, kind in KINDS.items()
    for field in dataclasses.fields(kind)
    if field.name not in flags.DATASETS
]


SEVERAL = (DatasetSpec("casme2", "target"), DatasetSpec("smic", "target"))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        (({}, {}), []),
        (({"root": "/a, b"}, {"root": "/c=d"}), ["--data-root=casme2=/a, b,smic=/c=d"]),
        (({"root": "/a", "annotations": "/s.xlsx"}, {}),
         ["--data-root=casme2=/a", "--annotations=casme2=/s.xlsx"]),
        (({"classes": 3, "detector": "yunet"},) * 2, ["--classes=3", "--detector=yunet"]),
    ],
)  # fmt: skip
def test_several_targets_go_there_and_back(changes, shown):
    specs = [dataclasses.replace(s, **c) for s, c in zip(SEVERAL, changes, strict=True)]
    run = FinetuneRun(specs[0], further=tuple(specs[1:]), protocol="lodo", seeds=2)
    assert_there_and_back(run)
    assert flags.of(run) == ["--target=casme2,smic", *shown, "--protocol=lodo", "--seeds=2"]


def test_several_targets_lie_in_one_folder_or_each_in_its_own(tmp_path):
    def roots(*argv):
        run = flags.parse(FinetuneRun, argv)
        return [spec.root and pathlib.Path(spec.root) for spec in run.targets]

    three = f"--data-root={tmp_path}"
    both = "--target=smic,casme2"
    assert roots(both, three) == [tmp_path / "casme2", tmp_path / "smic"]  # as the registry has it
    assert roots(both, f"--data-root=smic={tmp_path}") == [None, tmp_path]
    assert roots("--target=megc2019,mmew", three) == [tmp_path / "mmew", tmp_path]
    assert roots("--target=samm,synthetic", three, "--subjects=3") == [tmp_path / "samm", None]
    (spec, drawn) = flags.parse(FinetuneRun, ["--target=samm,synthetic", "--subjects=3"]).targets
    assert (spec.subjects, drawn.subjects) == (DatasetSpec("samm", "target").subjects, 3)


def test_a_config_of_several_targets_is_the_base_of_others(tmp_path):
    run = FinetuneRun(SEVERAL[0], further=SEVERAL[1:], epochs=3)
    content = run_files.to_json(run, {}) | {"command": flags.command(run)}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = f"--config={tmp_path}/config.json"
    assert flags.parse(FinetuneRun, [config]) == run
    alone = flags.parse(FinetuneRun, [config, "--target=smic", "--classes=3"])
    assert alone.targets == (dataclasses.replace(SEVERAL[1], classes=3),)
    assert alone.epochs == 3


@pytest.mark.parametrize(("kind", "field"), EACH)
def test_every_field_goes_there_and_back(kind, field):
    value = other_value(field, typing.get_type_hints(kind)[field.name])
    assert value != field.default
    spec = DatasetSpec("dfew" if kind is PretrainRun else "casme2", flags.KIND_OF[kind])
    run = kind(spec, **{field.name: value, **TOGETHER.get(field.name, {})})
    assert_there_and_back(run)
    assert any(word.startswith(flags.flag_of(field.name)) for word in flags.of(run))


def test_defaults_are_left_out():
    assert flags.of(PretrainRun(DatasetSpec("dfew", "source"))) == ["--source=dfew"]
    assert flags.of(FinetuneRun(DatasetSpec("casme2", "target"))) == ["--target=casme2"]


def test_the_command_is_as_a_person_types_it():
    run = PretrainRun(DatasetSpec("dfew", "source", root="/my data"), delta=(1, 4), overwrite=True)
    assert flags.command(run) == (
        "python experiments/pretrain.py --source=dfew '--data-root=/my data' --delta=1:4 "
        "--overwrite"
    )


# ----- spellings ----------------------------------------------------------------------------------


def pretraining(*argv):
    return flags.parse(PretrainRun, ["--source=dfew", *argv])


def finetuning(*argv):
    return flags.parse(FinetuneRun, ["--target=casme2", *argv])


def test_spellings():
    assert flags.parse(PretrainRun, ["--source=fervk39"]).dataset.name == "ferv39k"
    assert pretraining("--delta=3:8").delta == (3, 8)
    assert pretraining("--delta=4").delta == (4, 4)
    assert pretraining("--delta-ms=120:320").delta_ms == (120, 320)
    assert pretraining("--position-loss=false").position_loss is False
    assert pretraining("--position-loss=True").position_loss is True
    assert pretraining("--wrong-labels=1", "--objective=maer").wrong_labels == 1.0
    drawn = flags.parse(PretrainRun, ["--source=synthetic", "--speech=0", "--clips=9"]).dataset
    assert (drawn.speech, drawn.clips) == (0.0, 9)
    assert pretraining("--workers=0").workers == 0
    assert finetuning("--fold-chunk=auto").fold_chunk is None
    assert finetuning("--fold-chunk=3").fold_chunk == 3
    assert finetuning("--keep-reconstruction").keep_reconstruction
    assert finetuning("--batch-size", "8").batch_size == 8


def test_paths_of_data_hold_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finetuning("--data-root=a", "--test-target=samm", "--test-root=b", "--test-annotations=c")
    assert run.dataset.root == str(tmp_path / "a")
    assert (run.test_root, run.test_annotations) == (str(tmp_path / "b"), str(tmp_path / "c"))
    assert finetuning("--folds-file=f.csv").folds_file == str(tmp_path / "f.csv")
    assert finetuning("--init=runs/a").init == "runs/a"  # it gives the run its name


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--source=dfew --no-such=1", ["--no-such=1", "--help"]),
        ("--source=dfew --step=1", ["--step=1"]),  # flags are never abbreviated
        ("--source=nowhere", ["--source", "nowhere", "dfew"]),
        ("--source=dfew --delta=8:3", ["--delta", "first <= last"]),
        ("--source=dfew --delta=a", ["--delta", "3:8"]),
        ("--source=dfew --delta=1:4 --delta-ms=9:99", ["--delta", "--delta-ms", "not allowed"]),
        ("--source=dfew --position-loss=maybe", ["--position-loss", "true or false"]),
        ("--source=dfew --steps=0", ["--steps", ">= 1"]),
        ("--source=dfew --steps=1 --epochs=1", ["--epochs", "--steps"]),
        ("--source=dfew --wrong-labels=2 --objective=maer", ["--wrong-labels=2.0", "at most 1"]),
        ("--source=dfew --batch-size=3", ["--batch-size=3", "even"]),
        ("--source=dfew --learning-rate=x", ["--learning-rate"]),
        ("--source=dfew --learning-rate=nan", ["--learning-rate=nan", "> 0"]),
        ("--source=dfew --preset=huge", ["--preset", "huge", "tiny"]),
        ("--source=folder --objective=maer", ["--objective=maer", "--source=folder"]),
        ("--source=dfew --clips=9", ["--clips=9", "--source=synthetic"]),
        ("--source=dfew --speech=1", ["--speech=1", "--source=synthetic"]),
        ("--source=synthetic --speech=2", ["--speech=2.0", "at most 1"]),
        ("--source=dfew --clips=600", ["--clips=600", "--source=synthetic"]),  # also the default
        ("--source=synthetic --split=train", ["--split=train", "--source=synthetic"]),
        ("--target=casme2 --subjects=4", ["--subjects=4", "--target=synthetic"]),
        ("--target=casme2 --amplitude=.5", ["--amplitude=0.5", "--target=synthetic"]),
        ("--target=synthetic --amplitude=3", ["--amplitude=3.0", "at most 1"]),
        ("--target=synthetic --data-root=/no/such", ["--data-root=/no/such", "drawn"]),
        ("--target=casme2 --test-target=casme2", ["--test-target=casme2", "--target"]),
        ("--target=casme2 --fold-chunk=many", ["--fold-chunk", "many"]),
        ("--target=casme2 --seeds=0", ["--seeds", ">= 1"]),
        ("--target=casme2 --protocol=most", ["--protocol", "loso"]),
    ],
)
def test_what_makes_no_sense_is_one_line_with_flags(argv, words):
    message = refusal(argv.split())
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_sizes_of_drawn_faces_may_be_of_the_dataset_that_is_tested_on():
    run = finetuning("--test-target=synthetic", "--subjects=4")
    assert run.test_dataset == DatasetSpec("synthetic", "target", subjects=4)
    assert_there_and_back(run)
    assert "--subjects=4" in refusal(["--target=casme2", "--test-target=samm", "--subjects=4"])


def test_parts_left_out_may_be_of_the_dataset_that_is_tested_on():
    run = finetuning("--test-target=megc2019", "--without=smic")
    assert run.test_dataset == DatasetSpec("megc2019", "target", without="smic")
    assert_there_and_back(run)
    said = refusal(["--target=casme2", "--without=smic"])
    assert said == "--without=smic: --target=casme2 has no parts; remove it"


def test_a_dataset_must_be_named():
    assert "--source" in refusal([], PretrainRun)
    assert "--target" in refusal([], FinetuneRun)


# ----- from a config.json -------------------------------------------------------------------------


@pytest.fixture
def earlier(tmp_path):
    """A run, in whose folder its config.json lies."""
    run = PretrainRun(
        DatasetSpec("synthetic", "source", clips=40),
        preset="tiny",
        delta=(1, 4),
        steps=7,
        workers=2,
        run=str(tmp_path / "earlier"),
        overwrite=True,
    )
    write_config(run)
    return run


@pytest.mark.parametrize("first_format", [False, True])
def test_a_run_is_taken_from_a_config_json(earlier, first_format):
    if first_format:
        to_first_format(earlier.folder)
    for place in (earlier.folder / "config.json", earlier.folder):
        run = flags.parse(PretrainRun, [f"--config={place}"])
        assert run == earlier
        assert (run.run, run.overwrite, run.workers) == (None, False, 0)  # where it lay, and so on


def test_other_flags_win_over_a_config_json(earlier):
    there = f"--config={earlier.folder}/config.json"
    run = flags.parse(PretrainRun, ["--seed=3", there, "--clips=20", "--run=here"])
    dataset = dataclasses.replace(earlier.dataset, clips=20)
    assert run == dataclasses.replace(earlier, seed=3, dataset=dataset)
    assert run.run == "here"
    longer = flags.parse(PretrainRun, [there, "--epochs=3"])
    assert (longer.epochs, longer.steps) == (3, None)
    other = flags.parse(PretrainRun, [there, "--source=dfew"])
    assert other.dataset == DatasetSpec("dfew", "source")  # and none of the drawn sizes
    assert other.delta == (1, 4)


def test_a_config_json_of_another_script_is_refused(earlier):
    message = refusal([f"--config={earlier.folder}/config.json"], FinetuneRun)
    assert message.startswith(f"--config={earlier.folder}/config.json: ")
    assert "pretrain.py" in message
    assert "finetune.py" in message
    assert "no such file" in refusal(["--config=/no/config.json"], FinetuneRun).lower()


# ----- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [*KINDS, "prepare", "inspect_dataset"])
def test_help_shows_the_flag_of_every_field_with_its_default(script):
    kind = KINDS.get(script)
    only = (None, flags.KIND_OF[kind]) if kind else (None, "source", "target")
    shown = [field for field in registry.CHOSEN if field.metadata["only"] in only]
    if kind:
        fields = dataclasses.fields(kind)
        shown += [field for field in fields if field.name not in flags.DATASETS]
    text = listed(helped(main_of(script)))
    for field in shown:
        flag = re.escape(flags.flag_of(field.name))
        entry, *_ = re.findall(rf"(?<= ){flag} ((?:(?! --[a-z]).)*)", text)
        if field.default not in (None, False):
            default = "true" if field.default is True else flags._text(field.default)
            assert f"({default})" in entry, (field.name, entry)


def listed(text):
    """The list of flags of a help, after its usage and its description."""
    return text[text.index("options:") :]


def test_help_leaves_out_the_flags_of_the_other_kind():
    assert not {"--clips ", "--split "} & set(
        re.findall(r"--[a-z-]+ ", helped(main_of("finetune")))
    )
    assert not {"--subjects ", "--annotations "} & set(
        re.findall(r"--[a-z-]+ ", helped(main_of("pretrain")))
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_helps_in_plain_words(script):
    text = helped(main_of(script))
    assert f"experiments/{script}.py" in text  # an example
    assert "--help" in text


# ----- errors -------------------------------------------------------------------------------------

ROOTLESS = UserError("[root={root}]: is a file; give another folder as [root]", root="/a")


@pytest.mark.parametrize(
    ("script", "place"),
    [
        ("pretrain", "--data-root"),
        ("finetune", "--data-root"),
        ("evaluate", "--data-root"),
        ("prepare", "--data-root"),
        ("inspect_dataset", "--data-root"),
        ("probe", "--data-root"),
        ("reproduce", "--data-root"),
        ("predict", "the folder named in the run's config.json"),
    ],
)
def test_an_error_names_flags_that_the_script_has(script, place):
    known = known_to(script)
    message = ROOTLESS.spelled(cli.spell)
    assert message == f"{place}=/a: is a file; give another folder as {place}"
    assert set(re.findall(r"--[a-z-]+", message)) <= known


def test_a_path_is_shown_as_it_is(tmp_path):
    known_to("predict")
    file = tmp_path / "[root]"
    file.touch()
    with pytest.raises(UserError) as refused:
        cli.make_folder(file / "{out}")
    assert refused.value.spelled(cli.spell) == (
        f"--out={file}/{{out}}: the folder cannot be made (Not a directory); choose another"
    )


def named_in(file):
    """The parameters that the errors of a file name."""
    calls = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError"
    ]
    texts = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
    return {name for text in texts for name in re.findall(r"\[([a-z][a-z0-9_]*)[]=]", text)}


FILES = [*FOLDER.glob("*.py"), *(ROOT / "ma2mi_jax").rglob("*.py")]
NAMING = {file: names for file in sorted(FILES) if (names := named_in(file))}
RENAMED = {"field", "folder"}  # only inside `parameters_called`, which puts another name there


@functools.cache
def imported(file):
    """The project's files that a file imports."""
    names = names_imported(file)
    names |= {name.rpartition(".")[0] for name in names if "." in name}  # `from here import it`
    places = [base / name.replace(".", "/") for name in names for base in (ROOT, FOLDER)]
    files = [file for p in places for file in (p.with_suffix(".py"), p / "__init__.py")]
    return {file for file in files if file.is_file()}


@functools.cache
def met_by(script):
    """The files whose errors a script can meet: its own, and what it imports in any way."""
    found, further = set(), {FOLDER / f"{script}.py"}
    while further:
        found |= further
        further = {each for file in further for each in imported(file)} - found
    return found


@functools.cache
def taken_by(script):
    """The parameters in any error that a person can give to a script: flags, and words without."""
    known = known_to(script)
    (parser,) = cli.SPEAKING
    names = set().union(*NAMING.values())
    words = {action.dest for action in parser._actions if not action.option_strings}
    return {name for name in names if cli.spell(name) in known} | (names & words)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_parameter_is_spelled_as_a_flag_that_is_not_there(script):
    known = known_to(script)
    fields = {f.name for kind in (*KINDS.values(), DatasetSpec) for f in dataclasses.fields(kind)}
    for name in fields.union(*NAMING.values()):
        spelled = cli.spell(name)
        assert spelled in known or not spelled.startswith("-"), name


@pytest.mark.parametrize("file", [file.relative_to(ROOT).as_posix() for file in NAMING])
def test_a_parameter_in_an_error_can_be_given_to_a_script_that_meets_it(file):
    scripts = [script for script in SCRIPTS if ROOT / file in met_by(script)]
    taken = set().union(*map(taken_by, scripts))
    assert NAMING[ROOT / file] - RENAMED - taken == set()


def test_a_flag_that_was_called_otherwise_is_still_read():
    """As it stands in the command of an older run."""
    (now, then) = (
        flags.parse(PretrainRun, ["--source=dfew", f"--{name}=sample"])
        for name in ("posterior", "latent")
    )
    assert now == then
    assert now.latent == "sample"
    assert "--latent " not in helped(main_of("pretrain"))
    assert "--posterior=sample" in flags.of(now)
