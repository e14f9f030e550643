"""The package as a stranger meets it: the console command, its version, its public names."""

import pathlib
import re
import subprocess
import sys
import types

import commands
import pytest

import ma2mi_jax
from ma2mi_jax import __main__ as command
from ma2mi_jax import datasets
from ma2mi_jax.datasets import registry
from ma2mi_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "experiments"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def ma2mi(*arguments, check=0):
    """`python -m ma2mi_jax`, as its own process."""
    main = ROOT / "ma2mi_jax" / "__main__"
    done = commands.run(main, *arguments, environment=commands.one_device())
    assert done.returncode == check, done.stderr
    return done


def test_the_help_lists_every_script_and_what_it_is_for():
    scripts = {p.name for p in SCRIPTS.glob("*.py") if '__name__ == "__main__"' in p.read_text()}
    assert set(command.COMMANDS.values()) == scripts
    listed = ma2mi("--help").stdout
    assert ma2mi().stdout == listed
    for name, file in command.COMMANDS.items():
        words = command.purpose(SCRIPTS / file)
        assert re.search(rf"^  {name} +{re.escape(words[:40])}", listed, re.MULTILINE)


def test_an_unknown_command_is_one_line_and_exit_code_2():
    done = ma2mi("trian", check=2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: trian: no such command; ")
    assert "pretrain, finetune" in line


def test_the_version_is_the_package_s():
    assert ma2mi("--version").stdout == f"ma2mi_jax {ma2mi_jax.__version__}\n"


def test_a_command_is_its_script():
    """The same words for `--help`, and the same refusal of a wrong flag."""
    alone = commands.run("pretrain", "--help", environment=commands.one_device())
    assert alone.returncode == 0
    assert ma2mi("pretrain", "--help").stdout == alone.stdout
    refused = ma2mi("pretrain", "--source=synthetic", "--delta=8:3", check=2)
    assert "--delta" in refused.stderr.splitlines()[-1]


def test_importing_the_package_imports_no_jax():
    code = "import sys, ma2mi_jax; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ma2mi_jax.__all__)
def test_public_names_are_there(name):
    assert getattr(ma2mi_jax, name) is not None
    assert name in dir(ma2mi_jax)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    """In `backticks` with a folder, from the root or from the package; or as links."""
    text = page.read_text()
    paths = re.findall(r"`([\w.]+(?:/[\w.]+)*/[\w]+\.(?:py|md|txt))`", text)
    assert not [
        p for p in paths if not any((top / p).exists() for top in (ROOT, ROOT / "ma2mi_jax"))
    ]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]
    assert "SPEC" not in text
    assert "../shared" not in text


def test_the_table_from_paper_to_code_names_what_is_there():
    table = (ROOT / "README.md").read_text().partition("## Where the paper is in the code")[2]
    rows = re.findall(r"^\| (.*) \| (`.*`) \| (`.*`) \|$", table, re.MULTILINE)
    assert len(rows) >= 14
    for _, files, names in rows:
        code = "".join((ROOT / file).read_text() for file in re.findall(r"`(.+?)`", files))
        for name in re.findall(r"`(.+?)`", names):
            own = name.rpartition(".")[2]
            found = re.search(rf"^\s*(def|class) {own}\b|^{own}\b.* = ", code, re.MULTILINE)
            assert found, f"{name}: not in {files}"


def test_the_page_on_adding_a_dataset_shows_code_that_runs(tmp_path, monkeypatch):
    """Its reader is registered and read by name, and its own test passes."""
    page = (ROOT / "docs" / "add-a-dataset.md").read_text()
    reader, test = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    toyset = types.ModuleType("ma2mi_jax.datasets.toyset")
    monkeypatch.setitem(sys.modules, toyset.__name__, toyset)
    exec(reader, vars(toyset))
    monkeypatch.setattr(datasets, "toyset", toyset, raising=False)
    shown = {}
    exec(test, shown)
    shown["test_toyset_reads_what_can_be_read"](tmp_path)

    monkeypatch.setattr(registry, "READERS", (*registry.READERS, toyset.READER))
    spec = registry.DatasetSpec("toyset", "target", root=str(tmp_path))
    assert len(registry.read_dataset(spec, size=96, cache=tmp_path / "cache").clips) == 2
    with pytest.raises(UserError, match=r"^target=toyset: looked for frames/<subject>"):
        toyset.read(str(tmp_path / "elsewhere"), cache=str(tmp_path / "cache"))
