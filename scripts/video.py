"""Film a trained model in its environment: `rate video` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("video")
