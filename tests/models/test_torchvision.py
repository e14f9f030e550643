"""ResNet18 weights out to PyTorch and in again: the same features there, the same numbers here, and
every way a file can be wrong."""

import os
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from weights import WHY_TORCH, count, shaken

from ma2mi_jax.errors import UserError
from ma2mi_jax.models.resnet import ResNet18
from ma2mi_jax.models.weights import torchvision

WIDTH = 4
FC = {"fc.weight": np.ones((10, 32), np.float32), "fc.bias": np.ones(10, np.float32)}


def variables_of(width, seed=0):
    """(params, batch_stats), random everywhere."""
    shapes = jax.eval_shape(
        lambda: ResNet18(width).init(jax.random.key(0), jnp.zeros((1, 96, 96, 3)), False)
    )
    variables = shaken(shapes, seed)
    return variables["params"], variables["batch_stats"]


def check_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def variables():
    return variables_of(WIDTH)


@pytest.fixture
def tensors(variables):
    return torchvision.to_torchvision(*variables)


def refusal(action):
    """The one line with which `action` ends."""
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


# ----- against PyTorch ---------------------------------------------------------------------------


def torch_resnet18(torch, width):
    """torchvision's ResNet18 by its published definition and names, from an image to a feature map.

    It has no classifier.
    """
    nn = torch.nn

    def conv(channels, features, size, stride, padding):
        return nn.Conv2d(channels, features, size, stride, padding, bias=False)

    class BasicBlock(nn.Module):
        def __init__(self, channels, features, stride):
            super().__init__()
            self.conv1, self.bn1 = conv(channels, features, 3, stride, 1), nn.BatchNorm2d(features)
            self.conv2, self.bn2 = conv(features, features, 3, 1, 1), nn.BatchNorm2d(features)
            self.downsample = nn.Sequential()
            if channels != features:
                self.downsample = nn.Sequential(
                    conv(channels, features, 1, stride, 0), nn.BatchNorm2d(features)
                )

        def forward(self, x):
            inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(inner + self.downsample(x))

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = conv(3, width, 7, 2, 3), nn.BatchNorm2d(width)
            channels = [width, width, 2 * width, 4 * width, 8 * width]
            for i, stride in enumerate((1, 2, 2, 2), 1):
                blocks = (
                    BasicBlock(channels[i - 1], channels[i], stride),
                    BasicBlock(channels[i], channels[i], 1),
                )
                setattr(self, f"layer{i}", nn.Sequential(*blocks))

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    return Trunk()


def to_torch(torch, tensors):
    return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}


