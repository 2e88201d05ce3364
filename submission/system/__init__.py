"""A system: the campaign that organisers fix, the recipe that a participant chooses, and the stages that follow."""
