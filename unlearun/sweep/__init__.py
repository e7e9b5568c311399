"""``unlearun sweep``: one fit for each combination of settings, and a ranking of what they did. Needs no torch."""
