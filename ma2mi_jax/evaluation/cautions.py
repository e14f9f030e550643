"""What a reader of a score is told first: too few people, or too short a training."""

from collections.abc import Iterable

FEW = 10  # subjects; below it their number is told beside a score
SHORT = {"steps": 300, "epochs": 10}  # of pre-training, of fine-tuning
PAPER = {"steps": "tens of thousands", "epochs": "80"}
WHAT = {"steps": "pre-training", "epochs": "fine-tuning"}


def few_subjects(count: int) -> str:
    """A sentence if a score over so many subjects says little; else empty."""
    if count >= FEW:
        return ""
    people = "1 subject" if count == 1 else f"{count} subjects"
    return f"Only {people}: this says little about other people, and one more could change it much."


def short(steps: Iterable[int] = (), epochs: Iterable[int] = ()) -> list[str]:
    """A sentence for each kind of training of which the shortest is too short to mean anything."""
    shortest = {
        unit: min(lengths, default=SHORT[unit])
        for unit, lengths in (("steps", steps), ("epochs", epochs))
    }
    return [
        f"Very short {WHAT[unit]}, {length} {unit if length > 1 else unit[:-1]} (the paper: "
        f"{PAPER[unit]}): this shows that it runs, and nothing of how well it does."
        for unit, length in shortest.items()
        if length < SHORT[unit]
    ]
