"""python -m dpsda: the same as `dpsda`."""

from dpsda.commands import main

if __name__ == "__main__":
    main()
