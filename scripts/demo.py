"""Let a trained model of the package act: `rate demo` in a clone."""

from trainers.commands.main import run

if __name__ == "__main__":
    run("demo")
