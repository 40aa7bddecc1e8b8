"""Look inside the memory of trained models: `rate inspect` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("inspect")
