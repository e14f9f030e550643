"""Figures 4, 5 and 6 of finished runs: each function draws one for one target and captions it."""

import pathlib
from collections.abc import Mapping

import numpy as np

from ma2mi_jax.clips import pairs
from ma2mi_jax.datasets import registry
from ma2mi_jax.errors import UserError
from ma2mi_jax.evaluation import drawing, gradcam, heatmaps, reconstructions
from ma2mi_jax.reproduction import paper
from ma2mi_jax.reproduction.plans import Part, Size, finetuning
from ma2mi_jax.reproduction.tables import Scores, read_scores
from ma2mi_jax.runs.listener import SILENT, Listener
from ma2mi_jax.training import finetuning_run, finished


def shown_name(target: str) -> str:
    """A target as the page calls it."""
    ours = {"synthetic": "Drawn faces", "csv": "Clips of your own"}
    return {**ours, **paper.DATASETS}.get(target) or registry.reader("target", target).title


def source_name(size: Size) -> str:
    """The source as the page calls it."""
    spec = size.pretrain.dataset
    if spec.name == "synthetic":
        return f"{spec.clips} drawn clips"
    return registry.reader("source", spec.name).title


def draw_figure4(
    path: pathlib.Path, part: Part, target: str, found: Mapping[str, Scores | str]
) -> str | None:
    """Fig. 4, ranges of δ, if at least one range has results; its caption."""
    there = {}
    for row in part.rows:
        scores = found[row.key]
        if isinstance(scores, Scores):
            seeds = scores.summary["seeds"]
            label = row.label.removeprefix("δ in ")
            there[label] = {name: seeds[name]["values"] for name in ("accuracy", "uf1")}
    if not there:
        return None
    title = (
        f"{shown_name(target)}: ranges of δ in pre-training; "
        "bars: standard deviation over seeds, crosses: seeds"
    )
    drawing.delta_ranges(path, there, title)
    return title


def median_pairs(frames: np.ndarray, labels: np.ndarray) -> list[int]:
    """For each class the clip whose change, mean |apex − onset|, is the class's (lower) median.

    Args:
      frames: (N, 2, H, W, 3) uint8; labels: (N,).

    Returns:
      Indices, in the order of the classes.
    """
    change = np.array([np.abs(pair[1].astype(np.int16) - pair[0]).mean() for pair in frames])
    chosen = []
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        ordered = inside[np.argsort(change[inside], kind="stable")]
        chosen.append(int(ordered[(len(inside) - 1) // 2]))
    return chosen


def draw_figure5(
    path: pathlib.Path, run: pathlib.Path, target: str, size: Size, listener: Listener = SILENT
) -> str:
    """Fig. 5: onset, apex, the apex that the pre-trained network predicts, and both changes."""
    pretrained = finished.read_pretrained(run)
    config, resolved = pretrained.config, pretrained.stored.resolved
    side, vae_params = config.architecture.image_size, None
    if config.vae:
        vae = size.pretrain.vae
        vae_params = finetuning_run.load_autoencoder(vae, resolved["autoencoder"])
    spec = finetuning(size, target, None).run.dataset
    dataset = finetuning_run.read_clips([spec], side, listener)
    frames, _ = pairs.load_pairs(dataset.clips, side)
    chosen = median_pairs(frames, np.array([clip.label for clip in dataset.clips]))
    clips = [dataset.clips[i] for i in chosen]
    share = reconstructions.draw(
        path,
        config,
        pretrained.state,
        vae_params,
        frames[chosen],
        [f"{clip.id[-24:]}\n{dataset.classes[clip.label]}" for clip in clips],
        f"{shown_name(target)}: onset → apex",
        ("onset", "apex", "predicted apex"),
    )
    decoded = "" if config.vae is None else ", both decoded"
    return (
        f"{shown_name(target)}: of each class the clip whose change from onset to apex is the "
        f"class's median. The network was pre-trained on {source_name(size)} and never saw these "
        "faces; it is given onset and C_Δ. Its mean error on the pairs shown is "
        f"{share:.2f} of that of repeating the onset{decoded}. Changes are amplified, both of a "
        "row alike, as written below them."
    )


def draw_figure6(
    path: pathlib.Path, run: pathlib.Path, target: str, size: Size, listener: Listener = SILENT
) -> str:
    """Fig. 6: Grad-CAM of both encoders for the predicted class, by the fold that had not seen the
    subject."""
    tuned = finished.read_finetuned(run)
    predictions = read_scores([run]).predictions
    seed, side = predictions.seeds[0], tuned.config.architecture.image_size
    chosen = heatmaps.choose(predictions)
    dataset = finetuning_run.read_clips(tuned.datasets, side, listener)
    clips = {clip.id: clip for clip in dataset.clips}
    if gone := [clip.id for clip in predictions.clips if clip.id not in clips]:
        raise UserError(
            "{count} clips of {run} are no longer in the dataset, such as {example}",
            count=len(gone),
            run=run,
            example=gone[0],
        )
    shown = [clips[predictions.clips[i].id] for i in chosen]
    frames, _ = pairs.load_pairs(shown, side)
    wanted = {(seed, predictions.folds[i]) for i in chosen}
    models = {
        member: weights for member, *weights in finished.saved_members(tuned) if member in wanted
    }
    rows = []
    for i, clip, pair in zip(chosen, shown, frames, strict=True):
        params, batch_stats = models[seed, predictions.folds[i]]
        found = gradcam.explain(tuned.config, params, batch_stats, pair[None])
        label, predicted = predictions.labels[i], predictions.classes[0, i]
        heat = {}
        for name in heatmaps.MAPS:
            maps = getattr(found, name)
            heat[name] = None
            if maps is not None:
                heat[name] = np.asarray(gradcam.upsample(maps[0, predicted], side))
        caption = heatmaps.caption(
            clip.id[-24:],
            tuned.classes[label],
            tuned.classes[predicted],
            predictions.probabilities[0, i, predicted],
            clip.action_units,
        )
        rows.append(heatmaps.HeatRow(pair[0], pair[1], caption=caption, **heat))
    heatmaps.figure6(path, rows, f"{shown_name(target)}: Grad-CAM for the predicted class")
    return (
        f"{shown_name(target)}: of each class the most confident right and the most confident "
        f"wrong prediction of seed {seed}, where there is one, each by the fold that had not seen "
        "the subject. Grad-CAM is for the predicted class, over the onset frame; AU: action units "
        "of the annotation."
    )


DRAW = {5: draw_figure5, 6: draw_figure6}