def test_an_export_gives_the_same_features_in_torch():
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    params, stats = variables_of(64)
    tensors = torchvision.to_torchvision(params, stats)
    theirs = torch_resnet18(torch, 64)
    theirs.load_state_dict(to_torch(torch, tensors), strict=True)
    x = (
        np.random.default_rng(0).uniform(-1, 1, (2, 96, 128, 3)).astype(np.float32)
    )  # not square: a transposition would show
    with torch.no_grad():
        expected = (
            theirs.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
            .numpy()
            .transpose(0, 2, 3, 1)
        )
    found = np.asarray(ResNet18().apply({"params": params, "batch_stats": stats}, x, False))
    assert found.shape == (2, 3, 4, 512)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_torchs_own_weights_give_the_same_features_here(tmp_path):
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    import safetensors.torch

    torch.manual_seed(0)
    theirs = torch_resnet18(torch, WIDTH).eval()
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_()
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    params, stats = torchvision.read(tmp_path / "theirs.safetensors", WIDTH)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 96, 128, 3)).astype(np.float32)
    with torch.no_grad():
        expected = (
            theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)
        )
    found = np.asarray(ResNet18(WIDTH).apply({"params": params, "batch_stats": stats}, x, False))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_training_moves_the_statistics_as_torch_does_but_for_its_unbiased_variance(variables):
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    params, stats = variables
    before = torchvision.to_torchvision(params, stats)
    theirs = torch_resnet18(torch, WIDTH).train()
    theirs.load_state_dict(to_torch(torch, torchvision.to_torchvision(params, stats)))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
    theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    _, updated = ResNet18(WIDTH).apply(
        {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
    )
    ours = torchvision.to_torchvision(params, updated["batch_stats"])
    places = {"bn1": 2 * 48 * 48, "layer4.1.bn2": 2 * 3 * 3}
    for norm, n in places.items():
        mean, var = (
            theirs.state_dict()[f"{norm}.running_{which}"].numpy() for which in ("mean", "var")
        )
        np.testing.assert_allclose(ours[f"{norm}.running_mean"], mean, rtol=1e-4, atol=1e-5)
        moved = ours[f"{norm}.running_var"] - 0.9 * before[f"{norm}.running_var"]
        np.testing.assert_allclose(
            moved * n / (n - 1), var - 0.9 * before[f"{norm}.running_var"], rtol=1e-3, atol=1e-5
        )


def test_the_command_for_a_pickle_makes_a_file_that_is_read(tmp_path, variables, tensors):
    torch = pytest.importorskip("torch", reason=WHY_TORCH)
    for name, content in (
        ("plain.pth", to_torch(torch, tensors)),
        ("nested.bin", {"epoch": 3, "state_dict": to_torch(torch, tensors)}),
    ):
        torch.save(content, tmp_path / name)
        message = refusal(lambda name=name: torchvision.read(tmp_path / name, WIDTH))
        assert message.startswith(f"{tmp_path / name}: expected a safetensors file, found a pickle")
        exec(re.search(r'python -c "(.*)"$', message)[1], {})
        check_same(torchvision.read(tmp_path / f"{name}.safetensors", WIDTH), variables)


# ----- names and numbers -------------------------------------------------------------------------


def test_names_and_shapes_are_torchvisions():
    params, stats = variables_of(64)
    tensors = torchvision.to_torchvision(params, stats)
    assert len(tensors) == 120  # torchvision's state dict has 122, two of them fc
    assert (
        sum(t.size for n, t in tensors.items() if not re.search("running_|num_batches", n))
        == count(params)
        == 11_176_512
    )
    assert tensors["conv1.weight"].shape == (64, 3, 7, 7)
    assert tensors["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert tensors["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert tensors["layer3.0.downsample.1.running_var"].shape == (256,)
    assert tensors["bn1.num_batches_tracked"].shape == ()
    assert {t.dtype.name for n, t in tensors.items() if not n.endswith("num_batches_tracked")} == {
        "float32"
    }
    height, width, channel, feature = 5, 2, 1, 7
    kernel = params["conv1"]["kernel"]
    assert (
        tensors["conv1.weight"][feature, channel, height, width]
        == kernel[height, width, channel, feature]
    )


def test_a_written_file_is_read_again_and_says_what_it_is(tmp_path, variables):
    path = tmp_path / "new" / "action_encoder.safetensors"
    torchvision.write(path, *variables, "action_encoder")
    check_same(torchvision.read(path, WIDTH), variables)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["encoder"] == "action_encoder"
    assert metadata["input"] == "later frame minus frame, both RGB in [-1, 1]"
    assert re.fullmatch(r"ma2mi_jax \d+\.\d+\.\d+", metadata["library"])
    assert os.listdir(path.parent) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_written_file_with_a_flipped_bit_is_refused(tmp_path, variables):
    path = tmp_path / "encoder.safetensors"
    torchvision.write(path, *variables, "action_encoder")
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert "damaged" in refusal(lambda: torchvision.read(path, WIDTH))


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.backbone."])
def test_prefixes_heads_and_counters_are_left_alone(tmp_path, variables, tensors, prefix):
    content = {
        prefix + name: t for name, t in (tensors | FC).items() if name != "bn1.num_batches_tracked"
    }  # old files lack the counters
    if prefix:
        content["head.weight"] = np.ones(3, np.float32)
    save_file(content, tmp_path / "timm.safetensors")
    check_same(torchvision.read(tmp_path / "timm.safetensors", WIDTH), variables)


def test_one_of_several_networks_is_chosen_by_its_prefix(tmp_path, variables, tensors):
    """As MoCo keeps them: the one that learned, and its slow copy."""
    file = tmp_path / "moco.safetensors"
    other = torchvision.to_torchvision(*variables_of(WIDTH, seed=9))
    names = {"module.encoder_q.": tensors, "module.encoder_k.": other}
    save_file({p + name: t for p, each in names.items() for name, t in each.items()}, file)
    for chosen in ("encoder_q", "module.encoder_q"):
        check_same(torchvision.read(f"{file}#{chosen}", WIDTH), variables)
    message = refusal(lambda: torchvision.read(f"{file}#coder_q", WIDTH))
    assert "one ResNet18 called coder_q" in message
    assert "2 networks (module.encoder_k., module.encoder_q.)" in message
    assert message.endswith("choose one by its prefix: FILE#module.encoder_q")
    marks = {torchvision.fingerprint(f"{file}{end}") for end in ("", "#encoder_q", "#encoder_k")}
    assert len(marks) == 3

    odd = file.rename(tmp_path / "moco#1.safetensors")
    check_same(torchvision.read(f"{odd}#encoder_q", WIDTH), variables)
    assert torchvision.located(odd) == (odd, "")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_precision_becomes_float32(tmp_path, variables, tensors, dtype):
    save_file({name: t.astype(dtype) for name, t in tensors.items()}, tmp_path / "x.safetensors")
    check_same(
        torchvision.read(tmp_path / "x.safetensors", WIDTH),
        jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), variables),
    )


# ----- what is refused ---------------------------------------------------------------------------


