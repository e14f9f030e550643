"""From a finished run to a model folder that one can give away, and from there to the hub."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ma2mi_jax import files
from ma2mi_jax.datasets import annotated, folder, registry
from ma2mi_jax.datasets.registry import DatasetSpec
from ma2mi_jax.errors import UserError, parameters_called
from ma2mi_jax.evaluation import calibration, model_card, predictions
from ma2mi_jax.runs.folder import first_difference
from ma2mi_jax.training import finished, model_folder, run_files
from ma2mi_jax.training.finished import Finetuned, Pretrained
from ma2mi_jax.training.run_files import RESULTS

SCORES = ("accuracy", "uf1", "uar")
OWN = (folder.READER.name, annotated.READER.name)  # data of whoever trains


def export(
    run: pathlib.Path, out: pathlib.Path, scored_by: pathlib.Path | None = None
) -> dict[str, Any]:
    """Writes the model folder of a finished run.

    Args:
      run: a pre-training, or a fine-tuning on all subjects.
      out: the model folder; it is not there yet.
      scored_by: a fine-tuning of the same configuration and data that left subjects out, whose
        score stands in the card.

    Returns:
      What was written into config.json, but for its head.

    Raises:
      UserError: there is no such run, it left subjects out, or `scored_by` is not of its kind.
    """
    model_folder.check_free(out)
    if run_files.read(run).script == "pretrain":
        if scored_by:
            raise UserError(
                "[scored_by={scored_by}]: a pre-training has no classes, and so no score; leave "
                "[scored_by] out",
                scored_by=scored_by,
            )
        found = finished.read_pretrained(run)
        content = of_pretraining(found)
        members = [(found.state.params, found.state.batch_stats)]
    else:
        found = finished.read_finetuned(run)
        content = of_finetuning(found, scored_by)
        members = [tuple(weights) for _, *weights in finished.saved_members(found)]
    model_folder.write(out, content, members, model_card.text(content, len(members)))
    return content


def of_pretraining(run: Pretrained) -> dict[str, Any]:
    """config.json of a pre-training's model folder."""
    record = files.read_json(run.path / RESULTS["pretrain"])
    return {
        "script": "pretrain",
        "classes": [],
        "input": input_of(run),
        "data": {"n": record["clips_used"], **data_of([source_of(run.stored.resolved)])},
        "score": None,
        "start": started_from(run.stored.resolved["init"]),
        "pretrained": None,
        "autoencoder": run.stored.resolved["autoencoder"],
        "config": dataclasses.asdict(run.config),
    }


def of_finetuning(run: Finetuned, scored_by: pathlib.Path | None) -> dict[str, Any]:
    """config.json of a fine-tuning's model folder.

    Raises:
      UserError: the run left subjects out, or `scored_by` does not fit it.
    """
    if run.stored.resolved["protocol"]["name"] != "all":
        raise UserError(
            "[run={run}]: each of its models was trained without some subjects, to be tested on "
            "them; train one by the protocol `all`, and give this run as [scored_by]",
            run=run.path,
        )
    record, start = files.read_json(run.path / RESULTS["finetune"]), run.stored.resolved["init"]
    pretrained = None
    if isinstance(start, dict) and "source" in start:
        pretrained = {"n": start["clips"], **data_of([source_of(start)])}
        pretrained |= {name: start["config"][name] for name in ("objective", "steps")}
    counts = {name: record[name] for name in ("n", "subjects", "clips_of")}
    return {
        "script": "finetune",
        "classes": run.classes,
        "input": input_of(run),
        "data": counts | data_of(run.datasets),
        "score": score_of(run, scored_by) if scored_by else None,
        "start": started_from(start),
        "pretrained": pretrained,
        "config": dataclasses.asdict(run.config),
    }


def input_of(run: Finetuned | Pretrained) -> dict[str, Any]:
    """What pre-processing the networks need."""
    fine = isinstance(run, Finetuned)
    pair = "onset and apex" if fine else "a frame and a later one"
    return {
        "pair": pair,
        "frames": "RGB; both cropped by one square around the face, scaled, mapped to [-1, 1]",
        "image_size": run.config.architecture.image_size,
        "normalisation": run.config.architecture.normalisation,
        "detector": run.stored.resolved.get("detector", ""),
    }


# ----- data ---------------------------------------------------------------------------------------


def source_of(resolved: Mapping[str, Any]) -> DatasetSpec:
    """What a pre-training was trained on."""
    return DatasetSpec(resolved["source"], "source")


def started_from(identity: str | Mapping[str, Any] | None) -> str:
    """What a training started from, in words; `identity` is what its config.json resolved."""
    if identity in (None, "none"):
        return "random weights"
    if isinstance(identity, str):
        return f"the {identity} of a ResNet18"
    if "source" in identity:
        return f"a pre-training on {identity['source']}"
    return f"the model folder of weights {identity['model']}"


