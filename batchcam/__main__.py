"""`python -m batchcam`."""

from batchcam.cli import main

if __name__ == "__main__":
    main()
