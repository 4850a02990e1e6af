"""Unlearning: objectives, and what their updates do to the codes of a quantised model."""
