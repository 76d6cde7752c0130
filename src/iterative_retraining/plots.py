"""Figures: the same colour for the same arm in every chapter. Nothing is computed here."""
