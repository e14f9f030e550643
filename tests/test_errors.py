"""Errors name parameters; whoever shows them spells these."""

import pickle

import pytest

from ma2mi_jax.errors import UserError, parameters_called

ERROR = UserError(
    "[root={root}]: is a file; give a folder as [root], or [preset=tiny]", root="a[root]{x}"
)


def test_a_notebook_reads_the_names_of_the_parameters():
    assert str(ERROR) == "root=a[root]{x}: is a file; give a folder as root, or preset=tiny"


def test_a_script_spells_them_and_leaves_values_alone():
    shown = ERROR.spelled(lambda name: f"--my-{name}")
    assert shown == (
        "--my-root=a[root]{x}: is a file; give a folder as --my-root, or --my-preset=tiny"
    )


def test_a_parameter_may_have_another_name_where_the_caller_stands():
    told = r"^test_root=x: gone; give another test_root$"
    with pytest.raises(UserError, match=told), parameters_called(root="test_root"):
        raise UserError("[root={root}]: gone; give another [root]", root="x")


def test_it_comes_whole_from_another_process():
    assert str(pickle.loads(pickle.dumps(ERROR))) == str(ERROR)


def test_the_parameter_itself_may_be_a_value():
    error = UserError("[{kind}={name}]: gone; give another [{kind}]", kind="target", name="samm")
    assert error.spelled(lambda name: f"--{name}") == "--target=samm: gone; give another --target"
    told = r"^test_target=samm: gone; give another test_target$"
    with pytest.raises(UserError, match=told), parameters_called(target="test_target"):
        raise error
