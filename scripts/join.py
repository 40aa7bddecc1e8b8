"""Make one data set of the stores in a folder: `rate join` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("join")
