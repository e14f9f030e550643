"""Pre-training and fine-tuning: one pure step each, and whole protocols of many fine-tunes."""
