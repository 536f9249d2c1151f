from distilsql.cli import main

main()
