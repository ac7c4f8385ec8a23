"""``python -m studyrag``."""

from studyrag.cli import main

if __name__ == "__main__":
    main()
