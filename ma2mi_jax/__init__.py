"""MA2MI in JAX: micro-expression recognition, pre-trained on macro-expression videos."""

__version__ = "0.1.0"
