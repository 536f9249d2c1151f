"""distilsql: distil a large text-to-SQL language model into a small one, and judge it by running the SQL."""

__version__ = "0.1.0"
