"""Embedded data and the recipe of the pocket models."""
