"""Check a data set: `rate validate` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("validate")
