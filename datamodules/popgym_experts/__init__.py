"""Experts for the tasks of POPGym, one class for each family.

An expert is made from a task at the start of an episode; `act` takes what the task showed last and
returns an action of the task's own. Unless it says otherwise it does only what follows from what an
agent has seen and done, so that what it does can be learnt. It reads the task's state where that is
shorter than to keep a copy.
"""
