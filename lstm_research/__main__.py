"""`python -m lstm_research COMMAND` is `lstm-research COMMAND`."""

from lstm_research.cli.main import main

if __name__ == "__main__":
    main()
