"""The model card: README.md of a model folder, written from the content of its config.json."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ma2mi_jax.evaluation import cautions, intervals

SCORES = {"accuracy": "accuracy", "uf1": "UF1", "uar": "UAR"}
OWNERS = {
    "drawn": "the faces are drawn by this software and show nobody; nobody else licenses them",
    "own": "data of the person who trained this model; ask that person what may be done with it",
    "licensed": "licensed by its authors to those who signed their agreement, as a rule for "
    "academic research alone; weights that were trained on it may fall under that agreement: read "
    "it, and ask the authors, before you pass the weights on or use them for anything else",
}
LIMITS = (
    "It was trained on few people, filmed in a laboratory or drawn, of few ages and origins. How "
    "it does on other people, cameras, light and head motion is not known.",
    "It gives one of its classes to every pair of frames, also where nobody moves. Its "
    "probabilities are not certainties.",
    "Frames that were cropped otherwise than described here give other answers.",
)
ETHICS = (
    "It guesses at a movement of the face. That says nothing certain about what somebody feels, "
    "thinks or hides: this is no lie detector. Do not use it to judge people: not in hiring, at "
    "work, in schools, at borders, in policing, in court or for insurance. In the European Union "
    "inferring emotions at work and in education is forbidden but for medical and safety reasons "
    "(AI Act, article 5). Use it on recordings of people who agreed to that."
)
PAPER = (
    "Hanting Li, Hongjing Niu, Feng Zhao: From Macro to Micro: Boosting micro-expression "
    "recognition via pre-training on macro-expression videos, arXiv 2405.16451. This is no model "
    "of its authors."
)


def text(content: Mapping[str, Any], members: int) -> str:
    """The card.

    Args:
      content: of config.json.
      members: number of models in the folder.
    """
    made = _pretrained if content["script"] == "pretrain" else _finetuned
    sections = [
        *made(content, members),
        ("## Data", *_data(content)),
        ("## What it wants to see", *_input(content["input"])),
        ("## Training", _table(("", ""), _training(content["config"])), *_short(content)),
        ("## Limits", _list(LIMITS)),
        ("## Ethics", _filled(ETHICS)),
        ("## Paper", _filled(PAPER)),
    ]
    return "\n\n".join([_head(content), *(part for section in sections for part in section)]) + "\n"


def _head(content: Mapping[str, Any]) -> str:
    """What the hub reads. What is trained on licensed data is not for everybody to license."""
    free = set(_licences(content).values()) == {"drawn"}
    lines = ["library_name: ma2mi_jax", f"license: {'apache-2.0' if free else 'other'}"]
    lines += ["tags:", "- micro-expression-recognition", "- jax"]
    return "\n".join(["---", *lines, "---"])


# ----- of a fine-tuning, of a pre-training --------------------------------------------------------


def _finetuned(content: Mapping[str, Any], members: int) -> Iterable[tuple[str, ...]]:
    classes = ", ".join(content["classes"])
    what = (
        f"It gives a pair of frames, onset and apex of a micro-expression, one of "
        f"{len(content['classes'])} classes: {classes}. It was trained on all subjects by "
        "ma2mi_jax, in JAX."
    )
    if members > 1:
        what += f" It is {members} models that differ in their seeds; their mean counts."
    yield f"# MA2MI, fine-tuned on {content['data']['name']}", _filled(what)
    ask = 'answers, failed = model.predict("video.mp4")\nprint(answers[0].prediction)'
    yield "## Use", _code(ask)
    yield "## Score", *_score(content["score"])


def _pretrained(content: Mapping[str, Any], members: int) -> Iterable[tuple[str, ...]]:
    what = (
        "The two encoders of MIACNet and what was trained with them, by ma2mi_jax, in JAX. They "
        "describe small movements of a face. Fine-tuning makes a recogniser of micro-expressions "
        "of them."
    )
    yield f"# MA2MI, pre-trained on {content['data']['name']}", _filled(what)
    ask = "c_delta = model.condition(frame, later_frame)  # face crops, uint8 (size, size, 3)"
    yield "## Use", _code(ask)
    none = (
        "None: it knows no classes. Fine-tune it, and test that on subjects who were left out, or "
        "ask what its frozen features tell (`ma2mi probe`, of the run)."
    )
    yield "## Score", _filled(none)


def _score(score: Mapping[str, Any] | None) -> Iterable[str]:
    if score is None:
        yield _filled(
            "None. It was trained on all subjects, so that nobody is left to test it on, and no "
            "run that leaves subjects out was given beside it. Nothing is known of how it does on "
            "people whom it has not seen."
        )
        return
    seeds = "1 seed" if score["seeds"] == 1 else f"{score['seeds']} seeds"
    yield _filled(
        "Not of this model: it was trained on all subjects, so that nobody is left to test it on. "
        "The score is that of models of the same configuration, which were trained on a part of "
        f"the same subjects and tested on the others (protocol {score['protocol']}, {seeds}, "
        f"N = {score['n']} clips of {score['subjects']} subjects, all predictions pooled)."
    )
    spans = {name: "{:.2f} to {:.2f}".format(*score["interval95"][name]) for name in SCORES}
    rows = [(shown, f"{score[name]:.4f}", spans[name]) for name, shown in SCORES.items()]
    if told := cautions.few_subjects(score["subjects"]):
        yield _filled(told)
    label = f"interval: {intervals.label(score, score['subjects'])}, over {score['over']}"
    yield _table(("", "score", label), rows)
    yield _filled(
        f"Its probabilities are given at temperature {score['temperature']:.2f}, at which those of "
        f"the models trained alike were off by {score['ece_calibrated']:.2f} on average (expected "
        "calibration error on subjects they had not seen)."
    )
    per_class = [(name, v["n"], f"{v['f1']:.3f}") for name, v in score["per_class"].items()]
    yield _table(("class", "clips", "F1"), per_class)


# ----- of both ------------------------------------------------------------------------------------


def _data(content: Mapping[str, Any]) -> Iterable[str]:
    data, before = content["data"], content.get("pretrained")
    counts = f"{data['name']}: {data['n']} clips"
    if "subjects" in data:
        each = ", ".join(f"{name} {n}" for name, n in data["clips_of"].items())
        counts += f" of {data['subjects']} subjects ({each})"
    yield _filled(f"{counts}.")
    if before:
        yield _filled(
            f"Before that it was pre-trained ({before['objective']}) on {before['name']}: "
            f"{before['n']} clips, {before['steps']} steps."
        )
    else:
        yield f"It started from {content['start']}."
    yield "Licence of the data:"
    yield _list(f"{name}: {OWNERS[owner]}." for name, owner in _licences(content).items())


def _licences(content: Mapping[str, Any]) -> dict[str, str]:
    """Dataset -> whose it is, a key of `OWNERS`."""
    before = content.get("pretrained") or {"licences": {}}
    return content["data"]["licences"] | before["licences"]


def _input(wanted: Mapping[str, Any]) -> Iterable[str]:
    found = wanted["detector"] or "none was needed, the frames were crops already"
    yield _table(
        ("", ""),
        [
            ("pair", wanted["pair"]),
            ("frames", wanted["frames"]),
            ("side", f"{wanted['image_size']} px"),
            ("normalised by", wanted["normalisation"] or "nothing more"),
            ("faces were found by", found),
        ],
    )


def _training(config: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    sizes = config["architecture"]
    yield "encoders", f"two ResNet18, first stage {sizes['width']} channels wide"
    yield "fusion, pooling", f"{sizes['fusion']}, {sizes['pooling']}"
    for name in ("epochs", "steps", "batch_size", "learning_rate", "weight_decay", "dtype"):
        if name in config:
            yield name.replace("_", " "), config[name]


def _short(content: Mapping[str, Any]) -> list[str]:
    config, before = content["config"], content.get("pretrained") or {}
    steps = [each["steps"] for each in (config, before) if "steps" in each]
    epochs = [config["epochs"]] if "epochs" in config else []
    return list(map(_filled, cautions.short(steps, epochs)))


# ----- Markdown -----------------------------------------------------------------------------------


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(textwrap.fill(f"- {line}", 100, subsequent_indent="  ") for line in lines)


def _table(columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _code(ask: str) -> str:
    load = 'model = ma2mi_jax.load("FOLDER")  # or "owner/name" on the Hugging Face hub'
    return f"```python\nimport ma2mi_jax\n\n{load}\n{ask}\n```"
