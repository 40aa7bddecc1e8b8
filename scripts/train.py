"""Train a model on any environment: `rate train` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("train")
