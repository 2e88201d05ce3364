"""The contract of a submission: campaigns, recipes, store, bundle and checks. Standard library only."""
