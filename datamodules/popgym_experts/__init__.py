"""Experts for the tasks of POPGym, one class for each family.

An expert is made from a task at the start of an episode; `act` takes the last observation and
returns an action of the task. Unless noted, its actions follow from what an agent has seen and
done, so that they can be learnt. It reads the task's state where that is shorter than keeping a
copy.
"""
