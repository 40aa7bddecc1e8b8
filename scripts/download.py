"""Download a public data set by name: `rate download` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("download")
