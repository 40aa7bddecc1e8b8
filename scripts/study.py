"""Train and score several models from one file: `rate study` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("study")
