"""What a trained network says and what it is worth: scores, predictions, pictures."""
