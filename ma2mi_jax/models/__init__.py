"""The networks of the paper: MIACNet's two encoders, DiT, and the frozen autoencoder."""
