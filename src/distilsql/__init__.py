"""distilsql: distil a large text-to-SQL language model into a small one, and judge it by running the SQL."""

import logging

__version__ = "0.1.0"

# A library says nothing unless its user configures logging. The command line does.
logging.getLogger(__name__).addHandler(logging.NullHandler())
