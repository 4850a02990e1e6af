"""Beyond Behaviour: edits, credit and explanations that hold when you look inside the model."""

__version__ = "0.1.0"
