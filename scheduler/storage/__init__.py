"""All SQL of the scheduler, over SQLite and PostgreSQL alike: one module a table, and `Store` for transactions.

A function here takes the session of the transaction it runs in, and never commits.
"""
