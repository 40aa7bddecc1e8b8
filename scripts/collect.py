"""Have an environment's expert play a data set: `rate collect` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("collect")
