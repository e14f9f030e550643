"""Pre-train MIACNet on macro-expression videos, without labels (paper §3.2).

  python experiments/pretrain.py --source=synthetic --preset=tiny --space=pixel --steps=1000
  python experiments/pretrain.py --source=folder --data-root=my_videos
  python experiments/pretrain.py --source=fervk39      # finds data/ferv39k or $MA2MI_DATA/ferv39k

Writes into the run's folder: config.json, metrics.jsonl, TensorBoard events, checkpoints/,
curves.png, reconstructions.png, summary.json; of drawn faces also learned.png. The same command
resumes an interrupted run.
"""

import cli
import flags

from ma2mi_jax.evaluation import drawing, reconstructions
from ma2mi_jax.runs import lock, processes
from ma2mi_jax.training import learned, pretraining_run, run_files
from ma2mi_jax.training.run_config import PretrainRun


def main(argv):
    run = flags.parse(PretrainRun, argv, __doc__)
    run_files.check(run)
    listener = cli.join(argv, apart=False)
    pretraining_run.check_devices(run)
    with lock.alone(run.folder, "run"):
        cli.keep_compiled_programs()
        done = pretraining_run.carry_out(run, listener)
        if processes.is_first():
            draw(done)
            print_summary(done)


def draw(done: pretraining_run.Finished) -> None:
    """The pictures; the summary is there already, should one of them fail."""
    if done.lines:
        drawing.pretraining_curves(done.run.folder / "curves.png", done.lines)
    looks = [line["learned"] for line in done.lines if line.get("learned")]
    if looks and "r2_c_delta" in looks[0]:
        drawing.what_is_learned(done.run.folder / "learned.png", looks)
    if done.run.objective == "ma2mi":
        # An unreadable clip must not keep the others from being shown.
        readable = [clip for clip in done.clips if clip.id not in done.replaced]
        path, clips = done.run.folder / "reconstructions.png", readable or done.clips
        reconstructions.draw_pretraining(path, done.config, done.state, clips, done.vae_params)


def print_summary(done: pretraining_run.Finished) -> None:
    """First and last values, what they say, and what was set aside."""
    final, aside = done.final, done.dataset.set_aside
    rows = [(name, f"{done.lines[0][name]:.4f}", f"{value:.4f}") for name, value in final.items()]
    caption = (
        f"{len(done.clips)} clips used, {len(aside)} set aside; {done.config.steps} steps; "
        f"last = mean of {done.averaged} logged steps"
    )
    cli.table(f"pre-training on {done.run.dataset.name}", ("", "first", "last"), rows, caption)
    if "copy_baseline" in final:
        share = final["loss_rec"] / final["copy_baseline"]
        cli.say(
            f"loss_rec ends at {share:.2f} of the copy baseline; "
            "below 1 is better than repeating the frame"
        )
        if share > learned.AT_COPY:
            cli.say(
                "so it has not learned to predict motion yet; the first hundreds of steps all end "
                "there: train for longer"
            )
    cli.print_set_aside([(each.id, each.reason) for each in aside], "summary.json")
    cli.say(f"run: {done.run.folder}")


if __name__ == "__main__":
    cli.run(main)
