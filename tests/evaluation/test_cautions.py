"""Who reads a score is told where it can mean little."""

from ma2mi_jax.evaluation import cautions


def test_few_subjects_are_told():
    assert cautions.few_subjects(26) == cautions.few_subjects(10) == ""
    assert cautions.few_subjects(9).startswith("Only 9 subjects: this says little")
    assert cautions.few_subjects(1).startswith("Only 1 subject:")


def test_the_shortest_training_of_each_kind_counts():
    assert cautions.short([500, 2000], [20, 80]) == cautions.short() == []
    steps, epochs = cautions.short([500, 8], [80, 1])
    assert steps.startswith("Very short pre-training, 8 steps (the paper: tens of thousands): ")
    assert epochs.startswith("Very short fine-tuning, 1 epoch (the paper: 80): ")
    assert len(cautions.short([8], [80])) == 1
