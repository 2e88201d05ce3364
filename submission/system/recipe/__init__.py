"""The recipe: what a participant chooses, as frozen options that refuse contradictions, and its TOML files."""