def without(tensors, *names):
    return {name: t for name, t in tensors.items() if name not in names}


def renamed(tensors, old, new):
    return {new if name == old else name: t for name, t in tensors.items()}


GIVE = "give weights of torchvision's or timm's resnet18"
NOT_ONE = "x.safetensors: expected one ResNet18 under torchvision's names, found "
NOT_ITS_TENSORS = "x.safetensors: not the tensors of a ResNet18: "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: without(t, "layer3.1.bn1.running_var", "layer4.0.conv1.weight"),
            NOT_ITS_TENSORS + f"2 missing (first: layer3.1.bn1.running_var); {GIVE}",
        ),
        (
            lambda t: t | {"layer1.2.conv1.weight": t["layer1.1.conv1.weight"]},  # a ResNet34
            NOT_ITS_TENSORS + f"1 unknown (first: layer1.2.conv1.weight); {GIVE}",
        ),
        (
            lambda t: renamed(t, "conv1.weight", "conv1.0.weight"),  # timm's resnet18d
            NOT_ITS_TENSORS
            + f"1 missing (first: conv1.weight), 1 unknown (first: conv1.0.weight); {GIVE}",
        ),
        (
            lambda t: t | {"layer2.0.conv1.weight": np.ones((8, 4, 1, 1), np.float32)},
            "x.safetensors: layer2.0.conv1.weight is float32[8, 4, 1, 1], "
            "expected floating-point numbers [8, 4, 3, 3]; " + f"{GIVE} for RGB images",
        ),
        (
            lambda t: t | {"bn1.bias": np.ones(4, np.int8)},
            "x.safetensors: bn1.bias is int8[4], expected floating-point numbers [4]; "
            f"{GIVE} for RGB images",
        ),
        (
            lambda t: torchvision.to_torchvision(*variables_of(8)),
            "x.safetensors: a ResNet18 of width 8, expected width 4; "
            "give a preset of that width (paper has 64)",
        ),
        (
            lambda t: {"encoder.conv_in.weight": np.ones(1, np.float32)},  # an autoencoder, say
            f"{NOT_ONE}no layer1.0.conv1.weight among 1 tensors (first: encoder.conv_in.weight); "
            + GIVE,
        ),
        (
            lambda t: {},
            f"{NOT_ONE}no layer1.0.conv1.weight among 0 tensors; {GIVE}",
        ),
        (
            lambda t: {p + name: x for p in ("", "encoder_k.") for name, x in t.items()},
            f"{NOT_ONE}2 networks (no prefix, encoder_k.); choose one by its prefix: "
            "FILE#encoder_k",
        ),
    ],
)
def test_tensors_of_something_else_are_refused(tmp_path, tensors, change, message):
    file = tmp_path / "x.safetensors"
    save_file(change(tensors), file)
    assert refusal(lambda: torchvision.read(file, WIDTH)) == f"{tmp_path}/{message}"


def test_files_of_something_else_are_refused(tmp_path, variables):
    whole = tmp_path / "whole.safetensors"
    torchvision.write(whole, *variables, "position_encoder")
    content = whole.read_bytes()
    broken, again = "not a whole safetensors file (", "download it again (git clone needs git-lfs)"
    pickled = (
        "expected a safetensors file, found a pickle of PyTorch, which is never read; convert it "
        "once where torch is installed"
    )
    for name, written, start, end in (
        ("cut.safetensors", content[:-1], broken, f"; {len(content) - 1} bytes); {again}"),
        ("empty.safetensors", b"", broken, f"; 0 bytes); {again}"),
        (
            "pointer.safetensors",
            b"version https://git-lfs.github.com\n",
            broken,
            f"; 35 bytes); {again}",
        ),
        (
            "renamed.safetensors",
            b"PK\x03\x04" + bytes(100),
            pickled,
            f"{tmp_path}/renamed.safetensors.safetensors')\"",
        ),
        ("old.pt", b"\x80\x02}q\x00.", pickled, f"{tmp_path}/old.pt.safetensors')\""),
    ):
        (tmp_path / name).write_bytes(written)
        message = refusal(lambda name=name: torchvision.read(tmp_path / name, WIDTH))
        assert message.startswith(f"{tmp_path / name}: {start}")
        assert message.endswith(end)
    for path in (tmp_path / "absent.safetensors", tmp_path):
        assert refusal(lambda path=path: torchvision.read(path, WIDTH)).startswith(
            f"{path}: no such file; expected the weights of a ResNet18"
        )


def test_a_folder_that_cannot_be_made_is_said(tmp_path, variables):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "action_encoder.safetensors"
    message = refusal(lambda: torchvision.write(path, *variables, "action_encoder"))
    assert re.fullmatch(
        rf"{re.escape(str(path))}: cannot be written \(.+\); free the disk, or give another folder",
        message,
    )
