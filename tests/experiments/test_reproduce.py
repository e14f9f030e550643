"""reproduce.py: its flags, the plan it prints, what the scripts take, and once from end to end."""

import json
import os
import shutil
import subprocess
import sys

import cli
import commands
import evaluate
import flags
import pytest
import reproduce
from stored_runs import Scripts, to_first_format

from ma2mi_jax.errors import UserError
from ma2mi_jax.models.weights import diffusers
from ma2mi_jax.reproduction import figures, plans, progress
from ma2mi_jax.training import run_files

TINY = [
    *("--target=synthetic", "--table=4", "--clips=12", "--steps=2", "--subjects=2"),
    *("--clips-per-subject=5", "--finetune-epochs=1", "--preset=smoke"),
    "--pretrain-flags=--batch-size=4 --log-every=1",
    "--finetune-flags=--batch-size=4 --fold-chunk=1",
]


def parts_of(argv):
    """The size that flags ask for, and the runs of the plan."""
    f = reproduce.parsed(argv)
    size = reproduce.size_of(f)
    return f, size, plans.runs_of(plans.plan(f.table, f.figure, f.target, size))


# ----- flags --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--target=synthetic", ["--table", "--all"]),
        ("--target=synthetic --table=7", ["--table", "7"]),
        ("--target=synthetic --figure=1", ["--figure"]),
        ("--target=synthetic,samm --all", ["stands alone"]),
        ("--target=casm --all", ["casme2", "smic", "megc2019", "csv"]),
        ("--target=synthetic --all --pretrain-flags=--seed=3", ["--pretrain-flags", "--seed"]),
        (
            "--target=synthetic --all --finetune-flags=epochs=3",
            ["--finetune-flags", "--name=value"],
        ),
        (
            "--target=synthetic --all --finetune-flags=--learnin-rate=1",
            ["finetune.py", "--learnin-rate"],
        ),
        (
            "--target=synthetic --all --pretrain-flags=--batch-size=3",
            ["pretrain.py", "--batch-size=3", "even"],
        ),
        ("--target=synthetic --all --pretrain-flags=--help", ["--help"]),
        ("--target=synthetic --all --pretrain-flags='", ["--pretrain-flags", "quotation"]),
        *(
            (
                f"--target=synthetic --all --finetune-flags=--{name}={value}",
                [f"the {name} is that of the pre-training", "--pretrain-flags"],
            )
            for name, value in [
                ("fusion", "add"),
                ("pooling", "flatten"),
                ("normalisation", "imagenet"),
            ]
        ),
        (
            "--target=casme2,samm --all --annotations=a.xlsx",
            ["--annotations=a.xlsx: casme2, samm share no sheet"],
        ),
        (
            "--target=casme2 --figure=5 --finetune-flags=--learnin-rate=1",
            ["finetune.py", "--learnin-rate"],
        ),
        (
            "--target=synthetic --all --finetune-flags=--folds-file=/no/such.csv",
            ["finetune.py", "--folds-file", "/no/such.csv"],
        ),
        (
            "--target=synthetic --all --finetune-flags=--protocol=all",
            ["--finetune-flags=--protocol=all", "no scores"],
        ),
        (
            "--target=casme2 --source=folder --table=1 --pretrain-flags=--wrong-labels=.2",
            ["--pretrain-flags=--wrong-labels=.2", "folder has no labels"],
        ),
        (
            "--target=casme2 --table=1 --pretrain-flags=--wrong-labels=2",
            ["pretrain.py: --wrong-labels=2.0: expected at most 1"],
        ),
        ("--target=casme2 --table=1 --vae=random", ["--vae=random"]),
        ("--target=synthetic --all --data=/datasets", ["--data-root=/datasets"]),
        ("--target=csv --all --data-root=samm=/a", ["--data-root=samm=/a: samm is none of"]),
        ("--target=casme2 --all --subjects=3", ["--subjects", "--target=synthetic"]),
        ("--target=casme2 --all --clips=3", ["--clips=3", "--source=dfew"]),
        ("--target=synthetic --all --steps=3 --epochs=3", ["not allowed"]),
    ],
)
def test_bad_flags_end_in_one_clear_line(monkeypatch, capsys, argv, words):
    monkeypatch.setattr(sys, "argv", ["reproduce", *argv.split(), "--dry-run"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(reproduce.main)
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in message for word in ["error: ", *words]), message


def test_a_target_that_does_not_go_together_with_passed_on_flags():
    across = "--protocol=cross --test-target=samm"
    argv = ["--target=casme2,samm", "--table=1", f"--finetune-flags={across}", "--dry-run"]
    with pytest.raises(UserError) as refused:
        reproduce.main(argv)
    message = refused.value.spelled(cli.spell)
    assert "finetune.py: --test-target=samm: expected another dataset than --target" in message


def test_a_dataset_that_is_not_there_is_missed_before_the_first_run(tmp_path):
    argv = ["--target=casme2", "--table=4", f"--data={tmp_path}", f"--out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=r"dfew: no such folder") as refused:
        reproduce.main(argv)
    assert "give --data-root: a folder" in refused.value.spelled(cli.spell)
    (tmp_path / "dfew").mkdir()
    with pytest.raises(UserError, match=r"casme2: no such folder"):
        reproduce.main(argv)
    assert reproduce.main([*argv, "--dry-run"]) == 0  # a plan can be looked at elsewhere


def test_an_autoencoder_that_is_not_there_is_missed_before_the_first_run(tmp_path, monkeypatch):
    """Once, however many runs need it; and not where the runs are made elsewhere."""
    for name in ("data/dfew", "data/casme2", "vae"):
        (tmp_path / name).mkdir(parents=True)
    asked, made = [], []
    locate = diffusers.locate
    monkeypatch.setattr(diffusers, "locate", lambda vae: (asked.append(vae), locate(vae)))
    monkeypatch.setattr(reproduce, "call", lambda run: made.append(run) or 2)
    argv = ["--target=casme2", f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'out'}"]
    bad = f"--vae={tmp_path / 'vae'}"
    with pytest.raises(UserError, match=r"found no config\.json") as refused:
        reproduce.main([*argv, "--table=2", bad])
    assert refused.value.spelled(cli.spell).startswith(f"{bad}: ")
    assert (asked, made) == ([str(tmp_path / "vae")], [])
    assert reproduce.main([*argv, "--table=2", bad, "--dry-run"]) == 0
    assert reproduce.main([*argv, "--table=2", bad, "--emit=slurm"]) == 0
    reproduce.main([*argv, "--table=4", bad, "--space=pixel"])
    assert len(asked) == 1
    assert made


def test_milliseconds_and_wrong_labels_reach_the_rows_that_they_are_for(tmp_path, capsys):
    argv = ["--target=casme2", "--table=1", "--figure=4", f"--out={tmp_path}", "--dry-run"]
    given = "--pretrain-flags=--delta-ms=120:320 --wrong-labels=.2"
    assert reproduce.main([*argv, f"--data={tmp_path}", given]) == 0
    said = capsys.readouterr().out.splitlines()
    of = {
        name: next(line for line in said if f"--run={tmp_path}/pretrain/dfew-{name}-seed0" in line)
        for name in ("maer", "latent-delta-120-320-ms", "latent", "latent-delta-1-4")
    }
    assert {name for name in of if "--delta-ms=120:320" in of[name]} == {"latent-delta-120-320-ms"}
    assert {name for name in of if "--wrong-labels=0.2" in of[name]} == {"maer"}


def test_clips_of_ones_own_can_be_planned(tmp_path, capsys):
    argv = ["--target=csv", "--table=1,5", f"--out={tmp_path / 'out'}", "--dry-run"]
    assert reproduce.main([*argv, f"--data={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert f"finetune.py --target=csv --data-root={tmp_path}/csv --init=" in said
    assert figures.shown_name("csv") == "Clips of your own"

    places = f"--data-root=csv={tmp_path}/mine,dfew={tmp_path}/D"
    assert reproduce.main([*argv, places, f"--annotations={tmp_path}/my.csv"]) == 0
    said = capsys.readouterr().out
    told = f"--target=csv --data-root={tmp_path}/mine --annotations={tmp_path}/my.csv --init="
    assert f"finetune.py {told}" in said
    assert f"pretrain.py --source=dfew --data-root={tmp_path}/D" in said


@pytest.mark.parametrize(("target", "title"), [("smic", "SMIC"), ("megc2019", "MEGC2019")])
def test_a_target_without_numbers_of_the_paper_can_be_planned(target, title, tmp_path, capsys):
    argv = [f"--target={target}", "--table=4", f"--out={tmp_path}", "--dry-run", "--seeds=2"]
    assert reproduce.main([*argv, f"--data-root={tmp_path}"]) == 0
    place = f" --data-root={tmp_path}" + "/smic" * (target == "smic")
    assert f"finetune.py --target={target}{place} --seeds=2 --init=" in capsys.readouterr().out
    assert figures.shown_name(target).startswith(title)


def test_sizes_of_drawn_faces_and_of_the_paper():
    argv = ["--target=synthetic", "--all", "--steps=9", "--subjects=3", "--finetune-epochs=2"]
    drawn = reproduce.size_of(reproduce.parsed(argv))
    assert (drawn.source, drawn.pretrain.preset, drawn.pretrain.space) == (
        "synthetic",
        "bench",
        "pixel",
    )
    assert (drawn.pretrain.steps, drawn.pretrain.epochs) == (9, None)
    assert (drawn.finetune.epochs, drawn.finetune.dataset.subjects) == (2, 3)
    assert drawn.finetune.dataset.clips_per_subject == 4
    assert (drawn.pretrain.reconstruction_loss, drawn.pretrain.dataset.clips) == ("l2", 1000)
    assert (drawn.finetune.protocol, drawn.finetune.folds) == ("kfold", 2)
    argv = ["--target=synthetic", "--table=4", "--epochs=3"]
    mine = ["--pretrain-flags=--decay=.1 --batch-size=8", "--finetune-flags=--protocol=loso"]
    drawn = reproduce.size_of(reproduce.parsed([*argv, *mine]))
    assert (drawn.pretrain.steps, drawn.pretrain.epochs) == (None, 3)
    assert (drawn.pretrain.decay, drawn.pretrain.batch_size) == (0.1, 8)
    assert drawn.pretrain.learning_rate == drawn.finetune.learning_rate == 1e-3
    assert (drawn.finetune.protocol, drawn.finetune.folds) == ("loso", None)
    f = reproduce.parsed(
        [
            *("--target=mmew,casme2", "--table=3,1", "--source=fervk39"),
            "--pretrain-flags=--batch-size=64 --fusion=add",
        ]
    )
    assert (f.table, f.target, f.figure) == ([1, 3], ["casme2", "mmew"], [])
    real = reproduce.size_of(f)
    assert (real.source, real.pretrain.preset, real.pretrain.space) == (
        "ferv39k",
        "paper",
        "latent",
    )
    assert (real.pretrain.batch_size, real.pretrain.fusion) == (64, "add")
    assert (real.pretrain.steps, real.pretrain.epochs) == (None, None)


def test_a_folder_of_datasets_holds_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, todo = parts_of(["--target=casme2", "--table=3", "--data=here"])
    roots = {planned.run.dataset.root for planned in todo}
    names = ("afew", "ferv39k", "dfew", "casme2")
    assert roots == {str(tmp_path / "here" / name) for name in names}


def test_the_page_tells_the_flags_that_a_person_passes_on():
    f = reproduce.parsed(TINY)
    assert reproduce.further(f) == (
        "--steps=2 --learning-rate=0.001 --decay=0.05 --reconstruction-loss=l2 --batch-size=4 "
        "--log-every=1",
        "--epochs=1 --subjects=2 --clips-per-subject=5 --protocol=kfold --folds=2 "
        "--amplitude=0.15 --learning-rate=0.001 --batch-size=4 --fold-chunk=1",
    )
    assert reproduce.further(reproduce.parsed(["--target=casme2", "--all"])) == ("none", "none")


# ----- the plan -----------------------------------------------------------------------------------


def test_the_plan_says_what_is_there_and_how_long_the_rest_takes(tmp_path, capsys):
    argv = ["--target=synthetic", "--table=4", "--steps=10", f"--out={tmp_path}", "--dry-run"]
    assert reproduce.main(argv) == 0
    text = capsys.readouterr().out
    assert "6 runs, 6 to make; unknown for 6" in text
    assert "--fusion=action" in text
    *_, todo = parts_of(argv)
    scripts = Scripts(tmp_path)
    for planned in todo[:4]:
        scripts(planned.placed(tmp_path))
    assert reproduce.main(argv) == 0
    text = capsys.readouterr().out
    assert "6 runs, 2 to make; 50 s for 2 of them" in text  # 10 steps of 2 s, and 30 s
    lines = [line.split() for line in text.splitlines() if line.strip()]
    said = {first: " ".join(rest) for first, *rest in lines}
    there = [said[planned.folder] for planned in todo]
    assert there == ["there already"] * 4 + ["to do 20 s", "to do 30 s"]


def test_the_commands_of_a_plan_make_its_runs(tmp_path, capsys):
    argv = ["--target=casme2", "--table=1,2", f"--data={tmp_path}", f"--out={tmp_path / 'out'}"]
    reproduce.main([*argv, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    said = [line.removeprefix("python ") for line in lines if line.startswith("python ")]
    *_, todo = parts_of(argv)
    assert [flags.from_command(line) for line in said] == [
        planned.placed(tmp_path / "out") for planned in todo
    ]


# ----- end to end ---------------------------------------------------------------------------------


SBATCH = """#!/usr/bin/env bash
# Stands in for sbatch: makes each job at once, since none comes before what it waits for. The job
# that $LOST names is lost.
array= needs=
for word in "$@"; do
    case $word in
    --array=*) array=${word#*=} ;;
    --dependency=*) needs=${word#*=} ;;
    *.sh) script=$word ;;
    esac
done
echo "$script $array $needs" >> "$JOBS"
job=$(wc -l < "$JOBS")
for task in ${array//,/ }; do
    [ "$script" = "$LOST" ] && continue
    for ((i = ${task%-*}; i <= ${task#*-}; i++)); do
        SLURM_ARRAY_TASK_ID=$i bash "$script" >> "$JOBS.$script" 2>&1 || exit
    done
done
[ "$array" ] || bash "$script" > "$JOBS.$script" 2>&1 || exit
echo "$job;cluster"
"""
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Table 4 and two figures of drawn faces: the folder, the jobs that a scheduler got, and what
    the last of them printed.

    The runs of the first two rows are there already (stand-ins, for a run takes a minute). The
    fine-tune of the third gets lost, so the last job makes it.
    """
    out, place = (tmp_path_factory.mktemp(name) for name in ("out", "place"))
    *_, todo = parts_of(TINY)
    stand_in = Scripts(out)
    for planned in todo[:4]:
        stand_in(planned.placed(out))
    assert reproduce.main([*TINY, "--figure=5,6", f"--out={out}", "--emit=slurm"]) == 0
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    environment = commands.one_device()
    environment |= {"PATH": f"{place}:{os.environ['PATH']}", "JOBS": str(place / "jobs")}
    environment |= {"LOST": "finetune.sh"}
    submit = [out / "slurm" / "submit.sh", "--partition=gpu"]
    done = subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=580)
    said = (place / "jobs.page.sh").read_text()
    assert done.returncode == 0, said[-3000:] + done.stderr
    return out, (place / "jobs").read_text(), said


@pytest.mark.timeout(600)
def test_a_plan_goes_to_a_scheduler_in_the_order_of_its_runs(made):
    out, jobs, _ = made
    assert jobs.splitlines() == [
        "pretrain.sh 0-0 ",
        "finetune.sh 0 afterok:1_0",
        "page.sh  afterany:1:2",
    ]
    scripts = sorted((out / "slurm").glob("*.sh"))
    assert [script.stem for script in scripts] == ["finetune", "page", "pretrain", "submit"]
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)


def test_a_job_waits_for_the_pretraining_that_it_starts_from_and_for_no_other(tmp_path, capsys):
    argv = ["--target=casme2,samm", "--table=1", f"--out={tmp_path}", "--emit=slurm"]
    assert reproduce.main(argv) == 0
    assert str(tmp_path / "slurm" / "submit.sh") in capsys.readouterr().out.replace("\n", "")
    text = (tmp_path / "slurm" / "submit.sh").read_text()
    lines = [line for line in text.splitlines() if "--array" in line]
    assert lines == [
        "pretrain=$(submit --array=0-2 pretrain.sh)",
        'all+=("$(submit --array=0,1 finetune.sh)")',
        *(
            f'all+=("$(submit --array={n} --dependency="afterok:${{pretrain}}_{k}" finetune.sh)")'
            for k, n in enumerate(("2,3", "4,5", "6,7"))
        ),
    ]
    page = (tmp_path / "slurm" / "page.sh").read_text()
    assert f"reproduce.py --target=casme2,samm --table=1 --out={tmp_path}\n" in page


def test_a_folder_may_be_called_like_the_scheduler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--emit", "slurm", "--target=casme2", "--table=1", "--out", "slurm"]
    assert reproduce.main(argv) == 0
    page = (tmp_path / "slurm" / "slurm" / "page.sh").read_text()
    assert page.endswith("reproduce.py --target=casme2 --table=1 --out slurm\n")


@pytest.mark.timeout(600)
def test_table_4_of_drawn_faces(made):
    out, _, said = made
    told = [line for line in said.splitlines() if "] python experiments/" in line]
    assert ["finetune.py" in line for line in told] == [True]
    page = (out / "table-4-figure-5-figure-6-synthetic.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    # A row stands in the table of scores and, below it, in that of differences.
    rows = {line.split("|")[1].strip(): line for line in reversed(lines)}
    assert "84.74 / 0.8372" in rows["no FPE"]
    assert "88.76 / 0.8795" in rows["FPE, without L_pos"]
    ours = rows["FPE, with L_pos"]
    assert "89.16 / 0.8882" in ours
    found = json.loads((out / "synthetic/from-synthetic-12-pixel-seed0/results.json").read_text())
    assert found["n"] == 10
    assert f"| {100 * found['accuracy']:.2f} |" in ours
    assert f"| {found['uf1']:.4f} |" in ours
    assert "stand in for no real dataset" in page
    assert page.count("python experiments/finetune.py --target=synthetic") == 3
    html = (out / "table-4-figure-5-figure-6-synthetic.html").read_text()
    assert "No picture" not in html
    assert html.count("data:image/png;base64,") == 2


def test_what_the_scripts_wrote_is_what_the_plan_asks(made, capsys):
    out, *_ = made
    assert reproduce.main([*TINY, "--figure=5,6", f"--out={out}", "--dry-run"]) == 0
    assert "6 runs, 0 to make" in capsys.readouterr().out


@pytest.mark.timeout(600)
def test_runs_of_the_first_format_are_read_evaluated_and_taken(made, tmp_path, capsys, monkeypatch):
    """config.json had one part then, and no run object."""
    there, *_ = made
    monkeypatch.setenv("MA2MI_DATA", "")
    argv = [*TINY, "--figure=5,6", f"--out={tmp_path}"]
    *_, todo = parts_of(argv)
    for planned in todo[-2:]:  # FPE, with L_pos
        shutil.copytree(there / planned.folder, tmp_path / planned.folder)
    before, after = (run_files.read(tmp_path / planned.folder) for planned in todo[-2:])
    for planned in todo[-2:]:
        to_first_format(tmp_path / planned.folder)
    then, tuned = (run_files.read(tmp_path / planned.folder) for planned in todo[-2:])

    assert then.asked is None
    assert then.resolved == before.resolved
    assert tuned.resolved["config"] == after.resolved["config"]
    assert tuned.resolved["init"] == before.resolved
    known = [progress.look(planned, tmp_path, flags.from_command).kind for planned in todo]
    assert known == ["absent"] * 4 + ["finished"] * 2
    assert reproduce.main([*argv, "--dry-run"]) == 0
    assert "6 runs, 4 to make" in capsys.readouterr().out
    assert evaluate.main([f"--run={tmp_path / todo[-1].folder}"]) == 0
    assert "evaluation agrees with the run" in capsys.readouterr().out
