"""Roll out trained models and print their scores: `rate evaluate` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("evaluate")
