"""Draw scores or learning curves: `rate plot` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("plot")
