"""Rehearse a whole campaign on made-up data: published layouts and names, random weights, synthetic speech."""
