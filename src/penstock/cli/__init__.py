"""The command line: parse, one call to home, render. One file per noun."""
