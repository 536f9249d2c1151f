"""`python -m distilsql` is the command line."""

from distilsql.cli import main

main()
