"""Write one page about runs: `rate report` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("report")
