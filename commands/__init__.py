"""The command line: `hilserl demo`, `up`, `validate`, `eval`, `config`. The only place above the flows."""
