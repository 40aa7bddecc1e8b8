"""Collect a data set with an environment's expert: `rate collect` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("collect")
