"""Write a trained model for other programs: `rate export` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("export")