def data_of(specs: Sequence[DatasetSpec]) -> dict[str, Any]:
    """Names of datasets for people, and whose each is: a key of `model_card.OWNERS`."""
    licences = {}
    for spec in specs:
        whole = registry.reader(spec.kind, spec.name)
        parts = [registry.reader(spec.kind, n) for n in whole.parts if n not in spec.left_out]
        for each in parts or [whole]:
            owner = "own" if each.name in OWN else "licensed"
            licences[each.title] = "drawn" if each.drawn else owner
    return {"name": ", ".join(spec.shown for spec in specs), "licences": licences}


# ----- the score ----------------------------------------------------------------------------------


def score_of(run: Finetuned, scored_by: pathlib.Path) -> dict[str, Any]:
    """What a run of the same configuration and data reached on subjects it had not seen.

    Raises:
      UserError: it is another kind of run; or configuration or data differ, and the first
        difference is named.
    """
    with parameters_called(run="scored_by"):
        other = finished.read_finetuned(scored_by)
    record = files.read_json(scored_by / RESULTS["finetune"])
    if "no_score" in record:
        raise UserError(
            "[scored_by={path}]: was trained on all subjects too, and so has no score; give a run "
            "that leaves subjects out",
            path=scored_by,
        )
    if difference := first_difference(compared(other), compared(run)):
        raise UserError(
            "[scored_by={path}]: its score is not that of such a model: {difference}; give a run "
            "that differs from [run] in its protocol alone",
            path=scored_by,
            difference=difference,
        )
    calibrated = calibration.of(
        predictions.read_predictions(scored_by / predictions.FILE, other.classes)
    )
    spread, asked = record["seeds"], other.stored.resolved["protocol"]
    return {
        "protocol": "folds of a file" if asked["folds_file"] else asked["name"],
        "seeds": len(spread["seeds"]),
        **{name: record[name] for name in ("n", "subjects", *SCORES)},
        "interval95": {name: spread[name]["interval95"] for name in SCORES},
        "coverage": min(spread[name]["coverage"] for name in SCORES),  # one word for all of them
        "over": spread[SCORES[0]]["over"],
        "per_class": record["per_class"],
        **{name: calibrated[name] for name in ("temperature", "ece_calibrated")},
    }


def compared(run: Finetuned) -> dict[str, Any]:
    """What two runs have in common if the score of one says something about the other."""
    resolved = run.stored.resolved
    start = resolved["init"]
    places = dict.fromkeys(("root", "annotations", "detector_model"))
    data = {s.name: dataclasses.asdict(dataclasses.replace(s, **places)) for s in run.datasets}
    found = {
        "classes": run.classes,
        "config": dataclasses.asdict(run.config),
        "data": data,
        "fingerprint of the clips": resolved["clips"],
        "select": resolved["protocol"]["select"],
        "start": started_from(start),
        "the pre-training": start if isinstance(start, dict) else {},
    }
    return json.loads(json.dumps(found))


# ----- to the hub ---------------------------------------------------------------------------------


def push(path: pathlib.Path, hub_id: str, public: bool = False) -> bool:
    """Uploads a model folder to the Hugging Face hub.

    The token is that of the environment (HF_TOKEN), or of the hub's own login.

    Args:
      path: the model folder; nothing else lies in it.
      hub_id: `owner/name` of the repository, which is made if it is not there, private unless it is
        to be `public`.

    Returns:
      Whether everybody can see the repository.

    Raises:
      UserError: it is no model folder, the hub refuses it, or everybody sees a repository that is
        there already, and `public` was not asked for.
    """
    check_pushed(path, hub_id)
    import httpx
    import huggingface_hub as hub

    try:
        api = hub.HfApi()
        api.create_repo(hub_id, private=not public, exist_ok=True)
        is_public = not api.model_info(hub_id).private
        if is_public and not public:
            raise UserError(
                "{hub_id}: everybody can see that repository; ask for [public] if you mean it, or "
                "give another id",
                hub_id=hub_id,
            )
        files_of_model = list(model_folder.FILES)
        api.upload_folder(repo_id=hub_id, folder_path=path, allow_patterns=files_of_model)
    except (OSError, ValueError, httpx.HTTPError) as error:  # all of the hub's errors are of these
        raise UserError(
            "{hub_id}: Hugging Face does not take it ({reason}); log in by `hf auth login` or set "
            "HF_TOKEN to a token that may write there",
            hub_id=hub_id,
            reason=next(iter(str(error).splitlines()), type(error).__name__).rstrip("."),
        ) from None
    return is_public


def check_pushed(path: pathlib.Path, hub_id: str) -> None:
    """Raises UserError unless a whole model folder, and nothing else, is to go to a hub id."""
    if not model_folder.is_hub_id(hub_id):
        raise UserError("{hub_id}: expected an id as owner/name", hub_id=hub_id)
    if not path.is_dir():
        raise UserError("{path}: no such folder; {mend}", path=path, mend=model_folder.MEND)
    model_folder.read(path)
    if others := sorted({each.name for each in path.iterdir()} - set(model_folder.FILES)):
        raise UserError(
            "{path}: {other} is no part of a model folder; take it out of there",
            path=path,
            other=others[0],
        )
