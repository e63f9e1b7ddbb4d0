"""`python -m hamshoot`: the command line."""

from hamshoot.command.cli import main

if __name__ == "__main__":
    main()
