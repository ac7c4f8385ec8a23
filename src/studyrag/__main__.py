"""``python -m studyrag``."""

from studyrag.cli import command

if __name__ == "__main__":
    command()
