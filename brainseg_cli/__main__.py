"""`python -m brainseg_cli` is the command `brainseg`."""

from brainseg_cli.cli.app import main

if __name__ == "__main__":
    main()
