"""Convert a data set into a store, or to Minari: `rate convert` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("convert")
