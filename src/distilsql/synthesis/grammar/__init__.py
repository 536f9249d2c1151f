"""What is asked of a database, and how: queries first, as sqlglot trees, with the phrases of their wordings."""
