"""``python -m decaylab`` is the same as ``decaylab``."""

from decaylab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
